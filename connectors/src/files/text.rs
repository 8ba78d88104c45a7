//! Reads a lane's splits of text files: blocks of whole records, one batch per block.
//!
//! A record belongs to the split in which it *begins*. `Offset.at` is the byte offset of the next record in the decoded file; 0 means
//! that the split has not been begun.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use weir_model::Offset;

use super::Lane;
use super::bytes::ByteStream;
use super::decode::{RowDecoder, TextOptions, decode_block};
use super::lines::{self, Framing};
use super::listing::{Compression, Format};
use super::pinned::{PinnedFile, shown};
use crate::source::{Pull, SourceBatch, SourceError, SourceReader};

/// Bytes of a block, more only where one record is longer.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;
/// Longest record: a quote left open must not gather the rest of the file in memory.
const RECORD_BYTES_MAX: usize = 64 << 20;
/// What some editors put before the first character.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A lane of text files.
#[derive(Debug)]
pub(crate) struct TextReader {
    lane: Lane,
    at: Offset,
    decoder: Box<dyn RowDecoder>,
    framing: Framing,
    /// Declared columns, where a file begins with a header.
    header: Option<Vec<String>>,
    delimiter: u8,
    split: Option<OpenSplit>,
}

#[derive(Debug)]
struct OpenSplit {
    file: Arc<PinnedFile>,
    bytes: ByteStream,
    /// Bytes read and not decoded; the first has offset `position`.
    buffer: BytesMut,
    position: u64,
    /// Records that begin here or later are not ours.
    end: u64,
    ended: bool,
}

impl TextReader {
    pub(crate) fn new(lane: Lane, decoder: Box<dyn RowDecoder>, declared: Vec<String>, text: &TextOptions) -> Self {
        let format = lane.listing.format;
        let header = (text.header && format == Format::Csv).then_some(declared);
        Self { at: lane.from, lane, decoder, framing: text.framing(format), header, delimiter: text.delimiter, split: None }
    }

    /// Opens the split at the current place; `false` past the last.
    async fn open(&mut self) -> Result<bool, SourceError> {
        let Some((split, file)) = self.lane.split(self.at) else { return Ok(false) };
        let (file, start) = (Arc::new(file.clone()), split.start);
        let fresh = self.at.at == 0;
        // One byte before a fresh split tells whether a record begins at its first byte.
        let from = if fresh { start.saturating_sub(1) } else { self.at.at };
        let end = if file.compression == Compression::None { split.end } else { u64::MAX };
        let bytes = ByteStream::open(self.lane.store.clone(), Arc::clone(&file), from, end)?;
        let mut open = OpenSplit { file, bytes, buffer: BytesMut::new(), position: from, end, ended: false };
        if fresh && start > 0 {
            open.skip_to_first().await?;
        } else if fresh {
            open.skip_byte_order_mark().await?;
            if let Some(declared) = &self.header {
                let header = open.take_record(self.framing).await?;
                check_header(&header, declared, self.delimiter)
                    .map_err(|message| SourceError::format(&shown(&open.file.path), message))?;
            }
        }
        self.split = Some(open);
        Ok(true)
    }
}

/// A header with the declared names in another order would put values in wrong columns.
fn check_header(header: &[u8], declared: &[String], delimiter: u8) -> Result<(), String> {
    let text = String::from_utf8_lossy(header);
    let found: Vec<&str> = text.trim().split(char::from(delimiter)).map(|name| name.trim().trim_matches('"')).collect();
    let order = found.iter().map(|name| declared.iter().position(|declared| declared.eq_ignore_ascii_case(name)));
    let all_declared = found.len() == declared.len() && order.clone().all(|place| place.is_some());
    if all_declared && !order.flatten().eq(0..declared.len()) {
        return Err(format!(
            "its header is {}: declare the columns in that order, CSV values are read by place",
            found.join(", ")
        ));
    }
    Ok(())
}

impl OpenSplit {
    async fn fill(&mut self) -> Result<(), SourceError> {
        match self.bytes.next().await? {
            Some(more) => self.buffer.extend_from_slice(&more),
            None => self.ended = true,
        }
        Ok(())
    }

    async fn skip_byte_order_mark(&mut self) -> Result<(), SourceError> {
        while self.buffer.len() < BYTE_ORDER_MARK.len() && !self.ended {
            self.fill().await?;
        }
        if self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.take(BYTE_ORDER_MARK.len());
        }
        Ok(())
    }

    /// Goes to the first record that begins in a split which is not its file's first.
    async fn skip_to_first(&mut self) -> Result<(), SourceError> {
        loop {
            if let Some(end) = lines::first_end(&self.buffer, Framing::Lines) {
                self.take(end);
                return Ok(());
            }
            self.position += self.buffer.len() as u64;
            self.buffer.clear();
            // Past the end: the split is the middle of one long line, nothing begins in it.
            if self.ended || self.position >= self.end {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// Takes everything up to the first record end.
    async fn take_record(&mut self, framing: Framing) -> Result<Bytes, SourceError> {
        loop {
            if let Some(end) = lines::first_end(&self.buffer, framing) {
                return Ok(self.take(end));
            }
            if self.ended {
                return Ok(self.take(self.buffer.len()));
            }
            self.check_length(0)?;
            self.fill().await?;
        }
    }

    /// The next block of whole records that are ours; `None` at the end of the split.
    async fn block(&mut self, framing: Framing) -> Result<Option<Bytes>, SourceError> {
        if self.position >= self.end {
            return Ok(None);
        }
        loop {
            let own = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
            let wanted = own.min(BLOCK_BYTES);
            if self.buffer.len() < wanted && !self.ended {
                self.fill().await?;
                continue;
            }
            if let Some(length) = self.cut(wanted, own, framing) {
                return Ok(Some(self.take(length)));
            }
            if self.ended {
                let rest = self.buffer.len();
                return Ok((rest > 0).then(|| self.take(rest)));
            }
            self.check_length(wanted)?;
            self.fill().await?;
        }
    }

    /// Length of a block: up to the last record end within `wanted`, else the first after it.
    fn cut(&self, wanted: usize, own: usize, framing: Framing) -> Option<usize> {
        if wanted < own
            && let Some(end) = lines::last_end(&self.buffer[..wanted.min(self.buffer.len())], framing)
        {
            return Some(end);
        }
        if framing != Framing::Lines {
            return lines::last_end(&self.buffer, framing);
        }
        // The record that begins before the split's end is ours whole.
        let from = wanted.saturating_sub(1).min(self.buffer.len());
        memchr::memchr(b'\n', &self.buffer[from..]).map(|at| from + at + 1)
    }

    fn check_length(&self, wanted: usize) -> Result<(), SourceError> {
        if self.buffer.len() <= wanted + RECORD_BYTES_MAX {
            return Ok(());
        }
        let remedy = "is a quote left open? Then set 'csv.newlines-in-values' = 'false', or repair the file under another name";
        let message = format!("a record at or after byte {} is longer than {RECORD_BYTES_MAX} bytes: {remedy}", self.position);
        Err(SourceError::format(&shown(&self.file.path), message))
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.position += length as u64;
        if length == self.buffer.len() {
            return std::mem::take(&mut self.buffer).freeze();
        }
        self.buffer.split_to(length).freeze()
    }
}

#[async_trait]
impl SourceReader for TextReader {
    async fn next(&mut self) -> Result<Pull, SourceError> {
        loop {
            if self.split.is_none() && !self.open().await? {
                return Ok(Pull::End);
            }
            let Some(open) = &mut self.split else { return Ok(Pull::End) };
            let base = open.position;
            let Some(block) = open.block(self.framing).await? else {
                self.split = None;
                self.at = self.lane.after(self.at);
                continue;
            };
            let records = lines::records(&block, self.framing);
            let (batch, bad) = decode_block(self.decoder.as_mut(), &block, &records, base, &shown(&open.file.path))?;
            self.at.at = open.position;
            return Ok(Pull::Rows(SourceBatch { batch, upto: self.at, bytes: block.len() as u64, bad }));
        }
    }
}

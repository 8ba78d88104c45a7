//! A file's decoded bytes from some offset on: ranges read ahead of need, compressed files inflated as they come.
//!
//! Memory is bounded by [`AHEAD`] ranges and what one piece of a compressed range inflates to, whatever the file's size.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::task::JoinHandle;
use zstd::stream::raw::{InBuffer, Operation, OutBuffer};

use super::listing::Compression;
use super::pinned::{PinnedFile, PinnedStore, shown};
use crate::source::SourceError;

/// Bytes asked of the store at once.
const RANGE_BYTES: u64 = 4 << 20;
/// Ranges under way while one is decoded.
const AHEAD: usize = 2;
/// Bytes read past the end of a split, where its last record goes on; read on demand.
const TAIL_BYTES: u64 = 64 << 10;
/// Compressed bytes inflated at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Inflated bytes handed on at once, at least.
const INFLATED_BYTES: usize = 1 << 20;

/// Decoded bytes.
pub(crate) enum ByteStream {
    /// The file as it is.
    Plain(Ranges),
    /// The file inflated.
    Inflated {
        /// Compressed bytes.
        ranges: Ranges,
        /// Compressed bytes not yet inflated.
        pending: Bytes,
        /// The decoder.
        inflate: Inflate,
        /// Inflated bytes to drop before the first that is wanted.
        skip: u64,
        /// Whether the decoder has seen the end.
        ended: bool,
    },
}

impl std::fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteStream").finish_non_exhaustive()
    }
}

impl ByteStream {
    /// The bytes of `file` from decoded offset `from`; those before `end` are read ahead, later ones on demand.
    pub(crate) fn open(store: PinnedStore, file: Arc<PinnedFile>, from: u64, end: u64) -> Result<Self, SourceError> {
        let damaged = |error: std::io::Error| SourceError::format(&shown(&file.path), error.to_string());
        let inflate = match file.compression {
            Compression::None => return Ok(Self::Plain(Ranges::new(store, file, from, end.saturating_add(TAIL_BYTES)))),
            Compression::Gzip => Inflate::Gzip(Box::new(flate2::write::MultiGzDecoder::new(Vec::new()))),
            Compression::Zstd => Inflate::Zstd(Zstd::new().map_err(damaged)?),
        };
        Ok(Self::Inflated {
            ranges: Ranges::new(store, file, 0, u64::MAX),
            pending: Bytes::new(),
            inflate,
            skip: from,
            ended: false,
        })
    }

    /// The next bytes; `None` at the file's end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        match self {
            Self::Plain(ranges) => ranges.next().await,
            Self::Inflated { ranges, pending, inflate, skip, ended } => {
                let file = shown(&ranges.file.path);
                let damaged = |error: std::io::Error| {
                    SourceError::format(&file, format!("the compressed data is damaged or cut short: {error}"))
                };
                let mut out = Vec::with_capacity(INFLATED_BYTES + PIECE_BYTES);
                while out.len() < INFLATED_BYTES && !*ended {
                    if pending.is_empty() {
                        *pending = ranges.next().await?.unwrap_or_default();
                    }
                    let piece = pending.split_to(pending.len().min(PIECE_BYTES));
                    *ended = piece.is_empty();
                    let before = out.len();
                    if *ended { inflate.finish(&mut out) } else { inflate.push(&piece, &mut out) }.map_err(damaged)?;
                    drop_skipped(&mut out, before, skip);
                }
                if *ended && *skip > 0 {
                    return Err(SourceError::Changed { file });
                }
                Ok((!out.is_empty()).then(|| Bytes::from(out)))
            }
        }
    }
}

fn drop_skipped(out: &mut Vec<u8>, before: usize, skip: &mut u64) {
    let dropped = (out.len() - before).min(usize::try_from(*skip).unwrap_or(usize::MAX));
    if dropped > 0 {
        out.drain(before..before + dropped);
        *skip -= dropped as u64;
    }
}

/// Ranges of a pinned file, in order.
pub(crate) struct Ranges {
    store: PinnedStore,
    file: Arc<PinnedFile>,
    next: u64,
    /// Ranges below it are read ahead.
    eager_end: u64,
    ahead: VecDeque<JoinHandle<Result<Bytes, SourceError>>>,
}

impl Ranges {
    fn new(store: PinnedStore, file: Arc<PinnedFile>, from: u64, eager_end: u64) -> Self {
        let mut ranges = Self { store, next: from, eager_end: eager_end.min(file.bytes), file, ahead: VecDeque::new() };
        ranges.read_ahead();
        ranges
    }

    fn read_ahead(&mut self) {
        while self.ahead.len() < AHEAD && self.next < self.eager_end {
            let range = self.next..(self.next + RANGE_BYTES).min(self.eager_end);
            self.next = range.end;
            let (store, file) = (self.store.clone(), Arc::clone(&self.file));
            self.ahead.push_back(tokio::spawn(async move { store.read(&file, range).await }));
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        if let Some(reading) = self.ahead.pop_front() {
            self.read_ahead();
            let bytes = reading.await.map_err(|error| SourceError::format(&shown(&self.file.path), error.to_string()))??;
            return Ok(Some(bytes));
        }
        let range = self.next..(self.next.saturating_add(TAIL_BYTES * 4)).min(self.file.bytes);
        if range.is_empty() {
            return Ok(None);
        }
        self.next = range.end;
        self.store.read(&self.file, range).await.map(Some)
    }
}

impl Drop for Ranges {
    fn drop(&mut self) {
        self.ahead.iter().for_each(JoinHandle::abort);
    }
}

/// A decoder that is fed.
pub(crate) enum Inflate {
    /// gzip, any number of members.
    Gzip(Box<flate2::write::MultiGzDecoder<Vec<u8>>>),
    /// Zstandard, any number of frames.
    Zstd(Zstd),
}

impl Inflate {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Self::Gzip(gzip) => {
                gzip.write_all(piece)?;
                out.append(gzip.get_mut());
                Ok(())
            }
            Self::Zstd(zstd) => zstd.push(piece, out),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Self::Gzip(gzip) => {
                gzip.try_finish()?;
                out.append(gzip.get_mut());
                Ok(())
            }
            Self::Zstd(zstd) if zstd.between_frames => Ok(()),
            Self::Zstd(_) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A Zstandard decoder that says whether a frame is open.
pub(crate) struct Zstd {
    decoder: zstd::stream::raw::Decoder<'static>,
    chunk: Vec<u8>,
    between_frames: bool,
}

impl Zstd {
    fn new() -> std::io::Result<Self> {
        Ok(Self { decoder: zstd::stream::raw::Decoder::new()?, chunk: Vec::with_capacity(128 << 10), between_frames: true })
    }

    fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        loop {
            let mut input = InBuffer::around(piece);
            self.chunk.clear();
            let capacity = self.chunk.capacity();
            let mut output = OutBuffer::around(&mut self.chunk);
            let hint = self.decoder.run(&mut input, &mut output)?;
            let (taken, made) = (input.pos(), output.pos());
            piece.advance(taken);
            out.extend_from_slice(&self.chunk);
            self.between_frames = hint == 0;
            // A finished frame is flushed: asking on would begin the next.
            if piece.is_empty() && (self.between_frames || made < capacity) {
                return Ok(());
            }
        }
    }
}

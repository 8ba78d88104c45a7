//! Text blocks to rows: whole records in, a batch out; on any doubt the block is halved until the bad record stands alone.
//!
//! Arrow's decoders fail a whole block and give no row number, and they do not look at line ends as we do. So the decoders behind
//! [`RowDecoder`] hand them one record at a time and check that each makes exactly one row. A block with `b` bad records of `n` costs
//! O(b log n) decodes instead of n.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use super::lines::{self, Framing};
use super::listing::Format;
use super::{csv::CsvDecoder, json::JsonDecoder};
use crate::options::{OptionsError, TableOptions};
use crate::source::{BadRow, RAW_BYTES_MAX, SourceError};

/// How text is read.
#[derive(Debug, Clone)]
pub struct TextOptions {
    pub(crate) header: bool,
    pub(crate) delimiter: u8,
    pub(crate) quote: u8,
    pub(crate) null_literal: Option<String>,
    pub(crate) newlines_in_values: bool,
    pub(crate) fail_on_missing: bool,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { header: false, delimiter: b',', quote: b'"', null_literal: None, newlines_in_values: true, fail_on_missing: false }
    }
}

impl TextOptions {
    /// Reads a table's text options.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option.
    pub fn new(options: TableOptions<'_>) -> Result<Self, OptionsError> {
        Ok(Self {
            header: options.flag("csv.header", false)?,
            delimiter: options.character("csv.field-delimiter", b',')?,
            quote: options.character("csv.quote-character", b'"')?,
            null_literal: options.get("csv.null-literal").map(str::to_owned),
            newlines_in_values: options.flag("csv.newlines-in-values", true)?,
            fail_on_missing: options.flag("json.fail-on-missing-field", false)?,
        })
    }

    pub(crate) fn framing(&self, format: Format) -> Framing {
        match format {
            Format::Csv if self.newlines_in_values => Framing::Quoted { quote: self.quote, delimiter: self.delimiter },
            Format::Csv | Format::Json | Format::Parquet => Framing::Lines,
        }
    }
}

/// Decodes records of one format into the projected columns.
pub trait RowDecoder: Send + std::fmt::Debug {
    /// Columns of a batch.
    fn schema(&self) -> &SchemaRef;

    /// Decodes `records` of `block`, each to exactly one row.
    ///
    /// # Errors
    /// Why one of them does not decode, in words for the dead-letter stream.
    fn decode(&mut self, block: &[u8], records: &[Range<usize>]) -> Result<RecordBatch, String>;
}

/// The decoder of a text format.
///
/// # Errors
/// [`SourceError::Format`] for a column that the format cannot hold.
pub fn decoder(
    format: Format,
    schema: &SchemaRef,
    projection: &[usize],
    text: &TextOptions,
) -> Result<Box<dyn RowDecoder>, SourceError> {
    Ok(match format {
        Format::Csv => Box::new(CsvDecoder::new(schema, projection, text)?),
        Format::Json | Format::Parquet => Box::new(JsonDecoder::new(schema, projection, text)?),
    })
}

/// Decodes a whole text in blocks of about `block_bytes`, as a lane does, and adds up what `each` says of the batches.
///
/// # Errors
/// [`SourceError`]; also for the first bad record.
pub fn decode_all(
    decoder: &mut dyn RowDecoder,
    format: Format,
    options: &TextOptions,
    text: &Bytes,
    block_bytes: usize,
    each: impl Fn(&RecordBatch) -> usize,
) -> Result<usize, SourceError> {
    let framing = options.framing(format);
    let (mut sum, mut rest) = (0, text.clone());
    while !rest.is_empty() {
        let end = lines::last_end(&rest[..block_bytes.min(rest.len())], framing).or_else(|| lines::first_end(&rest, framing));
        let block = rest.split_to(end.unwrap_or(rest.len()));
        let records = lines::records(&block, framing);
        let (batch, bad) = decode_block(decoder, &block, &records, 0, "text")?;
        if let Some(bad) = bad.first() {
            return Err(SourceError::format("text", bad.reason.clone()));
        }
        sum += each(&batch);
    }
    Ok(sum)
}

/// Records that were decoded each by itself.
#[derive(Debug)]
pub struct Apart {
    /// Rows of the good ones, in order.
    pub rows: RecordBatch,
    /// Places of the others among the records, ascending, and what is wrong with each.
    pub bad: Vec<(usize, String)>,
}

/// Decodes records that are no text of one piece, as those of the dead letters are: none can swallow the next.
///
/// # Errors
/// [`SourceError`] for a column that the format cannot hold.
pub fn decode_apart(format: Format, schema: &SchemaRef, text: &TextOptions, records: &[&str]) -> Result<Apart, SourceError> {
    let projection: Vec<usize> = (0..schema.fields().len()).collect();
    let mut decoder = decoder(format, schema, &projection, text)?;
    let (mut block, mut places) = (Vec::new(), Vec::with_capacity(records.len()));
    for record in records {
        places.push(block.len()..block.len() + record.len());
        block.extend_from_slice(record.as_bytes());
        // So that no two records begin at one place.
        block.push(b'\n');
    }
    let (rows, bad) = decode_block(decoder.as_mut(), &Bytes::from(block), &places, 0, "record")?;
    let place = |row: &BadRow| places.partition_point(|record| (record.start as u64) < row.offset);
    let bad = bad.iter().map(|row| (place(row), row.reason.clone())).collect();
    Ok(Apart { rows, bad })
}

/// Decodes the records at `records` of `block`, whose first byte has offset `base` in the file `source`.
pub(crate) fn decode_block(
    decoder: &mut dyn RowDecoder,
    block: &Bytes,
    records: &[Range<usize>],
    base: u64,
    source: &str,
) -> Result<(RecordBatch, Vec<BadRow>), SourceError> {
    let mut decoded = Decoded { good: Vec::new(), bad: Vec::new() };
    if !records.is_empty() {
        decoded.halve(decoder, block, records, base, source);
    }
    let schema = Arc::clone(decoder.schema());
    let batch = match decoded.good.len() {
        1 => decoded.good.remove(0),
        _ if schema.fields().is_empty() => {
            let rows = decoded.good.iter().map(RecordBatch::num_rows).sum();
            RecordBatch::try_new_with_options(schema, Vec::new(), &RecordBatchOptions::new().with_row_count(Some(rows)))?
        }
        _ => concat_batches(&schema, &decoded.good)?,
    };
    Ok((batch, decoded.bad))
}

struct Decoded {
    good: Vec<RecordBatch>,
    bad: Vec<BadRow>,
}

impl Decoded {
    fn halve(&mut self, decoder: &mut dyn RowDecoder, block: &Bytes, records: &[Range<usize>], base: u64, source: &str) {
        let reason = match decoder.decode(block, records) {
            Ok(batch) if batch.num_rows() == records.len() => return self.good.push(batch),
            Ok(batch) => format!("{} rows in {} records", batch.num_rows(), records.len()),
            Err(reason) => reason,
        };
        if let [record] = records {
            // A copy: a slice would keep the whole block alive as long as the dead letter.
            let raw = Bytes::copy_from_slice(&block[record.start..record.end.min(record.start + RAW_BYTES_MAX)]);
            self.bad.push(BadRow { source: source.to_owned(), offset: base + record.start as u64, reason, raw });
            return;
        }
        let (left, right) = records.split_at(records.len() / 2);
        self.halve(decoder, block, left, base, source);
        self.halve(decoder, block, right, base, source);
    }
}

/// When a quick decoder is tried: after a block that it declined it rests for a while, each time twice as long.
///
/// Only speed depends on it: quick and thorough decoders read the same values.
#[derive(Debug)]
pub(crate) struct Quick<T> {
    decoder: Option<T>,
    rest: u32,
    last_rest: u32,
}

/// Longest rest, in blocks.
const REST_MAX: u32 = 64;

impl<T> Quick<T> {
    pub(crate) fn new(decoder: Option<T>) -> Self {
        Self { decoder, rest: 0, last_rest: 0 }
    }

    pub(crate) fn attempt(&mut self, decode: impl FnOnce(&mut T) -> Option<RecordBatch>) -> Option<RecordBatch> {
        let decoder = self.decoder.as_mut()?;
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        let batch = decode(decoder);
        self.last_rest = if batch.is_some() { 0 } else { (self.last_rest * 2 + 1).min(REST_MAX) };
        self.rest = self.last_rest;
        batch
    }
}

//! The body of a request to rows: the whole of it, in memory, in one of five formats.
//!
//! ```text
//! NDJSON, CSV --lines--> records --+
//! JSON array --elements--> records +-> the decoders of files -> rows, bad rows by number
//! Arrow IPC, Parquet --columns by name, no value changed--> rows
//! ```
//!
//! Never: decides what becomes of a body with bad rows.

mod elements;
mod ipc;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::files::decode::{RowDecoder, TextOptions, decode_block, decoder};
use crate::files::lines::Framing;
use crate::files::{Format, conform, lines};
use crate::source::BadRow;

/// Text that is decoded at a time.
const BLOCK_BYTES: usize = 1 << 20;
/// Memory that the columns of a body may take: a few bytes may stand for very many.
const COLUMN_BYTES_MAX: usize = 128 << 20;
/// Bad rows that are kept with their reasons; the others are counted.
const BAD_ROWS_KEPT: usize = 1_000;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// One JSON object per line.
    NdJson,
    /// One array of JSON objects, or a single object.
    Json,
    /// Comma-separated values in the declared order.
    Csv {
        /// The first line names the columns.
        header: bool,
    },
    /// Arrow IPC, as a stream or a file.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl BodyFormat {
    /// Media types by which a body says what it is, in the order of preference.
    pub const MEDIA_TYPES: [&str; 6] = [
        "application/x-ndjson",
        "application/json",
        "text/csv",
        "application/vnd.apache.arrow.stream",
        "application/vnd.apache.parquet",
        "application/vnd.apache.arrow.file",
    ];

    /// The format that a `Content-Type` names; `text/csv; header=present` has a header.
    #[must_use]
    pub fn of_media_type(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        Some(match essence.as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => Self::NdJson,
            "application/json" => Self::Json,
            "text/csv" => Self::Csv { header: parts.any(|part| part.eq_ignore_ascii_case("header=present")) },
            "application/vnd.apache.arrow.stream" | "application/vnd.apache.arrow.file" => Self::Arrow,
            "application/vnd.apache.parquet" | "application/x-parquet" => Self::Parquet,
            _ => return None,
        })
    }
}

/// Rows of a body.
#[derive(Debug, Default)]
pub struct Body {
    /// Good rows, in their order.
    pub batches: Vec<RecordBatch>,
    /// Rows in [`Self::batches`].
    pub rows: u64,
    /// Rows that could not be read.
    pub bad_rows: usize,
    /// The first of them, by the row's number in the body.
    pub bad: Vec<BadBodyRow>,
    bytes: usize,
}

/// A row of a body that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBodyRow {
    /// Counted from 1; blank lines and a header do not count.
    pub row: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// Decodes `bytes` into the columns of `schema`.
///
/// - Cost: O(bytes), on the calling thread.
///
/// # Errors
/// Why nothing of it can be read, in words for the client.
pub fn decode(format: BodyFormat, schema: &SchemaRef, bytes: &Bytes) -> Result<Body, String> {
    match format {
        BodyFormat::NdJson => text(Format::Json, schema, &lines::records(bytes, framing(format)), bytes),
        BodyFormat::Json => text(Format::Json, schema, &elements::records(bytes)?, bytes),
        BodyFormat::Csv { header } => csv(schema, bytes, header),
        BodyFormat::Arrow => arrow_ipc(schema, bytes),
        BodyFormat::Parquet => parquet(schema, bytes),
    }
}

/// One past the last record end in `text`, which begins with a record; `None` if there is none. Of NDJSON and CSV.
#[must_use]
pub fn last_record_end(format: BodyFormat, text: &[u8]) -> Option<usize> {
    lines::last_end(text, framing(format))
}

/// Records of `text`, without blank lines. Of NDJSON and CSV.
#[must_use]
pub fn records(format: BodyFormat, text: &[u8]) -> usize {
    lines::records(text, framing(format)).len()
}

fn framing(format: BodyFormat) -> Framing {
    let format = if matches!(format, BodyFormat::Csv { .. }) { Format::Csv } else { Format::Json };
    TextOptions::default().framing(format)
}

/// With a header the columns may come in any order; each must be declared.
fn csv(schema: &SchemaRef, bytes: &Bytes, header: bool) -> Result<Body, String> {
    let mut records = lines::records(bytes, framing(BodyFormat::Csv { header }));
    if !header || records.is_empty() {
        return text(Format::Csv, schema, &records, bytes);
    }
    let first = records.remove(0);
    let names = String::from_utf8_lossy(&bytes[first]).into_owned();
    let mut places = Vec::new();
    for name in names.split(',').map(|name| name.trim().trim_matches('"')) {
        let place = schema.index_of(name).map_err(|_| format!("there is no column {name}; {}", declared(schema)))?;
        if places.contains(&place) {
            return Err(format!("the header names column {name} twice"));
        }
        places.push(place);
    }
    let found = Arc::new(schema.project(&places).map_err(|error| error.to_string())?);
    let body = text(Format::Csv, &found, &records, bytes)?;
    let mut ordered = Body { bad_rows: body.bad_rows, bad: body.bad, ..Body::default() };
    for batch in &body.batches {
        ordered.push(in_order(schema, batch)?)?;
    }
    Ok(ordered)
}

/// Columns that the header leaves out are null.
fn in_order(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, String> {
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(column) => Arc::clone(column),
        None => arrow::array::new_null_array(field.data_type(), batch.num_rows()),
    };
    let columns = schema.fields().iter().map(column).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| error.to_string())
}

fn declared(schema: &SchemaRef) -> String {
    format!("the stream has {}", conform::names(schema.fields()))
}

fn text(format: Format, schema: &SchemaRef, records: &[Range<usize>], bytes: &Bytes) -> Result<Body, String> {
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let options = TextOptions::default();
    let mut decoder = decoder(format, schema, &all, &options).map_err(|error| error.to_string())?;
    let mut body = Body::default();
    let mut rest = records;
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|record| record.end - first.start <= BLOCK_BYTES).count().max(1);
        let (block, later) = rest.split_at(count);
        body.take_block(decoder.as_mut(), bytes, block, records.len() - rest.len())?;
        rest = later;
    }
    Ok(body)
}

impl Body {
    /// - `before`: records that came before those of this block.
    fn take_block(
        &mut self,
        decoder: &mut dyn RowDecoder,
        bytes: &Bytes,
        block: &[Range<usize>],
        before: usize,
    ) -> Result<(), String> {
        let (batch, bad) = decode_block(decoder, bytes, block, 0, "body").map_err(|error| error.to_string())?;
        let number = |row: &BadRow| block.partition_point(|record| (record.start as u64) < row.offset);
        let kept = bad.iter().take(BAD_ROWS_KEPT.saturating_sub(self.bad.len()));
        self.bad.extend(kept.map(|row| BadBodyRow { row: before + number(row) + 1, reason: row.reason.clone() }));
        self.bad_rows += bad.len();
        self.push(batch)
    }

    /// Memory that the columns take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, batch: RecordBatch) -> Result<(), String> {
        self.bytes += batch.get_array_memory_size();
        if self.bytes > COLUMN_BYTES_MAX {
            return Err(format!("its columns take more than {COLUMN_BYTES_MAX} bytes in memory: send it in several requests"));
        }
        self.rows += batch.num_rows() as u64;
        if batch.num_rows() > 0 {
            self.batches.push(batch);
        }
        Ok(())
    }

    fn of_columns(
        schema: &SchemaRef,
        batches: impl Iterator<Item = Result<RecordBatch, arrow::error::ArrowError>>,
    ) -> Result<Self, String> {
        let mut body = Self::default();
        for batch in batches {
            body.push(conformed(schema, &batch.map_err(|error| error.to_string())?)?)?;
        }
        Ok(body)
    }
}

/// The declared columns, by name; no value is changed.
///
/// # Errors
/// The first column that is missing or does not fit.
pub fn conformed(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, String> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let column = batch.column_by_name(field.name());
        let found = conform::names(batch.schema_ref().fields());
        let column = column.ok_or_else(|| format!("there is no column {}; the body has {found}", field.name()))?;
        conform::check(field.name(), column.data_type(), field.data_type())?;
        columns.push(conform::conform(column, field)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|error| error.to_string())
}

/// Where rows of `found` are not rows of `declared`: what [`conformed`] would refuse, and what it would leave out; a sentence each.
#[must_use]
pub fn differences(declared: &SchemaRef, found: &SchemaRef) -> Vec<String> {
    let fits = |field: &Arc<Field>| match found.field_with_name(field.name()) {
        Ok(column) => conform::check(field.name(), column.data_type(), field.data_type()).err(),
        Err(_) => Some(format!("column {} is in the stream and not in the rows", field.name())),
    };
    let known = |field: &&Arc<Field>| declared.field_with_name(field.name()).is_ok();
    let unknown = found.fields().iter().filter(|field| !known(field));
    let unknown = unknown.map(|field| format!("column {} is in the rows and not in the stream", field.name()));
    declared.fields().iter().filter_map(fits).chain(unknown).collect()
}

fn arrow_ipc(schema: &SchemaRef, bytes: &Bytes) -> Result<Body, String> {
    let read = if bytes.starts_with(ipc::FILE_MAGIC) { ipc::file(bytes) } else { ipc::stream(bytes) };
    let batches = read.map_err(|message| format!("this is no Arrow IPC: {message}"))?;
    Body::of_columns(schema, batches.into_iter().map(Ok))
}

fn parquet(schema: &SchemaRef, bytes: &Bytes) -> Result<Body, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).and_then(ParquetRecordBatchReaderBuilder::build);
    let reader = reader.map_err(|error| format!("this is no Parquet file: {error}"))?;
    Body::of_columns(schema, reader)
}

#[cfg(test)]
mod tests;

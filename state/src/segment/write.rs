//! Rows to a Parquet object.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use weir_model::{RowGroupRef, SegmentKind, ShardId};
use xxhash_rust::xxh3::xxh3_64;

use super::{EncodedSegment, SEGMENT_FORMAT, SegmentMeta, fingerprint};
use crate::StateError;

/// Columns with statistics: readers skip by them, by nothing else.
const STATISTICS: [&str; 3] = ["__kg", "__pane", "__time"];

/// Strings looked at to decide on a dictionary; fewer rows never get one.
const SAMPLE_ROWS: usize = 256;
/// Distinct strings among the sample above which a dictionary costs more than it saves.
const SAMPLE_DISTINCT_MAX: usize = 64;

/// Encodes one row group per entry of `groups` that has rows; all have the columns of `schema`.
///
/// - Cost: O(bytes), on the calling thread; a receiver's batches are joined first, so that the bytes depend on the rows alone.
///
/// # Errors
/// [`StateError::Unstorable`] for a type that Parquet cannot hold; [`StateError::Parquet`] or [`StateError::Arrow`] for batches with
/// other columns.
pub fn encode(
    schema: &SchemaRef,
    meta: SegmentMeta,
    groups: &[(ShardId, Vec<RecordBatch>)],
) -> Result<EncodedSegment, StateError> {
    let groups = joined(schema, groups)?;
    let sample = groups.iter().map(|(_, rows)| rows).find(|rows| rows.num_rows() >= SAMPLE_ROWS);
    let mut writer = SegmentWriter::new(schema, meta, sample)?;
    for (receiver, rows) in &groups {
        writer.write(rows)?;
        writer.end_group(*receiver)?;
    }
    writer.finish()
}

/// A segment on its way: of what was written it holds the encoded form alone.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    writer: ArrowWriter<Vec<u8>>,
    groups: Vec<RowGroupRef>,
    /// Of the row group under way.
    rows: usize,
}

impl SegmentWriter {
    /// - `sample`: rows that say which strings repeat; fewer than [`SAMPLE_ROWS`] say nothing.
    pub(crate) fn new(schema: &SchemaRef, meta: SegmentMeta, sample: Option<&RecordBatch>) -> Result<Self, StateError> {
        let properties = properties(schema, meta, fingerprint(schema)?, sample);
        let writer = ArrowWriter::try_new(Vec::with_capacity(1 << 16), Arc::clone(schema), Some(properties))?;
        Ok(Self { writer, groups: Vec::new(), rows: 0 })
    }

    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<(), StateError> {
        self.rows += rows.num_rows();
        Ok(self.writer.write(rows)?)
    }

    /// Rows of the row group under way.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Ends the row group under way, if it has rows.
    pub(crate) fn end_group(&mut self, receiver: ShardId) -> Result<(), StateError> {
        if self.rows > 0 {
            self.writer.flush()?;
            self.groups.push(row_group(self.groups.len(), receiver, self.rows)?);
        }
        self.rows = 0;
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<EncodedSegment, StateError> {
        let bytes = Bytes::from(self.writer.into_inner()?);
        let footer_bytes = footer_bytes(&bytes).ok_or_else(|| general("the writer left no footer"))?;
        let data = &bytes[..bytes.len() - footer_bytes as usize];
        Ok(EncodedSegment { digest: xxh3_64(data), footer_bytes, groups: self.groups, bytes })
    }
}

/// Each receiver's rows as one batch. Parquet has no empty row groups: receivers without rows are left out.
fn joined(schema: &SchemaRef, groups: &[(ShardId, Vec<RecordBatch>)]) -> Result<Vec<(ShardId, RecordBatch)>, StateError> {
    let mut joined = Vec::with_capacity(groups.len());
    for (receiver, batches) in groups {
        let rows = match batches.as_slice() {
            [only] => only.clone(),
            several => concat_batches(schema, several)?,
        };
        if rows.num_rows() > 0 {
            joined.push((*receiver, rows));
        }
    }
    Ok(joined)
}

fn row_group(index: usize, receiver: ShardId, rows: usize) -> Result<RowGroupRef, StateError> {
    let index = u16::try_from(index).map_err(|_| general("more than 65,536 row groups in one segment"))?;
    let rows = u32::try_from(rows).map_err(|_| general("more than 4,294,967,295 rows in one row group"))?;
    Ok(RowGroupRef { index, receiver, rows })
}

fn general(message: &str) -> StateError {
    StateError::Parquet(ParquetError::General(message.to_owned()))
}

/// Metadata length, 4 bytes of it, and the magic.
fn footer_bytes(file: &Bytes) -> Option<u32> {
    let tail = file.len().checked_sub(8)?;
    let length: [u8; 4] = file[tail..tail + 4].try_into().ok()?;
    u32::from_le_bytes(length).checked_add(8)
}

fn properties(schema: &SchemaRef, meta: SegmentMeta, fingerprint: u64, sample: Option<&RecordBatch>) -> WriterProperties {
    let pairs = [
        ("weir.format", SEGMENT_FORMAT.to_owned()),
        ("weir.kind", kind_name(meta.kind).to_owned()),
        ("weir.schema", format!("{fingerprint:016x}")),
        ("weir.plan", meta.plan.to_string()),
    ];
    let metadata = pairs.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect();
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(None)
        .set_offset_index_disabled(true)
        .set_key_value_metadata(Some(metadata));
    for (column, field) in schema.fields().iter().enumerate() {
        let path = ColumnPath::from(field.name().as_str());
        if STATISTICS.contains(&field.name().as_str()) {
            builder = builder.set_column_statistics_enabled(path, EnabledStatistics::Chunk);
        } else if sample.is_some_and(|rows| repeats(rows, column)) {
            builder = builder.set_column_dictionary_enabled(path, true);
        }
    }
    builder.build()
}

/// Frozen: part of the file.
const fn kind_name(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::Exchange => "exchange",
        SegmentKind::Behind => "behind",
        SegmentKind::Output => "output",
        SegmentKind::Late => "late",
        SegmentKind::Dead => "dead",
        SegmentKind::Checkpoint => "checkpoint",
        SegmentKind::Events => "events",
        SegmentKind::Ledger => "ledger",
    }
}

/// Whether a sample of a string column repeats itself. A function of the rows, so that equal rows have equal bytes (R1).
fn repeats(rows: &RecordBatch, column: usize) -> bool {
    let distinct = if rows.num_rows() >= SAMPLE_ROWS { distinct_in_sample(rows.column(column)) } else { None };
    distinct.is_some_and(|distinct| distinct <= SAMPLE_DISTINCT_MAX)
}

/// Distinct strings in a sample; `None` for other types. At least [`SAMPLE_ROWS`] rows.
fn distinct_in_sample(array: &ArrayRef) -> Option<usize> {
    let step = array.len() / SAMPLE_ROWS;
    let sample = (0..SAMPLE_ROWS).map(|sample| sample * step).filter(|row| array.is_valid(*row));
    Some(match array.data_type() {
        DataType::Utf8 => distinct(sample, |row| array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => distinct(sample, |row| array.as_string::<i64>().value(row)),
        DataType::Utf8View => distinct(sample, |row| array.as_string_view().value(row)),
        // Such a column is low in cardinality by its maker's choice.
        DataType::Dictionary(_, _) => 0,
        _ => return None,
    })
}

fn distinct<'a>(rows: impl Iterator<Item = usize>, value: impl Fn(usize) -> &'a str) -> usize {
    rows.map(value).collect::<HashSet<_>>().len()
}

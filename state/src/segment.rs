//! Segments and checkpoints: one Parquet object per (commit, kind), row groups by receiver.
//!
//! LZ4_RAW, no dictionaries (keys and partials are mostly distinct), statistics only for the key group and the pane. A reader needs
//! nothing but the [`SegmentRef`]: it holds sizes and row groups, so one ranged GET is enough, never a HEAD or LIST.
//!
//! Key-value metadata of the file:
//!
//! | key | value |
//! | --- | --- |
//! | `weir.format` | [`SEGMENT_FORMAT`]; a reader refuses any other |
//! | `weir.kind` | exchange, behind, output, late, dead, checkpoint |
//! | `weir.plan` | version of the plan that wrote it |

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use weir_model::{RowGroupRef, SegmentKind, SegmentRef, ShardId};
use xxhash_rust::xxh3::xxh3_64;

use crate::{SegmentCache, StateError};

/// Version of the segment's encoding.
pub const SEGMENT_FORMAT: &str = "1";

/// Objects up to this size are read whole: one request costs more than the bytes.
const READ_WHOLE_BYTES: u64 = 1 << 20;

/// What the file says of itself.
#[derive(Debug, Clone, Copy)]
pub struct SegmentMeta {
    /// What the rows are; `None` for a checkpoint.
    pub kind: Option<SegmentKind>,
    /// Version of the plan that wrote it.
    pub plan: u32,
}

/// An object ready to be stored.
#[derive(Debug, Clone)]
pub struct EncodedSegment {
    /// The object.
    pub bytes: Bytes,
    /// Size of the footer at its end, with its length and magic.
    pub footer_bytes: u32,
    /// Row groups in the order given.
    pub groups: Vec<RowGroupRef>,
    /// xxh3 of the bytes before the footer: equal for equal rows (R1).
    pub digest: u64,
}

/// Encodes one row group per entry of `groups`; all have the columns of `schema`.
///
/// # Errors
/// [`StateError::Parquet`] for a type that Parquet cannot hold.
pub fn encode(schema: &SchemaRef, meta: SegmentMeta, groups: &[(ShardId, Vec<RecordBatch>)]) -> Result<EncodedSegment, StateError> {
    let mut writer = ArrowWriter::try_new(Vec::with_capacity(1 << 16), Arc::clone(schema), Some(properties(schema, meta)))?;
    let mut refs = Vec::with_capacity(groups.len());
    for (index, (receiver, batches)) in (0u16..).zip(groups) {
        for batch in batches {
            writer.write(batch)?;
        }
        writer.flush()?;
        let rows = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        refs.push(RowGroupRef { index, receiver: *receiver, rows: u32::try_from(rows).unwrap_or(u32::MAX) });
    }
    let bytes = Bytes::from(writer.into_inner()?);
    let footer_bytes = footer_bytes(&bytes).ok_or_else(|| ParquetCut::cut("what was just written"))?;
    let data = &bytes[..bytes.len() - footer_bytes as usize];
    Ok(EncodedSegment { digest: xxh3_64(data), footer_bytes, groups: refs, bytes })
}

struct ParquetCut;

impl ParquetCut {
    fn cut(object: &str) -> StateError {
        StateError::Corrupt { object: object.to_owned(), message: "it does not end in a Parquet footer".to_owned() }
    }
}

/// Metadata length, 4 bytes of it, and the magic.
fn footer_bytes(file: &Bytes) -> Option<u32> {
    let tail = file.len().checked_sub(8)?;
    let length: [u8; 4] = file[tail..tail + 4].try_into().ok()?;
    u32::from_le_bytes(length).checked_add(8)
}

fn properties(schema: &SchemaRef, meta: SegmentMeta) -> WriterProperties {
    let kind = match meta.kind {
        None => "checkpoint",
        Some(SegmentKind::Exchange) => "exchange",
        Some(SegmentKind::Behind) => "behind",
        Some(SegmentKind::Output) => "output",
        Some(SegmentKind::Late) => "late",
        Some(SegmentKind::Dead) => "dead",
    };
    let pairs = [("weir.format", SEGMENT_FORMAT.to_owned()), ("weir.kind", kind.to_owned()), ("weir.plan", meta.plan.to_string())];
    let metadata = pairs.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect();
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(None)
        .set_offset_index_disabled(true)
        .set_key_value_metadata(Some(metadata));
    for name in ["__kg", "__pane"] {
        if schema.field_with_name(name).is_ok() {
            builder = builder.set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::Chunk);
        }
    }
    builder.build()
}

/// Types that a segment cannot hold, with the column's name; `None` if all can be.
#[must_use]
pub fn unstorable(schema: &SchemaRef) -> Option<(String, DataType)> {
    let refused = |data_type: &DataType| matches!(data_type, DataType::Union(..) | DataType::Interval(_) | DataType::RunEndEncoded(..));
    schema.fields().iter().find(|field| refused(field.data_type())).map(|field| (field.name().clone(), field.data_type().clone()))
}

/// Decodes row groups `groups` of a whole object, one batch each, in the order given.
///
/// # Errors
/// [`StateError::Corrupt`] if the object is not a segment of a format known here.
pub fn decode(object: &str, bytes: Bytes, groups: &[u16]) -> Result<Vec<RecordBatch>, StateError> {
    let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new())
        .map_err(|error| StateError::Corrupt { object: object.to_owned(), message: error.to_string() })?;
    check_format(object, &metadata)?;
    groups.iter().map(|group| decode_group(object, &bytes, &metadata, *group)).collect()
}

fn decode_group(object: &str, bytes: &Bytes, metadata: &ArrowReaderMetadata, group: u16) -> Result<RecordBatch, StateError> {
    let corrupt = |message: String| StateError::Corrupt { object: object.to_owned(), message };
    if usize::from(group) >= metadata.metadata().num_row_groups() {
        return Err(corrupt(format!("it has {} row groups, row group {group} was committed", metadata.metadata().num_row_groups())));
    }
    let rows = usize::try_from(metadata.metadata().row_group(usize::from(group)).num_rows()).unwrap_or(0);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata.clone())
        .with_row_groups(vec![usize::from(group)])
        .with_batch_size(rows.max(1))
        .build()
        .map_err(|error| corrupt(error.to_string()))?;
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|error| corrupt(error.to_string()))?;
    Ok(concat_batches(metadata.schema(), &batches)?)
}

fn check_format(object: &str, metadata: &ArrowReaderMetadata) -> Result<(), StateError> {
    let pairs = metadata.metadata().file_metadata().key_value_metadata();
    let format = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == "weir.format")).and_then(|pair| pair.value.as_deref());
    match format {
        Some(SEGMENT_FORMAT) => Ok(()),
        found => Err(StateError::Corrupt {
            object: object.to_owned(),
            message: format!("segment format {}, this build reads {SEGMENT_FORMAT}: use the build that wrote it", found.unwrap_or("unknown")),
        }),
    }
}

/// Reads the rows that `segment` names for `receiver`, in order, through the cache.
///
/// # Errors
/// [`StateError::Store`] (kind `Missing` if it is gone: G4), [`StateError::Corrupt`] if its size or format is not as committed.
pub async fn read_for(
    store: &dyn ObjectStore,
    cache: &SegmentCache,
    segment: &SegmentRef,
    receiver: ShardId,
) -> Result<Vec<RecordBatch>, StateError> {
    let wanted: Vec<u16> = segment.groups.iter().filter(|group| group.receiver == receiver).map(|group| group.index).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let cached: Vec<Option<RecordBatch>> = wanted.iter().map(|group| cache.get(&segment.object, *group)).collect();
    if let Some(all) = cached.into_iter().collect::<Option<Vec<_>>>() {
        return Ok(all);
    }
    let bytes = fetch(store, segment, &wanted).await?;
    let batches = decode(&segment.object, bytes, &wanted)?;
    for (group, batch) in wanted.iter().zip(&batches) {
        cache.put(&segment.object, *group, batch);
    }
    Ok(batches)
}

/// Small objects whole; of larger ones the footer and the wanted row groups, laid out as in the file so that offsets hold.
async fn fetch(store: &dyn ObjectStore, segment: &SegmentRef, wanted: &[u16]) -> Result<Bytes, StateError> {
    let path = Path::from(segment.object.as_str());
    let all_wanted = wanted.len() == segment.groups.len();
    if segment.bytes <= READ_WHOLE_BYTES || all_wanted {
        let whole = store.get_range(&path, 0..segment.bytes).await.map_err(|error| StateError::store(&segment.object, error))?;
        return check_size(segment, whole);
    }
    let footer = segment.bytes - u64::from(segment.footer_bytes)..segment.bytes;
    let footer_part = store.get_range(&path, footer.clone()).await.map_err(|error| StateError::store(&segment.object, error))?;
    let ranges = group_ranges(segment, &footer_part, wanted)?;
    let parts = store.get_ranges(&path, &ranges).await.map_err(|error| StateError::store(&segment.object, error))?;
    let size = usize::try_from(segment.bytes).unwrap_or(usize::MAX);
    let mut sparse = vec![0u8; size];
    for (range, part) in ranges.iter().chain([&footer]).zip(parts.iter().chain([&footer_part])) {
        let at = usize::try_from(range.start).unwrap_or(usize::MAX);
        sparse[at..at + part.len()].copy_from_slice(part);
    }
    Ok(Bytes::from(sparse))
}

fn check_size(segment: &SegmentRef, bytes: Bytes) -> Result<Bytes, StateError> {
    if bytes.len() as u64 == segment.bytes {
        return Ok(bytes);
    }
    let message = format!("{} bytes were committed, {} are there", segment.bytes, bytes.len());
    Err(StateError::Corrupt { object: segment.object.clone(), message })
}

fn group_ranges(segment: &SegmentRef, footer: &Bytes, wanted: &[u16]) -> Result<Vec<Range<u64>>, StateError> {
    let metadata = parquet::file::metadata::ParquetMetaDataReader::decode_metadata(&footer[..footer.len().saturating_sub(8)])
        .map_err(|error| StateError::Corrupt { object: segment.object.clone(), message: error.to_string() })?;
    let range = |group: &u16| {
        let columns = metadata.row_groups().get(usize::from(*group))?.columns();
        let start = columns.iter().map(|column| column.byte_range().0).min()?;
        let end = columns.iter().map(|column| column.byte_range().0 + column.byte_range().1).max()?;
        Some(start..end)
    };
    wanted.iter().map(range).collect::<Option<Vec<_>>>().ok_or_else(|| StateError::Corrupt {
        object: segment.object.clone(),
        message: "a committed row group is not in the footer".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray, UInt16Array};
    use object_store::memory::InMemory;

    use super::*;

    fn rows(from: i64, to: i64) -> RecordBatch {
        let ids = Int64Array::from_iter_values(from..to);
        let names = StringArray::from_iter_values((from..to).map(|id| format!("name-{id}")));
        let groups = UInt16Array::from_iter_values((from..to).map(|id| u16::try_from(id % 720).unwrap()));
        RecordBatch::try_from_iter([
            ("__kg", Arc::new(groups) as ArrayRef),
            ("id", Arc::new(ids) as ArrayRef),
            ("name", Arc::new(names) as ArrayRef),
        ])
        .unwrap()
    }

    fn stored(groups: &[(ShardId, Vec<RecordBatch>)]) -> (EncodedSegment, SegmentRef) {
        let meta = SegmentMeta { kind: Some(SegmentKind::Exchange), plan: 1 };
        let encoded = encode(&rows(0, 1).schema(), meta, groups).unwrap();
        let segment = SegmentRef {
            kind: SegmentKind::Exchange,
            object: "jobs/x/data/00/a.parquet".into(),
            bytes: encoded.bytes.len() as u64,
            footer_bytes: encoded.footer_bytes,
            groups: encoded.groups.clone(),
        };
        (encoded, segment)
    }

    #[tokio::test]
    async fn each_receiver_reads_its_own_rows_from_small_and_large_objects() {
        for rows_each in [10, 100_000] {
            let groups = [(ShardId(0), vec![rows(0, rows_each)]), (ShardId(1), vec![rows(5, 8), rows(8, rows_each)])];
            let (encoded, segment) = stored(&groups);
            let store = InMemory::new();
            store.put(&Path::from(segment.object.as_str()), encoded.bytes.into()).await.unwrap();
            for (receiver, batches) in &groups {
                let read = read_for(&store, &SegmentCache::new(0), &segment, *receiver).await.unwrap();
                assert_eq!(read, [concat_batches(&batches[0].schema(), batches).unwrap()]);
            }
            assert!(read_for(&store, &SegmentCache::new(0), &segment, ShardId(9)).await.unwrap().is_empty());
        }
    }

    #[test]
    fn equal_rows_have_equal_digests() {
        let digest = |to| stored(&[(ShardId(0), vec![rows(0, to)])]).0.digest;
        assert_eq!(digest(100), digest(100));
        assert_ne!(digest(100), digest(101));
    }

    #[tokio::test]
    async fn a_cut_object_is_corrupt_and_a_missing_one_is_missing() {
        let (encoded, segment) = stored(&[(ShardId(0), vec![rows(0, 10)])]);
        let store = InMemory::new();
        let read = async || read_for(&store, &SegmentCache::new(0), &segment, ShardId(0)).await.unwrap_err();
        assert_eq!(read().await.kind(), crate::error::Kind::Missing);
        store.put(&Path::from(segment.object.as_str()), encoded.bytes.slice(..100).into()).await.unwrap();
        assert!(matches!(read().await, StateError::Corrupt { .. }));
    }

    #[test]
    fn an_unknown_format_is_refused_with_the_remedy() {
        let schema = rows(0, 1).schema();
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(vec![KeyValue::new("weir.format".to_owned(), "999".to_owned())]))
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).unwrap();
        writer.write(&rows(0, 1)).unwrap();
        let error = decode("x", Bytes::from(writer.into_inner().unwrap()), &[0]).unwrap_err();
        assert!(error.to_string().contains("segment format 999"), "{error}");
    }
}

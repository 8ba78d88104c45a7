//! A Parquet object to the rows of one receiver.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use object_store::{GetOptions, GetRange, ObjectStore, path::Path};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use weir_model::{RowGroupRef, SegmentRef, ShardId};

use super::pieces::Pieces;
use super::{SEGMENT_FORMAT, check_schema};
use crate::{SegmentCache, StateError};

/// Objects up to this size are read whole: one request costs more than the bytes.
const READ_WHOLE_BYTES: u64 = 1 << 20;

/// Decodes row groups `groups` of a whole object, one batch each, in the order given.
///
/// # Errors
/// [`StateError::UnknownFormat`] for another build's segment; [`StateError::Corrupt`] if the object is damaged or not a segment.
pub fn decode(object: &str, bytes: Bytes, groups: &[u16]) -> Result<Vec<RecordBatch>, StateError> {
    let metadata = footer(object, &Pieces::whole(bytes.clone()))?;
    groups.iter().map(|group| decode_group(object, &metadata, Pieces::whole(bytes.clone()), *group)).collect()
}

/// Reads the rows that `segment` names for `receiver`, a batch per row group, in order, through the cache.
///
/// - Requests: none if cached, one for an object up to 1 MiB, else two, the first of them (the footer) once per object and cache.
///
/// # Errors
/// [`StateError::Store`] (kind `Missing` if it is gone: G4), [`StateError::Corrupt`] if its size or rows are not as committed,
/// [`StateError::UnknownFormat`] for another build's segment.
pub async fn read_for(
    store: &dyn ObjectStore,
    cache: &SegmentCache,
    segment: &SegmentRef,
    receiver: ShardId,
) -> Result<Vec<RecordBatch>, StateError> {
    let rows = read_for_all(store, cache, segment, &[receiver]).await?;
    Ok(rows.into_iter().map(|(_, batch)| batch).collect())
}

/// [`read_for`] with columns that must be those of `expected`.
///
/// # Errors
/// [`StateError::SchemaMismatch`], and those of [`read_for`].
pub async fn read_as(
    store: &dyn ObjectStore,
    cache: &SegmentCache,
    segment: &SegmentRef,
    receiver: ShardId,
    expected: &SchemaRef,
) -> Result<Vec<RecordBatch>, StateError> {
    let batches = read_for(store, cache, segment, receiver).await?;
    batches.iter().try_for_each(|batch| check_schema(&segment.object, batch.schema_ref(), expected))?;
    Ok(batches)
}

/// [`read_for`] for several receivers of one process: they share the requests. In the order of the row groups.
///
/// # Errors
/// Those of [`read_for`].
pub async fn read_for_all(
    store: &dyn ObjectStore,
    cache: &SegmentCache,
    segment: &SegmentRef,
    receivers: &[ShardId],
) -> Result<Vec<(ShardId, RecordBatch)>, StateError> {
    let object = segment.object.as_str();
    let wanted = segment.groups.iter().filter(|group| receivers.contains(&group.receiver));
    let mut found: Vec<(&RowGroupRef, Option<RecordBatch>)> =
        wanted.map(|group| (group, cache.get(object, group.index))).collect();
    let missing: Vec<u16> = found.iter().filter(|(_, rows)| rows.is_none()).map(|(group, _)| group.index).collect();
    if !missing.is_empty() {
        let fetched = fetch(store, cache, segment, &missing).await?;
        for (group, rows) in found.iter_mut().filter(|(_, rows)| rows.is_none()) {
            let batch = fetched.decode(object, group)?;
            cache.put(object, group.index, &batch);
            *rows = Some(batch);
        }
    }
    Ok(found.into_iter().filter_map(|(group, rows)| rows.map(|rows| (group.receiver, rows))).collect())
}

/// A footer and the bytes of the row groups that were asked for.
struct Fetched {
    footer: ArrowReaderMetadata,
    pieces: Vec<(u64, Bytes)>,
    object_bytes: u64,
}

impl Fetched {
    fn decode(&self, object: &str, group: &RowGroupRef) -> Result<RecordBatch, StateError> {
        let pieces = Pieces::new(self.object_bytes, self.pieces.clone());
        let batch = decode_group(object, &self.footer, pieces, group.index)?;
        if batch.num_rows() == group.rows as usize {
            return Ok(batch);
        }
        Err(corrupt(
            object,
            format!("{} rows were committed in row group {}, {} are there", group.rows, group.index, batch.num_rows()),
        ))
    }
}

async fn fetch(
    store: &dyn ObjectStore,
    cache: &SegmentCache,
    segment: &SegmentRef,
    wanted: &[u16],
) -> Result<Fetched, StateError> {
    let object = segment.object.as_str();
    let sole_reader = wanted.len() == segment.groups.len() && wanted.first() == Some(&0);
    if segment.bytes <= READ_WHOLE_BYTES || (sole_reader && cache.footer(object).is_none()) {
        let whole = get(store, segment, None).await?;
        let footer = footer(object, &Pieces::whole(whole.clone()))?;
        return Ok(Fetched { footer, pieces: vec![(0, whole)], object_bytes: segment.bytes });
    }
    let footer = match cache.footer(object) {
        Some(known) => known,
        None => fetch_footer(store, cache, segment).await?,
    };
    let ranges = group_ranges(object, &footer, wanted)?;
    let path = Path::from(object);
    let parts = store.get_ranges(&path, &ranges).await.map_err(|error| StateError::store(object, error))?;
    let pieces = ranges.iter().map(|range| range.start).zip(parts).collect();
    Ok(Fetched { footer, pieces, object_bytes: segment.bytes })
}

async fn fetch_footer(
    store: &dyn ObjectStore,
    cache: &SegmentCache,
    segment: &SegmentRef,
) -> Result<ArrowReaderMetadata, StateError> {
    let length = u64::from(segment.footer_bytes);
    let tail = get(store, segment, Some(GetRange::Suffix(length))).await?;
    let pieces = Pieces::new(segment.bytes, vec![(segment.bytes.saturating_sub(length), tail)]);
    let footer = footer(&segment.object, &pieces)?;
    cache.put_footer(&segment.object, &footer, segment.footer_bytes as usize);
    Ok(footer)
}

/// The store's answer to any GET tells the whole object's size: it is compared with the committed one at no further request.
async fn get(store: &dyn ObjectStore, segment: &SegmentRef, range: Option<GetRange>) -> Result<Bytes, StateError> {
    let path = Path::from(segment.object.as_str());
    let failed = |error| StateError::store(&segment.object, error);
    let options = GetOptions { range, ..GetOptions::default() };
    let answer = store.get_opts(&path, options).await.map_err(failed)?;
    if answer.meta.size != segment.bytes {
        return Err(corrupt(&segment.object, format!("{} bytes were committed, {} are there", segment.bytes, answer.meta.size)));
    }
    answer.bytes().await.map_err(failed)
}

fn footer(object: &str, pieces: &Pieces) -> Result<ArrowReaderMetadata, StateError> {
    let metadata =
        ArrowReaderMetadata::load(pieces, ArrowReaderOptions::new()).map_err(|error| corrupt(object, error.to_string()))?;
    let pairs = metadata.metadata().file_metadata().key_value_metadata();
    let format =
        pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == "weir.format")).and_then(|pair| pair.value.as_deref());
    match format {
        Some(SEGMENT_FORMAT) => Ok(metadata),
        found => Err(StateError::UnknownFormat {
            object: object.to_owned(),
            what: "segment",
            found: found.unwrap_or("unknown").to_owned(),
            known: SEGMENT_FORMAT.to_owned(),
        }),
    }
}

fn decode_group(object: &str, footer: &ArrowReaderMetadata, pieces: Pieces, group: u16) -> Result<RecordBatch, StateError> {
    let groups = footer.metadata().row_groups();
    let Some(wanted) = groups.get(usize::from(group)) else {
        return Err(corrupt(object, format!("it has {} row groups, row group {group} was committed", groups.len())));
    };
    let rows = usize::try_from(wanted.num_rows()).map_err(|_| corrupt(object, "a row group of less than no rows".to_owned()))?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(pieces, footer.clone())
        .with_row_groups(vec![usize::from(group)])
        .with_batch_size(rows.max(1))
        .build()
        .map_err(|error| corrupt(object, error.to_string()))?;
    let mut batches = reader.collect::<Result<Vec<_>, _>>().map_err(|error| corrupt(object, error.to_string()))?;
    match batches.pop() {
        Some(only) if batches.is_empty() => Ok(only),
        last => Ok(concat_batches(footer.schema(), batches.iter().chain(&last))?),
    }
}

/// Where the row groups lie. Column chunks of a row group stand together, those of wanted neighbours too: the store joins such ranges.
fn group_ranges(object: &str, footer: &ArrowReaderMetadata, wanted: &[u16]) -> Result<Vec<Range<u64>>, StateError> {
    let range = |group: &u16| {
        let columns = footer.metadata().row_groups().get(usize::from(*group))?.columns();
        let start = columns.iter().map(|column| column.byte_range().0).min()?;
        let end = columns.iter().map(|column| column.byte_range().0 + column.byte_range().1).max()?;
        Some(start..end)
    };
    let ranges = wanted.iter().map(range).collect::<Option<Vec<_>>>();
    ranges.ok_or_else(|| corrupt(object, "a committed row group is not in the footer".to_owned()))
}

fn corrupt(object: &str, message: String) -> StateError {
    StateError::Corrupt { object: object.to_owned(), message }
}

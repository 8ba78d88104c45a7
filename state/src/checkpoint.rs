//! Checkpoints: a shard's open panes as Parquet objects of bounded size.
//!
//! Why the columns of an exchange: a checkpoint's rows are folded like partials that just arrived, so a restored shard and one that
//! went on have the same bits (RP-1), and any engine can read an open window. Never: holds a pane that has fired.
//!
//! | column | type | unit | null | sorted by |
//! | --- | --- | --- | --- | --- |
//! | `__kg` | UInt16 | key group | never | second |
//! | `__pane` | Int64 | pane number | never | first |
//! | the window's keys, by name | the key's | | allowed: NULL is a key | then as given |
//! | `{output}__{part}` | the partial's | | no value seen | |
//!
//! A row group is a run of whole batches: small panes share one. A state larger than [`PART_BYTES`] has several objects, in order.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use weir_model::{SegmentKind, SegmentRef, ShardId};

use crate::segment::{self, EncodedSegment, SegmentMeta};
use crate::{SegmentCache, StateError};

/// Bytes of rows in memory past which an object ends.
pub const PART_BYTES: usize = 64 << 20;

/// Rows past which a run of panes ends.
const RUN_ROWS: usize = 1 << 20;

/// Encodes rows of `shard`'s open panes, ascending by pane and key group; `None` if there are no rows: an empty state needs no object.
///
/// # Errors
/// [`StateError::Unstorable`] for a type that Parquet cannot hold; [`StateError::Parquet`] or [`StateError::Arrow`] for batches with
/// other columns.
pub fn encode(
    schema: &SchemaRef,
    plan: u32,
    shard: ShardId,
    panes: &[RecordBatch],
) -> Result<Option<EncodedSegment>, StateError> {
    let runs: Vec<(ShardId, Vec<RecordBatch>)> = runs(panes).into_iter().map(|run| (shard, run)).collect();
    if runs.is_empty() {
        return Ok(None);
    }
    segment::encode(schema, SegmentMeta { kind: SegmentKind::Checkpoint, plan }, &runs).map(Some)
}

/// Whole panes in runs of at least [`RUN_ROWS`] rows, but for the last.
fn runs(panes: &[RecordBatch]) -> Vec<Vec<RecordBatch>> {
    let mut runs: Vec<Vec<RecordBatch>> = Vec::new();
    let mut rows = RUN_ROWS;
    for pane in panes.iter().filter(|pane| pane.num_rows() > 0) {
        match runs.last_mut() {
            Some(run) if rows < RUN_ROWS => run.push(pane.clone()),
            _ => {
                runs.push(vec![pane.clone()]);
                rows = 0;
            }
        }
        rows += pane.num_rows();
    }
    runs
}

/// Reads the rows of one of a checkpoint's objects, in the order they were given. One GET.
///
/// # Errors
/// Those of [`segment::read_as`].
pub async fn read(store: &dyn ObjectStore, object: &SegmentRef, schema: &SchemaRef) -> Result<Vec<RecordBatch>, StateError> {
    let Some(shard) = object.groups.first().map(|group| group.receiver) else { return Ok(Vec::new()) };
    // Read once per load, and large: nothing to keep in a cache.
    segment::read_as(store, &SegmentCache::new(0), object, shard, schema).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::CountingStore;
    use crate::store::put;
    use arrow::array::{ArrayRef, Int64Array, UInt16Array};
    use arrow::compute::concat_batches;
    use object_store::memory::InMemory;

    fn pane(pane: i64, rows: usize) -> RecordBatch {
        let groups = UInt16Array::from_iter_values((0..rows).map(|row| u16::try_from(row * 720 / rows).unwrap()));
        let counts = Int64Array::from_iter_values((0..i64::try_from(rows).unwrap()).map(|row| row * 7 + pane));
        RecordBatch::try_from_iter([
            ("__kg", Arc::new(groups) as ArrayRef),
            ("__pane", Arc::new(Int64Array::from_value(pane, rows)) as ArrayRef),
            ("plays__count", Arc::new(counts) as ArrayRef),
        ])
        .unwrap()
    }

    #[tokio::test]
    async fn panes_come_back_whole_and_in_order_in_one_get() {
        for sizes in [vec![1], vec![20_000, 3, 3, 9_000, 1], vec![10; 3_000], vec![100_000, 100_000]] {
            let panes: Vec<RecordBatch> = sizes.iter().zip(-2..).map(|(rows, number)| pane(number, *rows)).collect();
            let schema = panes[0].schema();
            let encoded = encode(&schema, 1, ShardId(4), &panes).unwrap().unwrap();
            let store = CountingStore::new(Arc::new(InMemory::new()), Arc::default());
            put(&store, "c", encoded.bytes.clone()).await.unwrap();
            let object = encoded.reference(SegmentKind::Checkpoint, "c".to_owned());
            let read = read(&store, &object, &schema).await.unwrap();
            assert_eq!(concat_batches(&schema, &read).unwrap(), concat_batches(&schema, &panes).unwrap());
            assert_eq!(store.hook().counts().gets, 1);
            let wholes = encoded.groups.iter().rev().skip(1).all(|group| group.rows as usize >= RUN_ROWS);
            assert!(wholes, "{:?}", encoded.groups);
        }
    }

    #[tokio::test]
    async fn an_empty_state_needs_no_object() {
        let schema = pane(0, 1).schema();
        assert_eq!(encode(&schema, 1, ShardId(0), &[]).unwrap(), None);
        assert_eq!(encode(&schema, 1, ShardId(0), &[pane(0, 1).slice(0, 0)]).unwrap(), None);
    }

    #[tokio::test]
    async fn a_checkpoint_of_other_columns_is_refused() {
        let encoded = encode(&pane(0, 1).schema(), 1, ShardId(0), &[pane(0, 1)]).unwrap().unwrap();
        let store = InMemory::new();
        put(&store, "c", encoded.bytes.clone()).await.unwrap();
        let other = pane(0, 1).project(&[0, 1]).unwrap().schema();
        let object = encoded.reference(SegmentKind::Checkpoint, "c".to_owned());
        assert!(matches!(read(&store, &object, &other).await, Err(StateError::SchemaMismatch { .. })));
    }
}

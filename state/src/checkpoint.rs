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
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use weir_model::{SegmentKind, SegmentRef, ShardId};

use crate::segment::{self, EncodedSegment, SegmentMeta, SegmentWriter};
use crate::{SegmentCache, StateError};

/// Bytes of rows in memory past which an object ends.
pub const PART_BYTES: usize = 64 << 20;

/// Rows past which a run of panes ends.
const RUN_ROWS: usize = 1 << 20;

/// Rows that are encoded at a time: those of small panes wait for others.
const WAITING_ROWS: usize = 1 << 13;

/// One of a checkpoint's objects on its way: rows are encoded as they come, so that it never holds many of them.
#[derive(Debug)]
pub struct PartWriter {
    schema: SchemaRef,
    meta: SegmentMeta,
    shard: ShardId,
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    /// `None` before the first rows.
    writer: Option<SegmentWriter>,
    /// Of all rows, in memory.
    bytes: usize,
}

impl PartWriter {
    /// - `schema`: columns of the rows. - `plan`: version of the plan that writes them.
    #[must_use]
    pub fn new(schema: &SchemaRef, plan: u32, shard: ShardId) -> Self {
        let (schema, meta) = (SchemaRef::clone(schema), SegmentMeta { kind: SegmentKind::Checkpoint, plan });
        Self { schema, meta, shard, waiting: Vec::new(), waiting_rows: 0, writer: None, bytes: 0 }
    }

    /// Takes rows of open panes, ascending by pane and key group.
    ///
    /// # Errors
    /// [`StateError::Unstorable`] for a type that Parquet cannot hold; [`StateError::Parquet`] or [`StateError::Arrow`] for other columns.
    pub fn push(&mut self, rows: RecordBatch) -> Result<(), StateError> {
        self.bytes += rows.get_array_memory_size();
        self.waiting_rows += rows.num_rows();
        self.waiting.push(rows);
        if self.waiting_rows < WAITING_ROWS { Ok(()) } else { self.encode() }
    }

    /// Whether the next rows belong into another object.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= PART_BYTES
    }

    /// Ends the object; `None` if there were no rows: an empty state needs none.
    ///
    /// # Errors
    /// Those of [`Self::push`].
    pub fn finish(mut self) -> Result<Option<EncodedSegment>, StateError> {
        self.encode()?;
        let Some(mut writer) = self.writer else { return Ok(None) };
        writer.end_group(self.shard)?;
        writer.finish().map(Some)
    }

    fn encode(&mut self) -> Result<(), StateError> {
        self.waiting_rows = 0;
        let rows = concat_batches(&self.schema, &std::mem::take(&mut self.waiting))?;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(SegmentWriter::new(&self.schema, self.meta, Some(&rows))?),
        };
        writer.write(&rows)?;
        if writer.rows() >= RUN_ROWS { writer.end_group(self.shard) } else { Ok(()) }
    }
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

    fn encoded(schema: &SchemaRef, panes: &[RecordBatch]) -> Option<EncodedSegment> {
        let mut part = PartWriter::new(schema, 1, ShardId(4));
        panes.iter().for_each(|pane| part.push(pane.clone()).unwrap());
        part.finish().unwrap()
    }

    #[tokio::test]
    async fn panes_come_back_whole_and_in_order_in_one_get() {
        for sizes in [vec![1], vec![20_000, 3, 3, 9_000, 1], vec![10; 3_000], vec![100_000, 100_000]] {
            let panes: Vec<RecordBatch> = sizes.iter().zip(-2..).map(|(rows, number)| pane(number, *rows)).collect();
            let schema = panes[0].schema();
            let encoded = encoded(&schema, &panes).unwrap();
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
        assert_eq!(encoded(&schema, &[]), None);
        assert_eq!(encoded(&schema, &[pane(0, 1).slice(0, 0)]), None);
    }

    #[tokio::test]
    async fn a_checkpoint_of_other_columns_is_refused() {
        let encoded = encoded(&pane(0, 1).schema(), &[pane(0, 1)]).unwrap();
        let store = InMemory::new();
        put(&store, "c", encoded.bytes.clone()).await.unwrap();
        let other = pane(0, 1).project(&[0, 1]).unwrap().schema();
        let object = encoded.reference(SegmentKind::Checkpoint, "c".to_owned());
        assert!(matches!(read(&store, &object, &other).await, Err(StateError::SchemaMismatch { .. })));
    }
}

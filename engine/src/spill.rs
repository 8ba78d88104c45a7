//! A pane on disk: what it held when it was spilled, and every row that came since, in order.
//!
//! Why raw rows: when a pane is spilled depends on memory, which no recipe records, so it must not change a bit of the result (R1).
//! Rows after the spill are therefore appended unfolded, and folded when the pane gives results or is stored, in the same order in which a pane in memory
//! would have folded them.
//!
//! ```text
//! table --into_partial_rows--> bucket by bucket --> runs in a file             one bucket fits in memory when the pane does not
//! rows  --gathered------> by bucket of key groups --> runs in a file  --fold bucket by bucket, ascending--> table --> fired
//! ```

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, UInt16Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::UInt16Type;
use weir_state::key_sort::{sort_by_key_group, sorted_by_key_group};

use crate::EngineError;
use crate::pane_table::{PaneShape, PaneTable};
use crate::spill_files::{Run, SpillFiles};

/// Parts of a pane that are folded one after the other.
const BUCKETS: usize = 64;
/// Rows gathered before they are cut into buckets and written.
const GATHERED_BYTES_MAX: usize = 4 << 20;

/// How rows are folded into a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Columns of [`PaneShape::partial_schema`].
    Partial,
    /// Columns of the input fragment: `__pane`, keys, arguments and filters.
    Raw,
}

/// A pane whose groups lie on disk.
#[derive(Debug)]
pub(crate) struct SpilledPane {
    /// First key group and key groups of all buckets.
    range: (u16, u16),
    buckets: Vec<Vec<(Rows, Run)>>,
    gathered: Vec<(Rows, RecordBatch)>,
    gathered_bytes: usize,
    /// Whether a group may not be what was given of it.
    has_news: bool,
}

impl SpilledPane {
    /// Writes `table`, all that pane `pane` held.
    ///
    /// - `range`: first key group of the shard, and how many it has.
    ///
    /// # Errors
    /// [`EngineError::Spill`] if the disk refuses.
    pub(crate) fn new(
        files: &mut SpillFiles,
        shape: &PaneShape,
        range: (u16, u16),
        pane: i64,
        table: PaneTable,
    ) -> Result<Self, EngineError> {
        let has_news = table.has_news();
        let rows = table.into_partial_rows(shape, pane)?;
        let groups: Vec<u16> = (0..shape.key_group_count()).collect();
        let mut spilled = Self { has_news, ..Self::empty(range) };
        for bucket in groups.chunk_by(|a, b| bucket_of(range, *a) == bucket_of(range, *b)) {
            let (from, upto) = (usize::from(bucket[0]), usize::from(bucket[0]) + bucket.len());
            let (start, end) = (rows.starts()[from], rows.starts()[upto]);
            if start < end {
                let run = files.append(&rows.slice(start, end - start)?)?;
                spilled.buckets[bucket_of(range, bucket[0])].push((Rows::Partial, run));
            }
        }
        Ok(spilled)
    }

    /// A pane without rows, cut into the same buckets.
    pub(crate) fn same_buckets(&self) -> Self {
        Self::empty(self.range)
    }

    fn empty(range: (u16, u16)) -> Self {
        let buckets = (0..BUCKETS).map(|_| Vec::new()).collect();
        Self { range, buckets, gathered: Vec::new(), gathered_bytes: 0, has_news: false }
    }

    /// Whether a group may not be what was given of it.
    pub(crate) fn has_news(&self) -> bool {
        self.has_news
    }

    /// Writes folded rows, sorted by key group.
    ///
    /// - `given`: each is what was given of its group.
    ///
    /// # Errors
    /// [`EngineError::Spill`] if the disk refuses.
    pub(crate) fn keep(&mut self, files: &mut SpillFiles, partial: &RecordBatch, given: bool) -> Result<(), EngineError> {
        self.has_news |= !given;
        self.write(files, Rows::Partial, partial, partial.column(0))
    }

    /// Bytes held in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.gathered_bytes
    }

    /// Appends rows of this pane.
    ///
    /// # Errors
    /// [`EngineError::Spill`] if the disk refuses.
    pub(crate) fn append(
        &mut self,
        files: &mut SpillFiles,
        shape: &PaneShape,
        rows: Rows,
        batch: &RecordBatch,
    ) -> Result<(), EngineError> {
        self.has_news = true;
        self.gathered_bytes += batch.get_array_memory_size();
        self.gathered.push((rows, batch.clone()));
        if self.gathered_bytes < GATHERED_BYTES_MAX { Ok(()) } else { self.flush(files, shape) }
    }

    /// Folds bucket `bucket` of [`Self::bucket_count`]; all of them, ascending, are the pane in the order of its key groups.
    ///
    /// # Errors
    /// [`EngineError::Spill`] if the disk does not give back what was written.
    pub(crate) fn fold(
        &mut self,
        files: &mut SpillFiles,
        shape: &PaneShape,
        bucket: usize,
        scratch: &mut Vec<usize>,
    ) -> Result<Option<PaneTable>, EngineError> {
        self.flush(files, shape)?;
        if self.buckets[bucket].is_empty() {
            return Ok(None);
        }
        let mut table = PaneTable::new(shape)?;
        for (rows, run) in &self.buckets[bucket] {
            for batch in run.read()? {
                match rows {
                    Rows::Partial => table.merge(shape, &batch, scratch)?,
                    Rows::Raw => table.update(shape, &batch, scratch)?,
                }
            }
        }
        Ok(Some(table))
    }

    /// Number of buckets.
    pub(crate) const fn bucket_count() -> usize {
        BUCKETS
    }

    /// Writes what was gathered, runs of one kind at a time: the order of a key's rows never changes.
    pub(crate) fn flush(&mut self, files: &mut SpillFiles, shape: &PaneShape) -> Result<(), EngineError> {
        let gathered = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        for run in gathered.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((rows, first)) = run.first() else { continue };
            let batch = concat_batches(&first.schema(), run.iter().map(|(_, batch)| batch))?;
            match rows {
                Rows::Partial => {
                    let sorted = sorted_by_key_group(&batch, 0, shape.key_group_count())?;
                    self.write(files, Rows::Partial, &sorted, sorted.column(0))?;
                }
                Rows::Raw => {
                    let groups = shape.key_groups(&batch.columns()[1..=shape.key_count()], batch.num_rows())?;
                    let (order, _) = sort_by_key_group(&groups, shape.key_group_count());
                    let sorted = take_record_batch(&batch, &order)?;
                    let groups: ArrayRef = datafusion::arrow::compute::take(&groups, &order, None)?;
                    self.write(files, Rows::Raw, &sorted, &groups)?;
                }
            }
        }
        Ok(())
    }

    /// Writes rows sorted by `groups`, cut into buckets.
    fn write(&mut self, files: &mut SpillFiles, rows: Rows, sorted: &RecordBatch, groups: &ArrayRef) -> Result<(), EngineError> {
        let groups: &UInt16Array = groups.as_primitive::<UInt16Type>();
        let mut start = 0;
        while start < sorted.num_rows() {
            let bucket = bucket_of(self.range, groups.value(start));
            let length = groups.values()[start..].partition_point(|group| bucket_of(self.range, *group) <= bucket);
            self.buckets[bucket].push((rows, files.append(&sorted.slice(start, length))?));
            start += length;
        }
        Ok(())
    }
}

/// Bucket of a key group. Those outside the shard's range, which are none, belong to the outermost buckets.
fn bucket_of((first, count): (u16, u16), group: u16) -> usize {
    let place = usize::from(group.saturating_sub(first)) * BUCKETS / usize::from(count);
    place.min(BUCKETS - 1)
}

//! A keyed table that has no room in memory: cut by key group into buckets, of which some are held and the others lie on disk.
//!
//! ```text
//!                        few of its rows: --ask by hash ([`super::stretch`])--> a small table of the touched rows --+
//! batch --by bucket-->                                                                                              |--apply--> changes
//!                        many of them: --read, as it was written--> held: index and all rows -----------------------+
//!                             ^                                                                                     |
//!                             `--- rows written since; all anew once the disk has twice as many as there are keys --'
//! ```
//! The hashes of each touched bucket are read once a batch, so large batches cost least. Of the buckets that are held what a batch did last
//! is spilled first: batches touch buckets in ascending order, so those that stay are there when the next one comes.
//!
//! A bucket's rows lie in the order in which they were written, and changes are told by key group: which buckets are held, and which are
//! asked, changes no bit of results or checkpoints (R1).

use std::collections::BTreeMap;
use std::path::PathBuf;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{SchemaRef, UInt16Type};
use weir_state::key_sort::sorted_by_key_group;

use super::disk::{APPENDED_MAX, Disk};
use super::held::{HeldTable, Part, Written};
use super::lifetime::Lifetime;
use super::stretch::StretchFiles;
use super::{Change, PASS_ROWS, TablePass};
use crate::EngineError;
use crate::chunks::slice_bytes;
use crate::merge::Extent;
use crate::open_panes::StateBudget;
use crate::pane_table::PaneShape;
use crate::spill_files::SpillFiles;

/// Parts of a table that are held one by one.
const BUCKETS: usize = 256;
/// Bytes of a file: buckets are written anew one by one.
const FILE_BYTES: u64 = 64 << 20;
/// Rows that a bucket has on disk for each that a batch brings, from which on it is asked and not read.
const ASKED_FROM: usize = 4;

/// Buckets by number: ascending key groups.
pub(super) struct Buckets {
    schema: SchemaRef,
    /// First key group and key groups of all buckets.
    range: (u16, u16),
    buckets: Vec<Bucket>,
    files: StretchFiles,
    bytes_max: usize,
    /// Bytes of all buckets that are held.
    held: usize,
    /// Counts uses.
    uses: u64,
}

/// One bucket: what is on disk, and all of it in memory, if it is held.
#[derive(Default)]
struct Bucket {
    disk: Disk,
    held: Option<Held>,
    /// When it was last looked through for forgotten keys.
    turn: Option<i64>,
}

struct Held {
    rows: HeldTable,
    bytes: usize,
    used: u64,
}

impl Buckets {
    /// Writes `table` to disk.
    ///
    /// # Errors
    /// [`EngineError::Spill`] if the disk refuses.
    pub(super) fn of(
        shape: &PaneShape,
        lifetime: Lifetime,
        table: &HeldTable,
        budget: &StateBudget,
    ) -> Result<Self, EngineError> {
        let (unchanged, changed) = table.living_slots(lifetime, Part::All)?;
        let unchanged = table.by_key_group(shape, &unchanged)?;
        let changed = table.by_key_group(shape, &changed)?;
        let mut buckets = Self::new(shape, table.schema(), budget);
        for (slots, written) in [(unchanged, Written::BeforeCheckpoint), (changed, Written::SinceCheckpoint)] {
            for part in slots.chunks(PASS_ROWS) {
                buckets.append(shape, &table.gather(part)?, written)?;
            }
        }
        for (number, bucket) in buckets.buckets.iter_mut().enumerate() {
            bucket.turn = lifetime.turn(number, BUCKETS);
            bucket.disk.is_restored = false;
        }
        Ok(buckets)
    }

    fn new(shape: &PaneShape, schema: &SchemaRef, budget: &StateBudget) -> Self {
        let files = SpillFiles::new(PathBuf::clone(&budget.folder)).with_file_bytes(FILE_BYTES);
        let files = StretchFiles::new(files, 2..2 + shape.key_count());
        let disk = |number| Disk { appended: number % APPENDED_MAX, ..Disk::default() };
        let buckets = (0..BUCKETS).map(|number| Bucket { disk: disk(number), ..Bucket::default() }).collect();
        let (range, bytes_max) = (budget.range(shape), budget.bytes_max);
        Self { schema: SchemaRef::clone(schema), range, buckets, files, bytes_max, held: 0, uses: 0 }
    }

    pub(super) fn groups(&self) -> usize {
        self.buckets.iter().map(Bucket::groups).sum()
    }

    pub(super) fn changed(&self) -> usize {
        self.buckets.iter().map(Bucket::changed).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.held
    }

    /// Folds partial rows, in order, bucket by bucket; `None` if nothing changed.
    pub(super) fn apply(
        &mut self,
        shape: &PaneShape,
        lifetime: Lifetime,
        partials: Vec<RecordBatch>,
        wants_before: bool,
    ) -> Result<Option<Change>, EngineError> {
        self.sweep(shape, lifetime)?;
        let mut under_way: usize = partials.iter().map(slice_bytes).sum();
        let mut changes = Vec::new();
        let parts = self.split(shape, &partials)?;
        drop(partials);
        for (bucket, rows) in parts {
            let change = if self.is_asked(shape, bucket, &rows) {
                self.make_room(lifetime, under_way)?;
                self.ask(shape, lifetime, bucket, &rows, wants_before)?
            } else {
                self.hold(shape, lifetime, bucket, under_way)?;
                let Some(held) = &mut self.buckets[bucket].held else { continue };
                held.rows.apply(shape, lifetime, &rows, wants_before)?
            };
            under_way += change.as_ref().map_or(0, Change::bytes);
            changes.extend(change);
            self.measure(bucket);
        }
        self.make_room_beside_one(lifetime)?;
        Change::joined(changes)
    }

    /// Whether of a bucket only the touched rows are read. An order of all its values needs all of them.
    fn is_asked(&self, shape: &PaneShape, number: usize, rows: &[RecordBatch]) -> bool {
        let Bucket { disk, held, .. } = &self.buckets[number];
        let touched: usize = rows.iter().map(RecordBatch::num_rows).sum();
        held.is_none()
            && !shape.is_ordered()
            && disk.rows >= ASKED_FROM * touched
            && !disk.is_restored
            && !disk.is_long(0, disk.groups)
    }

    /// Folds rows into those of their keys that a bucket has on disk, and writes what is new behind them.
    fn ask(
        &mut self,
        shape: &PaneShape,
        lifetime: Lifetime,
        number: usize,
        rows: &[RecordBatch],
        wants_before: bool,
    ) -> Result<Option<Change>, EngineError> {
        let disk = &mut self.buckets[number].disk;
        let sought = self.files.sought(rows)?;
        let mut table = HeldTable::new(shape, &self.schema)?;
        for stretch in &disk.stretches {
            if let Some(found) = self.files.find(stretch, &sought)? {
                table.restore(shape, &found, stretch.written)?;
            }
        }
        table.saved();
        let (groups, changed) = (table.groups(), table.changed());
        let change = table.apply(shape, lifetime, rows, wants_before)?;
        disk.appended += usize::from(table.unsaved() > 0);
        disk.append_rows(&mut self.files, lifetime, &table, Part::Unsaved)?;
        disk.groups += table.groups() - groups;
        disk.changed += table.changed() - changed;
        Ok(change)
    }

    /// Puts rows of a checkpoint in the place of earlier ones of their keys, without reading these.
    ///
    /// # Errors
    /// [`EngineError::Spill`] if the disk refuses.
    pub(super) fn restore(&mut self, shape: &PaneShape, lifetime: Lifetime, rows: &RecordBatch) -> Result<(), EngineError> {
        self.make_room(lifetime, usize::MAX)?;
        self.append(shape, rows, Written::BeforeCheckpoint)
    }

    /// The next rows of a checkpoint, bucket by bucket; `None` after the last.
    pub(super) fn store_next(
        &mut self,
        shape: &PaneShape,
        lifetime: Lifetime,
        pass: &mut TablePass,
    ) -> Result<Option<RecordBatch>, EngineError> {
        while pass.bucket < BUCKETS {
            if let Some(rows) = self.store_next_of(shape, lifetime, pass)? {
                return Ok(Some(rows));
            }
            self.buckets[pass.bucket].checkpointed();
            *pass = TablePass { bucket: pass.bucket + 1, ..TablePass::new(pass.extent) };
        }
        Ok(None)
    }

    fn store_next_of(
        &mut self,
        shape: &PaneShape,
        lifetime: Lifetime,
        pass: &mut TablePass,
    ) -> Result<Option<RecordBatch>, EngineError> {
        let bucket = &self.buckets[pass.bucket];
        let is_empty = match pass.extent {
            Extent::Whole => bucket.groups() == 0,
            Extent::Changed => bucket.changed() == 0,
        };
        if is_empty {
            return Ok(None);
        }
        if bucket.held.is_none() && pass.read.is_none() {
            self.make_room(lifetime, self.buckets[pass.bucket].disk.bytes)?;
            pass.read = Some(self.read(shape, &self.buckets[pass.bucket].disk, pass.extent)?);
        }
        let held = self.buckets[pass.bucket].held.as_ref().map(|held| &held.rows);
        match held.or(pass.read.as_ref()) {
            Some(rows) => rows.store_next(shape, lifetime, pass.extent, &mut pass.given),
            None => Ok(None),
        }
    }

    /// Looks through the buckets whose turn it is; those on disk are read for it.
    fn sweep(&mut self, shape: &PaneShape, lifetime: Lifetime) -> Result<(), EngineError> {
        for number in 0..BUCKETS {
            let turn = lifetime.turn(number, BUCKETS);
            if self.buckets[number].turn == turn {
                continue;
            }
            self.buckets[number].turn = turn;
            if self.buckets[number].groups() == 0 {
                continue;
            }
            self.hold(shape, lifetime, number, 0)?;
            let bucket = &mut self.buckets[number];
            if let Some(held) = &mut bucket.held
                && held.rows.sweep(shape, lifetime)?
            {
                bucket.disk = Disk::default();
            }
            self.measure(number);
        }
        Ok(())
    }

    /// Rows of each bucket that a batch touches, in order.
    fn split(&self, shape: &PaneShape, partials: &[RecordBatch]) -> Result<BTreeMap<usize, Vec<RecordBatch>>, EngineError> {
        let mut parts: BTreeMap<usize, Vec<RecordBatch>> = BTreeMap::new();
        for rows in partials {
            for (bucket, part) in self.parts(shape, rows)? {
                parts.entry(bucket).or_default().push(part);
            }
        }
        Ok(parts)
    }

    /// Cuts rows by bucket, ascending.
    fn parts(&self, shape: &PaneShape, rows: &RecordBatch) -> Result<Vec<(usize, RecordBatch)>, EngineError> {
        let rows = sorted_by_key_group(rows, 0, shape.key_group_count())?;
        let groups = rows.column(0).as_primitive::<UInt16Type>().values();
        let (mut parts, mut start) = (Vec::new(), 0);
        while start < rows.num_rows() {
            let bucket = bucket_of(self.range, groups[start]);
            let length = groups[start..].partition_point(|group| bucket_of(self.range, *group) <= bucket);
            parts.push((bucket, rows.slice(start, length)));
            start += length;
        }
        Ok(parts)
    }

    /// Writes rows behind those of their buckets, none of which is held.
    fn append(&mut self, shape: &PaneShape, rows: &RecordBatch, written: Written) -> Result<(), EngineError> {
        for (bucket, part) in self.parts(shape, rows)? {
            let disk = &mut self.buckets[bucket].disk;
            for start in (0..part.num_rows()).step_by(PASS_ROWS) {
                disk.append(&mut self.files, &part.slice(start, PASS_ROWS.min(part.num_rows() - start)), written)?;
            }
            disk.is_restored |= written == Written::BeforeCheckpoint;
            disk.groups += part.num_rows();
            disk.changed += if written == Written::SinceCheckpoint { part.num_rows() } else { 0 };
        }
        Ok(())
    }

    /// Sees to it that a bucket is held.
    ///
    /// - `under_way`: bytes that the batch takes beside it.
    fn hold(&mut self, shape: &PaneShape, lifetime: Lifetime, number: usize, under_way: usize) -> Result<(), EngineError> {
        self.uses += 1;
        let used = self.uses;
        if let Some(held) = &mut self.buckets[number].held {
            held.used = used;
            return Ok(());
        }
        let wanted = self.buckets[number].disk.bytes.saturating_add(under_way);
        self.make_room(lifetime, wanted)?;
        let rows = self.read(shape, &self.buckets[number].disk, Extent::Whole)?;
        self.buckets[number].held = Some(Held { rows, bytes: 0, used });
        self.measure(number);
        Ok(())
    }

    /// Reads what is on disk; of what has changed only that.
    fn read(&self, shape: &PaneShape, disk: &Disk, extent: Extent) -> Result<HeldTable, EngineError> {
        let mut table = HeldTable::new(shape, &self.schema)?;
        for stretch in &disk.stretches {
            if extent == Extent::Whole || stretch.written == Written::SinceCheckpoint {
                for rows in stretch.read()? {
                    table.restore(shape, &rows, stretch.written)?;
                }
            }
        }
        table.saved();
        Ok(table)
    }

    fn measure(&mut self, number: usize) {
        if let Some(held) = &mut self.buckets[number].held {
            self.held -= held.bytes;
            held.bytes = held.rows.bytes();
            self.held += held.bytes;
        }
    }

    /// Spills buckets, the last used first, until there is room for so many bytes more, or none is held.
    fn make_room(&mut self, lifetime: Lifetime, wanted: usize) -> Result<(), EngineError> {
        while self.held.saturating_add(wanted) > self.bytes_max {
            let used = |bucket: &Bucket| bucket.held.as_ref().map(|held| held.used);
            let last = self.buckets.iter().enumerate().filter_map(|(number, bucket)| Some((used(bucket)?, number))).max();
            let Some((_, number)) = last else { break };
            self.spill(lifetime, number)?;
        }
        Ok(())
    }

    /// As [`Self::make_room`] for nothing more, but a bucket that is alone stays: it was held a moment ago, and would be read again.
    fn make_room_beside_one(&mut self, lifetime: Lifetime) -> Result<(), EngineError> {
        let mut held: Vec<(u64, usize)> =
            (self.buckets.iter().enumerate()).filter_map(|(number, bucket)| Some((bucket.held.as_ref()?.used, number))).collect();
        held.sort_unstable();
        while self.held > self.bytes_max && held.len() > 1 {
            if let Some((_, number)) = held.pop() {
                self.spill(lifetime, number)?;
            }
        }
        Ok(())
    }

    fn spill(&mut self, lifetime: Lifetime, number: usize) -> Result<(), EngineError> {
        let Bucket { disk, held, .. } = &mut self.buckets[number];
        let Some(Held { rows, bytes, .. }) = held.take() else { return Ok(()) };
        self.held -= bytes;
        disk.take(&mut self.files, lifetime, &rows)
    }
}

impl Bucket {
    fn groups(&self) -> usize {
        self.held.as_ref().map_or(self.disk.groups, |held| held.rows.groups())
    }

    fn changed(&self) -> usize {
        self.held.as_ref().map_or(self.disk.changed, |held| held.rows.changed())
    }

    /// A checkpoint has all of it.
    fn checkpointed(&mut self) {
        self.disk.changed = 0;
        self.disk.stretches.iter_mut().for_each(|stretch| stretch.written = Written::BeforeCheckpoint);
        if let Some(held) = &mut self.held {
            held.rows.checkpointed();
        }
    }
}

/// Bucket of a key group. Those outside the shard's range, which are none, belong to the outermost buckets.
fn bucket_of((first, count): (u16, u16), group: u16) -> usize {
    let place = usize::from(group.saturating_sub(first)) * BUCKETS / usize::from(count.max(1));
    place.min(BUCKETS - 1)
}

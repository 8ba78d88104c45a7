//! Rows of a keyed table, or of a bucket of it, in memory: an index of keys, and their newest rows in chunks.
//!
//! Rows are given away in the order in which they were written last, and taken back in it: so a table that was cut, swept, spilled or
//! restored gives the same bits as one that never was. What has changed since the last checkpoint was written after what has not.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt16Array};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{SchemaRef, UInt16Type};
use datafusion::arrow::error::ArrowError;
use datafusion::physical_plan::aggregates::group_values::GroupValues;
use weir_state::key_sort::sort_by_key_group;

use super::batch::{Selection, Touched, results};
use super::lifetime::{Lifetime, has_rows};
use super::order::Order;
use super::slots::{Marks, SlotSet, slot_number};
use super::{Change, PASS_ROWS};
use crate::EngineError;
use crate::chunks::Chunks;
use crate::merge::Extent;
use crate::pane_table::PaneShape;

/// Index and rows.
pub(super) struct HeldTable {
    keys: Option<Box<dyn GroupValues>>,
    slots: usize,
    schema: SchemaRef,
    chunks: Chunks,
    /// Since the last checkpoint.
    changed: Marks,
    /// Not on disk.
    unsaved: Marks,
    touched: SlotSet,
    /// Where the keys' values are asked for by their order.
    order: Option<Order>,
    /// Keys that lost their last row since the table was swept; some of them may have come back.
    deserted: usize,
}

impl std::fmt::Debug for HeldTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldTable").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl HeldTable {
    /// - `schema`: columns of rows, those of [`Lifetime::schema`].
    pub(super) fn new(shape: &PaneShape, schema: &SchemaRef) -> Result<Self, EngineError> {
        let chunks = Chunks::new(SchemaRef::clone(schema));
        let schema = SchemaRef::clone(schema);
        let keys = shape.new_keys()?;
        let (changed, unsaved, touched) = (Marks::default(), Marks::default(), SlotSet::default());
        let order = if shape.is_ordered() { Some(Order::new(shape)?) } else { None };
        Ok(Self { keys, slots: 0, schema, chunks, changed, unsaved, touched, order, deserted: 0 })
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn groups(&self) -> usize {
        self.slots
    }

    pub(super) fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Keys written since [`Self::saved`].
    pub(super) fn unsaved(&self) -> usize {
        self.unsaved.len()
    }

    /// Not free: asks every chunk.
    pub(super) fn bytes(&self) -> usize {
        let keys = self.keys.as_ref().map_or(0, |keys| keys.size());
        let order = self.order.as_ref().map_or(0, Order::bytes);
        keys + self.chunks.bytes() + self.changed.bytes() + self.unsaved.bytes() + self.touched.bytes() + order
    }

    /// Folds partial rows, in order; `None` if nothing changed.
    pub(super) fn apply(
        &mut self,
        shape: &PaneShape,
        lifetime: Lifetime,
        partials: &[RecordBatch],
        wants_before: bool,
    ) -> Result<Option<Change>, EngineError> {
        let (touched, old) = self.touch(shape, lifetime, partials)?;
        if touched.slots.is_empty() {
            return Ok(None);
        }
        let (first_state, upto) = (2 + shape.key_count(), shape.partial_schema.fields().len());
        let old = &old.columns()[first_state..upto];
        let new = touched.fold(shape, old, partials)?;
        let kept = touched.changed(old, &new)?;
        let rows = touched.rows(shape, partials, new)?;
        let said = Selection::new(&kept, touched.existing, &rows, shape.key_group_count());
        let columns = said.of(rows.columns())?;
        if lifetime.ends() {
            // Whatever was touched lives longer.
            let all = Selection::all(touched.existing, &rows, shape.key_group_count());
            self.store(lifetime, shape, all.of(rows.columns())?, all.slots(&touched))?;
        } else {
            self.store(lifetime, shape, columns.clone(), said.slots(&touched))?;
        }
        if said.len() == 0 {
            return Ok(None);
        }
        let before = if wants_before { Some(results(shape, &said.of_existing(old)?, said.existing)?) } else { None };
        let after = results(shape, &columns[first_state..], said.len())?;
        let keys = columns[1..first_state].to_vec();
        let extremes = match (&self.order, shape.rows_column()) {
            (Some(order), Some(rows)) => {
                // Only what comes or goes is told of.
                let has_rows = has_rows(columns[rows].as_ref());
                let flips: Vec<bool> =
                    has_rows.values().iter().enumerate().map(|(row, there)| there != (row < said.existing)).collect();
                Some(order.extremes(&keys[1..keys.len() - 1], &flips)?)
            }
            _ => None,
        };
        Ok(Some(Change { keys, after, existing: said.existing, before, extremes }))
    }

    /// The groups of the batch, and the rows of those that exist.
    fn touch(
        &mut self,
        shape: &PaneShape,
        lifetime: Lifetime,
        partials: &[RecordBatch],
    ) -> Result<(Touched, RecordBatch), EngineError> {
        let (mut first, mut by_batch) = (Vec::new(), Vec::with_capacity(partials.len()));
        for (number, rows) in partials.iter().enumerate() {
            let mut groups = Vec::with_capacity(rows.num_rows());
            self.intern(shape, rows, &mut groups)?;
            for (row, slot) in groups.iter_mut().enumerate() {
                let (group, is_new) = self.touched.insert(slot_number(*slot), self.slots);
                if is_new {
                    first.push((number, row));
                }
                *slot = group;
            }
            by_batch.push(groups);
        }
        let touched = Touched::new(self.touched.take(), first, by_batch);
        let mut exists: Vec<bool> = touched.slots.iter().map(|slot| self.chunks.has(*slot)).collect();
        let old = self.living_rows(lifetime, &touched.slots, &mut exists)?;
        Ok((touched.existing_first(&exists), old))
    }

    /// Rows of those `slots` that have one which is not forgotten, and which these are.
    ///
    /// - `exists`: of each slot whether it has a row.
    fn living_rows(&self, lifetime: Lifetime, slots: &[u32], exists: &mut [bool]) -> Result<RecordBatch, ArrowError> {
        let there: Vec<u32> = slots.iter().zip(&*exists).filter_map(|(slot, exists)| exists.then_some(*slot)).collect();
        let rows = self.chunks.gather(&there)?;
        let Some(living) = lifetime.there(&rows)? else { return Ok(rows) };
        for (exists, lives) in exists.iter_mut().filter(|exists| **exists).zip(living.values()) {
            *exists = lives;
        }
        filter_record_batch(&rows, &living)
    }

    /// Writes rows of a batch.
    fn store(
        &mut self,
        lifetime: Lifetime,
        shape: &PaneShape,
        columns: Vec<ArrayRef>,
        slots: Vec<u32>,
    ) -> Result<(), EngineError> {
        let rows = RecordBatch::try_new(SchemaRef::clone(&shape.partial_schema), columns)?;
        self.changed.extend(&slots, self.slots);
        self.unsaved.extend(&slots, self.slots);
        self.deserted += self.set_in_order(shape, &rows)?;
        Ok(self.chunks.append(lifetime.stamped(rows, &self.schema)?, slots)?)
    }

    /// Takes the newest rows of their keys into the order, if there is one. Returns how many of the keys have no rows.
    fn set_in_order(&mut self, shape: &PaneShape, rows: &RecordBatch) -> Result<usize, ArrowError> {
        let Some(column) = shape.rows_column() else { return Ok(0) };
        let living = has_rows(rows.column(column).as_ref());
        if let Some(order) = &mut self.order {
            order.take(shape, rows, &living)?;
        }
        Ok(living.len() - living.true_count())
    }

    /// Puts rows in the place of earlier ones of their keys; no key twice.
    pub(super) fn restore(&mut self, shape: &PaneShape, rows: &RecordBatch, written: Written) -> Result<(), EngineError> {
        let mut slots = Vec::new();
        self.intern(shape, rows, &mut slots)?;
        let slots: Vec<u32> = slots.into_iter().map(slot_number).collect();
        self.unsaved.extend(&slots, self.slots);
        if written == Written::SinceCheckpoint {
            self.changed.extend(&slots, self.slots);
        }
        self.deserted += self.set_in_order(shape, rows)?;
        Ok(self.chunks.append(rows.clone(), slots)?)
    }

    /// Drops keys without rows once they may be half of all. Cost: O(rows) where they are.
    pub(super) fn sweep_if_deserted(&mut self, shape: &PaneShape, lifetime: Lifetime) -> Result<(), EngineError> {
        if 2 * self.deserted >= self.slots.max(1) {
            self.deserted = 0;
            self.sweep(shape, lifetime)?;
        }
        Ok(())
    }

    /// Drops what is forgotten or gone, once it is half of the rows; returns whether it did. Cost: O(rows).
    pub(super) fn sweep(&mut self, shape: &PaneShape, lifetime: Lifetime) -> Result<bool, EngineError> {
        let (unchanged, changed) = self.living_slots(lifetime, Part::All)?;
        if 2 * (unchanged.len() + changed.len()) > self.slots {
            return Ok(false);
        }
        let mut swept = Self::new(shape, &self.schema)?;
        for (slots, written) in [(unchanged, Written::BeforeCheckpoint), (changed, Written::SinceCheckpoint)] {
            for part in slots.chunks(PASS_ROWS) {
                swept.restore(shape, &self.chunks.gather(part)?, written)?;
            }
        }
        *self = swept;
        Ok(true)
    }

    /// Slots that are not forgotten, in the order in which their rows were written: those that have not changed since the last
    /// checkpoint, and those that have. Of all slots those without rows are left out, unless the next checkpoint must have them.
    pub(super) fn living_slots(&self, lifetime: Lifetime, part: Part) -> Result<(Vec<u32>, Vec<u32>), ArrowError> {
        let slots = match part {
            Part::All => self.chunks.slots(),
            Part::Unsaved => self.chunks.in_order(self.unsaved.slots()),
        };
        let all = self.living(lifetime, slots)?;
        let (unchanged, changed): (Vec<u32>, Vec<u32>) = all.into_iter().partition(|slot| !self.changed.has(*slot));
        let unchanged = if part == Part::All { self.with_rows(lifetime, unchanged)? } else { unchanged };
        Ok((unchanged, changed))
    }

    /// Those of `slots` that have rows.
    fn with_rows(&self, lifetime: Lifetime, slots: Vec<u32>) -> Result<Vec<u32>, ArrowError> {
        match lifetime.rows_column() {
            Some(column) => self.kept(slots, column, |rows| Ok(Some(has_rows(rows)))),
            None => Ok(slots),
        }
    }

    /// Those of `slots` that are not forgotten.
    fn living(&self, lifetime: Lifetime, slots: Vec<u32>) -> Result<Vec<u32>, ArrowError> {
        if !lifetime.ends() {
            return Ok(slots);
        }
        self.kept(slots, self.schema.fields().len() - 1, |touched| lifetime.living(touched))
    }

    /// Those of `slots` whose values in `column` are kept; all if `keeps` has nothing against any.
    fn kept(
        &self,
        mut slots: Vec<u32>,
        column: usize,
        keeps: impl Fn(&dyn Array) -> Result<Option<BooleanArray>, ArrowError>,
    ) -> Result<Vec<u32>, ArrowError> {
        let mut kept = Vec::with_capacity(slots.len());
        for part in slots.chunks(PASS_ROWS) {
            if let Some(part) = keeps(self.chunks.gather_column(part, column)?.as_ref())? {
                kept.extend(part.values().iter());
            }
        }
        let mut kept = kept.into_iter();
        slots.retain(|_| kept.next().unwrap_or(true));
        Ok(slots)
    }

    /// The next rows of a checkpoint, by key group and then as they were written last; `None` after the last.
    pub(super) fn store_next(
        &self,
        shape: &PaneShape,
        lifetime: Lifetime,
        extent: Extent,
        given: &mut Given,
    ) -> Result<Option<RecordBatch>, EngineError> {
        if given.slots.is_none() {
            let slots = match extent {
                Extent::Whole => self.with_rows(lifetime, self.chunks.slots())?,
                Extent::Changed => self.chunks.in_order(self.changed.slots()),
            };
            given.slots = Some(self.by_key_group(shape, &self.living(lifetime, slots)?)?);
        }
        let rest = given.slots.as_ref().map_or(&[][..], |slots| &slots[given.rows..]);
        let part = &rest[..rest.len().min(PASS_ROWS)];
        given.rows += part.len();
        if part.is_empty() { Ok(None) } else { Ok(Some(self.gather(part)?)) }
    }

    /// Slots by key group, and then in their order.
    pub(super) fn by_key_group(&self, shape: &PaneShape, slots: &[u32]) -> Result<Vec<u32>, ArrowError> {
        let (order, _) = sort_by_key_group(&self.key_groups(slots)?, shape.key_group_count());
        Ok(order.values().iter().map(|&at| slots[at as usize]).collect())
    }

    fn key_groups(&self, slots: &[u32]) -> Result<UInt16Array, ArrowError> {
        let mut key_groups: Vec<u16> = Vec::with_capacity(slots.len());
        for part in slots.chunks(PASS_ROWS) {
            key_groups.extend_from_slice(self.chunks.gather_column(part, 0)?.as_primitive::<UInt16Type>().values());
        }
        Ok(key_groups.into())
    }

    pub(super) fn gather(&self, slots: &[u32]) -> Result<RecordBatch, ArrowError> {
        self.chunks.gather(slots)
    }

    /// A checkpoint has all of it.
    pub(super) fn checkpointed(&mut self) {
        self.changed.clear();
    }

    /// The disk has all of it.
    pub(super) fn saved(&mut self) {
        self.unsaved.clear();
    }

    fn intern(&mut self, shape: &PaneShape, rows: &RecordBatch, slots: &mut Vec<usize>) -> Result<(), EngineError> {
        slots.clear();
        match &mut self.keys {
            Some(keys) => {
                keys.intern(&rows.columns()[2..2 + shape.key_count()], slots)?;
                self.slots = keys.len();
            }
            None => {
                slots.resize(rows.num_rows(), 0);
                self.slots = usize::from(rows.num_rows() > 0 || self.slots > 0);
            }
        }
        Ok(())
    }
}

/// Which rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of them.
    All,
    /// Those written since [`HeldTable::saved`].
    Unsaved,
}

/// What a checkpoint has of a table so far.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// All slots, in the order of the checkpoint's rows; `None` before the first.
    slots: Option<Vec<u32>>,
    rows: usize,
}

/// When rows were written that are put back into a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// The last checkpoint has them, or an earlier one.
    BeforeCheckpoint,
    /// The next checkpoint of what has changed must have them.
    SinceCheckpoint,
}

//! The keyed table: the newest partial of every key, and what a batch changed.
//!
//! ```text
//! partials --intern--> touched slots --gather--> old partials --merge with the new in a small accumulator--> new partials
//!                                                     |                                                         |
//!                                                     `--evaluate--> results before        results after <--evaluate, append to chunks
//! ```
//! Why not one large accumulator: giving its values resets them, and cannot be asked of some groups only. Here a batch costs what it
//! touches, whatever the table holds. Between batches the state is rows, so where a checkpoint falls changes no bit (RP-1).
//!
//! Rows have the columns of [`PaneShape::partial_schema`]; a checkpoint's are sorted by key group, each key once.
//! Never: keeps a row whose partial did not change, or gives a result that did not.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::kernels::cmp::not_distinct;
use datafusion::arrow::compute::{and, filter, filter_record_batch, interleave};
use datafusion::arrow::datatypes::UInt16Type;
use datafusion::arrow::error::ArrowError;
use datafusion::physical_plan::aggregates::group_values::GroupValues;
use weir_state::key_sort::sort_by_key_group;

use crate::EngineError;
use crate::chunks::Chunks;
use crate::merge::Extent;
use crate::pane_table::PaneShape;

/// Rows of a checkpoint that are gathered at a time.
const PASS_ROWS: usize = 1 << 16;

/// What a batch changed, group by group: those that had a result before first, each part in the order in which they were touched.
#[derive(Debug)]
pub(crate) struct Change {
    /// Keys (columns `__pane`, keys) of the changed groups.
    pub(crate) keys: Vec<ArrayRef>,
    /// Their results.
    pub(crate) after: Vec<ArrayRef>,
    /// How many of them, the first, had a result before.
    pub(crate) existing: usize,
    /// Those results, if they were asked for.
    pub(crate) before: Option<Vec<ArrayRef>>,
}

impl Change {
    /// Number of changed groups.
    pub(crate) fn groups(&self) -> usize {
        self.keys[0].len()
    }
}

/// How far a checkpoint of a table has come.
#[derive(Debug)]
pub(crate) struct TablePass {
    extent: Extent,
    /// Slots in the order of their rows, once begun.
    slots: Option<Vec<u32>>,
    given: usize,
}

impl TablePass {
    pub(crate) fn new(extent: Extent) -> Self {
        Self { extent, slots: None, given: 0 }
    }
}

/// The newest partial of every key.
pub(crate) struct KeyedTable {
    keys: Option<Box<dyn GroupValues>>,
    slots: usize,
    chunks: Chunks,
    changed: SlotSet,
    touched: SlotSet,
}

impl std::fmt::Debug for KeyedTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyedTable").field("slots", &self.slots).finish_non_exhaustive()
    }
}

/// Groups that a batch touches. Those that exist come first: an accumulator takes it that each group below the number it is told has
/// been given a row, so none may be named before its first.
struct Touched {
    slots: Vec<u32>,
    /// How many of them exist.
    existing: usize,
    /// Batch and row where each came first.
    first: Vec<(usize, usize)>,
    /// By batch, the group of each row.
    groups: Vec<Vec<usize>>,
}

impl Touched {
    /// Numbers the groups, which lie in the order in which they were touched, anew.
    fn existing_first(self, exists: impl Fn(u32) -> bool) -> Self {
        let (mut order, new): (Vec<usize>, Vec<usize>) = (0..self.slots.len()).partition(|group| exists(self.slots[*group]));
        let existing = order.len();
        order.extend(new);
        let mut numbers = vec![0; order.len()];
        for (number, group) in order.iter().enumerate() {
            numbers[*group] = number;
        }
        let mut groups = self.groups;
        groups.iter_mut().flatten().for_each(|group| *group = numbers[*group]);
        let slots = order.iter().map(|group| self.slots[*group]).collect();
        Self { slots, existing, first: order.iter().map(|group| self.first[*group]).collect(), groups }
    }

    /// Groups that have been given a row once `batch` is folded.
    fn seen_after(&self, batch: usize) -> usize {
        self.existing + self.first[self.existing..].partition_point(|(number, _)| *number <= batch)
    }
}

impl KeyedTable {
    pub(crate) fn new(shape: &PaneShape) -> Result<Self, EngineError> {
        let chunks = Chunks::new(Arc::clone(&shape.partial_schema));
        Ok(Self { keys: shape.new_keys()?, slots: 0, chunks, changed: SlotSet::default(), touched: SlotSet::default() })
    }

    /// Distinct keys.
    pub(crate) fn groups(&self) -> usize {
        self.slots
    }

    /// Keys that have changed since the last checkpoint.
    pub(crate) fn changed(&self) -> usize {
        self.changed.slots.len()
    }

    /// Bytes held. Not free: asks every chunk.
    pub(crate) fn bytes(&self) -> usize {
        self.keys.as_ref().map_or(0, |keys| keys.size()) + self.chunks.bytes() + self.changed.bytes() + self.touched.bytes()
    }

    /// Folds partial rows, in order; `None` if nothing changed.
    ///
    /// Cost: O(rows) and O(touched keys), amortised with the logarithm of the table.
    pub(crate) fn apply(
        &mut self,
        shape: &PaneShape,
        partials: &[RecordBatch],
        wants_before: bool,
    ) -> Result<Option<Change>, EngineError> {
        let touched = self.touch(shape, partials)?;
        if touched.slots.is_empty() {
            return Ok(None);
        }
        let first_state = 2 + shape.key_count();
        let old = self.chunks.gather(&touched.slots[..touched.existing])?;
        let old = &old.columns()[first_state..];
        let new = fold(shape, &touched, old, partials)?;
        let kept = changed_groups(&touched, old, &new)?;
        if kept.true_count() == 0 {
            return Ok(None);
        }
        let before = if wants_before { Some(results_before(shape, old, &kept.slice(0, touched.existing))?) } else { None };
        let rows = filter_record_batch(&rows_of(shape, &touched, partials, new)?, &kept)?;
        let after = results(shape, &rows.columns()[first_state..], rows.num_rows())?;
        let keys = rows.columns()[1..first_state].to_vec();
        let slots = only(&touched.slots, &kept);
        self.changed.extend(&slots, self.slots);
        self.chunks.append(rows, slots)?;
        let existing = kept.slice(0, touched.existing).true_count();
        Ok(Some(Change { keys, after, existing, before }))
    }

    /// Puts rows of a checkpoint in the place of earlier ones of their keys; no key twice.
    pub(crate) fn restore(&mut self, shape: &PaneShape, rows: &RecordBatch) -> Result<(), EngineError> {
        let mut slots = Vec::new();
        self.intern(shape, rows, &mut slots)?;
        Ok(self.chunks.append(rows.clone(), slots.into_iter().map(slot_number).collect())?)
    }

    /// The next rows of a checkpoint; `None` after the last.
    pub(crate) fn store_next(&mut self, shape: &PaneShape, pass: &mut TablePass) -> Result<Option<RecordBatch>, EngineError> {
        let slots = match pass.slots.take() {
            Some(slots) => slots,
            None => self.slots_by_key_group(shape, pass.extent)?,
        };
        let part = &slots[pass.given..slots.len().min(pass.given + PASS_ROWS)];
        if part.is_empty() {
            self.changed.clear();
            pass.slots = Some(slots);
            return Ok(None);
        }
        let rows = self.chunks.gather(part)?;
        pass.given += part.len();
        pass.slots = Some(slots);
        Ok(Some(rows))
    }

    fn slots_by_key_group(&self, shape: &PaneShape, extent: Extent) -> Result<Vec<u32>, EngineError> {
        let slots: Vec<u32> = match extent {
            Extent::Whole => (0..slot_number(self.slots)).collect(),
            Extent::Changed => self.changed.slots.clone(),
        };
        let mut key_groups: Vec<u16> = Vec::with_capacity(slots.len());
        for part in slots.chunks(PASS_ROWS) {
            key_groups.extend_from_slice(self.chunks.gather(part)?.column(0).as_primitive::<UInt16Type>().values());
        }
        let (order, _) = sort_by_key_group(&key_groups.into(), shape.key_group_count());
        Ok(order.values().iter().map(|&at| slots[at as usize]).collect())
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

    fn touch(&mut self, shape: &PaneShape, partials: &[RecordBatch]) -> Result<Touched, EngineError> {
        let mut touched =
            Touched { slots: Vec::new(), existing: 0, first: Vec::new(), groups: Vec::with_capacity(partials.len()) };
        for (number, rows) in partials.iter().enumerate() {
            let mut groups = Vec::with_capacity(rows.num_rows());
            self.intern(shape, rows, &mut groups)?;
            for (row, slot) in groups.iter_mut().enumerate() {
                let (group, is_new) = self.touched.insert(slot_number(*slot), self.slots);
                if is_new {
                    touched.first.push((number, row));
                }
                *slot = group;
            }
            touched.groups.push(groups);
        }
        touched.slots = self.touched.take();
        Ok(touched.existing_first(|slot| self.chunks.has(slot)))
    }
}

/// New partials of the touched groups: old ones first, then the batch's in order.
fn fold(shape: &PaneShape, touched: &Touched, old: &[ArrayRef], partials: &[RecordBatch]) -> Result<Vec<ArrayRef>, EngineError> {
    let mut accumulators = shape.accumulators()?;
    let existing: Vec<usize> = (0..touched.existing).collect();
    accumulators.merge(shape, old, &existing, touched.existing)?;
    for (number, (rows, groups)) in partials.iter().zip(&touched.groups).enumerate() {
        accumulators.merge(shape, &rows.columns()[2 + shape.key_count()..], groups, touched.seen_after(number))?;
    }
    accumulators.states()
}

/// Groups that are new, or whose partial is another than before, bit by bit.
fn changed_groups(touched: &Touched, old: &[ArrayRef], new: &[ArrayRef]) -> Result<BooleanArray, ArrowError> {
    let mut same = BooleanArray::from(vec![true; touched.existing]);
    for (old, new) in old.iter().zip(new) {
        same = and(&same, &not_distinct(old, &new.slice(0, touched.existing))?)?;
    }
    let new = std::iter::repeat_n(Some(true), touched.slots.len() - touched.existing);
    Ok(same.iter().map(|same| same.map(|same| !same)).chain(new).collect())
}

/// Whole rows of the touched groups: keys from where they came first, and the new partials.
fn rows_of(
    shape: &PaneShape,
    touched: &Touched,
    partials: &[RecordBatch],
    new: Vec<ArrayRef>,
) -> Result<RecordBatch, ArrowError> {
    let mut columns = Vec::with_capacity(shape.partial_schema.fields().len());
    for column in 0..2 + shape.key_count() {
        let sources: Vec<&dyn Array> = partials.iter().map(|rows| rows.column(column).as_ref()).collect();
        columns.push(interleave(&sources, &touched.first)?);
    }
    columns.extend(new);
    RecordBatch::try_new(Arc::clone(&shape.partial_schema), columns)
}

/// Results of partials, each a group of its own.
fn results(shape: &PaneShape, states: &[ArrayRef], count: usize) -> Result<Vec<ArrayRef>, EngineError> {
    let mut accumulators = shape.accumulators()?;
    let groups: Vec<usize> = (0..count).collect();
    accumulators.merge(shape, states, &groups, count)?;
    accumulators.results()
}

/// Earlier results of the existing groups that are kept.
fn results_before(shape: &PaneShape, old: &[ArrayRef], kept: &BooleanArray) -> Result<Vec<ArrayRef>, EngineError> {
    let states = old.iter().map(|column| filter(column, kept)).collect::<Result<Vec<_>, _>>()?;
    results(shape, &states, kept.true_count())
}

fn only(slots: &[u32], kept: &BooleanArray) -> Vec<u32> {
    kept.values().set_indices().map(|at| slots[at]).collect()
}

fn slot_number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

/// Slots in the order in which they were put in, each once.
#[derive(Debug, Default)]
struct SlotSet {
    slots: Vec<u32>,
    /// By slot: its place in `slots`, from 1; 0 if it is not in.
    places: Vec<u32>,
}

impl SlotSet {
    /// Place of `slot`, one of `count`, and whether it is new.
    fn insert(&mut self, slot: u32, count: usize) -> (usize, bool) {
        if self.places.len() < count {
            self.places.resize(count, 0);
        }
        let place = &mut self.places[slot as usize];
        let is_new = *place == 0;
        if is_new {
            self.slots.push(slot);
            *place = slot_number(self.slots.len());
        }
        (*place as usize - 1, is_new)
    }

    fn extend(&mut self, slots: &[u32], count: usize) {
        for slot in slots {
            self.insert(*slot, count);
        }
    }

    fn clear(&mut self) {
        self.take();
    }

    /// Empties it. Cost: O(slots in it).
    fn take(&mut self) -> Vec<u32> {
        let slots = std::mem::take(&mut self.slots);
        for slot in &slots {
            self.places[*slot as usize] = 0;
        }
        slots
    }

    fn bytes(&self) -> usize {
        (self.slots.capacity() + self.places.capacity()) * size_of::<u32>()
    }
}

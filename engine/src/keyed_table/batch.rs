//! What one batch does to the groups that it touches: which they are, their new partials, which of them changed.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt16Array, UInt32Array};
use datafusion::arrow::compute::kernels::cmp::not_distinct;
use datafusion::arrow::compute::{and, interleave, take_arrays};
use datafusion::arrow::datatypes::UInt16Type;
use datafusion::arrow::error::ArrowError;
use weir_state::key_sort::sort_by_key_group;

use crate::EngineError;
use crate::pane_table::PaneShape;

/// Groups that a batch touches. Those that exist come first: an accumulator takes it that each group below the number it is told has
/// been given a row, so none may be named before its first.
pub(super) struct Touched {
    pub(super) slots: Vec<u32>,
    /// How many of them exist.
    pub(super) existing: usize,
    /// Batch and row where each came first.
    first: Vec<(usize, usize)>,
    /// By batch, the group of each row.
    groups: Vec<Vec<usize>>,
}

impl Touched {
    /// - `first`, `groups`: of groups in the order in which they were touched, none of which exists so far.
    pub(super) fn new(slots: Vec<u32>, first: Vec<(usize, usize)>, groups: Vec<Vec<usize>>) -> Self {
        Self { slots, existing: 0, first, groups }
    }

    /// Numbers the groups anew, those that exist first.
    pub(super) fn existing_first(self, exists: &[bool]) -> Self {
        let (mut order, new): (Vec<usize>, Vec<usize>) = (0..self.slots.len()).partition(|group| exists[*group]);
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

    /// New partials: old ones first, then the batch's in order.
    pub(super) fn fold(
        &self,
        shape: &PaneShape,
        old: &[ArrayRef],
        partials: &[RecordBatch],
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let mut accumulators = shape.accumulators()?;
        let existing: Vec<usize> = (0..self.existing).collect();
        accumulators.merge(shape, old, &existing, self.existing)?;
        for (number, (rows, groups)) in partials.iter().zip(&self.groups).enumerate() {
            accumulators.merge(shape, &rows.columns()[2 + shape.key_count()..], groups, self.seen_after(number))?;
        }
        accumulators.states()
    }

    /// Whole rows: keys from where they came first, and the new partials.
    pub(super) fn rows(
        &self,
        shape: &PaneShape,
        partials: &[RecordBatch],
        new: Vec<ArrayRef>,
    ) -> Result<RecordBatch, ArrowError> {
        let mut columns = Vec::with_capacity(shape.partial_schema.fields().len());
        for column in 0..2 + shape.key_count() {
            let sources: Vec<&dyn Array> = partials.iter().map(|rows| rows.column(column).as_ref()).collect();
            columns.push(interleave(&sources, &self.first)?);
        }
        columns.extend(new);
        RecordBatch::try_new(Arc::clone(&shape.partial_schema), columns)
    }

    /// Groups that are new, or whose partial is another than before, bit by bit.
    pub(super) fn changed(&self, old: &[ArrayRef], new: &[ArrayRef]) -> Result<BooleanArray, ArrowError> {
        let mut same = BooleanArray::from(vec![true; self.existing]);
        for (old, new) in old.iter().zip(new) {
            same = and(&same, &not_distinct(old, &new.slice(0, self.existing))?)?;
        }
        let new = std::iter::repeat_n(Some(true), self.slots.len() - self.existing);
        Ok(same.iter().map(|same| same.map(|same| !same)).chain(new).collect())
    }
}

/// Some of the touched groups, in the order in which they are told and stored: those that exist first, both parts by key group, and
/// then as they were touched. So the order does not depend on how the table is cut into buckets.
pub(super) struct Selection {
    groups: UInt32Array,
    pub(super) existing: usize,
    /// Whether it is all groups as they lie.
    is_all: bool,
}

impl Selection {
    /// - `rows`: of all touched groups, of which the first `existing` exist.
    pub(super) fn new(kept: &BooleanArray, existing: usize, rows: &RecordBatch, key_groups: u16) -> Self {
        let all: Vec<u32> = (0u32..).zip(kept.values()).filter_map(|(group, kept)| kept.then_some(group)).collect();
        let existing = all.partition_point(|group| (*group as usize) < existing);
        let groups = rows.column(0).as_primitive::<UInt16Type>();
        let mut order = by_key_group(&all[..existing], groups, key_groups);
        order.extend(by_key_group(&all[existing..], groups, key_groups));
        let is_all = order.len() == rows.num_rows() && order.is_sorted();
        Self { groups: order.into(), existing, is_all }
    }

    /// All of them.
    pub(super) fn all(existing: usize, rows: &RecordBatch, key_groups: u16) -> Self {
        Self::new(&BooleanArray::from(vec![true; rows.num_rows()]), existing, rows, key_groups)
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Values of these groups.
    pub(super) fn of(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ArrowError> {
        if self.is_all {
            return Ok(columns.to_vec());
        }
        take_arrays(columns, &self.groups, None)
    }

    /// Values of those that exist.
    pub(super) fn of_existing(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ArrowError> {
        take_arrays(columns, &self.groups.slice(0, self.existing), None)
    }

    pub(super) fn slots(&self, touched: &Touched) -> Vec<u32> {
        self.groups.values().iter().map(|group| touched.slots[*group as usize]).collect()
    }
}

fn by_key_group(groups: &[u32], of_all: &UInt16Array, count: u16) -> Vec<u32> {
    let key_groups: Vec<u16> = groups.iter().map(|group| of_all.value(*group as usize)).collect();
    if key_groups.is_sorted() {
        return groups.to_vec();
    }
    let (order, _) = sort_by_key_group(&key_groups.into(), count);
    order.values().iter().map(|at| groups[*at as usize]).collect()
}

/// Results of partials, each a group of its own.
pub(super) fn results(shape: &PaneShape, states: &[ArrayRef], count: usize) -> Result<Vec<ArrayRef>, EngineError> {
    let mut accumulators = shape.accumulators()?;
    let groups: Vec<usize> = (0..count).collect();
    accumulators.merge(shape, states, &groups, count)?;
    accumulators.results()
}

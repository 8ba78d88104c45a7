//! MIN and MAX of values that come and go: a group's partial is the extreme that its set was found to have last.
//!
//! | column of the partial | type | meaning |
//! | --- | --- | --- |
//! | `told` | Boolean | whether the set has said anything; false in what is sent to it |
//! | `value` | the values' | the extreme; NULL of a set without values |
//!
//! Why not a minimum that is merged: once its value is gone, only the set knows the next.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, new_null_array};
use datafusion::arrow::compute::interleave;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

/// Columns of the partial of values of this type.
pub(crate) fn parts(values: &DataType) -> [(&'static str, DataType); 2] {
    [("told", DataType::Boolean), ("value", values.clone())]
}

/// An accumulator without groups.
pub(crate) fn accumulator(values: &DataType) -> Box<dyn GroupsAccumulator> {
    Box::new(Extremes { batches: vec![new_null_array(values, 1)], last: Vec::new() })
}

/// The last extreme that each group was told.
struct Extremes {
    /// What was told; the first batch is the NULL of groups that were told nothing.
    batches: Vec<ArrayRef>,
    /// By group: batch and row.
    last: Vec<(usize, usize)>,
}

const NOTHING: (usize, usize) = (0, 0);

impl Extremes {
    fn tell(&mut self, values: &ArrayRef, groups: &[usize], count: usize, is_told: impl Fn(usize) -> bool) {
        self.last.resize(count.max(self.last.len()), NOTHING);
        for (row, group) in groups.iter().enumerate().filter(|(row, _)| is_told(*row)) {
            self.last[*group] = (self.batches.len(), row);
        }
        self.batches.push(Arc::clone(values));
    }

    fn take(&mut self, emit_to: EmitTo) -> Result<(BooleanArray, ArrayRef)> {
        let places = emit_to.take_needed(&mut self.last);
        let told = places.iter().map(|place| Some(*place != NOTHING)).collect();
        let batches: Vec<&dyn Array> = self.batches.iter().map(AsRef::as_ref).collect();
        let values = if places.is_empty() { self.batches[0].slice(0, 0) } else { interleave(&batches, &places)? };
        if self.last.is_empty() {
            self.batches.truncate(1);
        }
        Ok((told, values))
    }
}

impl GroupsAccumulator for Extremes {
    /// Tells each group the value of its last row.
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let passes = |row| opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        self.tell(&values[0], group_indices, total_num_groups, passes);
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        let told = values[0].as_boolean();
        self.tell(&values[1], group_indices, total_num_groups, |row| told.is_valid(row) && told.value(row));
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(self.take(emit_to)?.1)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (told, values) = self.take(emit_to)?;
        Ok(vec![Arc::new(told), values])
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let passes = |row| opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        let told: BooleanArray = (0..values[0].len()).map(|row| Some(passes(row))).collect();
        Ok(vec![Arc::new(told), Arc::clone(&values[0])])
    }

    fn size(&self) -> usize {
        let batches: usize = self.batches.iter().map(|batch| batch.get_array_memory_size()).sum();
        batches + self.last.capacity() * size_of::<(usize, usize)>()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Int64Array;

    use super::*;

    fn ints(values: &[Option<i64>]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    #[test]
    fn a_group_has_what_it_was_told_last() {
        let mut extremes = accumulator(&DataType::Int64);
        extremes.update_batch(&[ints(&[Some(7), Some(3), None])], &[0, 1, 0], None, 3).unwrap();
        let nothing = BooleanArray::from(vec![false, false]);
        extremes.update_batch(&[ints(&[Some(1), Some(1)])], &[1, 2], Some(&nothing), 3).unwrap();
        let state = extremes.state(EmitTo::All).unwrap();
        assert_eq!(state[0].as_boolean(), &BooleanArray::from(vec![true, true, false]));
        assert_eq!(&state[1], &ints(&[None, Some(3), None]));
    }

    #[test]
    fn a_partial_that_was_told_nothing_leaves_what_is_there() {
        let mut extremes = accumulator(&DataType::Int64);
        let told = |told: &[bool]| Arc::new(BooleanArray::from(told.to_vec())) as ArrayRef;
        extremes.merge_batch(&[told(&[true, false]), ints(&[Some(5), None])], &[0, 1], 2).unwrap();
        extremes.merge_batch(&[told(&[false, true]), ints(&[None, None])], &[0, 1], 2).unwrap();
        assert_eq!(&extremes.evaluate(EmitTo::All).unwrap(), &ints(&[Some(5), None]));
        assert_eq!(extremes.evaluate(EmitTo::All).unwrap().len(), 0, "nothing is left");
    }
}

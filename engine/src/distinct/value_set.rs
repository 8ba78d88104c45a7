//! One set in memory: the values that the groups of one pane have seen.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use datafusion::arrow::compute::{filter_record_batch, take, take_arrays};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type, UInt64Type};
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::SetColumns;
use crate::EngineError;

/// Elements by the number of their group, which costs less than by its key.
pub(crate) struct ValueSet {
    /// (group, value).
    elements: Box<dyn GroupValues>,
    /// By element; a weight as bits where rows have one.
    bits: Vec<u64>,
    is_weighed: bool,
    scratch: Vec<usize>,
}

/// Elements in the order in which they were first seen.
pub(crate) struct Elements {
    pub(crate) groups: Vec<usize>,
    pub(crate) values: ArrayRef,
    pub(crate) bits: Vec<u64>,
}

impl ValueSet {
    /// - `is_weighed`: whether rows may be taken back.
    pub(crate) fn new(value: &DataType, is_weighed: bool) -> Result<Self, EngineError> {
        let fields = vec![Field::new("group", DataType::UInt32, false), Field::new("value", value.clone(), false)];
        let elements = new_group_values(Arc::new(Schema::new(fields)), &GroupOrdering::None)?;
        Ok(Self { elements, bits: Vec::new(), is_weighed, scratch: Vec::new() })
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.bits.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.elements.size() + self.bits.capacity() * size_of::<u64>() + self.scratch.capacity() * size_of::<usize>()
    }

    /// Takes rows of the input fragment; `groups` has the group of each.
    pub(crate) fn update(&mut self, set: &SetColumns, rows: &RecordBatch, groups: &[usize]) -> Result<(), EngineError> {
        let bits = set.said(rows);
        let values = set.values(rows);
        let seen: Vec<u32> = (0u32..).zip(&bits).filter(|(_, bits)| **bits != 0).map(|(row, _)| row).collect();
        if seen.len() == bits.len() {
            return self.add(values, groups.iter().copied(), &bits);
        }
        let seen_bits: Vec<u64> = seen.iter().map(|row| bits[*row as usize]).collect();
        let groups = seen.iter().map(|row| groups[*row as usize]);
        let values = take(&values, &UInt32Array::from(seen.clone()), None)?;
        self.add(values, groups, &seen_bits)
    }

    /// Takes rows of elements: values and bits behind their keys; `groups` has the group of each.
    pub(crate) fn merge(&mut self, behind_keys: &[ArrayRef], groups: &[usize]) -> Result<(), EngineError> {
        let [values, bits, ..] = behind_keys else { return Ok(()) };
        if self.is_weighed {
            let weights = bits.as_primitive::<Int64Type>().values().iter().map(|weight| weight.cast_unsigned());
            return self.add(Arc::clone(values), groups.iter().copied(), &weights.collect::<Vec<_>>());
        }
        self.add(Arc::clone(values), groups.iter().copied(), bits.as_primitive::<UInt64Type>().values())
    }

    fn add(&mut self, values: ArrayRef, groups: impl Iterator<Item = usize>, bits: &[u64]) -> Result<(), EngineError> {
        if bits.is_empty() {
            return Ok(());
        }
        let groups = UInt32Array::from_iter_values(groups.map(number));
        self.elements.intern(&[Arc::new(groups), values], &mut self.scratch)?;
        self.bits.resize(self.elements.len(), 0);
        for (element, bits) in self.scratch.iter().zip(bits) {
            let known = &mut self.bits[*element];
            *known = if self.is_weighed { known.wrapping_add(*bits) } else { *known | bits };
        }
        Ok(())
    }

    /// Ends the set.
    pub(crate) fn into_elements(mut self) -> Result<Elements, EngineError> {
        let mut columns = self.elements.emit(EmitTo::All)?.into_iter();
        let (Some(groups), Some(values)) = (columns.next(), columns.next()) else {
            return Err(EngineError::Schema { place: "set", expected: "two columns".to_owned(), found: "fewer".to_owned() });
        };
        let groups = groups.as_primitive::<UInt32Type>().values().iter().map(|group| *group as usize).collect();
        Ok(Elements { groups, values, bits: self.bits })
    }

    /// Ends the set as rows of elements.
    ///
    /// - `keys`: key group, pane and keys of each group. - `behind`: columns of groups that their elements have, too.
    pub(crate) fn into_rows(
        self,
        schema: &SchemaRef,
        keys: &[ArrayRef],
        behind: &[ArrayRef],
    ) -> Result<RecordBatch, EngineError> {
        let is_weighed = self.is_weighed;
        let Elements { groups, values, bits } = self.into_elements()?;
        let groups = UInt32Array::from_iter_values(groups.into_iter().map(number));
        let mut columns = take_arrays(keys, &groups, None)?;
        columns.push(values);
        if !is_weighed {
            columns.push(Arc::new(UInt64Array::from(bits)));
            columns.extend(take_arrays(behind, &groups, None)?);
            return Ok(RecordBatch::try_new(Arc::clone(schema), columns)?);
        }
        debug_assert!(behind.is_empty(), "rows of windows are not taken back");
        // What came and went is as if it had never been.
        let weights = Int64Array::from_iter_values(bits.into_iter().map(u64::cast_signed));
        let counts: BooleanArray = weights.values().iter().map(|weight| Some(*weight != 0)).collect();
        columns.push(Arc::new(weights));
        Ok(filter_record_batch(&RecordBatch::try_new(Arc::clone(schema), columns)?, &counts)?)
    }
}

fn number(group: usize) -> u32 {
    u32::try_from(group).unwrap_or(u32::MAX)
}

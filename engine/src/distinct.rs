//! DISTINCT inside aggregates: sets of the values that each group has seen, as rows beside the groups' partials.
//!
//! ```text
//! rows --> (group, value), bits of the conditions that were true --> exchange --+--> a window: sets grow, the aggregates take them
//!      \-> group, plain partials ----------------------------------> exchange --|    when it fires (value_set.rs)
//!                                                                               `--> no window: a bit that is new is folded into the
//!                                                                                    group's partial at once (elements.rs)
//! ```
//! Why rows and not the engine's accumulators of sets: theirs hold each group's values in lists, which would be copied whole with each
//! change. Here an element is a row of a table, and costs only when it is touched.
//!
//! Partial rows of a stage that has sets end in columns of their own:
//!
//! | column | type | null |
//! | --- | --- | --- |
//! | key group, pane, keys | as of all partial rows | |
//! | `{output}__{part}` | the partial's | in all rows of elements |
//! | `__set` | UInt8: 0 in a group's row, else the number of the element's set, from 1 | never |
//! | `__value_{n}` | element of set n | in all other rows |
//! | `__bits` | UInt64: bit b is set if condition b was true of a row with this element | in a group's row |
//! | `__weight` | instead of bits, where rows may be taken back: Int64, the sum of the weights of its rows | in a group's row |
//!
//! An element of a sum of 0 is not there, and the set tells the group of its going as of its coming (`elements.rs`).
//!
//! The partial of a DISTINCT aggregate in a group's row is that of the plain function over the elements told to it so far: of none in
//! what a lane sends and in windows, of all in a checkpoint of a keyed table. An element is never NULL, floats have one zero and one NaN.
//! Never: an element without its group's row before it in the same segment.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt8Array, new_null_array};
use datafusion::arrow::compute::kernels::cmp::eq;
use datafusion::arrow::compute::{concat_batches, filter_record_batch, prep_null_mask_filter};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type, Int64Type, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use weir_plan::AggregateStage;

use crate::EngineError;

mod elements;
mod value_set;

pub(crate) use elements::{ElementPass, ElementTables};
pub(crate) use value_set::{Elements, ValueSet};

/// Name of the column that tells elements from groups.
const SET_COLUMN: &str = "__set";
/// Name of the column of conditions.
const BITS_COLUMN: &str = "__bits";
/// Name of the column of weights, where rows may be taken back.
const WEIGHT_COLUMN: &str = "__weight";

/// The sets of a stage, none where nothing is DISTINCT.
#[derive(Debug)]
pub(crate) struct Sets {
    sets: Vec<SetColumns>,
    /// Columns of partial rows: of groups alone, and with those of elements.
    groups: SchemaRef,
    partial: SchemaRef,
    /// Columns of a group's row before its partials.
    key_columns: usize,
}

/// Which columns of the input fragment a set reads.
#[derive(Debug)]
pub(crate) struct SetColumns {
    value: usize,
    conditions: Vec<Option<usize>>,
    /// Where a row's weight is, if it has one.
    weight: Option<usize>,
    is_ordered: bool,
    /// Columns of its elements' rows: key group, pane, keys, value, bits or weight.
    elements: SchemaRef,
}

impl SetColumns {
    /// The value column of rows of the input fragment, floats in one form.
    fn values(&self, rows: &RecordBatch) -> ArrayRef {
        in_one_form(rows.column(self.value))
    }

    /// For each row of the input fragment what counts of it: the conditions that are true of it, or its weight, as bits.
    fn said(&self, rows: &RecordBatch) -> Vec<u64> {
        let mut said = self.bits(rows);
        if let Some(weight) = self.weight {
            let weights = rows.column(weight).as_primitive::<Int64Type>().values();
            said.iter_mut()
                .zip(weights)
                .filter(|(bits, _)| **bits != 0)
                .for_each(|(said, weight)| *said = weight.cast_unsigned());
        }
        said
    }

    /// For each row of the input fragment the conditions that are true of it; none where there is no value.
    fn bits(&self, rows: &RecordBatch) -> Vec<u64> {
        let mut bits = vec![0; rows.num_rows()];
        for (bit, condition) in self.conditions.iter().enumerate() {
            let mask = 1 << bit;
            match condition.and_then(|column| rows.column(column).as_boolean_opt()) {
                None => bits.iter_mut().for_each(|bits| *bits |= mask),
                Some(condition) => is_true(condition).values().set_indices().for_each(|row| bits[row] |= mask),
            }
        }
        if let Some(nulls) = rows.column(self.value).logical_nulls() {
            bits.iter_mut().zip(&nulls).filter(|(_, has_value)| !has_value).for_each(|(bits, _)| *bits = 0);
        }
        bits
    }
}

/// A NULL condition is not true.
fn is_true(condition: &BooleanArray) -> BooleanArray {
    if condition.null_count() > 0 { prep_null_mask_filter(condition) } else { condition.clone() }
}

/// -0.0 is 0.0, and one NaN is another.
fn in_one_form(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float64 => {
            let one = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
            Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        DataType::Float32 => {
            let one = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
            Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        _ => Arc::clone(values),
    }
}

/// Partial rows by kind.
pub(crate) struct Parts {
    /// Rows of groups, without the columns of elements.
    pub(crate) groups: RecordBatch,
    /// By set the rows of elements: key group, pane, keys, value, bits.
    pub(crate) elements: Vec<RecordBatch>,
}

impl Sets {
    /// - `input`: columns of the input fragment. - `groups`: columns of a group's row. - `keys`: how many of them are keys.
    pub(crate) fn new(stage: &AggregateStage, input: &SchemaRef, groups: SchemaRef, keys: usize) -> Self {
        let (sets, weight) = (&stage.sets, stage.retracted.map(|retracted| retracted.weight));
        let key_columns = 2 + keys;
        let column = |name: String, data_type: &DataType| Arc::new(Field::new(name, data_type.clone(), true));
        let bits = match weight {
            Some(_) => column(WEIGHT_COLUMN.to_owned(), &DataType::Int64),
            None => column(BITS_COLUMN.to_owned(), &DataType::UInt64),
        };
        let mut partial = groups.fields().to_vec();
        partial.push(Arc::new(Field::new(SET_COLUMN, DataType::UInt8, false)));
        let mut known = Vec::new();
        for (number, set) in sets.iter().enumerate() {
            let value = column(format!("__value_{}", number + 1), input.field(set.value).data_type());
            partial.push(Arc::clone(&value));
            let fields: Vec<_> = groups.fields()[..key_columns].iter().cloned().chain([value, Arc::clone(&bits)]).collect();
            let elements = Arc::new(Schema::new(fields));
            let (value, conditions, is_ordered) = (set.value, set.conditions.clone(), set.is_ordered);
            known.push(SetColumns { value, conditions, weight, is_ordered, elements });
        }
        partial.push(bits);
        let partial = if sets.is_empty() { Arc::clone(&groups) } else { Arc::new(Schema::new(partial)) };
        Self { sets: known, groups, partial, key_columns }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Columns of partial rows.
    pub(crate) fn partial_schema(&self) -> &SchemaRef {
        &self.partial
    }

    /// Columns of [`Self::partial_schema`] by which rows are told apart: pane, keys, set and values.
    pub(crate) fn row_key(&self) -> Vec<usize> {
        let first = self.groups.fields().len();
        (1..self.key_columns).chain(first..(self.partial.fields().len() - 1).max(first)).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SetColumns> {
        self.sets.iter()
    }

    /// An empty set of each.
    pub(crate) fn value_sets(&self) -> Result<Vec<ValueSet>, EngineError> {
        let set = |set: &SetColumns| ValueSet::new(set.elements.field(self.key_columns).data_type(), set.weight.is_some());
        self.sets.iter().map(set).collect()
    }

    /// Partial rows by kind, each in its order. Columns behind those of partial rows stay behind.
    pub(crate) fn split(&self, partial: &RecordBatch) -> Result<Parts, EngineError> {
        if self.is_empty() {
            return Ok(Parts { groups: partial.clone(), elements: Vec::new() });
        }
        let first = self.groups.fields().len();
        let behind = self.partial.fields().len()..partial.num_columns();
        let of_set = |set: usize, columns: &[usize]| {
            let number = UInt8Array::new_scalar(set_number(set));
            filter_record_batch(&partial.project(columns)?, &eq(partial.column(first), &number)?)
        };
        let groups = of_set(0, &(0..first).chain(behind.clone()).collect::<Vec<_>>())?;
        let mut elements = Vec::with_capacity(self.sets.len());
        for (place, set) in self.sets.iter().enumerate() {
            let own = [first + 1 + place, first + 1 + self.sets.len()];
            let rows = of_set(place + 1, &(0..self.key_columns).chain(own).chain(behind.clone()).collect::<Vec<_>>())?;
            let behind = &rows.schema_ref().fields()[set.elements.fields().len()..];
            elements.push(RecordBatch::try_new(followed(&set.elements, behind), rows.columns().to_vec())?);
        }
        Ok(Parts { groups, elements })
    }

    /// Rows of groups as partial rows. Columns behind those of groups stay behind.
    pub(crate) fn rows_of_groups(&self, rows: RecordBatch) -> Result<RecordBatch, EngineError> {
        if self.is_empty() {
            return Ok(rows);
        }
        let (count, own) = (rows.num_rows(), self.groups.fields().len());
        let mut columns = rows.columns()[..own].to_vec();
        columns.push(Arc::new(UInt8Array::from_value(0, count)));
        let rest = &self.partial.fields()[columns.len()..];
        columns.extend(rest.iter().map(|field| new_null_array(field.data_type(), count)));
        columns.extend(rows.columns()[own..].iter().cloned());
        Ok(RecordBatch::try_new(followed(&self.partial, &rows.schema_ref().fields()[own..]), columns)?)
    }

    /// Rows of set `set`'s elements as partial rows.
    pub(crate) fn rows_of_elements(&self, set: usize, rows: &RecordBatch) -> Result<RecordBatch, EngineError> {
        let (count, first) = (rows.num_rows(), self.groups.fields().len());
        let (keys, own) = rows.columns().split_at(self.key_columns);
        let behind = &rows.schema_ref().fields()[self.key_columns + 2..];
        let fields = self.partial.fields().iter().enumerate().skip(keys.len());
        let rest = fields.map(|(place, field)| match place {
            _ if place == first => Arc::new(UInt8Array::from_value(set_number(set + 1), count)) as ArrayRef,
            _ if place == first + 1 + set => Arc::clone(&own[0]),
            _ if place == first + 1 + self.sets.len() => Arc::clone(&own[1]),
            _ => new_null_array(field.data_type(), count),
        });
        let columns = keys.iter().cloned().chain(rest).chain(own[2..].iter().cloned());
        Ok(RecordBatch::try_new(followed(&self.partial, behind), columns.collect())?)
    }

    /// Partial rows of groups and then of their elements. What groups have behind the columns of partial rows their elements have, too.
    pub(crate) fn rows_of_all(&self, groups: RecordBatch, sets: Vec<ValueSet>) -> Result<RecordBatch, EngineError> {
        if self.is_empty() {
            return Ok(groups);
        }
        let own = self.groups.fields().len();
        let (keys, behind) = (&groups.columns()[..self.key_columns], &groups.columns()[own..]);
        let mut parts = Vec::with_capacity(1 + sets.len());
        for (number, (set, columns)) in sets.into_iter().zip(&self.sets).enumerate() {
            let schema = followed(&columns.elements, &groups.schema_ref().fields()[own..]);
            parts.push(self.rows_of_elements(number, &set.into_rows(&schema, keys, behind)?)?);
        }
        parts.insert(0, self.rows_of_groups(groups)?);
        Ok(concat_batches(&parts[0].schema(), &parts)?)
    }

    /// Which partial rows are those of groups.
    pub(crate) fn are_groups(&self, partial: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        if self.is_empty() {
            return Ok(BooleanArray::from(vec![true; partial.num_rows()]));
        }
        eq(partial.column(self.groups.fields().len()), &UInt8Array::new_scalar(0))
    }
}

/// `columns` with others behind them.
fn followed(columns: &SchemaRef, behind: &[FieldRef]) -> SchemaRef {
    if behind.is_empty() {
        return Arc::clone(columns);
    }
    Arc::new(Schema::new(columns.fields().iter().chain(behind).cloned().collect::<Vec<_>>()))
}

/// 0 for groups; the plan allows fewer sets than a byte has numbers.
fn set_number(set: usize) -> u8 {
    u8::try_from(set).unwrap_or(u8::MAX)
}

/// The elements whose bits have `bit`.
pub(crate) fn with_bit(bits: &[u64], bit: usize) -> BooleanArray {
    bits.iter().map(|bits| Some(bits >> bit & 1 == 1)).collect()
}

#[cfg(test)]
mod tests;

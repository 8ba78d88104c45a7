//! One pane's groups: distinct keys and a partial of every aggregate for each, merged by left fold in the order of arrival.
//!
//! Why a left fold: floating sums depend on order. Folding rows and partials strictly in the recipe's order, and starting again from
//! a checkpoint's rows in theirs, gives the same bits (RP-1).
//!
//! Exchange and checkpoint rows have the same columns:
//!
//! | column | type | unit | null | sorted by |
//! | --- | --- | --- | --- | --- |
//! | `__kg` | UInt16 | key group | never | second |
//! | `__pane` | Int64 | pane number | never | first |
//! | the keys, by name | the key's | | allowed: NULL is a key | then by first arrival |
//! | `{output}__{part}` | the partial's | | no value seen | |
//! | columns of the sets of DISTINCT aggregates, if there are any: [`crate::distinct`] | | | | |
//! | `__given` | Int8 | [`Given`], of an element its group's | never; not in exchange rows, and only of windows that fire more than once | |

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int8Array, Int64Array, RecordBatch, UInt16Array};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int8Type, Schema, SchemaRef, UInt16Type, UInt64Type};
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use weir_plan::AggregateStage;
use weir_state::key_groups;

use crate::EngineError;
use crate::accumulators::{Accumulators, Flips};
use crate::aggregate::Aggregate;
use crate::distinct::{Elements, Sets, ValueSet};
use crate::sorted_rows::SortedRows;

/// Name of the key-group column.
pub const KEY_GROUP_COLUMN: &str = "__kg";
/// Name of the pane column.
pub const PANE_COLUMN: &str = "__pane";

/// Name of the column that tells what was given of a group.
pub(crate) const GIVEN_COLUMN: &str = "__given";

/// What was given of a group; the numbers are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Given {
    /// Nothing.
    Never = 0,
    /// What it is.
    Same = 1,
    /// What it was before rows were folded since.
    Changed = 2,
    /// Nothing, or it was taken back, since what it is does not meet the condition.
    Withheld = 3,
}

impl Given {
    /// Whether it is what was said of the group.
    pub(crate) const fn is_said(given: i8) -> bool {
        given == Self::Same as i8 || given == Self::Withheld as i8
    }
}

/// Columns and aggregates of a stage.
#[derive(Debug)]
pub struct PaneShape {
    /// Columns of exchange and checkpoint rows.
    pub partial_schema: SchemaRef,
    /// Columns of fired rows: `__pane`, keys, results.
    pub result_schema: SchemaRef,
    keys: SchemaRef,
    pub(crate) aggregates: Vec<Aggregate>,
    sets: Sets,
    /// Columns of a group's row.
    group_schema: SchemaRef,
    key_groups: u16,
    /// Whether groups know what was given of them.
    remembers: bool,
    /// Column of partial rows that has the number of a group's rows, where these may be taken back.
    rows: Option<usize>,
    is_ordered: bool,
}

impl PaneShape {
    /// Shape of `stage`, whose input fragment gives the columns `input` (`__pane`, keys, arguments and filters).
    ///
    /// # Errors
    /// [`EngineError::Query`] if an aggregate does not take its columns.
    pub fn new(stage: &AggregateStage, input: &SchemaRef, key_groups: u16) -> Result<Self, EngineError> {
        let aggregates = stage.aggregates.iter().map(|spec| Aggregate::new(spec, input)).collect::<Result<Vec<_>, _>>()?;
        let nullable = |field: &FieldRef| Arc::new(Field::new(field.name(), field.data_type().clone(), true));
        let keys: Vec<FieldRef> = stage.keys.iter().map(nullable).collect();
        let pane = Arc::new(Field::new(PANE_COLUMN, DataType::Int64, false));
        let mut partial = vec![Arc::new(Field::new(KEY_GROUP_COLUMN, DataType::UInt16, false)), Arc::clone(&pane)];
        partial.extend(keys.iter().cloned());
        partial.extend(aggregates.iter().flat_map(|aggregate| aggregate.state_fields().iter().cloned()));
        let mut result = vec![pane];
        result.extend(keys.iter().cloned());
        result.extend(aggregates.iter().map(Aggregate::result_field));
        let group_schema = Arc::new(Schema::new(partial));
        let sets = Sets::new(stage, input, Arc::clone(&group_schema), keys.len());
        let before = |rows: usize| aggregates[..rows].iter().map(|aggregate| aggregate.state_fields().len()).sum::<usize>();
        // The one group of an aggregate without keys is there also without rows.
        let retracted = stage.retracted.filter(|_| !keys.is_empty());
        let rows = retracted.map(|retracted| 2 + keys.len() + before(retracted.rows));
        Ok(Self {
            partial_schema: Arc::clone(sets.partial_schema()),
            result_schema: Arc::new(Schema::new(result)),
            keys: Arc::new(Schema::new(keys)),
            aggregates,
            sets,
            group_schema,
            key_groups,
            remembers: false,
            rows,
            is_ordered: false,
        })
    }

    /// The same with groups that know what was given of them: partial and fired rows end with `__given`.
    #[must_use]
    pub(crate) fn remembering(self) -> Self {
        let with_given = |schema: &SchemaRef| {
            let given = Arc::new(Field::new(GIVEN_COLUMN, DataType::Int8, false));
            Arc::new(Schema::new(schema.fields().iter().cloned().chain([given]).collect::<Vec<_>>()))
        };
        let (partial_schema, result_schema) = (with_given(&self.partial_schema), with_given(&self.result_schema));
        Self { group_schema: with_given(&self.group_schema), partial_schema, result_schema, remembers: true, ..self }
    }

    /// The same for a table whose last key column is a value, and of whose groups by the others the extremes are asked for.
    #[must_use]
    pub(crate) fn ordered(self) -> Self {
        Self { is_ordered: true, ..self }
    }

    /// Whether the last key column is a value by which groups are ordered.
    pub(crate) fn is_ordered(&self) -> bool {
        self.is_ordered
    }

    /// Whether a group counts its rows, and is gone without any.
    pub(crate) fn counts_rows(&self) -> bool {
        self.rows.is_some()
    }

    /// Column of partial rows that has the number of a group's rows.
    pub(crate) fn rows_column(&self) -> Option<usize> {
        self.rows
    }

    /// Columns of the keys.
    pub(crate) fn keys(&self) -> &SchemaRef {
        &self.keys
    }

    /// Partial rows with the same `given` in each; those of an exchange bear none.
    pub(crate) fn with_given(&self, partial: &RecordBatch, given: Given) -> Result<RecordBatch, EngineError> {
        self.with_each_given(partial, Int8Array::from_value(given as i8, partial.num_rows()))
    }

    /// The same with what was given of each.
    pub(crate) fn with_each_given(&self, partial: &RecordBatch, given: Int8Array) -> Result<RecordBatch, EngineError> {
        let columns = self.partial_schema.fields().len() - 1;
        let mut columns: Vec<ArrayRef> = partial.columns()[..columns.min(partial.num_columns())].to_vec();
        columns.push(Arc::new(given));
        Ok(RecordBatch::try_new(Arc::clone(&self.partial_schema), columns)?)
    }

    /// Results of partial rows of groups and all of their elements, in the order of the groups: columns of [`Self::result_schema`].
    pub(crate) fn results_of(&self, partial: &RecordBatch) -> Result<RecordBatch, EngineError> {
        let parts = self.sets.split(partial)?;
        let mut accumulators = self.accumulators()?;
        let groups: Vec<usize> = (0..parts.groups.num_rows()).collect();
        let first_state = 2 + self.key_count();
        accumulators.merge(self, &parts.groups.columns()[first_state..], &groups, groups.len())?;
        let places = self.places_of(&parts.groups, &parts.elements)?;
        for ((set, elements), places) in parts.elements.iter().enumerate().zip(&places) {
            let (values, bits) = (elements.column(first_state), elements.column(first_state + 1).as_primitive::<UInt64Type>());
            accumulators.tell(self, set, (std::slice::from_ref(values), bits.values()), places, groups.len())?;
        }
        let mut columns: Vec<ArrayRef> = parts.groups.columns()[1..first_state].to_vec();
        columns.extend(accumulators.results()?);
        columns.extend(self.remembers.then(|| parts.groups.columns().last().cloned()).flatten());
        Ok(RecordBatch::try_new(Arc::clone(&self.result_schema), columns)?)
    }

    /// By set, of each element which of `groups` is its own.
    fn places_of(&self, groups: &RecordBatch, elements: &[RecordBatch]) -> Result<Vec<Vec<usize>>, EngineError> {
        if elements.is_empty() {
            return Ok(Vec::new());
        }
        let Some(mut keys) = self.new_keys()? else {
            return Ok(elements.iter().map(|elements| vec![0; elements.num_rows()]).collect());
        };
        let columns = 2..2 + self.key_count();
        let mut numbers = Vec::new();
        keys.intern(&groups.columns()[columns.clone()], &mut numbers)?;
        // Keys need not be numbered in the order of their rows.
        let mut rows = vec![0; numbers.len()];
        numbers.iter().enumerate().for_each(|(row, number)| rows[*number] = row);
        let mut places = Vec::with_capacity(elements.len());
        for elements in elements {
            let mut numbers = Vec::new();
            keys.intern(&elements.columns()[columns.clone()], &mut numbers)?;
            let place = |number: usize| {
                let none = || EngineError::schema("an element without its group", &self.partial_schema, groups.schema_ref());
                rows.get(number).copied().ok_or_else(none)
            };
            places.push(numbers.into_iter().map(place).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(places)
    }

    /// Number of key columns.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.keys.fields().len()
    }

    /// Key groups of the job.
    #[must_use]
    pub fn key_group_count(&self) -> u16 {
        self.key_groups
    }

    /// Sets of the DISTINCT aggregates.
    pub(crate) fn sets(&self) -> &Sets {
        &self.sets
    }

    /// A table of distinct keys; `None` if there is no key column.
    pub(crate) fn new_keys(&self) -> Result<Option<Box<dyn GroupValues>>, EngineError> {
        if self.key_count() == 0 {
            return Ok(None);
        }
        Ok(Some(new_group_values(Arc::clone(&self.keys), &GroupOrdering::None)?))
    }

    /// An empty accumulator of each aggregate.
    pub(crate) fn accumulators(&self) -> Result<Accumulators, EngineError> {
        Accumulators::new(&self.aggregates)
    }

    /// Key groups of rows whose keys are `columns`.
    ///
    /// # Errors
    /// [`EngineError::State`] for a key type that has no canonical bytes.
    pub fn key_groups(&self, columns: &[ArrayRef], rows: usize) -> Result<UInt16Array, EngineError> {
        let mut groups = Vec::with_capacity(rows);
        key_groups(columns, rows, self.key_groups, &mut groups)?;
        Ok(UInt16Array::from(groups))
    }
}

/// Groups of one pane.
pub struct PaneTable {
    keys: Option<Box<dyn GroupValues>>,
    accumulators: Accumulators,
    sets: Vec<ValueSet>,
    groups: usize,
    /// By group, a [`Given`]; empty where nobody asks.
    given: Vec<i8>,
    has_news: bool,
}

impl std::fmt::Debug for PaneTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PaneTable").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl PaneTable {
    /// A pane without groups.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an accumulator cannot be made.
    pub fn new(shape: &PaneShape) -> Result<Self, EngineError> {
        let (accumulators, sets) = (shape.accumulators()?, shape.sets.value_sets()?);
        Ok(Self { keys: shape.new_keys()?, accumulators, sets, groups: 0, given: Vec::new(), has_news: false })
    }

    /// Number of partial rows: distinct keys, and elements of their sets.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups + self.sets.iter().map(ValueSet::len).sum::<usize>()
    }

    /// Bytes held. Not free: asks every accumulator.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let keys = self.keys.as_ref().map_or(0, |keys| keys.size());
        let sets = self.sets.iter().map(ValueSet::bytes).sum::<usize>();
        keys + self.accumulators.bytes() + sets + self.given.capacity()
    }

    /// Whether a group is not what was given of it.
    pub(crate) fn has_news(&self) -> bool {
        self.has_news
    }

    /// Folds rows of the input fragment (`__pane`, keys, arguments and filters) into the partials.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an accumulator refuses a value (overflow).
    pub fn update(&mut self, shape: &PaneShape, rows: &RecordBatch, scratch: &mut Vec<usize>) -> Result<(), EngineError> {
        self.intern(&rows.columns()[1..=shape.key_count()], rows.num_rows(), scratch)?;
        if shape.remembers {
            self.mark(scratch, None);
        }
        self.accumulators.update(shape, rows, scratch, self.groups)?;
        for (set, columns) in self.sets.iter_mut().zip(shape.sets.iter()) {
            set.update(columns, rows, scratch)?;
        }
        Ok(())
    }

    /// Folds partial rows (columns of [`PaneShape::partial_schema`]) of this pane into the partials, in order.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an accumulator refuses a value (overflow).
    pub fn merge(&mut self, shape: &PaneShape, partial: &RecordBatch, scratch: &mut Vec<usize>) -> Result<(), EngineError> {
        let parts = shape.sets.split(partial)?;
        let (keys, states) = parts.groups.columns()[2..].split_at(shape.key_count());
        self.intern(keys, parts.groups.num_rows(), scratch)?;
        if shape.remembers {
            self.mark(scratch, parts.groups.columns().last());
        }
        self.accumulators.merge(shape, states, scratch, self.groups)?;
        for (set, elements) in parts.elements.iter().enumerate().filter(|(_, elements)| elements.num_rows() > 0) {
            let (keys, behind_keys) = elements.columns()[2..].split_at(shape.key_count());
            self.intern(keys, elements.num_rows(), scratch)?;
            self.sets[set].merge(behind_keys, scratch)?;
        }
        Ok(())
    }

    /// Tells elements of set `set` to a table that has no others: rows with `keys`, and the bits of the conditions that are new.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an accumulator refuses a value (overflow).
    pub(crate) fn tell(
        &mut self,
        shape: &PaneShape,
        set: usize,
        keys: &[ArrayRef],
        values: &[ArrayRef],
        bits: &[u64],
    ) -> Result<(), EngineError> {
        let mut groups = Vec::with_capacity(bits.len());
        self.intern(keys, bits.len(), &mut groups)?;
        self.accumulators.show(shape, self.groups)?;
        self.accumulators.tell(shape, set, (values, bits), &groups, self.groups)
    }

    /// The same of values that came and went.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub(crate) fn tell_flips(
        &mut self,
        shape: &PaneShape,
        set: usize,
        keys: &[ArrayRef],
        flips: &Flips,
    ) -> Result<(), EngineError> {
        let mut groups = Vec::with_capacity(flips.signs.len());
        self.intern(keys, flips.signs.len(), &mut groups)?;
        self.accumulators.show(shape, self.groups)?;
        self.accumulators.tell_flips(shape, set, flips, &groups, self.groups)
    }

    fn intern(&mut self, keys: &[ArrayRef], rows: usize, scratch: &mut Vec<usize>) -> Result<(), EngineError> {
        scratch.clear();
        match &mut self.keys {
            Some(values) => {
                values.intern(keys, scratch)?;
                self.groups = values.len();
            }
            None => {
                scratch.resize(rows, 0);
                self.groups = usize::from(rows > 0 || self.groups > 0);
            }
        }
        Ok(())
    }

    /// Rows of these groups are folded: what was given of a group is no longer what it is. A new group is as its first row says.
    fn mark(&mut self, groups: &[usize], said: Option<&ArrayRef>) {
        const NEW: i8 = -1;
        let said = said.and_then(|said| said.as_primitive_opt::<Int8Type>());
        // New groups need not be numbered in the order of their rows: keys whose hashes collide come last.
        self.given.resize(self.groups, NEW);
        for (row, &group) in groups.iter().enumerate() {
            let given = &mut self.given[group];
            if *given == NEW {
                *given = said.map_or(Given::Never as i8, |said| said.value(row));
            } else if *given == Given::Same as i8 {
                *given = Given::Changed as i8;
            } else if *given == Given::Withheld as i8 {
                *given = Given::Never as i8;
            }
            self.has_news |= !Given::is_said(*given);
        }
    }

    fn take_given(&mut self, shape: &PaneShape) -> Option<ArrayRef> {
        shape.remembers.then(|| Arc::new(Int8Array::from(std::mem::take(&mut self.given))) as ArrayRef)
    }

    fn emit_keys(&mut self) -> Result<Vec<ArrayRef>, EngineError> {
        Ok(match &mut self.keys {
            Some(values) => values.emit(EmitTo::All)?,
            None => Vec::new(),
        })
    }

    /// Ends the table as partial rows, sorted by key group and then by first arrival.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an accumulator fails to give its state.
    pub fn into_partial(self, shape: &PaneShape, pane: i64) -> Result<RecordBatch, EngineError> {
        Ok(self.into_partial_rows(shape, pane)?.all()?)
    }

    /// As [`Self::into_partial`], to be gathered slice by slice.
    pub(crate) fn into_partial_rows(mut self, shape: &PaneShape, pane: i64) -> Result<SortedRows, EngineError> {
        let keys = self.emit_keys()?;
        let key_groups = shape.key_groups(&keys, self.groups)?;
        let mut columns: Vec<ArrayRef> = vec![Arc::new(key_groups), Arc::new(Int64Array::from_value(pane, self.groups))];
        columns.extend(keys);
        columns.extend(self.accumulators.states()?);
        columns.extend(self.take_given(shape));
        let groups = RecordBatch::try_new(Arc::clone(&shape.group_schema), columns)?;
        let rows = shape.sets.rows_of_all(groups, self.sets)?;
        let key_groups = rows.column(0).as_primitive::<UInt16Type>().clone();
        Ok(SortedRows::new(rows, &key_groups, shape.key_groups))
    }

    /// Ends the table as results, sorted by key group and then by first arrival: the order does not depend on whether the table
    /// was restored from a checkpoint (RP-1).
    ///
    /// # Errors
    /// [`EngineError::Query`] if an aggregate cannot be finalised (overflow).
    pub(crate) fn into_results(mut self, shape: &PaneShape, pane: i64) -> Result<SortedRows, EngineError> {
        for (number, set) in std::mem::take(&mut self.sets).into_iter().enumerate() {
            let Elements { groups, values, bits } = set.into_elements()?;
            self.accumulators.tell(shape, number, (&[values], &bits), &groups, self.groups)?;
        }
        let keys = self.emit_keys()?;
        let key_groups = shape.key_groups(&keys, self.groups)?;
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_value(pane, self.groups))];
        columns.extend(keys);
        columns.extend(self.accumulators.results()?);
        columns.extend(self.take_given(shape));
        let rows = RecordBatch::try_new(Arc::clone(&shape.result_schema), columns)?;
        Ok(SortedRows::new(rows, &key_groups, shape.key_groups))
    }
}

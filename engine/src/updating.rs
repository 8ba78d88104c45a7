//! The merge stage of GROUP BY without a window: whatever a batch changes is given at once, as a changelog.
//!
//! ```text
//! partials --KeyedTable--> results before | after  --output fragment (conditions, projections)-->  what is left of each pair
//!                                                                                                      |
//!                 + after only: +I    before and after: +U (-U first, for a sink that takes retractions)    before only: -D
//! ```
//! Each row on its way through the fragment bears `__change`: twice the number of its group in the batch, plus one if it is the result
//! after. So a condition may drop the one, the other or both.
//!
//! | column of the changelog | type | meaning |
//! | --- | --- | --- |
//! | `__op` | Int8 | [`Op`] |
//! | the sink's columns | | |
//!
//! Where another aggregate is fed with the results, both pass as rows of their own instead, with `__weight` 1 and -1: whatever is left of
//! each counts there.
//!
//! Rows of groups that had a result come first, each part by key group and then in the order in which its groups were touched: that of
//! the recipe (R2).
//! Invariants: RP-1, EO-2 (see `model::invariants`).

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int8Array, Int64Array, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use weir_plan::{AggregateStage, Changes, Grouping, OP_COLUMN, Op, Pipeline, Sees};

use crate::EngineError;
use crate::distinct::{ElementPass, ElementTables};
use crate::fragment::FragmentRunner;
use crate::keyed_table::{Change, KeyedTable, Lifetime, TablePass};
use crate::merge::Extent;
use crate::open_panes::StateBudget;
use crate::pane_table::PaneShape;

/// Runs a merge shard's batches and holds its keyed table.
#[derive(Debug)]
pub(crate) struct UpdatingOperator {
    output: FragmentRunner,
    /// Of partial rows.
    shape: Arc<PaneShape>,
    /// Of the table's rows: the same, but for the elements of sets.
    groups: Arc<PaneShape>,
    sees: Sees,
    changes: Changes,
    /// Columns of checkpoints.
    state_schema: SchemaRef,
    /// Whether its results are those of the pipeline, a changelog.
    is_last: bool,
    output_schema: SchemaRef,
    table: KeyedTable,
    /// Values that DISTINCT aggregates have seen.
    elements: ElementTables,
    /// Partials of the batch under way, in order.
    batch: Vec<RecordBatch>,
}

/// How far a checkpoint has come.
#[derive(Debug)]
pub(crate) struct UpdatingPass {
    /// `None` once all keys were given.
    table: Option<TablePass>,
    elements: ElementPass,
}

impl UpdatingPass {
    pub(crate) fn new(extent: Extent) -> Self {
        Self { table: Some(TablePass::new(extent)), elements: ElementPass::new(extent) }
    }
}

impl UpdatingOperator {
    /// Plans the merge stage of aggregate `index` of `pipeline`, without state. `None` if that is no updating one.
    pub(crate) async fn new(
        pipeline: &Pipeline,
        index: usize,
        key_groups: u16,
        budget: StateBudget,
    ) -> Result<Option<Self>, EngineError> {
        let Some(stage) = pipeline.aggregates.get(index) else { return Ok(None) };
        let Grouping::Updating { sees, ttl } = stage.grouping else { return Ok(None) };
        let input = FragmentRunner::new(pipeline.feeding(index)).await?;
        let output = FragmentRunner::new(&stage.output).await?;
        let shape = Arc::new(PaneShape::new(stage, input.output_schema(), key_groups)?);
        let changes = pipeline.sink.changes.clone();
        let is_last = !pipeline.feeds_another(index);
        let output_schema =
            if is_last { changelog_schema(output.output_schema(), &changes) } else { Arc::clone(output.output_schema()) };
        let without_sets = AggregateStage { sets: Vec::new(), ..stage.clone() };
        let groups = Arc::new(PaneShape::new(&without_sets, input.output_schema(), key_groups)?);
        // Groups and the elements of each set have as much room.
        let budget = StateBudget { bytes_max: budget.bytes_max / (1 + stage.sets.len()), ..budget };
        let elements = ElementTables::new(stage, shape.sets(), key_groups, &budget, ttl)?;
        let state_schema = Lifetime::new(ttl, None).schema(&shape.partial_schema);
        let table = KeyedTable::new(&groups)?.forgetting(&groups, ttl)?.within(budget);
        let batch = Vec::new();
        Ok(Some(Self { output, shape, groups, sees, changes, state_schema, is_last, output_schema, table, elements, batch }))
    }

    pub(crate) fn adopt(&mut self, other: Self) {
        self.table = other.table;
        self.elements = other.elements;
    }

    /// Shape of partial rows.
    pub(crate) fn shape(&self) -> &PaneShape {
        &self.shape
    }

    pub(crate) fn partial_schema(&self) -> &SchemaRef {
        &self.shape.partial_schema
    }

    /// Columns of checkpoints.
    pub(crate) fn state_schema(&self) -> &SchemaRef {
        &self.state_schema
    }

    pub(crate) fn set_now(&mut self, now_micros: i64) {
        self.table.set_now(now_micros);
        self.elements.set_now(now_micros);
    }

    pub(crate) fn output_schema(&self) -> &SchemaRef {
        &self.output_schema
    }

    /// Rows of its state: keys, and elements of their sets.
    pub(crate) fn groups(&self) -> usize {
        self.table.groups() + self.elements.len()
    }

    /// Those that have changed since the last checkpoint.
    pub(crate) fn changed(&self) -> usize {
        self.table.changed() + self.elements.changed()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes() + self.elements.bytes()
    }

    /// Takes partial rows of the batch.
    pub(crate) fn merge(&mut self, partials: &RecordBatch) -> Result<(), EngineError> {
        check(&self.shape.partial_schema, partials)?;
        self.batch.push(partials.clone());
        Ok(())
    }

    pub(crate) fn restore(&mut self, rows: &RecordBatch) -> Result<(), EngineError> {
        check(self.state_schema(), rows)?;
        let rows = self.elements.restore(self.shape.sets(), rows)?;
        self.table.restore(&self.groups, &rows)
    }

    /// Rows of keys come first, then those of each set.
    pub(crate) fn checkpoint(&mut self, pass: &mut UpdatingPass) -> Result<Option<RecordBatch>, EngineError> {
        if let Some(table) = &mut pass.table {
            if let Some(rows) = self.table.store_next(&self.groups, table)? {
                return Ok(Some(self.shape.sets().rows_of_groups(rows)?));
            }
            pass.table = None;
        }
        self.elements.store_next(self.shape.sets(), &mut pass.elements)
    }

    /// Ends the batch: folds it and gives what it changed.
    pub(crate) async fn fire(&mut self) -> Result<Vec<RecordBatch>, EngineError> {
        let batch = std::mem::take(&mut self.batch);
        let batch = self.elements.apply(self.shape.sets(), &self.groups, batch)?;
        let wants_before = self.sees == Sees::BeforeAndAfter;
        let change = self.table.apply(&self.groups, batch, wants_before)?;
        self.said(change).await
    }

    /// The present result of each key, as one first batch of all rows would have given it.
    pub(crate) async fn into_present(mut self) -> Result<Vec<RecordBatch>, EngineError> {
        let mut given = Vec::new();
        let mut pass = TablePass::new(Extent::Whole);
        let partial: Vec<usize> = (0..self.groups.partial_schema.fields().len()).collect();
        while let Some(part) = self.table.store_next(&self.groups, &mut pass)? {
            // Each part has other keys, ascending by key group.
            let change = KeyedTable::new(&self.groups)?.apply(&self.groups, vec![part.project(&partial)?], false)?;
            given.extend(self.said(change).await?);
        }
        Ok(given)
    }

    async fn said(&mut self, change: Option<Change>) -> Result<Vec<RecordBatch>, EngineError> {
        let Some(change) = change else { return Ok(Vec::new()) };
        let given = results(self.output.input_schema(), &change, self.is_last)?;
        let left = self.output.run(given).await?;
        if self.is_last { self.changelog(&left, &change) } else { Ok(left) }
    }

    /// What happened to each group, by what the fragment left of its results.
    fn changelog(&self, left: &[RecordBatch], change: &Change) -> Result<Vec<RecordBatch>, EngineError> {
        let rows = concat_batches(self.output.output_schema(), left)?;
        if rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let last = rows.num_columns() - 1;
        let numbers = rows.column(last).as_primitive::<UInt32Type>();
        let mut log = Log::default();
        match self.sees {
            Sees::After => log.of_results(numbers, change.existing),
            Sees::BeforeAndAfter => log.of_pairs(numbers, change.groups(), &self.changes),
        }
        let rows = if log.has_all(rows.num_rows()) { rows } else { take_record_batch(&rows, &UInt32Array::from(log.rows))? };
        let mut columns: Vec<ArrayRef> = rows.columns()[..last].to_vec();
        if self.changes.has_op() {
            columns.insert(0, Arc::new(Int8Array::from(log.ops)));
        }
        Ok(vec![RecordBatch::try_new(Arc::clone(&self.output_schema), columns)?])
    }
}

fn check(expected: &SchemaRef, rows: &RecordBatch) -> Result<(), EngineError> {
    if rows.num_columns() == expected.fields().len() {
        return Ok(());
    }
    Err(EngineError::schema("partial rows", expected, &rows.schema()))
}

/// Rows of a changelog: which row of the fragment's output, and what happened to it.
#[derive(Default)]
struct Log {
    rows: Vec<u32>,
    ops: Vec<i8>,
}

impl Log {
    fn push(&mut self, row: u32, op: Op) {
        self.rows.push(row);
        self.ops.push(op as i8);
    }

    /// Whether it has each of so many rows, in their order.
    fn has_all(&self, rows: usize) -> bool {
        self.rows.len() == rows && (0u32..).zip(&self.rows).all(|(number, row)| number == *row)
    }

    /// All rows are results after a change.
    fn of_results(&mut self, numbers: &UInt32Array, existing: usize) {
        for (row, number) in (0u32..).zip(numbers.values()) {
            let op = if ((number / 2) as usize) < existing { Op::UpdateAfter } else { Op::Insert };
            self.push(row, op);
        }
    }

    /// Pairs of results, of which either may be missing.
    fn of_pairs(&mut self, numbers: &UInt32Array, groups: usize, changes: &Changes) {
        let mut pairs: Vec<[Option<u32>; 2]> = vec![[None; 2]; groups];
        for (row, number) in (0u32..).zip(numbers.values()) {
            pairs[(number / 2) as usize][(number % 2) as usize] = Some(row);
        }
        for pair in pairs {
            match pair {
                [Some(before), Some(after)] => {
                    if *changes == Changes::Retract {
                        self.push(before, Op::UpdateBefore);
                    }
                    self.push(after, Op::UpdateAfter);
                }
                [Some(before), None] => self.push(before, Op::Delete),
                [None, Some(after)] => self.push(after, Op::Insert),
                [None, None] => {}
            }
        }
    }
}

/// Columns of the changelog of a fragment whose last column is `__change`.
fn changelog_schema(output: &SchemaRef, changes: &Changes) -> SchemaRef {
    let op = changes.has_op().then(|| Arc::new(Field::new(OP_COLUMN, DataType::Int8, false)));
    let columns = output.fields().iter().take(output.fields().len() - 1).cloned();
    Arc::new(Schema::new(op.into_iter().chain(columns).collect::<Vec<_>>()))
}

/// Rows of the output fragment: results before, if they were asked for, then results after.
///
/// - `are_numbered`: whether the last column is the number of the change; else it is the weight.
fn results(schema: &SchemaRef, change: &Change, are_numbered: bool) -> Result<Vec<RecordBatch>, EngineError> {
    let part = |results: &[ArrayRef], groups: usize, side: u32| {
        let mut columns: Vec<ArrayRef> = change.keys.iter().map(|key| key.slice(0, groups)).collect();
        columns.extend(results.iter().cloned());
        columns.push(if are_numbered {
            let groups = u32::try_from(groups).unwrap_or(u32::MAX);
            Arc::new(UInt32Array::from_iter_values((0..groups).map(|group| 2 * group + side)))
        } else {
            Arc::new(Int64Array::from_value(2 * i64::from(side) - 1, groups))
        });
        RecordBatch::try_new(Arc::clone(schema), columns)
    };
    let before = change.before.as_ref().map(|before| part(before, change.existing, 0)).transpose()?;
    Ok(before.into_iter().chain([part(&change.after, change.groups(), 1)?]).collect())
}

#[cfg(test)]
mod tests;

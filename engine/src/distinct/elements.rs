//! The sets of GROUP BY without a window: a keyed table of elements for each, and what the new ones add to their groups.
//!
//! ```text
//! partial rows --split--> elements --KeyedTable--> bits that are new --plain accumulators--> partials by group --+
//!                    `--> groups ------------------------------------------------------------------------------->+--> the groups' table
//! ```
//! A batch costs the elements that it touches, whatever a group's set holds. Elements are told in the order in which they were touched,
//! those that exist first: that of the recipe (R2).

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use datafusion::functions_aggregate::bit_and_or_xor::bit_or_udaf;
use weir_plan::{AggregateSpec, AggregateStage};

use super::{BITS_COLUMN, SetColumns, Sets};
use crate::EngineError;
use crate::keyed_table::{Change, KeyedTable, TablePass};
use crate::merge::Extent;
use crate::open_panes::StateBudget;
use crate::pane_table::{PANE_COLUMN, PaneShape, PaneTable};

/// The elements of each set, by group.
#[derive(Debug)]
pub(crate) struct ElementTables(Vec<ElementTable>);

#[derive(Debug)]
struct ElementTable {
    shape: PaneShape,
    rows: KeyedTable,
}

/// How far a checkpoint of all sets has come.
#[derive(Debug)]
pub(crate) struct ElementPass {
    set: usize,
    extent: Extent,
    table: TablePass,
}

impl ElementPass {
    pub(crate) fn new(extent: Extent) -> Self {
        Self { set: 0, extent, table: TablePass::new(extent) }
    }
}

impl ElementTables {
    /// - `sets`: those of `stage`. - `budget`: of each.
    pub(crate) fn new(stage: &AggregateStage, sets: &Sets, key_groups: u16, budget: &StateBudget) -> Result<Self, EngineError> {
        let table = |set: &SetColumns| {
            let shape = shape_of(stage, set, key_groups)?;
            Ok(ElementTable { rows: KeyedTable::new(&shape)?.within(budget.clone()), shape })
        };
        Ok(Self(sets.iter().map(table).collect::<Result<_, EngineError>>()?))
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|table| table.rows.groups()).sum()
    }

    /// Elements that have changed since the last checkpoint.
    pub(crate) fn changed(&self) -> usize {
        self.0.iter().map(|table| table.rows.changed()).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|table| table.rows.bytes()).sum()
    }

    /// Takes the elements of a batch. Returns its rows of groups, and then what the elements add to them.
    ///
    /// - `groups`: shape of the groups' table.
    pub(crate) fn apply(
        &mut self,
        sets: &Sets,
        groups: &PaneShape,
        partials: &[RecordBatch],
    ) -> Result<Vec<RecordBatch>, EngineError> {
        let mut rows = Vec::with_capacity(partials.len() + self.0.len());
        let mut elements: Vec<Vec<RecordBatch>> = vec![Vec::new(); self.0.len()];
        for partial in partials {
            let parts = sets.split(partial)?;
            rows.push(parts.groups);
            elements.iter_mut().zip(parts.elements).for_each(|(all, of_set)| all.push(of_set));
        }
        for (set, (table, elements)) in self.0.iter_mut().zip(&elements).enumerate() {
            if let Some(change) = table.rows.apply(&table.shape, elements, true)? {
                rows.push(told(groups, set, &change)?);
            }
        }
        Ok(rows)
    }

    /// Takes rows of a checkpoint back. Returns those of groups.
    pub(crate) fn restore(&mut self, sets: &Sets, rows: &RecordBatch) -> Result<RecordBatch, EngineError> {
        let parts = sets.split(rows)?;
        for (table, elements) in self.0.iter_mut().zip(&parts.elements) {
            table.rows.restore(&table.shape, elements)?;
        }
        Ok(parts.groups)
    }

    /// The next rows of a checkpoint, set by set; `None` after the last.
    pub(crate) fn store_next(&mut self, sets: &Sets, pass: &mut ElementPass) -> Result<Option<RecordBatch>, EngineError> {
        while let Some(table) = self.0.get_mut(pass.set) {
            if let Some(rows) = table.rows.store_next(&table.shape, &mut pass.table)? {
                return Ok(Some(sets.rows_of_elements(pass.set, &rows)?));
            }
            pass.set += 1;
            pass.table = TablePass::new(pass.extent);
        }
        Ok(None)
    }
}

/// A table whose key is the stage's and the value, with the bits for a partial.
fn shape_of(stage: &AggregateStage, set: &SetColumns, key_groups: u16) -> Result<PaneShape, EngineError> {
    let value = Arc::clone(&set.elements.fields()[set.elements.fields().len() - 2]);
    let keys: Vec<_> = stage.keys.iter().cloned().chain([value]).collect();
    let bits = Arc::new(Field::new(BITS_COLUMN, DataType::UInt64, true));
    let pane = Arc::new(Field::new(PANE_COLUMN, DataType::Int64, false));
    let aggregate = AggregateSpec {
        name: BITS_COLUMN.to_owned(),
        function: bit_or_udaf(),
        args: vec![1 + keys.len()],
        filter: None,
        distinct: None,
        text: BITS_COLUMN.to_owned(),
    };
    let input = Schema::new([pane].into_iter().chain(keys.iter().cloned()).chain([bits]).collect::<Vec<_>>());
    let stage = AggregateStage { keys, aggregates: vec![aggregate], sets: Vec::new(), ..stage.clone() };
    PaneShape::new(&stage, &Arc::new(input), key_groups)
}

/// What the new bits of changed elements add to the partials of their groups: rows of groups.
fn told(groups: &PaneShape, set: usize, change: &Change) -> Result<RecordBatch, EngineError> {
    let after = change.after[0].as_primitive::<UInt64Type>().values();
    let mut bits = after.to_vec();
    if let Some(before) = &change.before {
        let before = before[0].as_primitive::<UInt64Type>();
        bits.iter_mut().zip(before.values()).for_each(|(bits, before)| *bits &= !before);
    }
    let (pane_and_keys, values) = change.keys.split_at(change.keys.len() - 1);
    let mut table = PaneTable::new(groups)?;
    table.tell(groups, set, &pane_and_keys[1..], values, &bits)?;
    table.into_partial(groups, 0)
}

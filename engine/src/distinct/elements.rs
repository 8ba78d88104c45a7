//! The sets of GROUP BY without a window: a keyed table of elements for each, and what the new ones add to their groups.
//!
//! ```text
//! partial rows --split--> elements --KeyedTable--> bits that are new --plain accumulators--> partials by group --+
//!                    `--> groups ------------------------------------------------------------------------------->+--> the groups' table
//! ```
//! A batch costs the elements that it touches, whatever a group's set holds. Elements are told in the order in which they were touched,
//! those that exist first: that of the recipe (R2). Where rows may be taken back, each element has the sum of its rows' weights, and its
//! coming and its going are told; so are the least and the greatest that its group has after the batch, where one is asked for.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_arrays;
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use datafusion::functions_aggregate::bit_and_or_xor::bit_or_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use weir_plan::{AggregateSpec, AggregateStage, Retracted, Told};

use super::{SetColumns, Sets};
use crate::EngineError;
use crate::accumulators::Flips;
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
    /// - `sets`: those of `stage`. - `budget`: of each. - `ttl`: how long an element is kept that no row has, `None` for ever.
    pub(crate) fn new(
        stage: &AggregateStage,
        sets: &Sets,
        key_groups: u16,
        budget: &StateBudget,
        ttl: Option<Duration>,
    ) -> Result<Self, EngineError> {
        let table = |set: &SetColumns| {
            let shape = shape_of(stage, set, key_groups)?;
            Ok(ElementTable { rows: KeyedTable::new(&shape)?.forgetting(&shape, ttl)?.within(budget.clone()), shape })
        };
        Ok(Self(sets.iter().map(table).collect::<Result<_, EngineError>>()?))
    }

    /// Sets the instant of what follows, from its recipe.
    pub(crate) fn set_now(&mut self, now_micros: i64) {
        self.0.iter_mut().for_each(|table| table.rows.set_now(now_micros));
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
        partials: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>, EngineError> {
        let mut rows = Vec::with_capacity(partials.len() + self.0.len());
        let mut elements: Vec<Vec<RecordBatch>> = vec![Vec::new(); self.0.len()];
        for partial in partials {
            let parts = sets.split(&partial)?;
            rows.push(parts.groups);
            elements.iter_mut().zip(parts.elements).for_each(|(all, of_set)| all.push(of_set));
        }
        for (set, (table, elements)) in self.0.iter_mut().zip(elements).enumerate() {
            let Some(change) = table.rows.apply(&table.shape, elements, true)? else { continue };
            if table.shape.counts_rows() {
                rows.extend(told_flips(groups, set, &change)?);
            } else {
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

/// A table whose key is the stage's and the value, with the bits or the weight for a partial.
fn shape_of(stage: &AggregateStage, set: &SetColumns, key_groups: u16) -> Result<PaneShape, EngineError> {
    let [.., value, said] = &set.elements.fields()[..] else {
        return Err(EngineError::Schema { place: "set", expected: "a value".to_owned(), found: "none".to_owned() });
    };
    let keys: Vec<_> = stage.keys.iter().cloned().chain([Arc::clone(value)]).collect();
    let pane = Arc::new(Field::new(PANE_COLUMN, DataType::Int64, false));
    let place = 1 + keys.len();
    let aggregate = AggregateSpec {
        name: said.name().clone(),
        function: if set.weight.is_some() { sum_udaf() } else { bit_or_udaf() },
        args: vec![place],
        filter: None,
        distinct: None,
        told: Told::Values,
        text: said.name().clone(),
    };
    let input = Schema::new([pane].into_iter().chain(keys.iter().cloned()).chain([Arc::clone(said)]).collect::<Vec<_>>());
    let retracted = set.weight.map(|_| Retracted { rows: 0, weight: place });
    let stage = AggregateStage { retracted, keys, aggregates: vec![aggregate], sets: Vec::new(), ..stage.clone() };
    let shape = PaneShape::new(&stage, &Arc::new(input), key_groups)?;
    Ok(if set.is_ordered { shape.ordered() } else { shape })
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

/// What the elements that came and went do to the partials of their groups: rows of groups. `None` if none did.
fn told_flips(groups: &PaneShape, set: usize, change: &Change) -> Result<Option<RecordBatch>, EngineError> {
    let there = |weights: &ArrayRef, row: usize| weights.as_primitive::<Int64Type>().value(row) > 0;
    let (mut flipped, mut signs) = (Vec::new(), Vec::new());
    for row in 0..change.groups() {
        let before = change.before.as_ref().filter(|_| row < change.existing).is_some_and(|before| there(&before[0], row));
        let after = there(&change.after[0], row);
        if before != after {
            flipped.push(u32::try_from(row).unwrap_or(u32::MAX));
            signs.push(if after { 1 } else { -1 });
        }
    }
    if flipped.is_empty() {
        return Ok(None);
    }
    let flipped = UInt32Array::from(flipped);
    let keys = take_arrays(&change.keys, &flipped, None)?;
    let (pane_and_keys, values) = keys.split_at(keys.len() - 1);
    let extremes = change.extremes.as_ref().map(|extremes| take_arrays(extremes, &flipped, None)).transpose()?;
    let flips = Flips { values: Arc::clone(&values[0]), signs: signs.into(), extremes };
    let mut table = PaneTable::new(groups)?;
    table.tell_flips(groups, set, &pane_and_keys[1..], &flips)?;
    Ok(Some(table.into_partial(groups, 0)?))
}

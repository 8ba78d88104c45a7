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
//! Rows have the columns of [`PaneShape::partial_schema`], and [`lifetime::TOUCHED_COLUMN`] where keys are forgotten ([`lifetime`]); a
//! checkpoint's are sorted by key group, each key once.
//!
//! Past its budget it is cut into buckets, most of which lie on disk ([`buckets`]).
//! Never: gives a result that did not change, or takes one back because its key is forgotten.

use std::ops::Range;
use std::time::Duration;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;

mod batch;
mod buckets;
mod disk;
mod held;
mod lifetime;
mod order;
mod slots;
mod stretch;

use self::buckets::Buckets;
use self::held::{Given, HeldTable, Written};
pub(crate) use self::lifetime::Lifetime;
use crate::EngineError;
use crate::merge::Extent;
use crate::open_panes::StateBudget;
use crate::pane_table::PaneShape;

/// Rows of a checkpoint that are gathered at a time.
const PASS_ROWS: usize = 1 << 16;

/// What a batch changed, group by group: those that had a result before first, each part by key group and then in the order in which
/// they were touched.
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
    /// Of a table of ordered values: the least and the greatest that the group of each has now.
    pub(crate) extremes: Option<Vec<ArrayRef>>,
}

impl Change {
    /// Number of changed groups.
    pub(crate) fn groups(&self) -> usize {
        self.keys[0].len()
    }

    fn bytes(&self) -> usize {
        let asked = self.before.iter().chain(&self.extremes).flatten();
        let columns = self.keys.iter().chain(&self.after).chain(asked);
        columns.map(|column| column.get_array_memory_size()).sum()
    }

    /// Changes of other groups each, ascending by key group, as one; `None` if there is none.
    fn joined(mut changes: Vec<Self>) -> Result<Option<Self>, EngineError> {
        if changes.len() <= 1 {
            return Ok(changes.pop());
        }
        let existing = changes.iter().map(|change| (change, 0..change.existing));
        let new = changes.iter().map(|change| (change, change.existing..change.groups()));
        let parts: Vec<(&Self, Range<usize>)> = existing.clone().chain(new).collect();
        let keys = joined_columns(&parts, |change| &change.keys)?;
        let after = joined_columns(&parts, |change| &change.after)?;
        let existing: Vec<(&Self, Range<usize>)> = existing.collect();
        let before = match changes[0].before {
            Some(_) => Some(joined_columns(&existing, |change| change.before.as_deref().unwrap_or_default())?),
            None => None,
        };
        let extremes = match changes[0].extremes {
            Some(_) => Some(joined_columns(&parts, |change| change.extremes.as_deref().unwrap_or_default())?),
            None => None,
        };
        let existing = changes.iter().map(|change| change.existing).sum();
        Ok(Some(Self { keys, after, existing, before, extremes }))
    }
}

/// Rows of several changes, column by column.
fn joined_columns(
    parts: &[(&Change, Range<usize>)],
    columns: impl Fn(&Change) -> &[ArrayRef],
) -> Result<Vec<ArrayRef>, ArrowError> {
    let count = parts.first().map_or(0, |(change, _)| columns(change).len());
    let column = |number: usize| {
        let slices: Vec<ArrayRef> =
            parts.iter().map(|(change, rows)| columns(change)[number].slice(rows.start, rows.len())).collect();
        concat(&slices.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())
    };
    (0..count).map(column).collect()
}

/// How far a checkpoint of a table has come.
#[derive(Debug)]
pub(crate) struct TablePass {
    extent: Extent,
    /// Of the table, or of the bucket under way.
    given: Given,
    bucket: usize,
    /// That bucket, if it is not held.
    read: Option<HeldTable>,
}

impl TablePass {
    pub(crate) fn new(extent: Extent) -> Self {
        Self { extent, given: Given::default(), bucket: 0, read: None }
    }
}

/// The newest partial of every key.
pub(crate) struct KeyedTable {
    schema: SchemaRef,
    lifetime: Lifetime,
    budget: StateBudget,
    place: Place,
}

/// Where the rows are.
enum Place {
    Held {
        rows: Box<HeldTable>,
        /// When they were last looked through for forgotten ones.
        turn: Option<i64>,
    },
    Cut(Buckets),
}

impl std::fmt::Debug for KeyedTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyedTable").field("groups", &self.groups()).finish_non_exhaustive()
    }
}

impl KeyedTable {
    /// A table without keys: they are kept for ever, and in memory.
    pub(crate) fn new(shape: &PaneShape) -> Result<Self, EngineError> {
        let unlimited = StateBudget { bytes_max: usize::MAX, ..StateBudget::default() };
        Self::with(shape, Lifetime::new(None, shape.rows_column()), unlimited)
    }

    /// The same, but a key is forgotten once no row of it has come for `ttl`.
    pub(crate) fn forgetting(self, shape: &PaneShape, ttl: Option<Duration>) -> Result<Self, EngineError> {
        debug_assert_eq!(self.groups(), 0, "it has no rows yet");
        Self::with(shape, Lifetime::new(ttl, shape.rows_column()), self.budget)
    }

    /// The same, but what has no room lies on disk.
    pub(crate) fn within(self, budget: StateBudget) -> Self {
        Self { budget, ..self }
    }

    fn with(shape: &PaneShape, lifetime: Lifetime, budget: StateBudget) -> Result<Self, EngineError> {
        let schema = lifetime.schema(&shape.partial_schema);
        let rows = Box::new(HeldTable::new(shape, &schema)?);
        Ok(Self { schema, lifetime, budget, place: Place::Held { rows, turn: None } })
    }

    /// Sets the instant of what follows, from its recipe.
    pub(crate) fn set_now(&mut self, now_micros: i64) {
        self.lifetime.set_now(now_micros);
    }

    /// Distinct keys, some of which may be forgotten by now; more than there are where a restored table has not been read since.
    pub(crate) fn groups(&self) -> usize {
        match &self.place {
            Place::Held { rows, .. } => rows.groups(),
            Place::Cut(buckets) => buckets.groups(),
        }
    }

    /// Keys that have changed since the last checkpoint.
    pub(crate) fn changed(&self) -> usize {
        match &self.place {
            Place::Held { rows, .. } => rows.changed(),
            Place::Cut(buckets) => buckets.changed(),
        }
    }

    /// Bytes held in memory. Not free: asks every chunk.
    pub(crate) fn bytes(&self) -> usize {
        match &self.place {
            Place::Held { rows, .. } => rows.bytes(),
            Place::Cut(buckets) => buckets.bytes(),
        }
    }

    /// Folds partial rows, in order; `None` if nothing changed.
    ///
    /// Cost: O(rows) and O(touched keys), amortised with the logarithm of the table; once it is cut, also a look at the hashes of what the
    /// touched buckets have on disk.
    pub(crate) fn apply(
        &mut self,
        shape: &PaneShape,
        partials: Vec<RecordBatch>,
        wants_before: bool,
    ) -> Result<Option<Change>, EngineError> {
        let change = match &mut self.place {
            Place::Held { rows, turn } => {
                let now = self.lifetime.turn(0, 1);
                if now != std::mem::replace(turn, now) {
                    rows.sweep(shape, self.lifetime)?;
                }
                rows.apply(shape, self.lifetime, &partials, wants_before)?
            }
            Place::Cut(buckets) => buckets.apply(shape, self.lifetime, partials, wants_before)?,
        };
        self.cut_if_large(shape)?;
        Ok(change)
    }

    /// Puts rows of a checkpoint in the place of earlier ones of their keys; no key twice.
    pub(crate) fn restore(&mut self, shape: &PaneShape, rows: &RecordBatch) -> Result<(), EngineError> {
        match &mut self.place {
            Place::Held { rows: held, .. } => held.restore(shape, rows, Written::BeforeCheckpoint)?,
            Place::Cut(buckets) => buckets.restore(shape, self.lifetime, rows)?,
        }
        self.cut_if_large(shape)
    }

    /// The next rows of a checkpoint; `None` after the last.
    pub(crate) fn store_next(&mut self, shape: &PaneShape, pass: &mut TablePass) -> Result<Option<RecordBatch>, EngineError> {
        match &mut self.place {
            Place::Held { rows, .. } => {
                let given = rows.store_next(shape, self.lifetime, pass.extent, &mut pass.given)?;
                if given.is_none() {
                    rows.checkpointed();
                    rows.sweep_if_deserted(shape, self.lifetime)?;
                }
                Ok(given)
            }
            Place::Cut(buckets) => buckets.store_next(shape, self.lifetime, pass),
        }
    }

    fn cut_if_large(&mut self, shape: &PaneShape) -> Result<(), EngineError> {
        if let Place::Held { rows, .. } = &mut self.place
            && rows.bytes() > self.budget.bytes_max
        {
            let rows = std::mem::replace(rows, Box::new(HeldTable::new(shape, &self.schema)?));
            self.place = Place::Cut(Buckets::of(shape, self.lifetime, &rows, &self.budget)?);
        }
        Ok(())
    }
}

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
//! Rows have the columns of [`PaneShape::partial_schema`], and [`TOUCHED_COLUMN`] where keys are forgotten ([`lifetime`]); a
//! checkpoint's are sorted by key group, each key once.
//! Never: gives a result that did not change, or takes one back because its key is forgotten.

use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;

mod batch;
mod held;
mod lifetime;
mod slots;

use self::held::{HeldTable, Written};
use self::lifetime::Lifetime;
use crate::EngineError;
use crate::merge::Extent;
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
    schema: SchemaRef,
    lifetime: Lifetime,
    /// When rows were last looked through for forgotten ones.
    turn: Option<i64>,
    rows: HeldTable,
}

impl std::fmt::Debug for KeyedTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyedTable").field("groups", &self.groups()).finish_non_exhaustive()
    }
}

impl KeyedTable {
    /// A table without keys, which are kept for ever.
    pub(crate) fn new(shape: &PaneShape) -> Result<Self, EngineError> {
        Self::with_lifetime(shape, Lifetime::new(None))
    }

    /// The same, but a key is forgotten once no row of it has come for `ttl`.
    pub(crate) fn forgetting(self, shape: &PaneShape, ttl: Option<Duration>) -> Result<Self, EngineError> {
        debug_assert_eq!(self.groups(), 0, "it has no rows yet");
        Self::with_lifetime(shape, Lifetime::new(ttl))
    }

    fn with_lifetime(shape: &PaneShape, lifetime: Lifetime) -> Result<Self, EngineError> {
        let schema = lifetime.schema(&shape.partial_schema);
        let rows = HeldTable::new(shape, &schema)?;
        Ok(Self { schema, lifetime, turn: None, rows })
    }

    /// Columns of a checkpoint's rows.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Sets the instant of what follows, from its recipe.
    pub(crate) fn set_now(&mut self, now_micros: i64) {
        self.lifetime.set_now(now_micros);
    }

    /// Distinct keys, some of which may be forgotten by now.
    pub(crate) fn groups(&self) -> usize {
        self.rows.groups()
    }

    /// Keys that have changed since the last checkpoint.
    pub(crate) fn changed(&self) -> usize {
        self.rows.changed()
    }

    /// Bytes held. Not free: asks every chunk.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.bytes()
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
        let turn = self.lifetime.turn(0, 1);
        if turn != self.turn {
            self.turn = turn;
            self.rows.sweep(shape, self.lifetime)?;
        }
        self.rows.apply(shape, self.lifetime, partials, wants_before)
    }

    /// Puts rows of a checkpoint in the place of earlier ones of their keys; no key twice.
    pub(crate) fn restore(&mut self, shape: &PaneShape, rows: &RecordBatch) -> Result<(), EngineError> {
        self.rows.restore(shape, rows, Written::BeforeCheckpoint)
    }

    /// The next rows of a checkpoint; `None` after the last.
    pub(crate) fn store_next(&mut self, shape: &PaneShape, pass: &mut TablePass) -> Result<Option<RecordBatch>, EngineError> {
        let slots = match pass.slots.take() {
            Some(slots) => slots,
            None => self.rows.slots_by_key_group(shape, self.lifetime, pass.extent)?,
        };
        let part = &slots[pass.given..slots.len().min(pass.given + PASS_ROWS)];
        if part.is_empty() {
            self.rows.checkpointed();
            pass.slots = Some(slots);
            return Ok(None);
        }
        let rows = self.rows.gather(part)?;
        pass.given += part.len();
        pass.slots = Some(slots);
        Ok(Some(rows))
    }
}

//! The merge stage's operator, whatever its state: folds partials, gives results, gives its state away and takes it back.
//!
//! ```text
//! partials --merge--> panes  --fire (pane end <= watermark)--> results           a window (window.rs)
//!                 `-> keyed table --fire (whatever changed)--> changelog         GROUP BY without a window (updating.rs)
//! ```
//! Where another aggregate is fed with the results, they are given as its partials (sender.rs).

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use weir_model::Watermark;
use weir_plan::{Grouping, Pipeline};

use crate::EngineError;
use crate::open_panes::{PanePass, StateBudget};
use crate::sender::Sender;
use crate::updating::{UpdatingOperator, UpdatingPass};
use crate::window::WindowOperator;

/// Runs a merge shard's batches and holds its state.
#[derive(Debug)]
pub struct MergeOperator {
    kind: Kind,
    next: Option<Sender>,
}

#[derive(Debug)]
enum Kind {
    Window(Box<WindowOperator>),
    Updating(Box<UpdatingOperator>),
}

/// What a batch's results depend on besides its rows, all of it in the recipe (R1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The shard's watermark after the batch.
    pub after: Watermark,
    /// Whether open windows give what has changed of their results.
    pub early: bool,
}

impl Moment {
    /// The end of a stream.
    pub const END: Self = Self { after: Watermark::INFINITY, early: false };
}

/// How much of the state a checkpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// What has changed since the checkpoint before: its rows take the place of earlier ones of their key.
    Changed,
}

/// How far a checkpoint has come; dropped half-way, the operator must be dropped too.
#[derive(Debug)]
pub struct CheckpointPass(PassKind);

#[derive(Debug)]
enum PassKind {
    Panes(PanePass),
    Table(Box<UpdatingPass>),
}

impl MergeOperator {
    /// Plans the merge stage of aggregate `index` of `pipeline`, without state. `None` if there is no such aggregate.
    ///
    /// # Errors
    /// [`EngineError::Query`] if a fragment cannot be planned.
    pub async fn new(
        pipeline: &Pipeline,
        index: usize,
        key_groups: u16,
        budget: StateBudget,
    ) -> Result<Option<Self>, EngineError> {
        let Some(stage) = pipeline.aggregates.get(index) else { return Ok(None) };
        let kind = match stage.grouping {
            Grouping::Tumble { .. } => {
                WindowOperator::new(pipeline, key_groups, budget).await?.map(|window| Kind::Window(Box::new(window)))
            }
            Grouping::Updating { .. } => {
                let updating = UpdatingOperator::new(pipeline, index, key_groups, budget).await?;
                updating.map(|updating| Kind::Updating(Box::new(updating)))
            }
        };
        let next = Sender::new(pipeline, index, key_groups).await?;
        Ok(kind.map(|kind| Self { kind, next }))
    }

    /// The same with batches of at most `rows` results of windows. A replay must cut where the batch did: the same number in all
    /// processes (R1).
    #[must_use]
    pub fn with_fired_rows_max(self, rows: usize) -> Self {
        let kind = match self.kind {
            Kind::Window(window) => Kind::Window(Box::new(window.with_fired_rows_max(rows))),
            kind @ Kind::Updating(_) => kind,
        };
        Self { kind, ..self }
    }

    /// Whether what it gives are partial rows for another aggregate, to be sent by key group.
    #[must_use]
    pub fn feeds_another(&self) -> bool {
        self.next.is_some()
    }

    /// Takes the state of an operator of the same stage.
    pub fn adopt(&mut self, other: Self) {
        match (&mut self.kind, other.kind) {
            (Kind::Window(window), Kind::Window(other)) => window.adopt(*other),
            (Kind::Updating(updating), Kind::Updating(other)) => updating.adopt(*other),
            (Kind::Window(_), Kind::Updating(_)) | (Kind::Updating(_), Kind::Window(_)) => {
                debug_assert!(false, "operators of one stage are of one kind");
            }
        }
    }

    /// Columns of partial rows.
    #[must_use]
    pub fn partial_schema(&self) -> &SchemaRef {
        match &self.kind {
            Kind::Window(window) => window.partial_schema(),
            Kind::Updating(updating) => updating.partial_schema(),
        }
    }

    /// Columns by which partial rows are told apart: pane, keys, and of an element of a set its set and value.
    #[must_use]
    pub fn row_key(&self) -> Vec<usize> {
        match &self.kind {
            Kind::Window(window) => window.shape().sets().row_key(),
            Kind::Updating(updating) => updating.shape().sets().row_key(),
        }
    }

    /// Columns of checkpoints: those of partial rows, and the instant of the last touch where keys are forgotten.
    #[must_use]
    pub fn state_schema(&self) -> &SchemaRef {
        match &self.kind {
            Kind::Window(window) => window.partial_schema(),
            Kind::Updating(updating) => updating.state_schema(),
        }
    }

    /// Sets the instant of the batch that begins, from its recipe (R1); whatever is asked before the next is of this instant.
    pub fn set_now(&mut self, now_micros: i64) {
        match &mut self.kind {
            Kind::Window(_) => {}
            Kind::Updating(updating) => updating.set_now(now_micros),
        }
    }

    /// Columns of what [`Self::fire`] gives.
    #[must_use]
    pub fn output_schema(&self) -> &SchemaRef {
        if let Some(next) = &self.next {
            return next.partial_schema();
        }
        match &self.kind {
            Kind::Window(window) => window.output_schema(),
            Kind::Updating(updating) => updating.output_schema(),
        }
    }

    /// Columns of late rows, as the job reads them; `None` where no row is ever late.
    #[must_use]
    pub fn late_schema(&self) -> Option<&SchemaRef> {
        match &self.kind {
            Kind::Window(window) => Some(window.late_schema()),
            Kind::Updating(_) => None,
        }
    }

    /// Number of open panes; none where nothing waits for a watermark.
    #[must_use]
    pub fn open_panes(&self) -> usize {
        match &self.kind {
            Kind::Window(window) => window.open_panes(),
            Kind::Updating(_) => 0,
        }
    }

    /// Starts of the open windows, microseconds UTC, ascending; none where nothing waits for a watermark.
    #[must_use]
    pub fn open_windows(&self) -> Vec<i64> {
        match &self.kind {
            Kind::Window(window) => window.open_windows(),
            Kind::Updating(_) => Vec::new(),
        }
    }

    /// Starts of the windows that partial rows are of, microseconds UTC, ascending; none where nothing waits for a watermark.
    ///
    /// # Errors
    /// [`EngineError::Schema`] for other columns.
    pub fn windows_of(&self, partials: &RecordBatch) -> Result<Vec<i64>, EngineError> {
        match &self.kind {
            Kind::Window(window) => window.windows_of(partials),
            Kind::Updating(_) => Ok(Vec::new()),
        }
    }

    /// Whether there is no state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.kind {
            Kind::Window(window) => window.open_panes() == 0,
            Kind::Updating(updating) => updating.groups() == 0,
        }
    }

    /// Rows of the state in memory: (pane, key) pairs or keys, and values that DISTINCT aggregates have seen of them.
    #[must_use]
    pub fn groups(&self) -> usize {
        match &self.kind {
            Kind::Window(window) => window.groups(),
            Kind::Updating(updating) => updating.groups(),
        }
    }

    /// Bytes of state in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.kind {
            Kind::Window(window) => window.bytes(),
            Kind::Updating(updating) => updating.bytes(),
        }
    }

    /// Least watermark at which it has something to say; `None` while time changes nothing.
    #[must_use]
    pub fn act_at(&self) -> Option<Watermark> {
        match &self.kind {
            Kind::Window(window) => window.act_at(),
            Kind::Updating(_) => None,
        }
    }

    /// Whether unread rows may make it say something, now that the inputs' watermark has moved.
    #[must_use]
    pub fn acts_on_rows(&self, before: Watermark, after: Watermark) -> bool {
        match &self.kind {
            Kind::Window(window) => window.pane_ends_between(before, after),
            Kind::Updating(_) => true,
        }
    }

    /// Folds partial rows, in order.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an accumulator refuses a value; [`EngineError::Schema`] for other columns.
    pub fn merge(&mut self, partials: &RecordBatch) -> Result<(), EngineError> {
        match &mut self.kind {
            Kind::Window(window) => window.merge(partials),
            Kind::Updating(updating) => updating.merge(partials),
        }
    }

    /// Folds rows that travelled as rows (`__kg`, then the source's columns). Returns those whose window takes no rows any more (R3).
    ///
    /// - `before`: the shard's watermark before the batch.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an expression fails on a row.
    pub async fn merge_behind(&mut self, rows: &RecordBatch, before: Watermark) -> Result<Option<RecordBatch>, EngineError> {
        match &mut self.kind {
            Kind::Window(window) => window.merge_behind(rows, before).await,
            // Without a watermark no row is behind one.
            Kind::Updating(_) => Ok(None),
        }
    }

    /// Takes rows of a checkpoint back, object by object in their order.
    ///
    /// # Errors
    /// As [`Self::merge`].
    pub fn restore(&mut self, rows: &RecordBatch) -> Result<(), EngineError> {
        match &mut self.kind {
            Kind::Window(window) => window.merge(rows),
            Kind::Updating(updating) => updating.restore(rows),
        }
    }

    /// Says how far the watermark was when the state that was restored was stored.
    pub fn stand_at(&mut self, watermark: Watermark) {
        match &mut self.kind {
            Kind::Window(window) => window.stand_at(watermark),
            Kind::Updating(_) => {}
        }
    }

    /// Gives the results of the batch: panes that the watermark after it has passed, as far as one batch goes (see [`Self::is_due`]), and
    /// of open ones what is asked for; or what has changed.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an aggregate or an output expression fails.
    pub async fn fire(&mut self, moment: Moment) -> Result<Vec<RecordBatch>, EngineError> {
        let given = match &mut self.kind {
            Kind::Window(window) => window.fire(moment).await?,
            Kind::Updating(updating) => updating.fire().await?,
        };
        match &mut self.next {
            Some(next) => next.partials(&given),
            None => Ok(given),
        }
    }

    /// The present result of each key, as one first batch of all rows would have given it; nothing where results wait for a watermark.
    ///
    /// # Errors
    /// As [`Self::fire`].
    pub async fn into_present(self) -> Result<Vec<RecordBatch>, EngineError> {
        match self.kind {
            Kind::Window(_) => Ok(Vec::new()),
            Kind::Updating(updating) => updating.into_present().await,
        }
    }

    /// Whether a pane that `after` has passed still has results to give.
    #[must_use]
    pub fn is_due(&self, after: Watermark) -> bool {
        match &self.kind {
            Kind::Window(window) => window.is_due(after),
            Kind::Updating(_) => false,
        }
    }

    /// Least time between two early results, microseconds; `None` if there are none.
    #[must_use]
    pub fn early_every(&self) -> Option<i64> {
        match &self.kind {
            Kind::Window(window) => window.early_every(),
            Kind::Updating(_) => None,
        }
    }

    /// Whether early results were asked for, and the batch had no room for all.
    #[must_use]
    pub fn owes_early(&self) -> bool {
        match &self.kind {
            Kind::Window(window) => window.owes_early(),
            Kind::Updating(_) => false,
        }
    }

    /// Whether an open window has results that it has not given early.
    #[must_use]
    pub fn has_news(&self) -> bool {
        match &self.kind {
            Kind::Window(window) => window.has_news(),
            Kind::Updating(_) => false,
        }
    }

    /// Whether some of the results that are due have been given and not all: there is no checkpoint of such a state.
    #[must_use]
    pub fn is_firing(&self) -> bool {
        match &self.kind {
            Kind::Window(window) => window.is_firing(),
            Kind::Updating(_) => false,
        }
    }

    /// Groups that a checkpoint of what has changed would have; `None` where only whole ones are.
    #[must_use]
    pub fn changed(&self) -> Option<usize> {
        match &self.kind {
            Kind::Window(_) => None,
            Kind::Updating(updating) => Some(updating.changed()),
        }
    }

    /// Begins a checkpoint; [`Self::changed`] tells whether it may be [`Extent::Changed`].
    #[must_use]
    pub fn begin_checkpoint(&self, extent: Extent) -> CheckpointPass {
        match &self.kind {
            Kind::Window(_) => CheckpointPass(PassKind::Panes(PanePass::default())),
            Kind::Updating(_) => CheckpointPass(PassKind::Table(Box::new(UpdatingPass::new(extent)))),
        }
    }

    /// The state's next rows, ascending by pane and key group; `None` after the last.
    ///
    /// The operator goes on from exactly those rows, as a restored one would: both have the same bits from here on (RP-1). No row may
    /// be folded before the pass has ended, and none may be firing.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an accumulator fails to give its state; [`EngineError::Spill`] if the disk refuses.
    pub fn checkpoint(&mut self, pass: &mut CheckpointPass) -> Result<Option<RecordBatch>, EngineError> {
        match (&mut self.kind, &mut pass.0) {
            (Kind::Window(window), PassKind::Panes(pass)) => window.checkpoint(pass),
            (Kind::Updating(updating), PassKind::Table(pass)) => updating.checkpoint(pass),
            (Kind::Window(_), PassKind::Table(_)) | (Kind::Updating(_), PassKind::Panes(_)) => {
                debug_assert!(false, "a pass belongs to the operator that began it");
                Ok(None)
            }
        }
    }
}

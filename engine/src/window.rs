//! The merge stage of a window aggregate: folds partials by pane, fires the panes that the watermark has passed, gives its state away
//! for a checkpoint and takes it back.
//!
//! ```text
//! partials --merge--> PaneTable per pane --fire (pane end <= watermark)--> output fragment --> result rows
//! rows behind their lane's watermark --late?--> late stream, else partials of one row each
//! ```

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{filter_record_batch, not};
use datafusion::arrow::datatypes::SchemaRef;
use weir_model::Watermark;
use weir_plan::{Grouping, Pipeline};

use crate::EngineError;
use crate::fragment::FragmentRunner;
use crate::open_panes::{OpenPanes, PanePass, StateBudget};
use crate::pane_table::PaneShape;
use crate::panes::{PaneGrid, split_by_pane};
use crate::rowtime::RowtimeReader;
use crate::spill::Rows;

/// Results that one batch gives; what is due beyond them waits for the next.
pub const FIRED_ROWS_MAX: usize = 1 << 19;

/// Runs a merge shard's batches and holds its open panes.
#[derive(Debug)]
pub(crate) struct WindowOperator {
    input: FragmentRunner,
    output: FragmentRunner,
    rowtime: RowtimeReader,
    shape: Arc<PaneShape>,
    grid: PaneGrid,
    panes: OpenPanes,
    fired_rows_max: usize,
}

impl WindowOperator {
    /// Plans the merge stage of `pipeline`, without state. `None` if the pipeline has no window.
    ///
    /// - `budget`: past it panes lie on disk.
    ///
    /// # Errors
    /// [`EngineError::Query`] if a fragment cannot be planned.
    pub(crate) async fn new(pipeline: &Pipeline, key_groups: u16, budget: StateBudget) -> Result<Option<Self>, EngineError> {
        let (Some(window), Some(rowtime)) = (&pipeline.aggregate, &pipeline.source.rowtime) else { return Ok(None) };
        let Grouping::Tumble { size_micros, offset_micros } = window.grouping else { return Ok(None) };
        let input = FragmentRunner::new(&pipeline.input).await?;
        let output = FragmentRunner::new(&window.output).await?;
        let rowtime = RowtimeReader::new(rowtime, input.input_columns())?;
        let shape = Arc::new(PaneShape::new(window, input.output_schema(), key_groups)?);
        let (grid, panes) = (PaneGrid { size_micros, offset_micros }, OpenPanes::new(budget));
        Ok(Some(Self { input, output, rowtime, shape, grid, panes, fired_rows_max: FIRED_ROWS_MAX }))
    }

    /// The same with batches of at most `rows` results. A replay must cut where the batch did: the same number in all processes (R1).
    pub(crate) fn with_fired_rows_max(self, rows: usize) -> Self {
        Self { fired_rows_max: rows, ..self }
    }

    /// Takes the open panes of an operator of the same stage.
    pub(crate) fn adopt(&mut self, other: Self) {
        self.panes = other.panes;
    }

    /// Shape of partial rows.
    pub(crate) fn shape(&self) -> &PaneShape {
        &self.shape
    }

    /// Columns of partial rows and of checkpoints.
    pub(crate) fn partial_schema(&self) -> &SchemaRef {
        &self.shape.partial_schema
    }

    /// Columns of what [`Self::fire`] gives.
    pub(crate) fn output_schema(&self) -> &SchemaRef {
        self.output.output_schema()
    }

    /// Columns of late rows, as the job reads them.
    pub(crate) fn late_schema(&self) -> &SchemaRef {
        self.input.input_schema()
    }

    /// Number of open panes.
    pub(crate) fn open_panes(&self) -> usize {
        self.panes.len()
    }

    /// Starts of the open windows, microseconds, ascending.
    pub(crate) fn open_windows(&self) -> Vec<i64> {
        self.panes.numbers().map(|pane| self.grid.start(pane)).collect()
    }

    /// Starts of the windows that partial rows are of.
    ///
    /// # Errors
    /// [`EngineError::Schema`] for other columns.
    pub(crate) fn windows_of(&self, partials: &RecordBatch) -> Result<Vec<i64>, EngineError> {
        Ok(split_by_pane(partials, 1)?.into_iter().map(|(pane, _)| self.grid.start(pane)).collect())
    }

    /// Distinct (pane, key) pairs in memory.
    pub(crate) fn groups(&self) -> usize {
        self.panes.groups()
    }

    /// Bytes of open panes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.panes.bytes()
    }

    /// Number of open panes that lie on disk.
    #[cfg(test)]
    pub(crate) fn spilled_panes(&self) -> usize {
        self.panes.spilled()
    }

    /// Least watermark at which a pane fires; `None` while no pane is open.
    pub(crate) fn act_at(&self) -> Option<Watermark> {
        self.panes.first().map(|pane| Watermark(self.grid.end(pane)))
    }

    /// Whether a pane ends between two watermarks, so that unread rows may belong to a pane that fires.
    pub(crate) fn pane_ends_between(&self, before: Watermark, after: Watermark) -> bool {
        self.grid.pane_of(after.0) > self.grid.pane_of(before.0)
    }

    /// Folds partial rows, in order.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an accumulator refuses a value; [`EngineError::Schema`] for other columns.
    pub(crate) fn merge(&mut self, partials: &RecordBatch) -> Result<(), EngineError> {
        if partials.num_columns() != self.shape.partial_schema.fields().len() {
            return Err(EngineError::schema("partial rows", &self.shape.partial_schema, &partials.schema()));
        }
        for (pane, rows) in split_by_pane(partials, 1)? {
            self.panes.fold(&self.shape, pane, Rows::Partial, &rows)?;
        }
        Ok(())
    }

    /// Folds rows that travelled as rows (`__kg`, then the source's columns). Returns those whose window has fired (R3).
    ///
    /// - `before`: the shard's watermark before the batch.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an expression fails on a row.
    pub(crate) async fn merge_behind(
        &mut self,
        rows: &RecordBatch,
        before: Watermark,
    ) -> Result<Option<RecordBatch>, EngineError> {
        let source: Vec<ArrayRef> = rows.columns()[1..].to_vec();
        let rows = RecordBatch::try_new(Arc::clone(self.input.input_schema()), source)?;
        let times = self.rowtime.times(&rows)?;
        let grid = self.grid;
        let late: BooleanArray = times.iter().map(|time| time.map(|time| before.passed(grid.end(grid.pane_of(time))))).collect();
        let late_rows = filter_record_batch(&rows, &late)?;
        let on_time = filter_record_batch(&rows, &not(&late)?)?;
        for output in self.input.run(vec![on_time]).await? {
            for (pane, rows) in split_by_pane(&output, 0)? {
                self.panes.fold(&self.shape, pane, Rows::Raw, &rows)?;
            }
        }
        Ok((late_rows.num_rows() > 0).then_some(late_rows))
    }

    /// Fires the panes that `after`, the watermark after the batch, has passed, as far as one batch goes: see [`Self::is_due`].
    ///
    /// # Errors
    /// [`EngineError::Query`] if an aggregate or an output expression fails.
    pub(crate) async fn fire(&mut self, after: Watermark) -> Result<Vec<RecordBatch>, EngineError> {
        let mut fired = Vec::new();
        let mut room = self.fired_rows_max;
        while room > 0 && self.is_due(after) {
            if let Some(rows) = self.panes.fire_next(&self.shape, room)? {
                room -= rows.num_rows();
                fired.push(rows);
            }
        }
        if fired.is_empty() {
            return Ok(Vec::new());
        }
        self.output.run(fired).await
    }

    /// Whether a pane that `after` has passed still has results to give.
    pub(crate) fn is_due(&self, after: Watermark) -> bool {
        // The last pane of all time never ends; a closed stream fires it all the same (W2).
        self.panes.first().is_some_and(|pane| after.passed(self.grid.end(pane)))
    }

    /// Whether a pane has given some of its results and not all: there is no checkpoint of such a state.
    pub(crate) fn is_firing(&self) -> bool {
        self.panes.is_firing()
    }

    /// The state's next partial rows, ascending by pane and key group; `None` after the last. One [`PanePass`] is one checkpoint.
    ///
    /// The operator goes on from exactly those rows, as a restored one would: both have the same bits from here on (RP-1). No row may
    /// be folded before the pass has ended, and none may be firing.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an accumulator fails to give its state; [`EngineError::Spill`] if the disk refuses.
    pub(crate) fn checkpoint(&mut self, pass: &mut PanePass) -> Result<Option<RecordBatch>, EngineError> {
        self.panes.store_next(&self.shape, pass)
    }
}

#[cfg(test)]
mod tests;

//! The merge stage of a window aggregate: folds partials by pane, fires the panes that the watermark has passed, gives its state away
//! for a checkpoint and takes it back.
//!
//! ```text
//! partials --merge--> PaneTable per pane --fire (pane end <= watermark)--> output fragment --> result rows
//! rows behind their lane's watermark --late?--> late stream, else partials of one row each
//! ```
//! Windows that give results more than once, and stay: see `early`.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{filter_record_batch, not};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use weir_model::Watermark;
use weir_plan::{Emit, Grouping, OP_COLUMN, Pipeline};

use crate::EngineError;
use crate::fragment::FragmentRunner;
use crate::merge::Moment;
use crate::open_panes::{OpenPanes, PanePass, StateBudget};
use crate::pane_table::{Given, PaneShape};
use crate::panes::{PaneGrid, split_by_pane};
use crate::rowtime::RowtimeReader;
use crate::spill::Rows;

mod early;

/// Results that one batch gives; what is due beyond them waits for the next.
pub const FIRED_ROWS_MAX: usize = 1 << 19;

/// Runs a merge shard's batches and holds its open panes.
#[derive(Debug)]
pub(crate) struct WindowOperator {
    input: FragmentRunner,
    output: FragmentRunner,
    /// Of windows that fire more than once: which results are given.
    condition: Option<FragmentRunner>,
    rowtime: RowtimeReader,
    shape: Arc<PaneShape>,
    grid: PaneGrid,
    panes: OpenPanes,
    emit: Emit,
    /// Columns of what [`Self::fire`] gives.
    given_schema: SchemaRef,
    place: early::Place,
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
        let (Some(window), Some(rowtime)) = (pipeline.aggregates.first(), &pipeline.source.rowtime) else { return Ok(None) };
        let Grouping::Tumble { size_micros, offset_micros, emit } = window.grouping else { return Ok(None) };
        let input = FragmentRunner::new(&pipeline.input).await?;
        let output = FragmentRunner::new(&window.output).await?;
        let condition = match &window.condition {
            Some(condition) => Some(FragmentRunner::new(condition).await?),
            None => None,
        };
        let rowtime = RowtimeReader::new(rowtime, input.input_columns())?;
        let shape = PaneShape::new(window, input.output_schema(), key_groups)?;
        let shape = Arc::new(if emit.changes() { shape.remembering() } else { shape });
        let given_schema = given_schema(output.output_schema(), emit);
        let (grid, panes) = (PaneGrid { size_micros, offset_micros }, OpenPanes::new(budget));
        let (place, fired_rows_max) = (early::Place::default(), FIRED_ROWS_MAX);
        Ok(Some(Self { input, output, condition, rowtime, shape, grid, panes, emit, given_schema, place, fired_rows_max }))
    }

    /// The same with batches of at most `rows` results. A replay must cut where the batch did: the same number in all processes (R1).
    pub(crate) fn with_fired_rows_max(self, rows: usize) -> Self {
        Self { fired_rows_max: rows, ..self }
    }

    /// Takes the open panes of an operator of the same stage.
    pub(crate) fn adopt(&mut self, other: Self) {
        (self.panes, self.place) = (other.panes, other.place);
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
        &self.given_schema
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

    /// Least watermark at which a pane fires or goes; `None` while no pane is open.
    pub(crate) fn act_at(&self) -> Option<Watermark> {
        let first = self.panes.first();
        if self.emit.lateness_micros == 0 {
            return first.map(|pane| Watermark(self.grid.end(pane)));
        }
        let goes = first.map(|pane| self.goes_at(pane));
        let fires = self.next_unfired().map(|pane| self.grid.end(pane));
        goes.into_iter().chain(fires).min().map(Watermark)
    }

    /// Whether a pane ends between two watermarks, so that unread rows may belong to a pane that fires; or may have fired before.
    pub(crate) fn pane_ends_between(&self, before: Watermark, after: Watermark) -> bool {
        self.emit.lateness_micros > 0 || self.grid.pane_of(after.0) > self.grid.pane_of(before.0)
    }

    /// Folds partial rows, in order.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an accumulator refuses a value; [`EngineError::Schema`] for other columns.
    pub(crate) fn merge(&mut self, partials: &RecordBatch) -> Result<(), EngineError> {
        let columns = self.shape.partial_schema.fields().len();
        let partials = match partials.num_columns() {
            found if found == columns => partials.clone(),
            // Those of an exchange do not know what was given.
            found if found + 1 == columns && self.emit.changes() => self.shape.with_given(partials, Given::Never)?,
            _ => return Err(EngineError::schema("partial rows", &self.shape.partial_schema, &partials.schema())),
        };
        for (pane, rows) in split_by_pane(&partials, 1)? {
            self.panes.fold(&self.shape, pane, Rows::Partial, &rows)?;
        }
        Ok(())
    }

    /// Folds rows that travelled as rows (`__kg`, then the source's columns). Returns those whose window takes no rows any more (R3).
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
        let late = self.too_late(&rows, before)?;
        let late_rows = filter_record_batch(&rows, &late)?;
        let on_time = filter_record_batch(&rows, &not(&late)?)?;
        for output in self.input.run(vec![on_time]).await? {
            for (pane, rows) in split_by_pane(&output, 0)? {
                self.panes.fold(&self.shape, pane, Rows::Raw, &rows)?;
            }
        }
        Ok((late_rows.num_rows() > 0).then_some(late_rows))
    }

    /// Of each row, whether its window takes no rows any more.
    fn too_late(&self, rows: &RecordBatch, before: Watermark) -> Result<BooleanArray, EngineError> {
        let is_late = |time| before.passed(self.goes_at(self.grid.pane_of(time)));
        Ok(self.rowtime.times(rows)?.iter().map(|time| time.map(is_late)).collect())
    }

    /// Fires the panes that the watermark after the batch has passed, as far as one batch goes: see [`Self::is_due`]; and gives what else
    /// is to be given now.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an aggregate or an output expression fails.
    pub(crate) async fn fire(&mut self, moment: Moment) -> Result<Vec<RecordBatch>, EngineError> {
        if self.emit.changes() {
            return self.fire_again(moment).await;
        }
        let fired = self.close(moment.after, self.fired_rows_max)?;
        if fired.is_empty() {
            return Ok(Vec::new());
        }
        self.output.run(fired).await
    }

    /// Results of the panes that `after` has passed, about `room` of them; the panes go.
    fn close(&mut self, after: Watermark, mut room: usize) -> Result<Vec<RecordBatch>, EngineError> {
        let mut fired = Vec::new();
        while room > 0 && self.is_due(after) {
            if let Some(rows) = self.panes.fire_next(&self.shape, room)? {
                room -= rows.num_rows();
                fired.push(rows);
            }
        }
        Ok(fired)
    }

    /// Whether a pane that `after` has passed still has results to give.
    pub(crate) fn is_due(&self, after: Watermark) -> bool {
        let next = if self.emit.lateness_micros > 0 { self.next_unfired() } else { self.panes.first() };
        // The last pane of all time never ends; a closed stream fires it all the same (W2).
        next.is_some_and(|pane| after.passed(self.grid.end(pane)))
    }

    /// The watermark at which a pane takes no rows any more.
    fn goes_at(&self, pane: i64) -> i64 {
        self.grid.end(pane).saturating_add(self.emit.lateness_micros)
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

/// Columns of results: where they change, the fragment's last two give way to what happened to the row.
fn given_schema(output: &SchemaRef, emit: Emit) -> SchemaRef {
    if !emit.changes() {
        return Arc::clone(output);
    }
    let op = Arc::new(Field::new(OP_COLUMN, DataType::Int8, false));
    let columns = output.fields().iter().take(output.fields().len() - 2).cloned();
    Arc::new(Schema::new([op].into_iter().chain(columns).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests;

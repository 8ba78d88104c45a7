//! The source stage's operator: rows in, partials (or result rows) out, once per epoch.
//!
//! A lane keeps nothing between epochs but its watermark, so its restart point is its place in the source.
//!
//! ```text
//! source batch -> sort by fate -> fragment -> PaneTable per pane -> end of epoch: partial rows sorted by key group
//!                      |-> behind the lane's own watermark: travels as rows (R3)
//!                      |-> no event time, or beyond now + skew: dead letters (W3)
//!                      `-> an expression fails on it: dead letters, or the job stops, as the source's 'on-error' says
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use weir_model::{Watermark, check_invariant};
use weir_plan::Pipeline;

use crate::EngineError;
use crate::fragment::FragmentRunner;
use crate::pane_table::{KEY_GROUP_COLUMN, PaneShape, PaneTable};
use crate::panes::split_by_pane;
use crate::rowtime::{Misfit, RowtimeReader};
use crate::sieve::{FailedRow, Failing, Sieve};

/// What one epoch of a lane made.
#[derive(Debug, Default)]
pub struct LaneEpoch {
    /// Partial rows, one batch per pane, ascending by pane; columns of [`PaneShape::partial_schema`].
    pub partials: Vec<RecordBatch>,
    /// Rows behind the lane's watermark: `__kg`, then the source's columns; only of a windowed pipeline.
    pub behind: Option<RecordBatch>,
    /// Result rows of a stateless pipeline, in order.
    pub rows: Vec<RecordBatch>,
    /// Rows without a place in time, and why.
    pub misfits: Vec<(Misfit, RecordBatch)>,
    /// Rows on which an expression failed.
    pub failed: Vec<FailedRow>,
    /// Rows read.
    pub events: u64,
    /// Rows that a filter dropped.
    pub filtered: u64,
    /// Rows folded into the partials.
    pub folded: u64,
}

impl LaneEpoch {
    /// Rows that it accounts for: folded, passed on, held back, set aside or dropped.
    fn accounted(&self) -> u64 {
        let count = |rows: &mut dyn Iterator<Item = &RecordBatch>| rows.map(|rows| rows.num_rows() as u64).sum::<u64>();
        let misfits = count(&mut self.misfits.iter().map(|(_, rows)| rows));
        let passed = count(&mut self.rows.iter().chain(&self.behind));
        self.folded + passed + misfits + self.failed.len() as u64 + self.filtered
    }
}

/// Runs a lane's batches.
#[derive(Debug)]
pub struct LaneOperator {
    input: FragmentRunner,
    with_row: Option<FragmentRunner>,
    rowtime: Option<RowtimeReader>,
    shape: Option<Arc<PaneShape>>,
    behind_schema: SchemaRef,
    panes: BTreeMap<i64, PaneTable>,
    epoch: LaneEpoch,
    behind: Vec<RecordBatch>,
    /// Watermark before the epoch and after what was pushed so far.
    before: Watermark,
    after: Watermark,
    /// Whether all rows of the epoch travel as rows.
    as_rows: bool,
    scratch: Vec<usize>,
    sieve: Sieve,
}

impl LaneOperator {
    /// Plans the lane of `pipeline`, at watermark `watermark`.
    ///
    /// # Errors
    /// [`EngineError::Query`] if a fragment cannot be planned.
    pub async fn new(pipeline: &Pipeline, key_groups: u16, watermark: Watermark) -> Result<Self, EngineError> {
        let input = FragmentRunner::new(&pipeline.input).await?;
        let with_row = match &pipeline.input_with_row {
            Some(fragment) => Some(FragmentRunner::new(fragment).await?),
            None => None,
        };
        let source = Arc::clone(input.input_schema());
        let rowtime =
            pipeline.source.rowtime.as_ref().map(|rowtime| RowtimeReader::new(rowtime, input.input_columns())).transpose()?;
        let shape = (pipeline.aggregates.first())
            .map(|stage| PaneShape::new(stage, input.output_schema(), key_groups).map(Arc::new))
            .transpose()?;
        Ok(Self {
            behind_schema: behind_schema(&source),
            input,
            with_row,
            rowtime,
            shape,
            panes: BTreeMap::new(),
            epoch: LaneEpoch::default(),
            behind: Vec::new(),
            before: watermark,
            after: watermark,
            as_rows: false,
            scratch: Vec::new(),
            sieve: Sieve { table: pipeline.source.name.clone(), on_error: pipeline.source.on_error },
        })
    }

    /// Columns a source batch must have.
    #[must_use]
    pub fn source_schema(&self) -> &SchemaRef {
        self.input.input_schema()
    }

    /// Columns of [`LaneEpoch::behind`].
    #[must_use]
    pub fn behind_schema(&self) -> &SchemaRef {
        &self.behind_schema
    }

    /// Columns of [`LaneEpoch::rows`].
    #[must_use]
    pub fn output_schema(&self) -> &SchemaRef {
        self.input.output_schema()
    }

    /// Shape of the partials; `None` in a stateless pipeline.
    #[must_use]
    pub fn shape(&self) -> Option<&Arc<PaneShape>> {
        self.shape.as_ref()
    }

    /// Watermark after everything pushed so far.
    #[must_use]
    pub fn watermark(&self) -> Watermark {
        self.after
    }

    /// Groups and result rows gathered in this epoch: how large its segment will be.
    #[must_use]
    pub fn gathered_rows(&self) -> usize {
        self.panes.values().map(PaneTable::groups).sum::<usize>()
            + self.epoch.rows.iter().map(RecordBatch::num_rows).sum::<usize>()
    }

    /// Rows of this epoch on which an expression failed.
    #[must_use]
    pub fn failed_rows(&self) -> usize {
        self.epoch.failed.len()
    }

    /// Bytes gathered in this epoch. Not free: asks every table and batch.
    #[must_use]
    pub fn gathered_bytes(&self) -> usize {
        let batches = self.epoch.rows.iter().chain(&self.behind).chain(self.epoch.misfits.iter().map(|(_, rows)| rows));
        let bytes: usize = batches.map(RecordBatch::get_array_memory_size).sum();
        bytes + self.panes.values().map(PaneTable::bytes).sum::<usize>()
    }

    /// Runs one source batch.
    ///
    /// - `latest_micros`: latest event time that is not quarantined.
    ///
    /// # Errors
    /// [`EngineError::Row`] if an expression fails on a row and the source's rows are not set aside then.
    pub async fn push(&mut self, rows: RecordBatch, latest_micros: i64) -> Result<(), EngineError> {
        self.epoch.events += rows.num_rows() as u64;
        let Some(rowtime) = &self.rowtime else { return self.push_on_time(rows).await };
        // A stateless pipeline has no use for order: only a row without a place in time is held back.
        let before = match &self.shape {
            Some(_) if self.as_rows => Watermark::INFINITY,
            Some(_) => self.before,
            None => Watermark::NONE,
        };
        let timed = match rowtime.sort(rows.clone(), before, latest_micros) {
            Err(error) => {
                let good = self.sieve.good(Failing::Time(rowtime), &rows, error, &mut self.epoch.failed).await?;
                rowtime.sort(good, before, latest_micros)?
            }
            timed => timed?,
        };
        self.after = self.after.max(timed.watermark.unwrap_or(Watermark::NONE));
        self.epoch.misfits.extend(timed.misfits);
        if let Some(behind) = timed.behind {
            self.push_behind(behind).await?;
        }
        match timed.on_time {
            Some(rows) => self.push_on_time(rows).await,
            None => Ok(()),
        }
    }

    /// Whether rows are folded into windows, each of which fires and may be over for a row.
    #[must_use]
    pub fn folds_by_time(&self) -> bool {
        self.with_row.is_some() && self.rowtime.is_some()
    }

    /// Whether all rows of the next epoch travel as rows, as those behind the lane's watermark do: receivers judge each of them.
    pub fn send_as_rows(&mut self, all: bool) {
        self.as_rows = all && self.folds_by_time();
    }

    /// Moves event time on without rows, as the source says; never back, and not to its end, which only a closed stream reaches (W2).
    pub fn advance(&mut self, to: Watermark) {
        if self.rowtime.is_some() {
            self.after = self.after.max(to.min(Watermark(i64::MAX - 1)));
        }
    }

    async fn push_on_time(&mut self, rows: RecordBatch) -> Result<(), EngineError> {
        let (rows_in, outputs) = self.run_input(rows).await?;
        self.epoch.filtered += (rows_in - outputs.iter().map(RecordBatch::num_rows).sum::<usize>()) as u64;
        let Some(shape) = self.shape.clone() else {
            self.epoch.rows.extend(outputs);
            return Ok(());
        };
        for output in &outputs {
            for (pane, rows) in split_by_pane(output, 0)? {
                let table = match self.panes.entry(pane) {
                    std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::btree_map::Entry::Vacant(entry) => entry.insert(PaneTable::new(&shape)?),
                };
                table.update(&shape, &rows, &mut self.scratch)?;
                self.epoch.folded += rows.num_rows() as u64;
            }
        }
        Ok(())
    }

    /// Runs the input fragment; returns how many rows passed it, and its output.
    async fn run_input(&mut self, rows: RecordBatch) -> Result<(usize, Vec<RecordBatch>), EngineError> {
        match self.input.run(vec![rows.clone()]).await {
            Err(error) => {
                let step = Failing::Fragment(&mut self.input);
                let good = self.sieve.good(step, &rows, error, &mut self.epoch.failed).await?;
                Ok((good.num_rows(), self.input.run(vec![good]).await?))
            }
            outputs => Ok((rows.num_rows(), outputs?)),
        }
    }

    /// Rows behind the lane's watermark keep all their columns; those a filter drops go no further.
    async fn push_behind(&mut self, rows: RecordBatch) -> Result<(), EngineError> {
        let (Some(shape), Some(fragment)) = (self.shape.clone(), self.with_row.as_mut()) else { return Ok(()) };
        let (rows, survivors) = match run_with_row(fragment, &rows).await {
            Err(error) => {
                let good = self.sieve.good(Failing::Numbered(fragment), &rows, error, &mut self.epoch.failed).await?;
                let survivors = run_with_row(fragment, &good).await?;
                (good, survivors)
            }
            survivors => (rows, survivors?),
        };
        let mut kept = 0;
        for (output, row_numbers) in survivors {
            kept += output.num_rows();
            let key_groups = shape.key_groups(&output.columns()[1..=shape.key_count()], output.num_rows())?;
            let raw = take_record_batch(&rows, &row_numbers)?;
            let mut columns: Vec<ArrayRef> = vec![Arc::new(key_groups)];
            columns.extend(raw.columns().iter().cloned());
            self.behind.push(RecordBatch::try_new(Arc::clone(&self.behind_schema), columns)?);
        }
        self.epoch.filtered += (rows.num_rows() - kept) as u64;
        Ok(())
    }

    /// Ends the epoch: gives what it made and starts the next at the watermark reached.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an accumulator fails to give its state.
    pub fn finish(&mut self) -> Result<LaneEpoch, EngineError> {
        let mut epoch = std::mem::take(&mut self.epoch);
        if let Some(shape) = &self.shape {
            for (pane, table) in std::mem::take(&mut self.panes) {
                epoch.partials.push(table.into_partial(shape, pane)?);
            }
        }
        if !self.behind.is_empty() {
            epoch.behind = Some(concat_batches(&self.behind_schema, &std::mem::take(&mut self.behind))?);
        }
        self.before = self.after;
        let (events, accounted) = (epoch.events, epoch.accounted());
        check_invariant!(Eo1, events == accounted, "{events} rows were read, {accounted} are accounted for");
        Ok(epoch)
    }
}

/// Runs a fragment whose input and output end in a row number. Returns its output without that column, and the surviving numbers.
pub(crate) async fn run_with_row(
    fragment: &mut FragmentRunner,
    rows: &RecordBatch,
) -> Result<Vec<(RecordBatch, UInt32Array)>, EngineError> {
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(UInt32Array::from_iter_values(0..u32::try_from(rows.num_rows()).unwrap_or(u32::MAX))));
    let numbered = RecordBatch::try_new(Arc::clone(fragment.input_schema()), columns)?;
    let outputs = fragment.run(vec![numbered]).await?;
    let strip = |output: RecordBatch| {
        let last = output.num_columns() - 1;
        let numbers = output.column(last).as_primitive::<UInt32Type>().clone();
        let kept: Vec<usize> = (0..last).collect();
        Ok((output.project(&kept)?, numbers))
    };
    outputs.into_iter().map(strip).collect()
}

fn behind_schema(source: &SchemaRef) -> SchemaRef {
    let mut fields = vec![Arc::new(Field::new(KEY_GROUP_COLUMN, DataType::UInt16, false))];
    fields.extend(source.fields().iter().cloned());
    Arc::new(Schema::new(fields))
}

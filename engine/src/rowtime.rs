//! Event times of a source batch: evaluated once, checked, and held as microseconds beside the user's column (W3).

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, Int64Array, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{cast, take_record_batch};
use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::DFSchema;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use weir_model::Watermark;
use weir_plan::Rowtime;

use crate::EngineError;

/// Why a row has no place in time. The text is the dead letter's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// The event time is NULL.
    Null,
    /// The event time lies beyond now + the allowed skew (W3).
    Future,
}

impl Misfit {
    /// The reason for the dead-letter stream.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Null => "event time is NULL",
            Self::Future => "event time is beyond now plus the allowed skew ('event-time.skew-max')",
        }
    }
}

/// A source batch sorted by fate; every row is in exactly one part.
#[derive(Debug, Default)]
pub struct Timed {
    /// Rows at or after the watermark before the batch, in order.
    pub on_time: Option<RecordBatch>,
    /// Rows behind it, in order: they travel as rows (R3).
    pub behind: Option<RecordBatch>,
    /// Rows that have no place in time.
    pub misfits: Vec<(Misfit, RecordBatch)>,
    /// Watermark that the rows justify.
    pub watermark: Option<Watermark>,
}

/// Evaluates a stream's event time.
#[derive(Debug)]
pub struct RowtimeReader {
    expr: Arc<dyn PhysicalExpr>,
    delay_micros: i64,
}

impl RowtimeReader {
    /// Binds the watermark declaration to the source's columns.
    ///
    /// # Errors
    /// [`EngineError::Query`] if the expression does not fit the columns.
    pub fn new(rowtime: &Rowtime, source: &DFSchema) -> Result<Self, EngineError> {
        let expr = create_physical_expr(&rowtime.expr, source, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
        Ok(Self { expr, delay_micros: rowtime.delay_micros })
    }

    /// Event times of `rows` in microseconds; null where the column is null.
    ///
    /// # Errors
    /// [`EngineError::Query`] if the expression fails on a row.
    pub fn times(&self, rows: &RecordBatch) -> Result<Int64Array, EngineError> {
        let times = self.expr.evaluate(rows)?.into_array(rows.num_rows())?;
        let micros = match times.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, _) => times,
            _ => cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, None))?,
        };
        let micros = micros.as_primitive::<TimestampMicrosecondType>();
        Ok(Int64Array::new(micros.values().clone(), micros.nulls().cloned()))
    }

    /// Sorts `rows` by fate.
    ///
    /// - `before`: the lane's watermark before the epoch (R3); - `latest_micros`: now + skew of the epoch's recipe.
    ///
    /// Cost: nothing is copied where every row is on time.
    ///
    /// # Errors
    /// [`EngineError::Query`] if the expression fails on a row.
    pub fn sort(&self, rows: RecordBatch, before: Watermark, latest_micros: i64) -> Result<Timed, EngineError> {
        let times = self.times(&rows)?;
        let mut latest_seen = None;
        let mut all_on_time = times.null_count() == 0;
        for time in times.values() {
            all_on_time &= *time >= before.0 && *time <= latest_micros;
        }
        if all_on_time {
            latest_seen = times.values().iter().copied().max();
            let watermark = latest_seen.map(|time| self.watermark(time));
            return Ok(Timed { on_time: Some(rows), watermark, ..Timed::default() });
        }
        let mut parts: [Vec<u32>; 4] = Default::default();
        for (row, time) in (0u32..).zip(times.iter()) {
            let part = match time {
                None => 2,
                Some(time) if time > latest_micros => 3,
                Some(time) => {
                    latest_seen = latest_seen.max(Some(time));
                    usize::from(time < before.0)
                }
            };
            parts[part].push(row);
        }
        let taken = parts.map(|part| (!part.is_empty()).then(|| take_record_batch(&rows, &UInt32Array::from(part))).transpose());
        let [on_time, behind, null, future] = taken;
        let misfits = [(Misfit::Null, null?), (Misfit::Future, future?)];
        Ok(Timed {
            on_time: on_time?,
            behind: behind?,
            misfits: misfits.into_iter().filter_map(|(why, rows)| rows.map(|rows| (why, rows))).collect(),
            watermark: latest_seen.map(|time| self.watermark(time)),
        })
    }

    const fn watermark(&self, time_micros: i64) -> Watermark {
        // One below infinity, which only a closed stream reaches (W2).
        let micros = time_micros.saturating_sub(self.delay_micros);
        Watermark(if micros == i64::MAX { i64::MAX - 1 } else { micros })
    }
}

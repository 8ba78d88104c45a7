//! How long a key is kept: `SET 'table.exec.state.ttl'`, and while it has rows where these may be taken back.
//!
//! A row bears the instant of the batch that touched its key last. A key whose row is as old as the time to live is forgotten: for
//! every batch and checkpoint from then on it is not there, whether or not its row still lies somewhere. So when rows are swept out,
//! and which of them a checkpoint of earlier times brings back, changes no bit (RP-1): time is the recipe's, and never runs backwards.
//!
//! A key whose rows were all taken back is not there for any batch either: it begins anew. Its row stays until a checkpoint has it, since
//! an earlier one may have the key with rows, and a checkpoint of everything leaves it out.
//!
//! Rows in memory are looked through twice in a time to live, a bucket of key groups at a time: what is looked through was touched
//! not longer ago than one and a half of it, so sweeping costs a constant for each row that came.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{Array, AsArray, BooleanArray, RecordBatch, Scalar, TimestampMicrosecondArray};
use datafusion::arrow::compute::and;
use datafusion::arrow::compute::kernels::cmp::gt;
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use datafusion::arrow::error::ArrowError;

/// Last column of a row whose key is forgotten some day: the instant of the batch that touched it last, microseconds UTC, never null.
pub(crate) const TOUCHED_COLUMN: &str = "__touched";

/// How long keys live, and what time it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    ttl_micros: Option<i64>,
    now_micros: i64,
    /// Column of the number of a key's rows, where these may be taken back.
    rows: Option<usize>,
}

impl Lifetime {
    /// - `ttl`: `None` for ever. - `rows`: column of the number of a key's rows, where these may be taken back.
    pub(crate) fn new(ttl: Option<Duration>, rows: Option<usize>) -> Self {
        let ttl_micros = ttl.map(|ttl| i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX));
        Self { ttl_micros, now_micros: i64::MIN, rows }
    }

    /// Sets the instant of the batch; it never goes back.
    pub(crate) fn set_now(&mut self, now_micros: i64) {
        self.now_micros = self.now_micros.max(now_micros);
    }

    /// Whether keys are forgotten.
    pub(crate) fn ends(&self) -> bool {
        self.ttl_micros.is_some()
    }

    /// Column of the number of a key's rows, where these may be taken back.
    pub(super) fn rows_column(&self) -> Option<usize> {
        self.rows
    }

    /// Which rows of the table are there for a batch; `None` if all are.
    pub(super) fn there(&self, rows: &RecordBatch) -> Result<Option<BooleanArray>, ArrowError> {
        let living = self.living(rows.column(rows.num_columns() - 1).as_ref())?;
        let Some(column) = self.rows else { return Ok(living) };
        let has_rows = has_rows(rows.column(column).as_ref());
        Ok(Some(match living {
            Some(living) => and(&living, &has_rows)?,
            None => has_rows,
        }))
    }

    /// Columns of the table's rows, for partials with columns `partial`.
    pub(crate) fn schema(&self, partial: &SchemaRef) -> SchemaRef {
        if !self.ends() {
            return Arc::clone(partial);
        }
        let touched = Arc::new(Field::new(TOUCHED_COLUMN, touched_type(), false));
        Arc::new(Schema::new(partial.fields().iter().cloned().chain([touched]).collect::<Vec<_>>()))
    }

    /// The same rows, touched now.
    pub(super) fn stamped(&self, partial: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        if !self.ends() {
            return Ok(partial);
        }
        let touched = TimestampMicrosecondArray::from_value(self.now_micros, partial.num_rows());
        let mut columns = partial.columns().to_vec();
        columns.push(Arc::new(touched.with_timezone("UTC")));
        RecordBatch::try_new(Arc::clone(schema), columns)
    }

    /// Which rows are not forgotten; `None` if none can be.
    pub(super) fn living(&self, touched: &dyn Array) -> Result<Option<BooleanArray>, ArrowError> {
        let Some(forgotten) = self.forgotten_at() else { return Ok(None) };
        let newest = TimestampMicrosecondArray::from_value(forgotten, 1).with_timezone("UTC");
        gt(touched.as_primitive::<TimestampMicrosecondType>(), &Scalar::new(newest)).map(Some)
    }

    /// Rows touched at this instant or before are forgotten.
    fn forgotten_at(&self) -> Option<i64> {
        self.ttl_micros.map(|ttl| self.now_micros.saturating_sub(ttl))
    }

    /// Number of the present turn of bucket `bucket` of `count`: when it changes, the bucket is swept. Buckets take turns one after
    /// the other.
    pub(super) fn turn(&self, bucket: usize, count: usize) -> Option<i64> {
        let period = (self.ttl_micros? / 2).max(1);
        let share = period / i64::try_from(count).unwrap_or(i64::MAX).max(1);
        let delay = share.saturating_mul(i64::try_from(bucket).unwrap_or(0));
        Some(self.now_micros.saturating_add(delay).div_euclid(period))
    }
}

/// Which keys have rows, by how many.
pub(super) fn has_rows(rows: &dyn Array) -> BooleanArray {
    rows.as_primitive::<Int64Type>().iter().map(|rows| Some(rows.unwrap_or(0) > 0)).collect()
}

fn touched_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

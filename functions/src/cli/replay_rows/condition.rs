//! `--where`: a condition of SQL over rows, by the engine that questions are answered with.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;

use super::part::RowSet;
use crate::query::session;

/// A condition, ready to be asked.
#[derive(Debug)]
pub(super) struct Condition(Arc<dyn PhysicalExpr>);

impl Condition {
    /// - `columns`: of the rows it is asked of.
    ///
    /// # Errors
    /// SQL that is no condition over these columns.
    pub(super) fn new(sql: &str, columns: &SchemaRef) -> anyhow::Result<Self> {
        let told = |error: DataFusionError| {
            let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
            anyhow::anyhow!("--where {sql:?}: {}\nhelp: the columns are {}", error.strip_backtrace(), names.join(", "))
        };
        let context = SessionContext::new_with_config(session());
        let schema = DFSchema::try_from(SchemaRef::clone(columns)).map_err(told)?;
        let expr = context.parse_sql_expr(sql, &schema).map_err(told)?;
        let expr = context.create_physical_expr(expr, &schema).map_err(told)?;
        let kind = expr.data_type(columns).map_err(told)?;
        anyhow::ensure!(
            kind == DataType::Boolean,
            "--where {sql:?} is {kind}: write a condition, as in \"reason LIKE '%song_id%'\""
        );
        Ok(Self(expr))
    }

    /// Rows for which it holds.
    ///
    /// # Errors
    /// An expression that fails on a row.
    pub(super) fn holds(&self, rows: &RecordBatch) -> anyhow::Result<RowSet> {
        let answer = self.0.evaluate(rows)?.into_array(rows.num_rows())?;
        let answer = answer.as_boolean();
        Ok((0..rows.num_rows()).map(|row| answer.is_valid(row) && answer.value(row)).collect())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn rows() -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        RecordBatch::try_from_iter([("songId", ids)]).unwrap()
    }

    #[tokio::test]
    async fn a_condition_takes_rows_for_which_it_is_true_and_not_those_where_it_is_null() {
        let condition = Condition::new("songId * 2 > 2.5", &rows().schema()).unwrap();
        assert_eq!(condition.holds(&rows()).unwrap(), [false, false, true].into_iter().collect());
    }

    #[tokio::test]
    async fn what_is_no_condition_is_told_with_the_columns() {
        for (sql, expected) in [("songid > 1", "the columns are songId"), ("songId + 1", "is Int64"), ("songId >", "--where")] {
            let error = Condition::new(sql, &rows().schema()).unwrap_err().to_string();
            assert!(error.contains(expected), "{sql}: {error}");
        }
    }
}

//! A query's columns against the sink's: by position or by the names that the INSERT gives.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Fields, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, ident, lit};
use datafusion::sql::sqlparser::ast::Ident;

use crate::catalog::casts_implicitly;
use crate::types::type_name;
use crate::{PlanError, meaning};

/// Sink columns in the order of the query's: all, or those that the INSERT names.
pub(super) fn sink_columns(schema: &SchemaRef, named: &[Ident], table: &Ident) -> std::result::Result<SchemaRef, PlanError> {
    if named.is_empty() {
        return Ok(Arc::clone(schema));
    }
    let mut indices = Vec::new();
    for name in named {
        let index = schema.index_of(&name.value).map_err(|_| {
            let known = schema.fields().iter().map(|field| field.name().as_str());
            PlanError::new(format!("table {} has no column {}", table.value, name.value))
                .did_you_mean(&name.value, known, "")
                .at_ident(name)
        })?;
        indices.push(index);
    }
    schema.project(&indices).map(Arc::new).map_err(|error| PlanError::new(error.to_string()))
}

pub(super) fn check_columns(plan: &LogicalPlan, sink: &SchemaRef, table: &Ident) -> std::result::Result<(), PlanError> {
    let query = plan.schema();
    if query.fields().len() != sink.fields().len() {
        let list = |fields: &Fields| fields.iter().map(|f| f.name().clone()).collect::<Vec<_>>().join(", ");
        let message = format!("the query gives {} columns, {} takes {}", query.fields().len(), table.value, sink.fields().len());
        let hint = format!("query: {}; {}: {}", list(query.fields()), table.value, list(sink.fields()));
        return Err(PlanError::new(message).at_ident(table).hint(hint));
    }
    for (from, to) in query.fields().iter().zip(sink.fields()) {
        if !casts_implicitly(from.data_type(), to.data_type()) {
            let message = format!(
                "column {} of {} is {}, the query gives {}",
                to.name(),
                table.value,
                type_name(to.data_type()),
                type_name(from.data_type())
            );
            let hint = match meaning::cast_refusal(from.data_type(), to.data_type()).and_then(PlanError::into_hint) {
                Some(hint) => hint,
                None => format!("write CAST({} AS {})", from.name(), type_name(to.data_type())),
            };
            return Err(PlanError::new(message).at_ident(table).hint(hint));
        }
    }
    Ok(())
}

/// A column that the INSERT does not name is NULL, so it must be allowed to be.
pub(super) fn check_missing(given: &SchemaRef, sink: &SchemaRef, table: &Ident) -> std::result::Result<(), PlanError> {
    let missing = sink.fields().iter().find(|field| !field.is_nullable() && given.field_with_name(field.name()).is_err());
    match missing {
        None => Ok(()),
        Some(field) => Err(PlanError::new(format!("column {} of {} is NOT NULL and gets no value", field.name(), table.value))
            .hint("name it in the INSERT, or declare it without NOT NULL")
            .at_ident(table)),
    }
}

/// Columns of the sink that the INSERT does not name are NULL.
pub(super) fn fill_missing(plan: LogicalPlan, given: &SchemaRef, sink: &SchemaRef) -> Result<LogicalPlan> {
    if given.fields().len() == sink.fields().len() && given == sink {
        return Ok(plan);
    }
    let exprs: Vec<Expr> = (sink.fields().iter())
        .map(|field| match given.column_with_name(field.name()) {
            Some(_) => ident(field.name()),
            None => cast(lit(ScalarValue::Null), field.data_type().clone()).alias(field.name()),
        })
        .collect();
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}

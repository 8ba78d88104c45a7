//! `WATERMARK FOR column AS ..`: which forms are supported, and what the column must be.

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr as SqlExpr, Ident, Spanned};

use crate::PlanError;
use crate::catalog::DeclaredRowtime;
use crate::relations::interval_micros;
use crate::types::type_name;

/// `WATERMARK FOR column AS column [- INTERVAL ..]`: the only form whose watermark follows from the greatest event time alone.
pub(super) fn watermark(
    column: &Ident,
    expr: &SqlExpr,
    schema: &SchemaRef,
    computed: &[(String, Expr)],
    physical: &DFSchema,
) -> Result<DeclaredRowtime, PlanError> {
    let declared = (schema.field_with_name(&column.value).map(|field| field.data_type().clone()).ok()).or_else(|| {
        let (_, expr) = computed.iter().find(|(name, _)| *name == column.value)?;
        expr.get_type(physical).ok()
    });
    match declared {
        Some(DataType::Timestamp(_, _)) => {}
        Some(other) => {
            return Err(PlanError::new(format!("event-time column {} is {}", column.value, type_name(&other)))
                .at_ident(column)
                .hint(
                    "an event time is TIMESTAMP(3) or TIMESTAMP_LTZ(3); compute one, as in etime AS TO_TIMESTAMP_LTZ(millis, 3)",
                ));
        }
        None => {
            let known = schema.fields().iter().map(|field| field.name().as_str());
            return Err(PlanError::new(format!("unknown event-time column {}", column.value))
                .did_you_mean(&column.value, known, "")
                .at_ident(column));
        }
    }
    let is_column = |expr: &SqlExpr| matches!(expr, SqlExpr::Identifier(name) if name.value == column.value);
    let delay_micros = match expr {
        expr if is_column(expr) => 0,
        SqlExpr::BinaryOp { left, op: BinaryOperator::Minus, right } if is_column(left) => interval_micros(right)?,
        other => {
            let place = other.span().start;
            return Err(PlanError::new(format!("watermark {other} is not supported"))
                .hint(format!("write {0} - INTERVAL '5' SECOND, or {0} alone", column.value))
                .at(place.line, place.column));
        }
    };
    if delay_micros < 0 {
        let error = PlanError::new("a watermark cannot be ahead of its rows").at_ident(column);
        return Err(error.hint(format!("write {0} - INTERVAL '5' SECOND, or {0} alone", column.value)));
    }
    Ok(DeclaredRowtime { column: column.value.clone(), delay_micros })
}

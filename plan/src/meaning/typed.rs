//! Meanings that only show once types are known: casts, division, averages and comparisons whose result would differ from Flink's.
//!
//! Looked at before the engine coerces anything, so that a cast seen here is one that the user wrote.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ExprSchema};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator};

use crate::PlanError;
use crate::types::type_name;

/// Refuses the first expression of `plan` that the engine would give another value than Flink.
pub(crate) fn refuse_other_meanings(plan: &LogicalPlan) -> Result<(), PlanError> {
    let mut refusal = None;
    let walked = plan.apply_with_subqueries(|node| {
        refusal = of_node(node);
        Ok(if refusal.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(PlanError::from_engine)?;
    refusal.map_or(Ok(()), Err)
}

/// The same for one expression over `schema`.
pub(crate) fn refuse_in_expr(expr: &Expr, schema: &DFSchema) -> Result<(), PlanError> {
    in_tree(expr, schema).map_or(Ok(()), Err)
}

fn of_node(node: &LogicalPlan) -> Option<PlanError> {
    let [input] = node.inputs()[..] else { return None };
    node.expressions().iter().find_map(|expr| in_tree(expr, input.schema()))
}

fn in_tree(expr: &Expr, schema: &DFSchema) -> Option<PlanError> {
    let mut refusal = None;
    let _ = expr.apply(|expr| {
        refusal = of_expr(expr, schema).map(|error| placed(error, expr));
        Ok(if refusal.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    refusal
}

/// The place of the first column in `expr`: the engine's expressions keep no other.
fn placed(error: PlanError, expr: &Expr) -> PlanError {
    let mut place = None;
    let _ = expr.apply(|expr| {
        place = place.or_else(|| expr.spans().and_then(|spans| spans.first()));
        Ok(if place.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    place.map_or(error.clone(), |span| error.at(span.start.line, span.start.column))
}

fn of_expr(expr: &Expr, schema: &DFSchema) -> Option<PlanError> {
    match expr {
        Expr::Cast(found) => cast_refusal(&type_of(&found.expr, schema)?, found.field.data_type()),
        Expr::TryCast(found) => cast_refusal(&type_of(&found.expr, schema)?, found.field.data_type()),
        Expr::BinaryExpr(found) => operator(found.op, &type_of(&found.left, schema)?, &type_of(&found.right, schema)?),
        Expr::AggregateFunction(call) => average(call.func.name(), &type_of(call.params.args.first()?, schema)?),
        _ => None,
    }
}

fn type_of(expr: &Expr, schema: &dyn ExprSchema) -> Option<DataType> {
    expr.get_type(schema).ok()
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

/// Why a value of type `from` cannot be cast to `to` with Flink's result.
pub(crate) fn cast_refusal(from: &DataType, to: &DataType) -> Option<PlanError> {
    let hint = match (from, to) {
        (DataType::Float32 | DataType::Float64, to) if is_text(to) => {
            "their digits differ: write CAST(CAST(x AS DECIMAL(20, 6)) AS STRING)"
        }
        (DataType::Boolean, to) if is_text(to) => "Flink writes TRUE and FALSE: write CASE WHEN x THEN 'TRUE' ELSE 'FALSE' END",
        (DataType::Timestamp(_, _), to) if is_text(to) => "write DATE_FORMAT(x, 'yyyy-MM-dd HH:mm:ss.SSS')",
        (DataType::Timestamp(_, _), to) if to.is_numeric() => "write UNIX seconds as CAST(to_unixtime(x) AS BIGINT)",
        (from, DataType::Timestamp(_, _)) if from.is_numeric() => "write TO_TIMESTAMP_LTZ(milliseconds, 3)",
        (DataType::Boolean, to) if to.is_floating() || matches!(to, DataType::Decimal128(_, _)) => {
            "write CASE WHEN x THEN 1 ELSE 0 END"
        }
        (DataType::Struct(_) | DataType::List(_) | DataType::Map(_, _), _) => "name the fields one by one",
        _ => return None,
    };
    Some(PlanError::new(format!("a cast of {} to {} is not supported", type_name(from), type_name(to))).hint(hint))
}

fn operator(op: Operator, left: &DataType, right: &DataType) -> Option<PlanError> {
    let is_decimal = |data_type: &DataType| matches!(data_type, DataType::Decimal128(_, _) | DataType::Decimal256(_, _));
    let no_float = !left.is_floating() && !right.is_floating();
    let decimals = no_float && (is_decimal(left) || is_decimal(right));
    if op == Operator::Divide && decimals {
        let hint = "the digits after the point would differ from Flink's: write CAST(x AS DOUBLE) / y";
        return Some(PlanError::new("division of decimals is not supported yet").hint(hint));
    }
    if op == Operator::Multiply && decimals && digits(left) + digits(right) + 1 > 38 {
        let message = format!("the product of {} and {} may have more than 38 digits", type_name(left), type_name(right));
        return Some(PlanError::new(message).hint("cast to smaller decimals first, as in CAST(x AS DECIMAL(18, 3))"));
    }
    let mixed = is_text(left) && (right.is_numeric() || *right == DataType::Boolean)
        || is_text(right) && (left.is_numeric() || *left == DataType::Boolean);
    (op != Operator::StringConcat && mixed).then(|| {
        let message = format!("{} and {} do not fit together", type_name(left), type_name(right));
        PlanError::new(message).hint("the engine would take both as texts: write CAST(x AS type) on one side")
    })
}

/// Decimal digits that a number may have.
fn digits(data_type: &DataType) -> u32 {
    match data_type {
        DataType::Decimal128(precision, _) | DataType::Decimal256(precision, _) => u32::from(*precision),
        DataType::Int8 | DataType::UInt8 => 3,
        DataType::Int16 | DataType::UInt16 => 5,
        DataType::Int32 | DataType::UInt32 => 10,
        _ => 20,
    }
}

fn average(function: &str, argument: &DataType) -> Option<PlanError> {
    let spreads = function.starts_with("var") || function.starts_with("stddev");
    let is_decimal = matches!(argument, DataType::Decimal128(_, _));
    // The average of integers is Flink's: see `averages`.
    let differs = is_decimal && (spreads || function == "avg") || argument.is_integer() && spreads;
    differs.then(|| {
        let hint = format!(
            "in Flink the result has the argument's kind, cut to it; say what you mean: {0}(CAST(x AS DOUBLE)), or CAST({0}(CAST(x AS DOUBLE)) AS BIGINT)",
            function.to_uppercase()
        );
        PlanError::new(format!("{function} of {} is ambiguous", type_name(argument))).hint(hint)
    })
}

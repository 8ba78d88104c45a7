//! Guards that guard: `n <> 0 AND k / n > 1` never divides by zero in Flink, which evaluates from left to right and stops early.
//!
//! The engine evaluates whole batches and moves filters past each other, so where an expression can fail, its guards become `CASE`,
//! which evaluates a branch for its own rows only, and rewrites that would undo this are left out ([`crate::rules`]).

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{BinaryExpr, Case};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, lit};

use crate::catalog::casts_implicitly;
use crate::error::too_deep;
use crate::functions::NOT_NULL;

/// Functions that refuse some of their arguments.
const CAN_FAIL: [&str; 9] = ["factorial", "gcd", "lcm", "make_date", "make_time", "date_bin", "split_part", "substr", NOT_NULL];

/// Largest right side of an AND or OR that is written twice: nested ones double with each level.
const GUARDED_NODES_MAX: usize = 1_000;

/// Whether an expression of `plan` can fail on a row that another is there to keep away.
pub(crate) fn needs_guards(plan: &LogicalPlan) -> bool {
    let fails = |node: &LogicalPlan| schema_below(node).is_some_and(|schema| any(node, |expr| can_fail(expr, schema)));
    let guards = |node: &LogicalPlan| matches!(node, LogicalPlan::Filter(_)) || any(node, decides);
    let found = |what: &dyn Fn(&LogicalPlan) -> bool| plan.exists(|node| Ok(what(node))).unwrap_or(true);
    found(&fails) && found(&guards)
}

fn any(node: &LogicalPlan, what: impl Fn(&Expr) -> bool) -> bool {
    node.expressions().iter().any(what)
}

/// Whether something of `expr` is evaluated only for some rows.
fn decides(expr: &Expr) -> bool {
    let of_some = |expr: &Expr| match expr {
        Expr::Case(_) => true,
        Expr::BinaryExpr(BinaryExpr { op, .. }) => matches!(op, Operator::And | Operator::Or),
        Expr::ScalarFunction(call) => matches!(call.func.name(), "coalesce" | "nvl" | "nvl2" | "ifnull"),
        Expr::AggregateFunction(call) => call.params.filter.is_some(),
        _ => false,
    };
    expr.exists(|expr| Ok(of_some(expr))).unwrap_or(true)
}

/// `plan` with every fallible right side of AND and OR evaluated only where the left side leaves it open.
pub(crate) fn guarded(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up(|node| {
        let Some(schema) = schema_below(&node).cloned() else { return Ok(Transformed::no(node)) };
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(|expr| guard(expr, &schema))?.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(plan.data)
}

fn schema_below(node: &LogicalPlan) -> Option<&DFSchema> {
    match node.inputs()[..] {
        [input] => Some(input.schema()),
        _ => None,
    }
}

/// `left AND right` as `CASE left WHEN FALSE THEN FALSE WHEN TRUE THEN right ELSE right AND NULL END`, OR alike.
///
/// The left side stands there once, so a chain of any length stays as long as it was; the right side twice, so its size is bounded.
fn guard(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) if can_fail(&right, schema) => {
            if nodes(&right) > GUARDED_NODES_MAX {
                return Err(too_deep().into_engine());
            }
            let decided = op == Operator::Or;
            let unknown = lit(ScalarValue::Boolean(None));
            let open = Expr::BinaryExpr(BinaryExpr { left: right.clone(), op, right: Box::new(unknown) });
            let branches = vec![(Box::new(lit(decided)), Box::new(lit(decided))), (Box::new(lit(!decided)), right)];
            Ok(Transformed::yes(Expr::Case(Case::new(Some(left), branches, Some(Box::new(open))))))
        }
        expr => Ok(Transformed::no(expr)),
    }
}

fn nodes(expr: &Expr) -> usize {
    let mut count = 0;
    let _ = expr.apply(|_| {
        count += 1;
        Ok(TreeNodeRecursion::Continue)
    });
    count
}

/// Division by what may be zero, casts of what may not fit, functions that refuse.
fn can_fail(expr: &Expr, schema: &DFSchema) -> bool {
    let mut found = false;
    let _ = expr.apply(|expr| {
        found = match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide | Operator::Modulo, right }) => {
                let floats = [left, right].iter().any(|side| side.get_type(schema).is_ok_and(|side| side.is_floating()));
                !floats && !is_number_but_zero(right)
            }
            Expr::Cast(cast) => match cast.expr.get_type(schema) {
                Ok(from) => !matches!(*cast.expr, Expr::Literal(..)) && !always_casts(&from, cast.field.data_type()),
                Err(_) => true,
            },
            Expr::ScalarFunction(call) => CAN_FAIL.contains(&call.func.name()),
            _ => false,
        };
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

fn is_number_but_zero(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(cast) => is_number_but_zero(&cast.expr),
        Expr::Negative(inner) => is_number_but_zero(inner),
        Expr::Literal(value, _) => {
            !value.is_null() && value.cast_to(&DataType::Float64).is_ok_and(|value| value != ScalarValue::Float64(Some(0.0)))
        }
        _ => false,
    }
}

fn always_casts(from: &DataType, to: &DataType) -> bool {
    let is_text = matches!(to, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    let is_time = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, _) | DataType::Date32);
    is_text || casts_implicitly(from, to) && !matches!(to, DataType::Decimal128(_, _)) || (is_time(from) && is_time(to))
}

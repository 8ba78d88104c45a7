//! Windows that give results more than once, EMIT EVERY and allowed lateness: what the sink must know to take them, and how a query learns
//! why it is given one.
//!
//! `FIRING()` above the aggregate becomes the column `__firing` of the output fragment's leaf, passed through to its end; where windows fire
//! once it is a literal. A condition (HAVING) becomes a fragment of its own: a result that met it and does no longer is taken back.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, ident, lit};

use super::shape::AggregateShape;
use super::updating::{check_reserved, group_of};
use super::{CutError, Goal, Rewrites, fragment};
use crate::PlanError;
use crate::catalog::Table;
use crate::changes::Changes;
use crate::functions;
use crate::job::{Emit, Firing, Fragment, SourceTable};
use crate::window_assign::WindowAssign;

/// Column of the output fragment that says why a result is given.
pub(super) const FIRING: &str = "__firing";

/// When the window gives results, and how the sink takes them.
pub(super) fn emit(
    plan: &LogicalPlan,
    shape: &AggregateShape,
    source: &SourceTable,
    goal: Goal<'_>,
) -> Result<(Emit, Changes), PlanError> {
    let emit = Emit { every_micros: goal.every_micros, lateness_micros: source.allowed_lateness_micros };
    if !emit.changes() {
        return Ok((emit, Changes::Append));
    }
    let about = match emit.every_micros {
        Some(_) => "EMIT EVERY gives a window's results more than once".to_owned(),
        None => format!("'allowed-lateness' of {} gives a window's results anew", source.name),
    };
    Ok((emit, changes(plan, shape, goal.sink, &about)?))
}

/// What is given at once anyway is not given early.
pub(super) fn refuse_early(goal: Goal<'_>, without: &str, what: &str) -> Result<(), CutError> {
    if goal.every_micros.is_none() {
        return Ok(());
    }
    Err(PlanError::new("EMIT EVERY is for windows").hint(format!("leave it out: without {without} each {what}")).into())
}

/// What a result must meet to be given.
pub(super) struct Condition {
    predicate: Expr,
    /// What it looks at, above the aggregate.
    input: LogicalPlan,
}

impl Condition {
    /// The condition as the only column over `[__pane, keys.., results..]`.
    pub(super) fn over(
        &self,
        shape: &AggregateShape,
        aggregate: &Aggregate,
        assign: &WindowAssign,
        rewrites: &Rewrites<'_>,
    ) -> Result<Fragment, CutError> {
        let input = shape.output(&self.input, aggregate, assign)?;
        let is_met = self.predicate.clone().is_true().alias("__is_met");
        let condition = fragment(LogicalPlanBuilder::from(input).project(vec![is_met])?.build()?, rewrites)?;
        // What the condition does not look at is gone by now.
        if has_firing(&condition.plan)? {
            return Err(PlanError::new(format!("{ABOUT_CONDITIONS} cannot ask for FIRING()"))
                .hint("filter by it where the results are read")
                .into());
        }
        Ok(condition)
    }
}

const ABOUT_CONDITIONS: &str = "a condition on results that a window gives more than once";

/// Takes `plan`, down to its aggregate, apart from the condition on its results.
///
/// - `guards`: whether an expression can fail: a condition may keep it from results that it is not meant for.
pub(super) fn apart(plan: &LogicalPlan, guards: bool) -> Result<(LogicalPlan, Option<Condition>), CutError> {
    match plan {
        LogicalPlan::Aggregate(_) => Ok((plan.clone(), None)),
        LogicalPlan::Filter(filter) => {
            let (input, below) = apart(&filter.input, guards)?;
            refuse_condition(guards, below.is_some())?;
            let condition = Condition { predicate: filter.predicate.clone(), input: input.clone() };
            Ok((input, Some(condition)))
        }
        node => {
            let inputs = node.inputs();
            let Some(below) = inputs.first() else { return Ok((node.clone(), None)) };
            let (input, condition) = apart(below, guards)?;
            Ok((node.with_new_exprs(node.expressions(), vec![input])?, condition))
        }
    }
}

fn refuse_condition(guards: bool, is_second: bool) -> Result<(), PlanError> {
    if guards {
        return Err(PlanError::new(format!("{ABOUT_CONDITIONS}, beside an expression that can fail, is not supported yet"))
            .hint("leave out what can fail (a division, a cast, a sink's NOT NULL), or filter where the results are read"));
    }
    if is_second {
        return Err(PlanError::new(format!("{ABOUT_CONDITIONS} must be one")).hint("write all of it in HAVING, with AND"));
    }
    Ok(())
}

/// The sink's key must be a bound of the window and the columns that the query groups by besides: then one result at a time has it.
fn changes(plan: &LogicalPlan, shape: &AggregateShape, sink: &Table, about: &str) -> Result<Changes, PlanError> {
    let takes_all = matches!(sink.options.get("connector").map(String::as_str), Some("print" | "blackhole"));
    let (mut bounds, mut keys) = (Vec::new(), Vec::new());
    for column in 0..sink.schema.fields().len() {
        match group_of(plan, column) {
            Some(group) if shape.is_bound(group) => bounds.push(column),
            Some(group) if !keys.iter().any(|(known, _)| *known == group) => keys.push((group, column)),
            _ => {}
        }
    }
    let keys: Vec<usize> = keys.into_iter().map(|(_, column)| column).collect();
    if bounds.is_empty() || keys.len() < shape.keys.len() {
        if takes_all && sink.primary_key.is_empty() {
            return Ok(Changes::Upsert { key: Vec::new() });
        }
        return Err(PlanError::new(format!(
            "{about}: {} must get window_start or window_end and every other column that the query groups by, as they are",
            sink.name
        ))
        .hint("select them, and make them the PRIMARY KEY of the sink"));
    }
    let key = &sink.primary_key;
    if takes_all && key.is_empty() {
        return Ok(Changes::Upsert { key: [&bounds[..1], &keys].concat() });
    }
    let is_key = keys.iter().all(|place| key.contains(place))
        && key.iter().any(|place| bounds.contains(place))
        && key.iter().all(|place| keys.contains(place) || bounds.contains(place));
    if !is_key {
        let wanted: Vec<&str> = bounds[..1].iter().chain(&keys).map(|&place| sink.schema.field(place).name().as_str()).collect();
        return Err(PlanError::new(format!("{about}: {} needs a key by which they are found", sink.name)).hint(format!(
            "declare PRIMARY KEY ({}) NOT ENFORCED in CREATE TABLE {}",
            wanted.join(", "),
            sink.name
        )));
    }
    check_reserved(sink)?;
    Ok(Changes::Upsert { key: key.clone() })
}

/// `FIRING()` as the column that the operator fills.
pub(super) fn with_firing(plan: LogicalPlan) -> Result<LogicalPlan, CutError> {
    replaced(plan, &ident(FIRING))
}

/// `FIRING()` of windows that fire once.
pub(super) fn without_firing(plan: LogicalPlan) -> Result<LogicalPlan, CutError> {
    replaced(plan, &lit(Firing::OnTime.word()))
}

fn replaced(plan: LogicalPlan, by: &Expr) -> Result<LogicalPlan, CutError> {
    let replaced = plan.transform_down(|node| {
        let node = node.map_expressions(|expr| {
            let name = expr.schema_name().to_string();
            let replaced = expr.transform_down(|expr| {
                Ok(if is_firing(&expr) {
                    Transformed::new(by.clone(), true, TreeNodeRecursion::Jump)
                } else {
                    Transformed::no(expr)
                })
            })?;
            // What stands above names the column by what it was.
            Ok(if replaced.transformed && replaced.data.schema_name().to_string() != name {
                replaced.update_data(|expr| expr.alias(name))
            } else {
                replaced
            })
        })?;
        if node.transformed { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
    })?;
    Ok(replaced.data)
}

fn is_firing(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.name() == functions::FIRING)
}

fn has_firing(plan: &LogicalPlan) -> Result<bool, PlanError> {
    let mut found = false;
    let walked = plan.apply(|node| {
        for expr in node.expressions() {
            found |= expr.exists(|expr| Ok(is_firing(expr)))?;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(PlanError::from_engine)?;
    Ok(found)
}

/// Nothing fires without a window, nor before it.
pub(super) fn refuse_firing(plan: &LogicalPlan) -> Result<(), PlanError> {
    if has_firing(plan)? {
        return Err(PlanError::new("FIRING() says why a window gives a result: there is none here")
            .hint("use it in the SELECT of a query with GROUP BY window_start, window_end, outside of aggregates"));
    }
    Ok(())
}

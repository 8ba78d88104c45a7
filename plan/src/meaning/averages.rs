//! AVG of integers with Flink's meaning: the sum divided by the count, cut to the argument's type.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, AggregateUDF, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};

use crate::functions::integer_average;

/// `plan` with each average of integers as a sum and a count, from which it is computed above the aggregate.
pub(crate) fn integer_averages(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) if has_average(&aggregate) => Ok(Transformed::yes(with_sums_and_counts(&aggregate)?)),
        // The type of a column below may be another now.
        node => Ok(Transformed::yes(node.recompute_schema()?)),
    });
    rewritten.map(|rewritten| rewritten.data)
}

fn has_average(aggregate: &Aggregate) -> bool {
    aggregate.aggr_expr.iter().any(|expr| averaged(expr, aggregate.input.schema()).is_some())
}

/// The call and the type of its argument, if `expr` is an average of integers.
fn averaged(expr: &Expr, schema: &DFSchema) -> Option<(AggregateFunction, DataType)> {
    let Expr::AggregateFunction(call) = expr.clone().unalias() else { return None };
    if call.func.name() != "avg" {
        return None;
    }
    let argument = call.params.args.first()?.get_type(schema).ok()?;
    argument.is_integer().then_some((call, argument))
}

fn with_sums_and_counts(aggregate: &Aggregate) -> Result<LogicalPlan> {
    let groups = aggregate.group_expr.len();
    let mut calls: Vec<Expr> = Vec::new();
    let mut columns: Vec<Expr> = aggregate.schema.columns().into_iter().take(groups).map(Expr::Column).collect();
    for (index, expr) in aggregate.aggr_expr.iter().enumerate() {
        let (qualifier, field) = aggregate.schema.qualified_field(groups + index);
        let Some((call, argument)) = averaged(expr, aggregate.input.schema()) else {
            add(&mut calls, expr.clone());
            columns.push(Expr::from((qualifier, field)));
            continue;
        };
        let mut part = |function: Arc<AggregateUDF>| {
            let part = Expr::AggregateFunction(AggregateFunction { func: function, ..call.clone() });
            let name = part.schema_name().to_string();
            add(&mut calls, part);
            datafusion::logical_expr::ident(name)
        };
        let average = integer_average(part(sum_udaf()), part(count_udaf()), argument);
        columns.push(average.alias_qualified(qualifier.cloned(), field.name()));
    }
    let below = Aggregate::try_new(Arc::clone(&aggregate.input), aggregate.group_expr.clone(), calls)?;
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(below)).project(columns)?.build()
}

/// Adds a call, unless the query has it already.
fn add(calls: &mut Vec<Expr>, call: Expr) {
    if !calls.iter().any(|known| known.schema_name().to_string() == call.schema_name().to_string()) {
        calls.push(call);
    }
}

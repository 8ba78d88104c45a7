//! How the columns of an Aggregate map to panes, keys and results, and which aggregates a stage may have.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ident, lit};

use super::distinct::Sets;
use super::early::FIRING;
use super::updating::CHANGE;
use super::{CutError, PANE, leaf};
use crate::job::AggregateSpec;
use crate::window_assign::{BOUND_KEY, Bound, WindowAssign, is_unchanged};
use crate::{PlanError, aggregates, functions};

/// How the columns of an Aggregate map to panes, keys and results.
pub(super) struct AggregateShape {
    /// `__pane`, keys, arguments and filters, over the aggregate's input.
    pub(super) input_columns: Vec<Expr>,
    pub(super) keys: Vec<FieldRef>,
    pub(super) specs: Vec<AggregateSpec>,
    pub(super) sets: Sets,
    /// For each GROUP BY column: a bound of the window, or the index of a key.
    groups: Vec<GroupColumn>,
}

enum GroupColumn {
    Bound(Bound),
    Key(usize),
}

impl AggregateShape {
    /// Of an aggregate over windows: it groups by both of their bounds.
    pub(super) fn windowed(plan: &LogicalPlan, aggregate: &Aggregate) -> Result<Self, CutError> {
        let shape = Self::new(plan, aggregate, ident(PANE))?;
        let grouped = |wanted| shape.groups.iter().any(|group| matches!(group, GroupColumn::Bound(bound) if *bound == wanted));
        if grouped(Bound::Start) && grouped(Bound::End) {
            return Ok(shape);
        }
        Err(PlanError::new("a window aggregate must group by both window_start and window_end")
            .hint("write GROUP BY window_start, window_end, ..")
            .into())
    }

    /// Of an aggregate without a window: all rows are of pane 0.
    pub(super) fn updating(plan: &LogicalPlan, aggregate: &Aggregate) -> Result<Self, CutError> {
        Self::new(plan, aggregate, lit(0_i64).alias(PANE))
    }

    fn new(plan: &LogicalPlan, aggregate: &Aggregate, pane: Expr) -> Result<Self, CutError> {
        let (keys, specs, groups) = (Vec::new(), Vec::new(), Vec::new());
        let mut shape = Self { input_columns: vec![pane], keys, specs, sets: Sets::default(), groups };
        for expr in &aggregate.group_expr {
            shape.add_group(aggregate, expr)?;
        }
        let names = result_names(plan, aggregate);
        for (expr, name) in aggregate.aggr_expr.iter().zip(names) {
            shape.add_aggregate(aggregate, expr, name)?;
        }
        Ok(shape)
    }

    fn add_group(&mut self, aggregate: &Aggregate, expr: &Expr) -> Result<(), CutError> {
        if matches!(expr, Expr::GroupingSet(_)) {
            return Err(PlanError::new("GROUPING SETS, ROLLUP and CUBE are not supported yet")
                .hint("write one INSERT per grouping")
                .into());
        }
        let field = expr.to_field(aggregate.input.schema().as_ref())?.1;
        let bound = match expr {
            Expr::Column(column) if is_unchanged(&aggregate.input, column, BOUND_KEY) => Bound::of(&field),
            _ => None,
        };
        if let Some(bound) = bound {
            self.groups.push(GroupColumn::Bound(bound));
            return Ok(());
        }
        let name = expr.schema_name().to_string();
        let name = name.rsplit_once('.').map_or(name.as_str(), |(_, column)| column).to_owned();
        let name = if self.keys.iter().any(|key| *key.name() == name) { format!("{name}_{}", self.keys.len()) } else { name };
        self.groups.push(GroupColumn::Key(self.keys.len()));
        self.input_columns.push(expr.clone().alias(&name));
        self.keys.push(Arc::new(Field::new(name, field.data_type().clone(), true)));
        Ok(())
    }

    fn add_aggregate(&mut self, aggregate: &Aggregate, expr: &Expr, name: String) -> Result<(), CutError> {
        let call = expr.clone().unalias();
        let text = call.schema_name().to_string();
        let Expr::AggregateFunction(AggregateFunction { func, params }) = call else {
            return Err(PlanError::new(format!("{expr} is not an aggregate")).into());
        };
        refuse_call(func.name(), &params)?;
        if let Some(bit) = self.sets.bit_of(func.name(), &params, &aggregate.input, &mut self.input_columns)? {
            let args = vec![self.sets.value(bit)];
            self.specs.push(AggregateSpec { name, function: func, args, filter: None, distinct: Some(bit), text });
            return Ok(());
        }
        let is_count = func.name() == "count";
        let mut column = |expr: Expr, what: &str| {
            let at = self.input_columns.len();
            self.input_columns.push(expr.alias(format!("__{what}_{at}")));
            at
        };
        // A literal argument (count(*) is count(1)) is never null: the pane column stands in for it.
        let args = (params.args.iter())
            .map(|arg| match arg {
                Expr::Literal(value, _) if !value.is_null() && is_count => 0,
                arg => column(arg.clone(), "arg"),
            })
            .collect();
        let filter = params.filter.map(|filter| column(*filter, "filter"));
        self.specs.push(AggregateSpec { name, function: func, args, filter, distinct: None, text });
        Ok(())
    }

    /// The plan above the aggregate over `[__pane, keys.., results..]`.
    pub(super) fn output(
        &self,
        plan: &LogicalPlan,
        aggregate: &Aggregate,
        assign: &WindowAssign,
    ) -> Result<LogicalPlan, CutError> {
        let bound = |bound, data_type| functions::bound(ident(PANE), bound, assign.size_micros, assign.offset_micros, data_type);
        self.output_over(plan, aggregate, bound, &[])
    }

    /// The same with `__firing` and `__change` columns passed through from the leaf to the end.
    pub(super) fn output_of_firings(
        &self,
        plan: &LogicalPlan,
        aggregate: &Aggregate,
        assign: &WindowAssign,
    ) -> Result<LogicalPlan, CutError> {
        let bound = |bound, data_type| functions::bound(ident(PANE), bound, assign.size_micros, assign.offset_micros, data_type);
        let firing = Field::new(FIRING, DataType::Utf8, false);
        self.output_over(plan, aggregate, bound, &[firing, Field::new(CHANGE, DataType::UInt32, false)])
    }

    /// Whether GROUP BY column `group` is a bound of the window.
    pub(super) fn is_bound(&self, group: usize) -> bool {
        matches!(self.groups.get(group), Some(GroupColumn::Bound(_)))
    }

    /// The same with a `__change` column passed through from the leaf to the end; there are no windows.
    pub(super) fn output_of_changes(&self, plan: &LogicalPlan, aggregate: &Aggregate) -> Result<LogicalPlan, CutError> {
        // Without a window no column is a bound of one.
        self.output_over(plan, aggregate, |_, _| ident(PANE), &[Field::new(CHANGE, DataType::UInt32, false)])
    }

    fn output_over(
        &self,
        plan: &LogicalPlan,
        aggregate: &Aggregate,
        bound_value: impl Fn(Bound, DataType) -> Expr,
        passed_through: &[Field],
    ) -> Result<LogicalPlan, CutError> {
        let mut fields = vec![Arc::new(Field::new(PANE, DataType::Int64, false))];
        fields.extend(self.keys.iter().cloned());
        let mut columns = Vec::new();
        let group_count = self.groups.len();
        for (index, (qualifier, field)) in aggregate.schema.iter().enumerate() {
            let value = match self.groups.get(index) {
                Some(GroupColumn::Bound(bound)) => bound_value(*bound, field.data_type().clone()),
                Some(GroupColumn::Key(key)) => ident(self.keys[*key].name()),
                None => {
                    let name = &self.specs[index - group_count].name;
                    fields.push(Arc::new(Field::new(name, field.data_type().clone(), true)));
                    ident(name)
                }
            };
            columns.push(value.alias_qualified(qualifier.cloned(), field.name()));
        }
        fields.extend(passed_through.iter().cloned().map(Arc::new));
        columns.extend(passed_through.iter().map(|field| ident(field.name())));
        let fields = fields.into_iter().map(|field| (None, field)).collect();
        let input = leaf(Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?));
        let restored = LogicalPlanBuilder::from(input).project(columns)?.build()?;
        replace_aggregate(plan, restored, passed_through)
    }
}

/// Refuses the calls that no stage has a partial for.
fn refuse_call(function: &str, call: &AggregateFunctionParams) -> Result<(), PlanError> {
    if function == "count" && call.args.len() > 1 && !call.distinct {
        return Err(PlanError::new("COUNT of several columns is not supported yet")
            .hint("write COUNT(*) FILTER (WHERE a IS NOT NULL AND b IS NOT NULL)"));
    }
    if !call.order_by.is_empty() || call.null_treatment.is_some() {
        let message = format!("ORDER BY and NULLS in {function} are not supported yet");
        return Err(PlanError::new(message).hint("leave them out"));
    }
    if !aggregates::is_aggregate(function) {
        let message = format!("aggregate {function} is not supported yet");
        return Err(PlanError::new(message).hint(aggregates::supported()));
    }
    Ok(())
}

fn replace_aggregate(plan: &LogicalPlan, replacement: LogicalPlan, passed_through: &[Field]) -> Result<LogicalPlan, CutError> {
    if matches!(plan, LogicalPlan::Aggregate(_)) {
        return Ok(replacement);
    }
    let inputs = plan.inputs();
    let Some(below) = inputs.first() else { return Err(PlanError::new("this query is not supported yet").into()) };
    let input = replace_aggregate(below, replacement, passed_through)?;
    let mut exprs = plan.expressions();
    if let LogicalPlan::Projection(_) = plan {
        exprs.extend(passed_through.iter().map(|field| ident(field.name())));
    }
    Ok(plan.with_new_exprs(exprs, vec![input])?)
}

/// Names of the results: the sink column that each goes to unchanged, else the function and its place.
fn result_names(plan: &LogicalPlan, aggregate: &Aggregate) -> Vec<String> {
    let groups = aggregate.group_expr.len();
    let mut taken: Vec<String> = Vec::new();
    for (index, expr) in aggregate.aggr_expr.iter().enumerate() {
        let (qualifier, field) = aggregate.schema.qualified_field(groups + index);
        let column = Column::new(qualifier.cloned(), field.name());
        let named = |expr: &Expr| match expr {
            Expr::Alias(alias) => {
                let mut inner = alias.expr.as_ref();
                loop {
                    inner = match inner {
                        Expr::Cast(cast) => cast.expr.as_ref(),
                        Expr::ScalarFunction(call) if call.func.name() == functions::NOT_NULL => &call.args[0],
                        _ => break,
                    };
                }
                matches!(inner, Expr::Column(found) if *found == column).then(|| alias.name.clone())
            }
            _ => None,
        };
        let from_sink = match plan {
            LogicalPlan::Projection(projection) => projection.expr.iter().find_map(named),
            _ => None,
        };
        let function = match expr.clone().unalias() {
            Expr::AggregateFunction(call) => call.func.name().to_owned(),
            _ => "result".to_owned(),
        };
        let name = from_sink.unwrap_or_else(|| format!("{function}_{index}"));
        taken.push(if taken.contains(&name) { format!("{name}_{index}") } else { name });
    }
    taken
}

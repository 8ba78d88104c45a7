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
use super::weights::{self, ROWS, WEIGHT};
use super::{CutError, PANE, leaf};
use crate::job::{AggregateSpec, AggregateStage, Fragment, Grouping, Retracted, Told};
use crate::window_assign::{BOUND_KEY, Bound, WindowAssign, is_unchanged};
use crate::{PlanError, aggregates, functions};

/// How the columns of an Aggregate map to panes, keys and results.
pub(super) struct AggregateShape {
    /// `__pane`, keys, arguments and filters, over the aggregate's input.
    pub(super) input_columns: Vec<Expr>,
    pub(super) keys: Vec<FieldRef>,
    pub(super) specs: Vec<AggregateSpec>,
    /// Types of their results.
    types: Vec<DataType>,
    pub(super) sets: Sets,
    pub(super) retracted: Option<Retracted>,
    /// For each GROUP BY column: a bound of the window, or the index of a key.
    groups: Vec<GroupColumn>,
    /// For each aggregate of the query: what it is of the results of `specs`.
    results: Vec<Expr>,
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

    /// The same of rows that may be taken back, each of which has a column [`WEIGHT`](super::weights::WEIGHT).
    pub(super) fn weighed(plan: &LogicalPlan, aggregate: &Aggregate) -> Result<Self, CutError> {
        let mut shape = Self::grouped(aggregate, lit(0_i64).alias(PANE))?;
        let weight = shape.count_rows();
        for (call, name) in shape.calls(plan, aggregate)? {
            let result = weights::result(&mut shape, aggregate, call, name, weight)?;
            shape.results.push(result);
        }
        Ok(shape)
    }

    fn new(plan: &LogicalPlan, aggregate: &Aggregate, pane: Expr) -> Result<Self, CutError> {
        let mut shape = Self::grouped(aggregate, pane)?;
        for (call, name) in shape.calls(plan, aggregate)? {
            shape.add_aggregate(aggregate, call, name)?;
        }
        Ok(shape)
    }

    /// Without its aggregates.
    fn grouped(aggregate: &Aggregate, pane: Expr) -> Result<Self, CutError> {
        let mut shape = Self {
            input_columns: vec![pane],
            keys: Vec::new(),
            specs: Vec::new(),
            types: Vec::new(),
            sets: Sets::default(),
            retracted: None,
            groups: Vec::new(),
            results: Vec::new(),
        };
        for expr in &aggregate.group_expr {
            shape.add_group(aggregate, expr)?;
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

    /// The calls of the aggregate, each with the name of its result.
    fn calls(&self, plan: &LogicalPlan, aggregate: &Aggregate) -> Result<Vec<(AggregateFunction, String)>, CutError> {
        let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
        let mut taken: Vec<&str> = self.keys.iter().map(|key| key.name().as_str()).collect();
        taken.extend(self.retracted.iter().flat_map(|_| [ROWS, WEIGHT]));
        let names = result_names(plan, aggregate, &taken);
        for (expr, name) in aggregate.aggr_expr.iter().zip(names) {
            let Expr::AggregateFunction(call) = expr.clone().unalias() else {
                return Err(PlanError::new(format!("{expr} is not an aggregate")).into());
            };
            refuse_call(call.func.name(), &call.params)?;
            calls.push((call, name));
        }
        Ok(calls)
    }

    fn add_aggregate(&mut self, aggregate: &Aggregate, call: AggregateFunction, name: String) -> Result<(), CutError> {
        let text = Expr::AggregateFunction(call.clone()).schema_name().to_string();
        let data_type = Expr::AggregateFunction(call.clone()).get_type(aggregate.input.schema())?;
        let AggregateFunction { func, params } = call;
        self.results.push(ident(&name));
        if let Some(bit) = self.sets.bit_of(func.name(), &params, &aggregate.input, &mut self.input_columns)? {
            let (args, distinct) = (vec![self.sets.value(bit)], Some(bit));
            self.add(AggregateSpec { name, function: func, args, filter: None, distinct, told: Told::Values, text }, data_type);
            return Ok(());
        }
        let is_count = func.name() == "count";
        // A literal argument (count(*) is count(1)) is never null: the pane column stands in for it.
        let args = (params.args.iter())
            .map(|arg| match arg {
                Expr::Literal(value, _) if !value.is_null() && is_count => 0,
                arg => self.column(arg.clone(), "arg"),
            })
            .collect();
        let filter = params.filter.map(|filter| self.column(*filter, "filter"));
        self.add(AggregateSpec { name, function: func, args, filter, distinct: None, told: Told::Values, text }, data_type);
        Ok(())
    }

    /// A column of what feeds the aggregates, and its place.
    pub(super) fn column(&mut self, expr: Expr, what: &str) -> usize {
        let at = self.input_columns.len();
        self.input_columns.push(expr.alias(format!("__{what}_{at}")));
        at
    }

    /// The stage of this shape.
    pub(super) fn stage(self, grouping: Grouping, output: Fragment) -> AggregateStage {
        let Self { retracted, keys, specs, sets, .. } = self;
        AggregateStage { grouping, retracted, keys, aggregates: specs, condition: None, sets: sets.into_sets(), output }
    }

    /// Adds an aggregate; returns its place.
    ///
    /// - `data_type`: of its result.
    pub(super) fn add(&mut self, spec: AggregateSpec, data_type: DataType) -> usize {
        self.specs.push(spec);
        self.types.push(data_type);
        self.specs.len() - 1
    }

    /// Adds the weight of rows and the aggregate that counts them; returns the column of the weight.
    fn count_rows(&mut self) -> usize {
        let weight = self.input_columns.len();
        self.input_columns.push(ident(WEIGHT));
        let rows = self.add(weights::sum(ROWS.to_owned(), weight, None, "rows of the group".to_owned()), DataType::Int64);
        self.retracted = Some(Retracted { rows, weight });
        weight
    }

    /// Whether column `group` of an aggregate's output is the bound `wanted` of its window.
    pub(super) fn is_which_bound(&self, group: usize, wanted: Bound) -> bool {
        matches!(self.groups.get(group), Some(GroupColumn::Bound(bound)) if *bound == wanted)
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

    /// The same with a [`WEIGHT`](super::weights::WEIGHT) column.
    pub(super) fn output_of_weights(&self, plan: &LogicalPlan, aggregate: &Aggregate) -> Result<LogicalPlan, CutError> {
        self.output_over(plan, aggregate, |_, _| ident(PANE), &[Field::new(WEIGHT, DataType::Int64, false)])
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
        let result = |(spec, data_type): (&AggregateSpec, &DataType)| Field::new(&spec.name, data_type.clone(), true);
        fields.extend(self.specs.iter().zip(&self.types).map(result).map(Arc::new));
        fields.extend(passed_through.iter().cloned().map(Arc::new));
        let mut columns = Vec::new();
        for (index, (qualifier, field)) in aggregate.schema.iter().enumerate() {
            let value = match self.groups.get(index) {
                Some(GroupColumn::Bound(bound)) => bound_value(*bound, field.data_type().clone()),
                Some(GroupColumn::Key(key)) => ident(self.keys[*key].name()),
                None => self.results[index - self.groups.len()].clone(),
            };
            columns.push(value.alias_qualified(qualifier.cloned(), field.name()));
        }
        columns.extend(passed_through.iter().map(|field| ident(field.name())));
        let fields = fields.into_iter().map(|field| (None, field)).collect();
        let input = LogicalPlanBuilder::from(leaf(Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?)));
        // A group without rows is gone; the one of an aggregate without a key never is.
        let living = match self.retracted {
            Some(_) if !self.keys.is_empty() => input.filter(ident(ROWS).gt(lit(0_i64)))?,
            _ => input,
        };
        replace_aggregate(plan, living.project(columns)?.build()?, passed_through)
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
///
/// - `others`: names that they must not have.
fn result_names(plan: &LogicalPlan, aggregate: &Aggregate, others: &[&str]) -> Vec<String> {
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
        let is_taken = taken.contains(&name) || others.contains(&name.as_str());
        taken.push(if is_taken { format!("{name}_{index}") } else { name });
    }
    taken
}

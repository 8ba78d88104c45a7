//! Cuts the optimised logical plan into the stages a job runs, and refuses every other shape.
//!
//! ```text
//! Projection* / Filter*                      -> output fragment, leaf = [__pane, keys.., results..]
//!   Aggregate (window_start, window_end, ..) -> WindowStage
//!     Projection* / Filter*                  \
//!       WindowAssign                          > input fragment, leaf = the source's columns
//!         Projection* / Filter*              /
//!           TableScan                        -> SourceTable
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, TableReference};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, TableScan, Volatility, ident,
};
use datafusion::optimizer::Optimizer;

use crate::catalog::{Catalog, Table};
use crate::job::{AggregateSpec, Fragment, Pipeline, Rowtime, SinkTable, SourceTable, WindowStage};
use crate::window_assign::{BOUND_KEY, Bound, WindowAssign, is_unchanged};
use crate::{FragmentInput, PlanError, aggregates, functions};

const PANE: &str = "__pane";
const ROW: &str = "__row";

/// Refuses the shapes that no stage runs, before any rewrite could hide them.
pub(crate) fn refuse_shapes(plan: &LogicalPlan) -> Result<(), PlanError> {
    let mut refusal = None;
    let walked = plan.apply_with_subqueries(|node| {
        refusal = refused_node(node);
        Ok(if refusal.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(PlanError::from_engine)?;
    refusal.map_or(Ok(()), Err)
}

fn refused_node(node: &LogicalPlan) -> Option<PlanError> {
    let (what, hint) = match node {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::TableScan(_) => {
            return None;
        }
        LogicalPlan::Aggregate(_) | LogicalPlan::Extension(_) => return None,
        LogicalPlan::Join(_) => ("joins are not supported yet", "read one stream per INSERT"),
        LogicalPlan::Union(_) => ("UNION is not supported yet", "write one INSERT per branch in a STATEMENT SET"),
        LogicalPlan::Sort(_) => ("ORDER BY has no meaning on an unbounded stream", "leave it out; sort when you read the result"),
        LogicalPlan::Limit(_) => ("LIMIT has no meaning on an unbounded stream", "leave it out; filter with a condition instead"),
        LogicalPlan::Distinct(_) => ("SELECT DISTINCT is not supported yet", "group by the columns in a window instead"),
        LogicalPlan::Window(_) => ("OVER windows are not supported yet", "use TABLE(TUMBLE(..)) with GROUP BY"),
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => {
            ("a query without a stream has nothing to run on", "read a declared table")
        }
        LogicalPlan::Subquery(_) => ("subqueries in expressions are not supported yet", "use a view or a subquery in FROM"),
        _ => ("this query is not supported yet", "supported: SELECT .. FROM .. WHERE .., and GROUP BY in a tumbling window"),
    };
    Some(PlanError::new(what).hint(hint))
}

/// Cuts `plan`, whose columns are the sink's.
pub(crate) fn cut(plan: &LogicalPlan, catalog: &Catalog, sink: &Table, rewrites: &Rewrites<'_>) -> Result<Pipeline, PlanError> {
    let sink = SinkTable { name: sink.name.clone(), schema: Arc::clone(&sink.schema), options: sink.options.clone() };
    let pipeline = match find_aggregate(plan)? {
        None => stateless(plan, catalog, sink, rewrites),
        Some(aggregate) => windowed(plan, aggregate, catalog, sink, rewrites),
    };
    pipeline.map_err(|error| match error {
        CutError::Refused(error) => error,
        CutError::Engine(error) => PlanError::from_engine(error),
    })
}

/// The engine's rewrites that this query may undergo.
pub(crate) struct Rewrites<'a> {
    pub(crate) rules: &'a Optimizer,
    pub(crate) state: &'a SessionState,
}

enum CutError {
    Refused(PlanError),
    Engine(datafusion::error::DataFusionError),
}

impl From<datafusion::error::DataFusionError> for CutError {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        Self::Engine(error)
    }
}

impl From<PlanError> for CutError {
    fn from(error: PlanError) -> Self {
        Self::Refused(error)
    }
}

fn find_aggregate(plan: &LogicalPlan) -> Result<Option<&Aggregate>, PlanError> {
    let mut node = plan;
    loop {
        match node {
            LogicalPlan::Aggregate(aggregate) => return Ok(Some(aggregate)),
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {}
            LogicalPlan::TableScan(_) => return Ok(None),
            LogicalPlan::Extension(extension) if extension.node.name() == "WindowAssign" => {
                return Err(PlanError::new("a window without GROUP BY is not supported yet")
                    .hint("add GROUP BY window_start, window_end and an aggregate"));
            }
            other => return Err(refused_node(other).unwrap_or_else(|| PlanError::new("this query is not supported yet"))),
        }
        match node.inputs().first() {
            Some(input) => node = input,
            None => return Ok(None),
        }
    }
}

fn stateless(plan: &LogicalPlan, catalog: &Catalog, sink: SinkTable, rewrites: &Rewrites<'_>) -> Result<Pipeline, CutError> {
    let (scan, _) = below(plan)?;
    let input = replace_leaf(plan, scan, None, false)?;
    let mut source = source_table(scan, catalog)?;
    source.rowtime = None;
    Ok(Pipeline { source, input: fragment(input, rewrites)?, input_with_row: None, window: None, sink })
}

fn windowed(
    plan: &LogicalPlan,
    aggregate: &Aggregate,
    catalog: &Catalog,
    sink: SinkTable,
    rewrites: &Rewrites<'_>,
) -> Result<Pipeline, CutError> {
    let (scan, assign) = below(&aggregate.input)?;
    let Some(assign) = assign else {
        return Err(PlanError::new(
            "GROUP BY without a window gives results that never end changing, which is not supported yet",
        )
        .hint("group by window_start, window_end of TABLE(TUMBLE(TABLE t, DESCRIPTOR(time), INTERVAL '10' SECOND))")
        .into());
    };
    let shape = AggregateShape::new(plan, aggregate)?;
    refuse_clocks(&aggregate.input)?;
    refuse_clocks(&LogicalPlan::Aggregate(aggregate.clone()))?;
    let input = |with_row| -> Result<Fragment, CutError> {
        let inner = replace_leaf(&aggregate.input, scan, Some(assign), with_row)?;
        let mut columns = shape.input_columns.clone();
        columns.extend(with_row.then(|| ident(ROW)));
        fragment(LogicalPlanBuilder::from(inner).project(columns)?.build()?, rewrites)
    };
    let output = shape.output(plan, aggregate, assign)?;
    Ok(Pipeline {
        source: source_table(scan, catalog)?,
        input: input(false)?,
        input_with_row: Some(input(true)?),
        window: Some(WindowStage {
            size_micros: assign.size_micros,
            offset_micros: assign.offset_micros,
            keys: shape.keys.clone(),
            aggregates: shape.specs.clone(),
            output: fragment(output, rewrites)?,
        }),
        sink,
    })
}

/// Rows behind their lane's watermark are evaluated again by the merge shard, at another instant: a row could belong to two keys, or
/// to none.
fn refuse_clocks(plan: &LogicalPlan) -> Result<(), CutError> {
    let mut found = None;
    plan.apply(|node| {
        for expr in node.expressions() {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && call.func.signature().volatility == Volatility::Volatile
                {
                    found = Some(call.func.name().to_uppercase());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match found {
        None => Ok(()),
        Some(name) => Err(PlanError::new(format!("{name} before a window is not supported"))
            .hint("rows of one window would see several instants: use the event time, or the clock after the window")
            .into()),
    }
}

fn fragment(plan: LogicalPlan, rewrites: &Rewrites<'_>) -> Result<Fragment, CutError> {
    Ok(Fragment { plan: rewrites.rules.optimize(plan, rewrites.state, |_, _| {})? })
}

/// The scan at the bottom, and the window assignment on the way.
fn below(plan: &LogicalPlan) -> Result<(&TableScan, Option<&WindowAssign>), CutError> {
    let mut node = plan;
    let mut assign = None;
    loop {
        match node {
            LogicalPlan::TableScan(scan) => return Ok((scan, assign)),
            LogicalPlan::Aggregate(_) => {
                return Err(PlanError::new("an aggregate of an aggregate is not supported yet")
                    .hint("use one GROUP BY per INSERT")
                    .into());
            }
            LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<WindowAssign>() {
                Some(_) if assign.is_some() => return Err(PlanError::new("a window of a window is not supported yet").into()),
                Some(found) => assign = Some(found),
                None => return Err(PlanError::new("this query is not supported yet").into()),
            },
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {}
            other => return Err(refused_node(other).unwrap_or_else(|| PlanError::new("this query is not supported yet")).into()),
        }
        let inputs = node.inputs();
        node = inputs.first().copied().ok_or_else(|| PlanError::new("a query without a stream has nothing to run on"))?;
    }
}

/// The plan below a stage boundary with the scan replaced by the fragment's input, and the window assignment by the pane number and
/// the window's bounds computed from it.
fn replace_leaf(
    plan: &LogicalPlan,
    scan: &TableScan,
    assign: Option<&WindowAssign>,
    with_row: bool,
) -> Result<LogicalPlan, CutError> {
    match plan {
        LogicalPlan::TableScan(_) => Ok(leaf(with_row_field(&scan.projected_schema, with_row)?)),
        LogicalPlan::Extension(_) => {
            let Some(assign) = assign else { return Err(PlanError::new("this query is not supported yet").into()) };
            let input = replace_leaf(&assign.input, scan, None, with_row)?;
            let time = Expr::Column(assign.time.clone());
            let time_type = time.get_type(input.schema().as_ref())?;
            let pane = functions::pane(time, assign.size_micros, assign.offset_micros);
            let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
            columns.push(pane.clone().alias(PANE));
            columns.extend(Bound::ALL.iter().map(|(bound, name)| {
                functions::bound(pane.clone(), *bound, assign.size_micros, assign.offset_micros, time_type.clone()).alias(*name)
            }));
            Ok(LogicalPlanBuilder::from(input).project(columns)?.build()?)
        }
        node => {
            let inputs = node.inputs();
            let Some(below) = inputs.first() else { return Err(PlanError::new("this query is not supported yet").into()) };
            let input = replace_leaf(below, scan, assign, with_row)?;
            let mut exprs = node.expressions();
            if let LogicalPlan::Projection(_) = node {
                let schema = input.schema();
                // The pane number and the row number pass through every projection above the place they are made.
                exprs.extend(
                    [PANE, ROW].iter().filter(|name| schema.has_column_with_unqualified_name(name)).map(|name| ident(*name)),
                );
            }
            Ok(node.with_new_exprs(exprs, vec![input])?)
        }
    }
}

fn leaf(schema: DFSchemaRef) -> LogicalPlan {
    LogicalPlan::Extension(Extension { node: Arc::new(FragmentInput { schema }) })
}

fn with_row_field(schema: &DFSchemaRef, with_row: bool) -> Result<DFSchemaRef, CutError> {
    if !with_row {
        return Ok(Arc::clone(schema));
    }
    let mut fields: Vec<(Option<TableReference>, FieldRef)> =
        schema.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
    fields.push((None, Arc::new(Field::new(ROW, DataType::UInt32, false))));
    Ok(Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?))
}

fn source_table(scan: &TableScan, catalog: &Catalog) -> Result<SourceTable, CutError> {
    let table = (catalog.table(scan.table_name.table()))
        .ok_or_else(|| PlanError::new(format!("{} is not a declared table", scan.table_name)))?;
    let projection = scan.projection.clone().unwrap_or_else(|| (0..table.schema.fields().len()).collect());
    let rowtime = table.rowtime.as_ref().zip(table.rowtime_expr()).map(|(declared, expr)| Rowtime {
        column: declared.column.clone(),
        expr,
        delay_micros: declared.delay_micros,
    });
    Ok(SourceTable {
        name: table.name.clone(),
        schema: Arc::clone(&table.schema),
        projection,
        options: table.options.clone(),
        rowtime,
    })
}

/// How the columns of an Aggregate map to panes, keys and results.
struct AggregateShape {
    /// `__pane`, keys, arguments and filters, over the aggregate's input.
    input_columns: Vec<Expr>,
    keys: Vec<FieldRef>,
    specs: Vec<AggregateSpec>,
    /// For each GROUP BY column: a bound of the window, or the index of a key.
    groups: Vec<GroupColumn>,
}

enum GroupColumn {
    Bound(Bound),
    Key(usize),
}

impl AggregateShape {
    fn new(plan: &LogicalPlan, aggregate: &Aggregate) -> Result<Self, CutError> {
        let schema = aggregate.input.schema();
        let mut shape = Self { input_columns: vec![ident(PANE)], keys: Vec::new(), specs: Vec::new(), groups: Vec::new() };
        for expr in &aggregate.group_expr {
            if matches!(expr, Expr::GroupingSet(_)) {
                return Err(PlanError::new("GROUPING SETS, ROLLUP and CUBE are not supported yet")
                    .hint("write one INSERT per grouping")
                    .into());
            }
            let field = expr.to_field(schema.as_ref())?.1;
            let bound = match expr {
                Expr::Column(column) if is_unchanged(&aggregate.input, column, BOUND_KEY) => Bound::of(&field),
                _ => None,
            };
            if let Some(bound) = bound {
                shape.groups.push(GroupColumn::Bound(bound));
                continue;
            }
            let name = expr.schema_name().to_string();
            let name = name.rsplit_once('.').map_or(name.as_str(), |(_, column)| column).to_owned();
            let name =
                if shape.keys.iter().any(|key| *key.name() == name) { format!("{name}_{}", shape.keys.len()) } else { name };
            shape.groups.push(GroupColumn::Key(shape.keys.len()));
            shape.input_columns.push(expr.clone().alias(&name));
            shape.keys.push(Arc::new(Field::new(name, field.data_type().clone(), true)));
        }
        let grouped = |wanted| shape.groups.iter().any(|group| matches!(group, GroupColumn::Bound(bound) if *bound == wanted));
        if !grouped(Bound::Start) || !grouped(Bound::End) {
            return Err(PlanError::new("a window aggregate must group by both window_start and window_end")
                .hint("write GROUP BY window_start, window_end, ..")
                .into());
        }
        let names = result_names(plan, aggregate);
        for (expr, name) in aggregate.aggr_expr.iter().zip(names) {
            shape.add_aggregate(expr, name)?;
        }
        Ok(shape)
    }

    fn add_aggregate(&mut self, expr: &Expr, name: String) -> Result<(), CutError> {
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expr.clone().unalias() else {
            return Err(PlanError::new(format!("{expr} is not an aggregate")).into());
        };
        let function = func.name().to_owned();
        if params.distinct {
            return Err(PlanError::new(format!("{function}(DISTINCT ..) is not supported yet"))
                .hint("count without DISTINCT, or group by the column")
                .into());
        }
        if function == "count" && params.args.len() > 1 {
            return Err(PlanError::new("COUNT of several columns is not supported yet")
                .hint("write COUNT(*) FILTER (WHERE a IS NOT NULL AND b IS NOT NULL)")
                .into());
        }
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return Err(PlanError::new(format!("ORDER BY and NULLS in {function} are not supported yet"))
                .hint("leave them out")
                .into());
        }
        if !aggregates::is_aggregate(&function) {
            return Err(PlanError::new(format!("aggregate {function} is not supported yet"))
                .hint(aggregates::supported())
                .into());
        }
        let mut column = |expr: Expr, what: &str| {
            let at = self.input_columns.len();
            self.input_columns.push(expr.alias(format!("__{what}_{at}")));
            at
        };
        // A literal argument (count(*) is count(1)) is never null: the pane column stands in for it.
        let args = (params.args.iter())
            .map(|arg| match arg {
                Expr::Literal(value, _) if !value.is_null() && function == "count" => 0,
                arg => column(arg.clone(), "arg"),
            })
            .collect();
        let filter = params.filter.map(|filter| column(*filter, "filter"));
        self.specs.push(AggregateSpec {
            name,
            function: func,
            args,
            filter,
            text: expr.clone().unalias().schema_name().to_string(),
        });
        Ok(())
    }

    /// The plan above the aggregate over `[__pane, keys.., results..]`.
    fn output(&self, plan: &LogicalPlan, aggregate: &Aggregate, assign: &WindowAssign) -> Result<LogicalPlan, CutError> {
        let mut fields = vec![Arc::new(Field::new(PANE, DataType::Int64, false))];
        fields.extend(self.keys.iter().cloned());
        let mut columns = Vec::new();
        let group_count = self.groups.len();
        for (index, (qualifier, field)) in aggregate.schema.iter().enumerate() {
            let value = match self.groups.get(index) {
                Some(GroupColumn::Bound(bound)) => {
                    functions::bound(ident(PANE), *bound, assign.size_micros, assign.offset_micros, field.data_type().clone())
                }
                Some(GroupColumn::Key(key)) => ident(self.keys[*key].name()),
                None => {
                    let name = &self.specs[index - group_count].name;
                    fields.push(Arc::new(Field::new(name, field.data_type().clone(), true)));
                    ident(name)
                }
            };
            columns.push(value.alias_qualified(qualifier.cloned(), field.name()));
        }
        let fields = fields.into_iter().map(|field| (None, field)).collect();
        let input = leaf(Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?));
        let restored = LogicalPlanBuilder::from(input).project(columns)?.build()?;
        replace_aggregate(plan, restored)
    }
}

fn replace_aggregate(plan: &LogicalPlan, replacement: LogicalPlan) -> Result<LogicalPlan, CutError> {
    if matches!(plan, LogicalPlan::Aggregate(_)) {
        return Ok(replacement);
    }
    let inputs = plan.inputs();
    let Some(below) = inputs.first() else { return Err(PlanError::new("this query is not supported yet").into()) };
    let input = replace_aggregate(below, replacement)?;
    Ok(plan.with_new_exprs(plan.expressions(), vec![input])?)
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

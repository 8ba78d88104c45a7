//! Cuts the optimised logical plan into the stages a job runs, and refuses every other shape.
//!
//! ```text
//! Projection* / Filter*                      -> output fragment, leaf = [__pane, keys.., results..]
//!   Aggregate                                -> AggregateStage; what feeds it may be that of another (chain.rs)
//!     Projection* / Filter*                  \
//!       WindowAssign, or none: updating       > input fragment, leaf = the source's columns
//!         Projection* / Filter*              /
//!           TableScan                        -> SourceTable
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, TableReference};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, TableScan, Volatility, ident,
};
use datafusion::optimizer::Optimizer;

use crate::catalog::{Catalog, Table};
use crate::changes::Changes;
use crate::job::{AggregateStage, Emit, Fragment, Grouping, OnError, Pipeline, Rowtime, SinkTable, SourceTable};
use crate::window_assign::{Bound, WindowAssign};
use crate::{FragmentInput, PlanError, duration, functions};

mod chain;
mod distinct;
mod early;
mod shape;
mod updating;
mod weights;

use self::chain::chained;
use self::early::{apart, emit, refuse_early, refuse_firing, with_firing, without_firing};
use self::shape::AggregateShape;
use self::updating::updating;

const PANE: &str = "__pane";
const ROW: &str = "__row";

/// `SELECT DISTINCT a, b` as `GROUP BY a, b` without an aggregate, which is the same.
pub(crate) fn grouped_instead_of_distinct(plan: LogicalPlan) -> datafusion::error::Result<LogicalPlan> {
    let grouped = plan.transform_up(|node| match node {
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
            Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(input, columns, Vec::new())?)))
        }
        node => Ok(Transformed::no(node)),
    });
    grouped.map(|grouped| grouped.data)
}

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
        LogicalPlan::Window(_) => ("OVER windows are not supported yet", "use TABLE(TUMBLE(..)) with GROUP BY"),
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => {
            ("a query without a stream has nothing to run on", "read a declared table")
        }
        LogicalPlan::Subquery(_) => ("subqueries in expressions are not supported yet", "use a view or a subquery in FROM"),
        _ => ("this query is not supported yet", "supported: SELECT .. FROM .. WHERE .., and GROUP BY in a tumbling window"),
    };
    Some(PlanError::new(what).hint(hint))
}

/// Where results go, and when.
#[derive(Clone, Copy)]
pub(crate) struct Goal<'a> {
    pub(crate) sink: &'a Table,
    /// `EMIT EVERY`, microseconds.
    pub(crate) every_micros: Option<i64>,
}

/// Cuts `plan`, whose columns are the sink's.
pub(crate) fn cut(plan: &LogicalPlan, catalog: &Catalog, goal: Goal<'_>, rewrites: &Rewrites<'_>) -> Result<Pipeline, PlanError> {
    let pipeline = match find_aggregate(plan)? {
        None => refuse_early(goal, "GROUP BY", "row is given with the commit that reads it")
            .and_then(|()| stateless(plan, catalog, goal.sink, rewrites)),
        Some(aggregate) => aggregated(plan, aggregate, catalog, goal, rewrites),
    };
    pipeline.map_err(|error| match error {
        CutError::Refused(error) => error,
        CutError::Engine(error) => PlanError::from_engine(error),
    })
}

/// The engine's rewrites that this query may undergo.
pub(crate) struct Rewrites<'a> {
    pub(crate) rules: &'a Optimizer,
    /// Whether guards must stay where they are.
    pub(crate) guards: bool,
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

/// The aggregate whose results `plan` is made of, if these are of one.
fn aggregate_below(plan: &LogicalPlan) -> Option<&Aggregate> {
    let mut node = plan;
    loop {
        node = match node {
            LogicalPlan::Aggregate(aggregate) => return Some(aggregate),
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            _ => return None,
        };
    }
}

fn stateless(plan: &LogicalPlan, catalog: &Catalog, sink: &Table, rewrites: &Rewrites<'_>) -> Result<Pipeline, CutError> {
    let (scan, _) = below(plan)?;
    refuse_firing(plan)?;
    let input = replace_leaf(plan, scan, None, false)?;
    let mut source = source_table(scan, catalog)?;
    source.rowtime = None;
    let sink = sink_table(sink, Changes::Append);
    Ok(Pipeline { source, input: fragment(input, rewrites)?, input_with_row: None, aggregates: Vec::new(), sink })
}

fn sink_table(sink: &Table, changes: Changes) -> SinkTable {
    SinkTable { name: sink.name.clone(), schema: Arc::clone(&sink.schema), options: sink.options.clone(), changes }
}

fn aggregated(
    plan: &LogicalPlan,
    aggregate: &Aggregate,
    catalog: &Catalog,
    goal: Goal<'_>,
    rewrites: &Rewrites<'_>,
) -> Result<Pipeline, CutError> {
    if let Some(inner) = aggregate_below(&aggregate.input) {
        return chained(plan, vec![aggregate, inner], catalog, goal, rewrites);
    }
    let (scan, assign) = below(&aggregate.input)?;
    refuse_firing(if assign.is_some() { &aggregate.input } else { plan })?;
    let hint = "rows of one group would see several instants: use the event time, or the clock after a window";
    refuse_clocks(&LogicalPlan::Aggregate(aggregate.clone()), "before an aggregate", hint)?;
    let source = source_table(scan, catalog)?;
    match assign {
        Some(assign) => windowed(plan, aggregate, (scan, assign), source, goal, rewrites),
        None => refuse_early(goal, "a window", "change is given with the commit that makes it")
            .and_then(|()| updating(plan, aggregate, scan, source, goal.sink, rewrites)),
    }
}

fn windowed(
    plan: &LogicalPlan,
    aggregate: &Aggregate,
    (scan, assign): (&TableScan, &WindowAssign),
    source: SourceTable,
    goal: Goal<'_>,
    rewrites: &Rewrites<'_>,
) -> Result<Pipeline, CutError> {
    let shape = AggregateShape::windowed(plan, aggregate)?;
    let (emit, changes) = emit(plan, &shape, &source, goal)?;
    if emit.changes() {
        return changing(plan, aggregate, (scan, assign), shape, (source, emit, changes), goal, rewrites);
    }
    let [input, input_with_row] = window_inputs(aggregate, (scan, assign), &shape, rewrites)?;
    let output = without_firing(shape.output(plan, aggregate, assign)?)?;
    let stage = shape.stage(tumble(assign, emit), fragment(output, rewrites)?);
    let sink = sink_table(goal.sink, changes);
    Ok(Pipeline { source, input, input_with_row: Some(input_with_row), aggregates: vec![stage], sink })
}

/// A window that fires more than once.
fn changing(
    plan: &LogicalPlan,
    aggregate: &Aggregate,
    (scan, assign): (&TableScan, &WindowAssign),
    shape: AggregateShape,
    (source, emit, changes): (SourceTable, Emit, Changes),
    goal: Goal<'_>,
    rewrites: &Rewrites<'_>,
) -> Result<Pipeline, CutError> {
    let [input, input_with_row] = window_inputs(aggregate, (scan, assign), &shape, rewrites)?;
    let (unconditional, condition) = apart(plan, rewrites.guards)?;
    let condition = condition.map(|condition| condition.over(&shape, aggregate, assign, rewrites)).transpose()?;
    let output = with_firing(shape.output_of_firings(&unconditional, aggregate, assign)?)?;
    let stage = shape.stage(tumble(assign, emit), fragment(output, rewrites)?);
    let aggregates = vec![AggregateStage { condition, ..stage }];
    Ok(Pipeline { source, input, input_with_row: Some(input_with_row), aggregates, sink: sink_table(goal.sink, changes) })
}

fn tumble(assign: &WindowAssign, emit: Emit) -> Grouping {
    Grouping::Tumble { size_micros: assign.size_micros, offset_micros: assign.offset_micros, emit }
}

/// What feeds a window, without and with the number of each row.
fn window_inputs(
    aggregate: &Aggregate,
    (scan, assign): (&TableScan, &WindowAssign),
    shape: &AggregateShape,
    rewrites: &Rewrites<'_>,
) -> Result<[Fragment; 2], CutError> {
    let input = |with_row: bool| -> Result<Fragment, CutError> {
        let inner = replace_leaf(&aggregate.input, scan, Some(assign), with_row)?;
        let mut columns = shape.input_columns.clone();
        columns.extend(with_row.then(|| ident(ROW)));
        fragment(LogicalPlanBuilder::from(inner).project(columns)?.build()?, rewrites)
    };
    Ok([input(false)?, input(true)?])
}

/// Rows behind their lane's watermark are evaluated again by the merge shard, at another instant: a row could belong to two keys, or
/// to none. A key that follows the clock never ends.
fn refuse_clocks(plan: &LogicalPlan, place: &str, hint: &str) -> Result<(), CutError> {
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
        Some(name) => Err(PlanError::new(format!("{name} is not supported {place}")).hint(hint).into()),
    }
}

fn fragment(plan: LogicalPlan, rewrites: &Rewrites<'_>) -> Result<Fragment, CutError> {
    Ok(Fragment { plan: rewrites.rules.optimize(plan, rewrites.state, |_, _| {})?, guards: rewrites.guards })
}

/// The scan at the bottom, and the window assignment on the way.
fn below(plan: &LogicalPlan) -> Result<(&TableScan, Option<&WindowAssign>), CutError> {
    let mut node = plan;
    let mut assign = None;
    loop {
        match node {
            LogicalPlan::TableScan(scan) => return Ok((scan, assign)),
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
    let mut options = table.options.clone();
    let on_error = on_error(table, options.remove(ON_ERROR).as_deref())?;
    let allowed_lateness = time_option(table, ALLOWED_LATENESS, options.remove(ALLOWED_LATENESS).as_deref())?;
    let allowed_lateness_micros = allowed_lateness.unwrap_or(0);
    let idle_after = time_option(table, IDLE_TIMEOUT, options.remove(IDLE_TIMEOUT).as_deref())?;
    let idle_after_micros = idle_after.filter(|micros| *micros > 0);
    let (name, schema) = (table.name.clone(), Arc::clone(&table.schema));
    Ok(SourceTable { name, schema, projection, options, rowtime, on_error, allowed_lateness_micros, idle_after_micros })
}

/// The option of a source that says what happens to rows on which an expression fails; no connector sees it.
const ON_ERROR: &str = "on-error";

/// The option of a source that says how long after its end a window still takes rows.
const ALLOWED_LATENESS: &str = "allowed-lateness";

/// The option of a source that says after how long without a row windows do not wait for a lane any more.
const IDLE_TIMEOUT: &str = "scan.watermark.idle-timeout";

/// A duration in microseconds that means something only beside a watermark.
fn time_option(table: &Table, option: &str, written: Option<&str>) -> Result<Option<i64>, PlanError> {
    let Some(written) = written else { return Ok(None) };
    let wrong = |what: &str| PlanError::new(format!("'{option}' = '{written}' of {} {what}", table.name));
    if table.rowtime.is_none() {
        let hint = "declare WATERMARK FOR time AS time - INTERVAL '5' SECOND, or leave the option out";
        return Err(wrong("needs a watermark").hint(hint));
    }
    let micros = duration::parse(written).and_then(|time| i64::try_from(time.as_micros()).ok());
    micros.map(Some).ok_or_else(|| wrong("is not a duration").hint("write it as 500 ms, 30 s, 5 min or 1 h"))
}

fn on_error(table: &Table, written: Option<&str>) -> Result<OnError, PlanError> {
    match written {
        None | Some("stop") => Ok(OnError::Stop),
        Some("dead-letter") => Ok(OnError::DeadLetter),
        Some(other) => {
            let error = PlanError::new(format!("'{ON_ERROR}' = '{other}' of {} is not understood", table.name));
            Err(error.did_you_mean(other, ["stop", "dead-letter"], "write 'stop' or 'dead-letter'"))
        }
    }
}

//! From text to pipelines: statements in order into the catalog, each INSERT through the engine's planner and the cut.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::execution::{FunctionRegistry, SessionState, SessionStateBuilder};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as EngineStatement;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, ExprWithAlias, Ident, Query, Spanned, Statement as SqlStatement, With};

mod columns;
mod watermark;

use self::columns::{check_columns, check_missing, fill_missing, sink_columns};
use self::watermark::watermark;
use crate::catalog::{Catalog, Table, cast_to_sink, physical_schema, qualified};
use crate::clock::BatchClock;
use crate::cut::{Goal, Rewrites};
use crate::functions::{clock_functions, firing};
use crate::parse::{self, ColumnKind, CreateTable, EmitEvery, Insert, Statement};
use crate::relations::{Relations, interval_micros};
use crate::rules::optimizer;
use crate::{JobPlan, PlanError, cut, meaning, ttl};

/// Compiles a script.
///
/// # Errors
/// [`PlanError`] with the place in the text, what was expected, and the nearest supported form.
pub async fn compile(sql: &str) -> Result<JobPlan, PlanError> {
    compile_script(sql, Blackholes::Drop).await.map_err(|error| error.in_text(sql))
}

/// As [`compile`], for a run that looks at all results: a `blackhole` is planned as `print`, whose rows say all that changes.
///
/// # Errors
/// As [`compile`].
pub async fn compile_to_look(sql: &str) -> Result<JobPlan, PlanError> {
    compile_script(sql, Blackholes::Print).await.map_err(|error| error.in_text(sql))
}

/// What becomes of rows for a `blackhole`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blackholes {
    Drop,
    Print,
}

async fn compile_script(sql: &str, blackholes: Blackholes) -> Result<JobPlan, PlanError> {
    let clock = BatchClock::default();
    let catalog = Arc::new(RwLock::new(Catalog::default()));
    let planner = Planner { state: session(&clock, &catalog)?, catalog, blackholes };
    let mut job = JobPlan { options: BTreeMap::new(), pipelines: Vec::new(), clock };
    let mut state_ttl = None;
    for statement in parse::script(sql)? {
        match statement {
            Statement::CreateTable(table) => planner.create_table(&table)?,
            Statement::CreateView { name, columns, query } => planner.create_view(&name, &columns, query).await?,
            Statement::Set { key, value, at } => {
                if key == ttl::KEY {
                    let ttl = ttl::parse(&value).map_err(|why| PlanError::new(why).at(at.line, at.column))?;
                    state_ttl = ttl.map(|ttl| (ttl, at));
                }
                if job.options.insert(key.clone(), value).is_some() {
                    let error = PlanError::new(format!("'{key}' is set twice")).at(at.line, at.column);
                    return Err(error.hint("keep one of them"));
                }
            }
            Statement::Insert(insert) => job.pipelines.push(planner.insert(*insert).await?),
        }
    }
    if job.pipelines.is_empty() {
        return Err(
            PlanError::new("the script has no INSERT INTO").hint("a job is at least one INSERT INTO sink SELECT .. FROM source")
        );
    }
    if let Some((state_ttl, at)) = state_ttl {
        ttl::set(&mut job.pipelines, state_ttl).map_err(|error| error.at(at.line, at.column))?;
    }
    Ok(job)
}

struct Planner {
    state: SessionState,
    catalog: Arc<RwLock<Catalog>>,
    blackholes: Blackholes,
}

fn session(clock: &BatchClock, catalog: &Arc<RwLock<Catalog>>) -> Result<SessionState, PlanError> {
    let mut config = SessionConfig::new().with_target_partitions(1);
    let parser = &mut config.options_mut().sql_parser;
    parser.enable_ident_normalization = false;
    parser.parse_float_as_decimal = true;
    parser.map_string_types_to_utf8view = false;
    parser.collect_spans = true;
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_scalar_functions(meaning::scalar_functions())
        .with_aggregate_functions(meaning::aggregate_functions())
        .with_type_planner(Arc::new(meaning::FlinkTypes))
        .with_relation_planners(vec![Arc::new(Relations { catalog: Arc::clone(catalog) })])
        .build();
    for function in clock_functions(clock).into_iter().chain([firing()]) {
        state.register_udf(Arc::new(function)).map_err(PlanError::from_engine)?;
    }
    Ok(state)
}

impl Planner {
    fn create_table(&self, create: &CreateTable) -> Result<(), PlanError> {
        let name = create.name.value.clone();
        if !create.options.contains_key("connector") {
            return Err(PlanError::new(format!("table {name} has no connector"))
                .at_ident(&create.name)
                .hint("add WITH ('connector' = 'filesystem' | 'datagen' | 'nexmark' | 'print' | 'blackhole', ..)"));
        }
        let mut order: Vec<String> = Vec::new();
        for column in &create.columns {
            if order.contains(&column.name.value) {
                let error = PlanError::new(format!("column {} is declared twice", column.name.value)).at_ident(&column.name);
                return Err(error.hint("give one of them another name"));
            }
            order.push(column.name.value.clone());
        }
        let schema = physical_schema(create.columns.iter().filter_map(|column| match &column.kind {
            ColumnKind::Physical { data_type, nullable } => Some((column.name.value.clone(), data_type.clone(), *nullable)),
            ColumnKind::Computed(_) => None,
        }));
        let physical = qualified(&name, &schema).map_err(PlanError::from_engine)?;
        let mut computed = Vec::new();
        for column in &create.columns {
            if let ColumnKind::Computed(expr) = &column.kind {
                computed.push((column.name.value.clone(), self.expr(expr, &physical)?));
            }
        }
        let rowtime =
            create.watermark.as_ref().map(|(column, expr)| watermark(column, expr, &schema, &computed, &physical)).transpose()?;
        let primary_key = create.primary_key.iter().map(|column| key_column(column, &name, &schema)).collect::<Result<_, _>>()?;
        let mut options = create.options.clone();
        if let Some(connector) = options.get_mut("connector").filter(|connector| *connector == "blackhole")
            && self.blackholes == Blackholes::Print
        {
            "print".clone_into(connector);
        }
        let table = Table { name, schema, options, rowtime, computed, order, primary_key };
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.add_table(table).map_err(|error| error.at_ident(&create.name))
    }

    /// An expression over physical columns, with the engine's coercions applied.
    fn expr(&self, expr: &SqlExpr, schema: &DFSchema) -> Result<Expr, PlanError> {
        let place = expr.span().start;
        let mut same = expr.clone();
        meaning::of_expr(&mut same)?;
        let with_alias = ExprWithAlias { expr: same, alias: None };
        let planned = self.state.create_logical_expr_from_sql_expr(with_alias, schema).map_err(PlanError::from_engine);
        let coerced = planned.and_then(|expr| {
            meaning::refuse_in_expr(&expr, schema)?;
            let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
            ExprSimplifier::new(context).coerce(expr, schema).map_err(PlanError::from_engine)
        });
        coerced.map_err(|error| error.at(place.line, place.column))
    }

    async fn create_view(&self, name: &Ident, columns: &[Ident], query: Box<Query>) -> Result<(), PlanError> {
        let plan = view(name, columns, self.query(query).await?)?;
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.add_view(&name.value, plan).map_err(|error| error.at_ident(name))
    }

    /// Common table expressions are views that only this query sees.
    async fn query(&self, mut query: Box<Query>) -> Result<LogicalPlan, PlanError> {
        let Some(with) = query.with.take() else { return self.query_body(query).await };
        let before = self.catalog().clone();
        let planned = self.with_views(with, query).await;
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = before;
        planned
    }

    async fn with_views(&self, with: With, query: Box<Query>) -> Result<LogicalPlan, PlanError> {
        if with.recursive {
            let place = with.with_token.0.span.start;
            let error = PlanError::new("WITH RECURSIVE is not supported").at(place.line, place.column);
            return Err(error.hint("write each step as a view or a WITH of its own"));
        }
        for cte in with.cte_tables {
            let columns: Vec<Ident> = cte.alias.columns.into_iter().map(|column| column.name).collect();
            let plan = self.query_body(cte.query).await?;
            let plan = view(&cte.alias.name, &columns, plan)?;
            self.catalog.write().unwrap_or_else(PoisonError::into_inner).shadow(&cte.alias.name.value, plan);
        }
        self.query_body(query).await
    }

    async fn query_body(&self, mut query: Box<Query>) -> Result<LogicalPlan, PlanError> {
        meaning::of_query(&mut query)?;
        let statement = EngineStatement::Statement(Box::new(SqlStatement::Query(query)));
        let plan = self.state.statement_to_plan(statement).await.map_err(PlanError::from_engine)?;
        let plan = meaning::integer_averages(plan).map_err(PlanError::from_engine)?;
        meaning::refuse_other_meanings(&plan)?;
        Ok(plan)
    }

    fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn optimized(&self, plan: LogicalPlan, guards: bool, rules: &Optimizer) -> datafusion::error::Result<LogicalPlan> {
        let plan = if guards { meaning::guarded(plan)? } else { plan };
        let analyzed = self.state.analyzer().execute_and_check(plan, self.state.config_options(), |_, _| {})?;
        rules.optimize(analyzed, &self.state, |_, _| {})
    }

    async fn insert(&self, insert: Insert) -> Result<crate::Pipeline, PlanError> {
        let sink = {
            let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
            let unknown = || {
                PlanError::new(format!("unknown table {}", insert.table.value))
                    .did_you_mean(&insert.table.value, catalog.names(), "declare the sink with CREATE TABLE")
                    .at_ident(&insert.table)
            };
            Arc::clone(catalog.table(&insert.table.value).ok_or_else(unknown)?)
        };
        let every_micros = insert.early.as_ref().map(every_micros).transpose()?;
        let plan = self.query(insert.query).await?;
        let columns = sink_columns(&sink.schema, &insert.columns, &insert.table)?;
        check_columns(&plan, &columns, &insert.table)?;
        let plan = cast_to_sink(plan, &columns, &sink.name).map_err(PlanError::from_engine)?;
        check_missing(&columns, &sink.schema, &insert.table)?;
        let plan = fill_missing(plan, &columns, &sink.schema).map_err(PlanError::from_engine)?;
        let plan = cut::grouped_instead_of_distinct(plan).map_err(PlanError::from_engine)?;
        cut::refuse_shapes(&plan).map_err(|error| error.at_ident(&insert.table))?;
        let guards = meaning::needs_guards(&plan);
        let rules = optimizer(guards);
        let plan = self.optimized(plan, guards, &rules).map_err(PlanError::from_engine)?;
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let goal = Goal { sink: &sink, every_micros };
        cut::cut(&plan, &catalog, goal, &Rewrites { rules: &rules, guards, state: &self.state })
            .map_err(|error| error.at_ident(&insert.table))
    }
}

/// The interval of `EMIT EVERY`.
fn every_micros(early: &EmitEvery) -> Result<i64, PlanError> {
    let wrong = |error: PlanError| error.at(early.at.line, early.at.column);
    match interval_micros(&early.interval).map_err(wrong)? {
        ..1 => Err(wrong(
            PlanError::new("EMIT EVERY takes an interval longer than nothing").hint("write EMIT EVERY INTERVAL '1' SECOND"),
        )),
        micros => Ok(micros),
    }
}

/// Place of a declared key's column.
fn key_column(column: &Ident, table: &str, schema: &SchemaRef) -> Result<usize, PlanError> {
    schema.index_of(&column.value).map_err(|_| {
        let known = schema.fields().iter().map(|field| field.name().as_str());
        PlanError::new(format!("the key of {table} names {}, which is no physical column", column.value))
            .did_you_mean(&column.value, known, "")
            .at_ident(column)
    })
}

/// `plan` under the name of a view, its columns renamed if the view names them.
fn view(name: &Ident, columns: &[Ident], plan: LogicalPlan) -> Result<LogicalPlan, PlanError> {
    let found = plan.schema().fields().len();
    if !columns.is_empty() && columns.len() != found {
        let message = format!("view {} names {} columns, its query has {found}", name.value, columns.len());
        return Err(PlanError::new(message).at_ident(name).hint("name every column of the query, or none"));
    }
    let builder = LogicalPlanBuilder::from(plan);
    let renamed = if columns.is_empty() {
        Ok(builder)
    } else {
        let exprs: Vec<Expr> = (builder.schema().iter().zip(columns))
            .map(|((qualifier, field), name)| Expr::from((qualifier, field)).alias(&name.value))
            .collect();
        builder.project(exprs)
    };
    let aliased = renamed.and_then(|builder| builder.alias(name.value.as_str())).and_then(LogicalPlanBuilder::build);
    aliased.map_err(PlanError::from_engine)
}

#[cfg(test)]
mod tests;

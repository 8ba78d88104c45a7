//! From text to pipelines: statements in order into the catalog, each INSERT through the engine's planner and the cut.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::execution::{FunctionRegistry, SessionState, SessionStateBuilder};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as EngineStatement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr as SqlExpr, ExprWithAlias, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Spanned,
    Statement as SqlStatement, visit_expressions_mut,
};

use crate::catalog::{Catalog, DeclaredRowtime, Table, cast_to_sink, casts_implicitly, physical_schema, qualified};
use crate::clock::BatchClock;
use crate::functions::clock_functions;
use crate::parse::{self, ColumnKind, CreateTable, Insert, Statement};
use crate::relations::{Relations, interval_micros};
use crate::rules::optimizer_rules;
use crate::{JobPlan, PlanError, cut, nearest};

/// Compiles a script.
///
/// # Errors
/// [`PlanError`] with the place in the text, what was expected, and the nearest supported form.
pub async fn compile(sql: &str) -> Result<JobPlan, PlanError> {
    compile_script(sql).await.map_err(|error| error.in_text(sql))
}

async fn compile_script(sql: &str) -> Result<JobPlan, PlanError> {
    let clock = BatchClock::default();
    let catalog = Arc::new(RwLock::new(Catalog::default()));
    let planner = Planner { state: session(&clock, &catalog)?, catalog };
    let mut job = JobPlan { options: BTreeMap::new(), pipelines: Vec::new(), clock };
    for statement in parse::script(sql)? {
        match statement {
            Statement::CreateTable(table) => planner.create_table(&table)?,
            Statement::CreateView { name, columns, query } => planner.create_view(&name, &columns, query).await?,
            Statement::Set { key, value, at } => {
                if job.options.insert(key.clone(), value).is_some() {
                    return Err(PlanError::new(format!("'{key}' is set twice")).at(at.line, at.column));
                }
            }
            Statement::Insert(insert) => job.pipelines.push(planner.insert(insert).await?),
        }
    }
    if job.pipelines.is_empty() {
        return Err(
            PlanError::new("the script has no INSERT INTO").hint("a job is at least one INSERT INTO sink SELECT .. FROM source")
        );
    }
    Ok(job)
}

struct Planner {
    state: SessionState,
    catalog: Arc<RwLock<Catalog>>,
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
        .with_relation_planners(vec![Arc::new(Relations { catalog: Arc::clone(catalog) })])
        .with_optimizer_rules(optimizer_rules())
        .build();
    // An alias of the engine's own `current_date`, which it would fold when planning.
    let _ = state.deregister_udf("today").map_err(PlanError::from_engine)?;
    for function in clock_functions(clock) {
        state.register_udf(Arc::new(function)).map_err(PlanError::from_engine)?;
    }
    Ok(state)
}

impl Planner {
    fn create_table(&self, create: &CreateTable) -> Result<(), PlanError> {
        let name = create.name.value.clone();
        if !create.options.contains_key("connector") {
            return Err(at(PlanError::new(format!("table {name} has no connector")), &create.name)
                .hint("add WITH ('connector' = 'filesystem' | 'datagen' | 'nexmark' | 'print' | 'blackhole', ..)"));
        }
        let mut order: Vec<String> = Vec::new();
        for column in &create.columns {
            if order.contains(&column.name.value) {
                return Err(at(PlanError::new(format!("column {} is declared twice", column.name.value)), &column.name));
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
        let table = Table { name, schema, options: create.options.clone(), rowtime, computed, order };
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.add_table(table).map_err(|error| at(error, &create.name))
    }

    /// An expression over physical columns, with the engine's coercions applied.
    fn expr(&self, expr: &SqlExpr, schema: &DFSchema) -> Result<Expr, PlanError> {
        let place = expr.span().start;
        let with_alias = ExprWithAlias { expr: flink_functions(expr.clone()), alias: None };
        let planned = self.state.create_logical_expr_from_sql_expr(with_alias, schema).and_then(|expr| {
            let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
            ExprSimplifier::new(context).coerce(expr, schema)
        });
        planned.map_err(|error| PlanError::from_engine(error).at(place.line, place.column))
    }

    async fn create_view(&self, name: &Ident, columns: &[Ident], query: Box<Query>) -> Result<(), PlanError> {
        let plan = self.query(query).await?;
        let found = plan.schema().fields().len();
        if !columns.is_empty() && columns.len() != found {
            return Err(at(
                PlanError::new(format!("view {} names {} columns, its query has {found}", name.value, columns.len())),
                name,
            ));
        }
        let builder = datafusion::logical_expr::LogicalPlanBuilder::from(plan);
        let renamed = if columns.is_empty() {
            Ok(builder)
        } else {
            let exprs: Vec<Expr> = (builder.schema().iter().zip(columns))
                .map(|((qualifier, field), name)| Expr::from((qualifier, field)).alias(&name.value))
                .collect();
            builder.project(exprs)
        };
        let plan = renamed.and_then(|builder| builder.alias(name.value.as_str())).and_then(|builder| builder.build());
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.add_view(&name.value, plan.map_err(PlanError::from_engine)?).map_err(|error| at(error, name))
    }

    async fn query(&self, mut query: Box<Query>) -> Result<LogicalPlan, PlanError> {
        let _ = visit_expressions_mut(&mut query, |expr| {
            *expr = flink_function(expr.clone());
            std::ops::ControlFlow::<()>::Continue(())
        });
        let statement = EngineStatement::Statement(Box::new(SqlStatement::Query(query)));
        self.state.statement_to_plan(statement).await.map_err(PlanError::from_engine)
    }

    async fn insert(&self, insert: Insert) -> Result<crate::Pipeline, PlanError> {
        let sink = {
            let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
            let unknown = || {
                let error = at(PlanError::new(format!("unknown table {}", insert.table.value)), &insert.table);
                match nearest(&insert.table.value, catalog.names()) {
                    Some(known) => error.hint(format!("did you mean {known}?")),
                    None => error.hint("declare the sink with CREATE TABLE"),
                }
            };
            Arc::clone(catalog.table(&insert.table.value).ok_or_else(unknown)?)
        };
        let plan = self.query(insert.query).await?;
        let columns = sink_columns(&sink.schema, &insert.columns, &insert.table)?;
        check_columns(&plan, &columns, &insert.table)?;
        let plan = cast_to_sink(plan, &columns).map_err(PlanError::from_engine)?;
        let plan = fill_missing(plan, &columns, &sink.schema).map_err(PlanError::from_engine)?;
        cut::refuse_shapes(&plan).map_err(|error| at(error, &insert.table))?;
        let plan = self.state.optimize(&plan).map_err(PlanError::from_engine)?;
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        cut::cut(&plan, &catalog, &sink, &self.state).map_err(|error| at(error, &insert.table))
    }
}

/// Sink columns in the order of the query's: all, or those that the INSERT names.
fn sink_columns(schema: &SchemaRef, named: &[Ident], table: &Ident) -> Result<SchemaRef, PlanError> {
    if named.is_empty() {
        return Ok(Arc::clone(schema));
    }
    let mut indices = Vec::new();
    for name in named {
        let index = schema.index_of(&name.value).map_err(|_| {
            let error = at(PlanError::new(format!("table {} has no column {}", table.value, name.value)), name);
            match nearest(&name.value, schema.fields().iter().map(|field| field.name().as_str())) {
                Some(known) => error.hint(format!("did you mean {known}?")),
                None => error,
            }
        })?;
        indices.push(index);
    }
    schema.project(&indices).map(Arc::new).map_err(|error| PlanError::new(error.to_string()))
}

fn check_columns(plan: &LogicalPlan, sink: &SchemaRef, table: &Ident) -> Result<(), PlanError> {
    let query = plan.schema();
    if query.fields().len() != sink.fields().len() {
        let list = |fields: &datafusion::arrow::datatypes::Fields| {
            fields.iter().map(|f| f.name().clone()).collect::<Vec<_>>().join(", ")
        };
        let message = format!("the query gives {} columns, {} takes {}", query.fields().len(), table.value, sink.fields().len());
        let hint = format!("query: {}; {}: {}", list(query.fields()), table.value, list(sink.fields()));
        return Err(at(PlanError::new(message), table).hint(hint));
    }
    for (from, to) in query.fields().iter().zip(sink.fields()) {
        if !casts_implicitly(from.data_type(), to.data_type()) {
            let message = format!(
                "column {} of {} is {}, the query gives {}",
                to.name(),
                table.value,
                type_name(to.data_type()),
                type_name(from.data_type())
            );
            let hint = format!("write CAST({} AS {})", from.name(), type_name(to.data_type()));
            return Err(at(PlanError::new(message), table).hint(hint));
        }
    }
    Ok(())
}

/// Columns of the sink that the INSERT does not name are NULL.
fn fill_missing(plan: LogicalPlan, given: &SchemaRef, sink: &SchemaRef) -> datafusion::error::Result<LogicalPlan> {
    if given.fields().len() == sink.fields().len() && given == sink {
        return Ok(plan);
    }
    let exprs: Vec<Expr> = (sink.fields().iter())
        .map(|field| match given.column_with_name(field.name()) {
            Some(_) => datafusion::logical_expr::ident(field.name()),
            None => datafusion::logical_expr::cast(
                datafusion::logical_expr::lit(datafusion::common::ScalarValue::Null),
                field.data_type().clone(),
            )
            .alias(field.name()),
        })
        .collect();
    datafusion::logical_expr::LogicalPlanBuilder::from(plan).project(exprs)?.build()
}

/// `WATERMARK FOR column AS column [- INTERVAL ..]`: the only form whose watermark follows from the greatest event time alone.
fn watermark(
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
            return Err(at(PlanError::new(format!("event-time column {} is {}", column.value, type_name(&other))), column)
                .hint("an event time is TIMESTAMP(3) or TIMESTAMP_LTZ(3); compute one with column AS TO_TIMESTAMP(..)"));
        }
        None => {
            let error = at(PlanError::new(format!("unknown event-time column {}", column.value)), column);
            return Err(match nearest(&column.value, schema.fields().iter().map(|field| field.name().as_str())) {
                Some(known) => error.hint(format!("did you mean {known}?")),
                None => error,
            });
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
        return Err(at(PlanError::new("a watermark cannot be ahead of its rows"), column));
    }
    Ok(DeclaredRowtime { column: column.value.clone(), delay_micros })
}

/// Flink's functions that the engine lacks, by what they mean.
fn flink_function(expr: SqlExpr) -> SqlExpr {
    let SqlExpr::Function(function) = &expr else { return expr };
    let FunctionArguments::List(list) = &function.args else { return expr };
    let args: Vec<&SqlExpr> = (list.args.iter())
        .filter_map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) => Some(arg),
            _ => None,
        })
        .collect();
    match (function.name.to_string().to_uppercase().as_str(), args.as_slice()) {
        ("MOD", [left, right]) => SqlExpr::Nested(Box::new(SqlExpr::BinaryOp {
            left: Box::new(SqlExpr::Nested(Box::new((*left).clone()))),
            op: BinaryOperator::Modulo,
            right: Box::new(SqlExpr::Nested(Box::new((*right).clone()))),
        })),
        _ => expr,
    }
}

fn flink_functions(mut expr: SqlExpr) -> SqlExpr {
    let _ = visit_expressions_mut(&mut expr, |expr| {
        *expr = flink_function(expr.clone());
        std::ops::ControlFlow::<()>::Continue(())
    });
    expr
}

fn at(error: PlanError, ident: &Ident) -> PlanError {
    error.at(ident.span.start.line, ident.span.start.column)
}

/// A type as one would declare it.
pub(crate) fn type_name(data_type: &DataType) -> String {
    use datafusion::arrow::datatypes::TimeUnit;
    let digits = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    match data_type {
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "STRING".into(),
        DataType::Binary => "BYTES".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP({})", digits(unit)),
        DataType::Timestamp(unit, Some(_)) => format!("TIMESTAMP_LTZ({})", digits(unit)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;

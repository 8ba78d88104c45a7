//! Sees every table factor before the engine does: tables and views come from our catalog, TUMBLE becomes a [`WindowAssign`], and
//! whatever nobody plans is refused instead of being dropped silently.

use std::sync::{Arc, PoisonError, RwLock};

use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Extension, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Interval, ObjectName, Spanned, TableFactor,
};

use crate::PlanError;
use crate::catalog::Catalog;
use crate::error::TEMPORAL;
use crate::window_assign::{ROWTIME_KEY, WindowAssign, is_unchanged};

/// Plans table factors from the script's catalog.
#[derive(Debug)]
pub(crate) struct Relations {
    pub(crate) catalog: Arc<RwLock<Catalog>>,
}

const TUMBLE_FORM: &str = "TABLE(TUMBLE(TABLE t, DESCRIPTOR(time), INTERVAL '10' SECOND))";

impl RelationPlanner for Relations {
    fn plan_relation(&self, relation: TableFactor, _context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        let planned = match &relation {
            TableFactor::Table { .. } => self.table(&relation),
            TableFactor::TableFunction { expr: SqlExpr::Function(function), alias } => {
                self.window(function).map(|plan| PlannedRelation::new(plan, alias.clone()))
            }
            TableFactor::Derived { lateral: false, sample: None, .. } | TableFactor::NestedJoin { .. } => {
                return Ok(RelationPlanning::Original(Box::new(relation)));
            }
            other => {
                Err(refused(other, "this table form is not supported", "read a declared table, a view, a subquery or a window"))
            }
        };
        planned.map(|planned| RelationPlanning::Planned(Box::new(planned))).map_err(PlanError::into_engine)
    }
}

impl Relations {
    fn table(&self, relation: &TableFactor) -> Result<PlannedRelation, PlanError> {
        let TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } = relation
        else {
            return Err(PlanError::new("not a table"));
        };
        let clauses = [
            (args.is_some(), "arguments of a table", TUMBLE_FORM),
            (!with_hints.is_empty(), "WITH hints of a table", "leave them out: options stand in the table's WITH"),
            (version.is_some(), "FOR SYSTEM_TIME AS OF", TEMPORAL),
            (*with_ordinality, "WITH ORDINALITY", "leave it out"),
            (!partitions.is_empty(), "PARTITION of a table", "leave it out"),
            (json_path.is_some(), "a JSON path after a table", "name the field of the column instead"),
            (sample.is_some(), "TABLESAMPLE", "filter with a condition instead"),
            (!index_hints.is_empty(), "index hints", "leave them out"),
        ];
        if let Some((_, what, hint)) = clauses.iter().find(|(present, ..)| *present) {
            return Err(refused(relation, &format!("{what} is not supported"), hint));
        }
        let name = single(name)?;
        Ok(PlannedRelation::new(self.named(name)?, alias.clone()))
    }

    /// The plan of a declared table or view.
    fn named(&self, name: &Ident) -> Result<LogicalPlan, PlanError> {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = catalog.plan(&name.value) {
            return Ok(plan.clone());
        }
        Err(PlanError::new(format!("unknown table or view {}", name.value))
            .did_you_mean(&name.value, catalog.names(), "declare it with CREATE TABLE or CREATE VIEW before it is read")
            .at_ident(name))
    }

    fn window(&self, function: &Function) -> Result<LogicalPlan, PlanError> {
        let name = single(&function.name)?;
        if !name.value.eq_ignore_ascii_case("TUMBLE") {
            let message = format!("window function {} is not supported", name.value.to_uppercase());
            return Err(PlanError::new(message).at_ident(name).hint(format!("supported: {TUMBLE_FORM}")));
        }
        let FunctionArguments::List(list) = &function.args else { return Err(wrong_tumble(name)) };
        let args = ordered(&list.args).ok_or_else(|| wrong_tumble(name))?;
        let (table, time, size, offset) = match args.as_slice() {
            [table, time, size] => (table, time, size, None),
            [table, time, size, offset] => (table, time, size, Some(offset)),
            _ => return Err(wrong_tumble(name)),
        };
        let SqlExpr::Identifier(table) = table else { return Err(wrong_tumble(name)) };
        let time = descriptor(time).ok_or_else(|| wrong_tumble(name))?;
        let size_micros = interval_micros(size)?;
        if size_micros <= 0 {
            let error = PlanError::new("the window's size must be above zero").at_ident(name);
            return Err(error.hint(format!("write {TUMBLE_FORM}")));
        }
        let offset_micros = offset.map_or(Ok(0), interval_micros)?;
        let input = self.named(table)?;
        let column = time_column(&input, time, table)?;
        let assign = WindowAssign::new(input, column, size_micros, offset_micros).map_err(PlanError::from_engine)?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(assign) }))
    }
}

/// The event-time column that DESCRIPTOR names: it must be one with a watermark.
fn time_column(input: &LogicalPlan, time: &Ident, table: &Ident) -> Result<Column, PlanError> {
    let schema = input.schema();
    let Some((qualifier, field)) = schema.iter().find(|(_, field)| *field.name() == time.value) else {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        return Err(PlanError::new(format!("unknown column {} in {}", time.value, table.value))
            .did_you_mean(&time.value, names, "")
            .at_ident(time));
    };
    let column = Column::new(qualifier.cloned(), field.name());
    if !is_unchanged(input, &column, ROWTIME_KEY) {
        let error = PlanError::new(format!("column {} of {} is not an event time", time.value, table.value)).at_ident(time);
        return Err(error.hint(format!("declare WATERMARK FOR {0} AS {0} - INTERVAL '5' SECOND in CREATE TABLE", time.value)));
    }
    Ok(column)
}

/// Arguments by position; named ones (`DATA =>`, `TIMECOL =>`, `SIZE =>`, `OFFSET =>`) are put in order. `None` for a mixture, a name
/// given twice, and one that is missing.
fn ordered(args: &[FunctionArg]) -> Option<Vec<SqlExpr>> {
    let mut positional = Vec::new();
    let mut named: [Option<SqlExpr>; 4] = [const { None }; 4];
    for arg in args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => positional.push(expr.clone()),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => {
                let order = ["DATA", "TIMECOL", "SIZE", "OFFSET"];
                let at = order.iter().position(|known| name.value.eq_ignore_ascii_case(known))?;
                if named[at].replace(expr.clone()).is_some() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    match (positional.is_empty(), named) {
        (false, [None, None, None, None]) => Some(positional),
        (true, [Some(data), Some(time), Some(size), offset]) => Some([data, time, size].into_iter().chain(offset).collect()),
        _ => None,
    }
}

fn descriptor(expr: &SqlExpr) -> Option<&Ident> {
    let SqlExpr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let is_descriptor = single(&function.name).is_ok_and(|name| name.value.eq_ignore_ascii_case("DESCRIPTOR"));
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Identifier(column)))] if is_descriptor => Some(column),
        _ => None,
    }
}

/// `INTERVAL '10' SECOND` in microseconds; only units of fixed length.
pub(crate) fn interval_micros(expr: &SqlExpr) -> Result<i64, PlanError> {
    let span = expr.span().start;
    let invalid = || {
        let error = PlanError::new(format!("expected an interval of fixed length, found {expr}"));
        error.hint("write INTERVAL '10' SECOND, '1' MINUTE, '1' HOUR or '1' DAY").at(span.line, span.column)
    };
    let SqlExpr::Interval(Interval { value, leading_field: Some(unit), last_field: None, .. }) = expr else {
        return Err(invalid());
    };
    let text = match value.as_ref() {
        SqlExpr::Value(value) => value.value.clone().into_string(),
        _ => None,
    };
    let number: f64 = text.and_then(|text| text.trim().parse().ok()).ok_or_else(invalid)?;
    let unit = unit.to_string().to_uppercase();
    let micros = match unit.trim_end_matches('S') {
        "MICROSECOND" => 1.0,
        "MILLISECOND" => 1e3,
        "SECOND" => 1e6,
        "MINUTE" => 60e6,
        "HOUR" => 3_600e6,
        "DAY" => 86_400e6,
        _ => return Err(invalid()),
    } * number;
    if !micros.is_finite() || micros.abs() > 9e17 {
        return Err(invalid());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to lie within i64 just above")]
    Ok(micros.round() as i64)
}

fn single(name: &ObjectName) -> Result<&Ident, PlanError> {
    match name.0.as_slice() {
        [part] => part.as_ident().ok_or_else(|| PlanError::new(format!("{name} is not a name"))),
        _ => Err(PlanError::new(format!("{name} has more than one part"))
            .hint("catalogs and databases are not supported: write the table's name alone")),
    }
}

fn wrong_tumble(name: &Ident) -> PlanError {
    PlanError::new("TUMBLE takes a table, a DESCRIPTOR and an interval").at_ident(name).hint(format!("write {TUMBLE_FORM}"))
}

fn refused(relation: &TableFactor, message: &str, hint: &str) -> PlanError {
    let place = relation.span().start;
    PlanError::new(message).hint(hint).at(place.line, place.column)
}

//! GROUP BY without a window: results that change whenever their group does, and what the sink must know to take them.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, TableScan};

use super::shape::AggregateShape;
use super::{CutError, Rewrites, fragment, refuse_clocks, replace_leaf, sink_table};
use crate::PlanError;
use crate::catalog::Table;
use crate::changes::Changes;
use crate::functions;
use crate::job::{Fragment, Grouping, Pipeline, Sees, SourceTable};

/// Column of the output fragment that tells which result of which group a row was: see `engine::updating`.
pub(super) const CHANGE: &str = "__change";

/// Columns that a changelog adds to the sink's.
const RESERVED: [&str; 2] = ["op", "epoch"];

pub(super) fn updating(
    plan: &LogicalPlan,
    aggregate: &Aggregate,
    scan: &TableScan,
    source: SourceTable,
    sink: &Table,
    rewrites: &Rewrites<'_>,
) -> Result<Pipeline, CutError> {
    let hint = "a result that is taken back would see another instant: read the clock where the result is read";
    refuse_clocks(plan, "after GROUP BY without a window", hint)?;
    let shape = AggregateShape::updating(plan, aggregate)?;
    // A group that has nothing but its key never changes once it was given.
    let changes = if aggregate.aggr_expr.is_empty() { Changes::Append } else { changes(plan, aggregate, sink)? };
    let input = updating_input(aggregate, scan, &shape, rewrites)?;
    let output = fragment(shape.output_of_changes(plan, aggregate)?, rewrites)?;
    let stage = shape.stage(Grouping::Updating { sees: sees(plan, &changes), ttl: None }, output);
    // Nothing waits for a watermark.
    let source = SourceTable { rowtime: None, ..source };
    Ok(Pipeline { source, input, input_with_row: None, aggregates: vec![stage], sink: sink_table(sink, changes) })
}

/// What feeds an aggregate without a window.
pub(super) fn updating_input(
    aggregate: &Aggregate,
    scan: &TableScan,
    shape: &AggregateShape,
    rewrites: &Rewrites<'_>,
) -> Result<Fragment, CutError> {
    let inner = replace_leaf(&aggregate.input, scan, None, false)?;
    fragment(LogicalPlanBuilder::from(inner).project(shape.input_columns.clone())?.build()?, rewrites)
}

/// How the sink takes results that change.
pub(super) fn changes(plan: &LogicalPlan, aggregate: &Aggregate, sink: &Table) -> Result<Changes, PlanError> {
    match sink.options.get("connector").map(String::as_str) {
        Some("print") if sink.primary_key.is_empty() => return Ok(Changes::Retract),
        Some("blackhole") if sink.primary_key.is_empty() => return Ok(Changes::Upsert { key: Vec::new() }),
        _ => {}
    }
    let groups: Vec<Option<usize>> = (0..sink.schema.fields().len()).map(|column| group_of(plan, column)).collect();
    let key: Vec<usize> =
        (0..aggregate.group_expr.len()).filter_map(|group| groups.iter().position(|found| *found == Some(group))).collect();
    check_key(sink, &key, aggregate.group_expr.len())?;
    check_reserved(sink)?;
    Ok(Changes::Upsert { key })
}

/// A changelog adds columns to the sink's.
pub(super) fn check_reserved(sink: &Table) -> Result<(), PlanError> {
    match RESERVED.iter().find(|name| sink.schema.column_with_name(name).is_some()) {
        Some(name) => Err(PlanError::new(format!("column {name} of {} has the name of a column of its changelog", sink.name))
            .hint("choose another name: a changelog adds op and epoch")),
        None => Ok(()),
    }
}

/// The sink's key must be the columns that the query groups by: then one result at a time has it.
fn check_key(sink: &Table, key: &[usize], groups: usize) -> Result<(), PlanError> {
    let names =
        |places: &[usize]| places.iter().map(|&place| sink.schema.field(place).name().as_str()).collect::<Vec<_>>().join(", ");
    let about = "GROUP BY without a window gives results that change";
    if groups == 0 {
        return Err(PlanError::new(format!("{about}, and without a column to group by they have no key"))
            .hint("group by a column, or write to 'connector' = 'print'"));
    }
    if key.len() < groups {
        return Err(PlanError::new(format!("{about}: {} must get every column that the query groups by, as it is", sink.name))
            .hint("select the GROUP BY columns, and make them the PRIMARY KEY of the sink"));
    }
    let same = key.len() == sink.primary_key.len() && key.iter().all(|place| sink.primary_key.contains(place));
    let hint = format!("declare PRIMARY KEY ({}) NOT ENFORCED in CREATE TABLE {}", names(key), sink.name);
    match (sink.primary_key.is_empty(), same) {
        (_, true) => Ok(()),
        (true, false) => {
            Err(PlanError::new(format!("{about}: {} needs a key by which they are found", sink.name)).hint(format!(
                "{hint}; for results that never change, group by window_start, window_end of \
             TABLE(TUMBLE(TABLE t, DESCRIPTOR(time), INTERVAL '10' SECOND))"
            )))
        }
        (false, false) => Err(PlanError::new(format!(
            "the key of {} is ({}), the query groups by ({})",
            sink.name,
            names(&sink.primary_key),
            names(key)
        ))
        .hint(hint)),
    }
}

/// The GROUP BY column that column `index` of `plan` is: unchanged, or cast so that different values stay different.
pub(super) fn group_of(plan: &LogicalPlan, index: usize) -> Option<usize> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => (index < aggregate.group_expr.len()).then_some(index),
        LogicalPlan::Projection(projection) => {
            let column = column_of(projection.expr.get(index)?, &projection.input)?;
            group_of(&projection.input, projection.input.schema().maybe_index_of_column(column)?)
        }
        LogicalPlan::Filter(filter) => group_of(&filter.input, index),
        LogicalPlan::SubqueryAlias(alias) => group_of(&alias.input, index),
        _ => None,
    }
}

fn column_of<'a>(expr: &'a Expr, input: &LogicalPlan) -> Option<&'a Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => column_of(&alias.expr, input),
        Expr::ScalarFunction(call) if call.func.name() == functions::NOT_NULL => column_of(&call.args[0], input),
        Expr::Cast(cast) => {
            let from = cast.expr.get_type(input.schema().as_ref()).ok()?;
            keeps_apart(&from, cast.field.data_type()).then(|| column_of(&cast.expr, input)).flatten()
        }
        _ => None,
    }
}

/// Whether a cast gives different values for different values.
fn keeps_apart(from: &DataType, to: &DataType) -> bool {
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    match (from, to) {
        (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) => from <= to,
        _ if from.is_integer() && to.is_integer() => from.primitive_width() <= to.primitive_width(),
        _ => from == to || (is_text(from) && is_text(to)),
    }
}

/// A condition above the aggregate may hold for a group's old result and not for its new one.
pub(super) fn sees(plan: &LogicalPlan, changes: &Changes) -> Sees {
    let mut node = plan;
    while !matches!(node, LogicalPlan::Aggregate(_)) {
        if matches!(node, LogicalPlan::Filter(_)) && changes.has_op() {
            return Sees::BeforeAndAfter;
        }
        match node.inputs().first() {
            Some(input) => node = input,
            None => break,
        }
    }
    if *changes == Changes::Retract { Sees::BeforeAndAfter } else { Sees::After }
}

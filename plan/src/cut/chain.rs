//! Aggregates of aggregates: what one gives feeds the next.
//!
//! ```text
//! Projection* / Filter*        -> output fragment of the outermost, to the sink
//!   Aggregate                  -> AggregateStage
//!     Projection* / Filter*    -> output fragment of the one below, to the columns that feed the one above
//!       Aggregate              -> AggregateStage
//!         ..                   -> as of any aggregate
//! ```
//! What the one below gives is only added to (a window that closes, DISTINCT), or changes: then each result goes up with a weight, and the
//! one that it replaces goes with the opposite (`weights.rs`).

use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder};

use super::early::refuse_firing;
use super::shape::AggregateShape;
use super::updating::{changes, group_of, sees, updating_input};
use super::{
    CutError, Goal, Rewrites, aggregate_below, below, fragment, refuse_clocks, sink_table, source_table, tumble, window_inputs,
};
use crate::PlanError;
use crate::catalog::Catalog;
use crate::changes::Changes;
use crate::job::{AggregateStage, Emit, Grouping, Pipeline, Sees, SourceTable};
use crate::window_assign::{Bound, WindowAssign};

/// One aggregate, from the source on.
struct Level<'a> {
    aggregate: &'a Aggregate,
    shape: AggregateShape,
    /// Of the innermost.
    window: Option<&'a WindowAssign>,
    /// Whether what it gives is only added to.
    appends: bool,
}

/// - `found`: the outermost aggregate and the one below it.
pub(super) fn chained<'a>(
    plan: &'a LogicalPlan,
    found: Vec<&'a Aggregate>,
    catalog: &Catalog,
    goal: Goal<'_>,
    rewrites: &Rewrites<'_>,
) -> Result<Pipeline, CutError> {
    let aggregates = innermost_first(found);
    refuse_firing(plan)?;
    refuse_clocks(plan, "beside an aggregate of an aggregate", "read the clock where the result is read")?;
    let innermost = aggregates[0];
    let (scan, window) = below(&innermost.input)?;
    let source = source_table(scan, catalog)?;
    refuse_changing_windows(goal, &source, window.is_some())?;

    let levels = levels(plan, &aggregates, window)?;
    let shape = &levels[0].shape;
    let (input, input_with_row) = match window {
        Some(window) => {
            let [input, with_row] = window_inputs(innermost, (scan, window), shape, rewrites)?;
            (input, Some(with_row))
        }
        None => (updating_input(innermost, scan, shape, rewrites)?, None),
    };
    let source = if window.is_some() { source } else { SourceTable { rowtime: None, ..source } };
    let changes = match levels.last() {
        Some(outermost) if !outermost.appends => changes(plan, outermost.aggregate, goal.sink)?,
        _ => Changes::Append,
    };
    let aggregates = stages(plan, levels, &changes, rewrites)?;
    Ok(Pipeline { source, input, input_with_row, aggregates, sink: sink_table(goal.sink, changes) })
}

/// All aggregates of the plan.
fn innermost_first(mut found: Vec<&Aggregate>) -> Vec<&Aggregate> {
    while let Some(next) = found.last().and_then(|last| aggregate_below(&last.input)) {
        found.push(next);
    }
    found.reverse();
    found
}

/// The results that a window gives again and again would have to be taken back.
fn refuse_changing_windows(goal: Goal<'_>, source: &SourceTable, has_window: bool) -> Result<(), PlanError> {
    if goal.every_micros.is_some() {
        return Err(PlanError::new("EMIT EVERY is not supported beside an aggregate of an aggregate")
            .hint("leave it out: the outer result changes with every window that closes, or with every commit"));
    }
    if has_window && source.allowed_lateness_micros > 0 {
        let message =
            format!("'allowed-lateness' of {} gives a window's results anew: no aggregate of them is supported yet", source.name);
        return Err(PlanError::new(message).hint("leave it out, or write the window's results to a sink"));
    }
    Ok(())
}

fn levels<'a>(
    plan: &LogicalPlan,
    aggregates: &[&'a Aggregate],
    window: Option<&'a WindowAssign>,
) -> Result<Vec<Level<'a>>, CutError> {
    let mut levels: Vec<Level<'a>> = Vec::with_capacity(aggregates.len());
    for (number, &aggregate) in aggregates.iter().enumerate() {
        let above = aggregates.get(number + 1).map_or(plan, |next| &next.input);
        let below = levels.last();
        if let Some(below) = below {
            refuse_window_of_window(aggregate, below)?;
        }
        let window = window.filter(|_| below.is_none());
        let weighed = below.is_some_and(|below| !below.appends);
        let shape = match window {
            Some(_) => AggregateShape::windowed(above, aggregate)?,
            None if weighed => AggregateShape::weighed(above, aggregate)?,
            None => AggregateShape::updating(above, aggregate)?,
        };
        // A group that has nothing but its key never changes, unless its rows may be taken back.
        let appends = window.is_some() || (!weighed && aggregate.aggr_expr.is_empty());
        levels.push(Level { aggregate, shape, window, appends });
    }
    Ok(levels)
}

/// Both bounds of the window below as keys would be a window again.
fn refuse_window_of_window(aggregate: &Aggregate, below: &Level<'_>) -> Result<(), PlanError> {
    let is_bound = |expr: &Expr, bound| {
        let Expr::Column(column) = expr else { return false };
        let place = aggregate.input.schema().maybe_index_of_column(column);
        let group = place.and_then(|place| group_of(&aggregate.input, place));
        group.is_some_and(|group| below.shape.is_which_bound(group, bound))
    };
    let groups_by = |bound| aggregate.group_expr.iter().any(|expr| is_bound(expr, bound));
    if groups_by(Bound::Start) && groups_by(Bound::End) {
        return Err(PlanError::new("a window aggregate of a window aggregate is not supported yet")
            .hint("group by window_start and not by window_end: the result of a window then changes as its keys close"));
    }
    Ok(())
}

/// The stages, innermost first.
fn stages(
    plan: &LogicalPlan,
    levels: Vec<Level<'_>>,
    changes: &Changes,
    rewrites: &Rewrites<'_>,
) -> Result<Vec<AggregateStage>, CutError> {
    let mut stages = Vec::with_capacity(levels.len());
    let mut levels = levels.into_iter().peekable();
    while let Some(level) = levels.next() {
        let (grouping, output) = match levels.peek() {
            Some(next) => (level.inner_grouping(), level.output_to(next)?),
            None => (level.outer_grouping(plan, changes), level.shape.output_of_changes(plan, level.aggregate)?),
        };
        stages.push(level.shape.stage(grouping, fragment(output, rewrites)?));
    }
    Ok(stages)
}

impl Level<'_> {
    /// Of one that feeds another.
    fn inner_grouping(&self) -> Grouping {
        match self.window {
            Some(window) => tumble(window, Emit::default()),
            None => Grouping::Updating { sees: if self.appends { Sees::After } else { Sees::BeforeAndAfter }, ttl: None },
        }
    }

    fn outer_grouping(&self, plan: &LogicalPlan, changes: &Changes) -> Grouping {
        // A group that has no rows any more is gone, as by a condition.
        let may_go = self.shape.retracted.is_some() && changes.has_op();
        Grouping::Updating { sees: if may_go { Sees::BeforeAndAfter } else { sees(plan, changes) }, ttl: None }
    }

    /// What lies between this one and the next, to the columns that feed it.
    fn output_to(&self, next: &Level<'_>) -> Result<LogicalPlan, CutError> {
        let between = &next.aggregate.input;
        let below = match self.window {
            Some(window) => self.shape.output(between, self.aggregate, window)?,
            None => self.shape.output_of_weights(between, self.aggregate)?,
        };
        Ok(LogicalPlanBuilder::from(below).project(next.shape.input_columns.clone())?.build()?)
    }
}

//! Flink's meaning of a script, written in the engine's words.
//!
//! Why: the engine's functions bear Flink's names and mean something else in places, and its planner drops clauses that it does not
//! know. So the syntax tree is walked before the engine sees it: what means the same stays, what has the same meaning in other words
//! is rewritten, and everything else is refused at its place with the nearest supported form. Never: a silent difference.
//!
//! ```text
//! syntax tree --> clauses (query) --> calls (rules, calls, dates) --> engine --> types of the plan (typed)
//! ```

mod ast;
mod averages;
mod calls;
mod dates;
mod guards;
mod literals;
mod query;
mod rules;
mod typed;
mod types;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, Select, Spanned, TableFactor, Visit, VisitMut, Visitor, VisitorMut};

use crate::PlanError;

pub(crate) use averages::integer_averages;
pub(crate) use guards::{guarded, needs_guards};
pub(crate) use rules::{aggregate_functions, scalar_functions};
pub(crate) use typed::{cast_refusal, refuse_in_expr, refuse_other_meanings};
pub(crate) use types::FlinkTypes;

/// Checks and rewrites a query.
pub(crate) fn of_query(query: &mut Query) -> Result<(), PlanError> {
    let broken = Visit::visit(query, &mut Clauses);
    if let ControlFlow::Break(error) = broken {
        return Err(error);
    }
    rewritten(query)
}

/// Checks and rewrites an expression.
pub(crate) fn of_expr(expr: &mut Expr) -> Result<(), PlanError> {
    rewritten(expr)
}

fn rewritten(tree: &mut impl VisitMut) -> Result<(), PlanError> {
    if let ControlFlow::Break(error) = tree.visit(&mut Rewrite::default()) {
        return Err(error);
    }
    literals::give_types(tree);
    Ok(())
}

struct Clauses;

impl Visitor for Clauses {
    type Break = PlanError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<PlanError> {
        match query::refused(query) {
            Some(error) => ControlFlow::Break(error),
            None => ControlFlow::Continue(()),
        }
    }
}

/// Children first: an argument is in the engine's words when its call is looked at, and what a call became is not looked at again.
/// Window functions of FROM are left to [`crate::relations`].
#[derive(Default)]
struct Rewrite {
    in_window_function: usize,
}

const fn is_window_function(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::TableFunction { .. })
}

impl VisitorMut for Rewrite {
    type Break = PlanError;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<PlanError> {
        query::name_columns(select);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<PlanError> {
        self.in_window_function += usize::from(is_window_function(factor));
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<PlanError> {
        self.in_window_function -= usize::from(is_window_function(factor));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<PlanError> {
        if self.in_window_function > 0 {
            return ControlFlow::Continue(());
        }
        match calls::in_engines_words(expr) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(same)) => {
                *expr = same;
                ControlFlow::Continue(())
            }
            Err(error) => {
                let place = expr.span().start;
                ControlFlow::Break(error.at(place.line, place.column))
            }
        }
    }
}

//! Number literals with Flink's types: a whole number that fits is INT, one with an exponent DOUBLE. The engine has BIGINT and DECIMAL,
//! so `n + 1` of an INT would be a BIGINT that no longer wraps around and no longer fits an INT column.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{DataType, Expr, TableFactor, Value, VisitMut, VisitorMut};

use super::ast::{cast, double};

/// Gives the literals of `tree` their types; those of intervals and of window functions in FROM are read elsewhere.
pub(super) fn give_types(tree: &mut impl VisitMut) {
    let ControlFlow::Continue(()) = tree.visit(&mut Literals { left_alone: 0 });
}

struct Literals {
    left_alone: usize,
}

impl VisitorMut for Literals {
    type Break = std::convert::Infallible;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        self.left_alone += usize::from(super::is_window_function(factor));
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        self.left_alone -= usize::from(super::is_window_function(factor));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        self.left_alone += usize::from(matches!(expr, Expr::Interval(_)));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        self.left_alone -= usize::from(matches!(expr, Expr::Interval(_)));
        if self.left_alone == 0
            && let Some(typed) = typed(expr)
        {
            *expr = typed;
        }
        ControlFlow::Continue(())
    }
}

fn typed(expr: &Expr) -> Option<Expr> {
    let Expr::Value(value) = expr else { return None };
    let Value::Number(digits, _) = &value.value else { return None };
    if digits.contains(['e', 'E']) {
        return Some(double(expr.clone()));
    }
    digits.parse::<i32>().ok().map(|_| cast(expr.clone(), DataType::Int(None)))
}

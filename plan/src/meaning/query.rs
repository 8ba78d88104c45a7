//! Clauses of a query: those that a stream has no plan for are refused at their place, before the engine could drop one.

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, GroupByExpr, Ident, Query, Select, SelectFlavor, SelectItem, SetExpr, Spanned,
};
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::PlanError;

/// The first clause that nobody plans.
pub(super) fn refused(query: &Query) -> Option<PlanError> {
    let place = query.body.span().start;
    let order = query.order_by.as_ref().map_or(place, |order| order.span().start);
    let odd = query.for_clause.is_some() || query.settings.is_some() || query.format_clause.is_some();
    let clauses = [
        (
            query.order_by.is_some(),
            "ORDER BY has no meaning on an unbounded stream",
            "leave it out; sort when you read the result",
            order,
        ),
        (
            query.limit_clause.is_some() || query.fetch.is_some(),
            "LIMIT has no meaning on an unbounded stream",
            "leave it out; filter with a condition instead",
            place,
        ),
        (!query.locks.is_empty(), "FOR UPDATE is not supported", "leave it out", place),
        (odd || !query.pipe_operators.is_empty(), "this clause after a query is not supported", "leave it out", place),
    ];
    first(&clauses).or_else(|| body(&query.body))
}

fn body(body: &SetExpr) -> Option<PlanError> {
    let place = body.span().start;
    match body {
        SetExpr::Select(found) => select(found),
        SetExpr::Query(_) => None,
        SetExpr::SetOperation { op, right, .. } => Some(
            PlanError::new(format!("{op} is not supported yet"))
                .hint("write one INSERT per branch in a STATEMENT SET")
                .at(right.span().start.line, right.span().start.column),
        ),
        SetExpr::Values(_) => Some(nothing_to_run_on(place)),
        _ => Some(PlanError::new("only SELECT is supported here").at(place.line, place.column)),
    }
}

fn nothing_to_run_on(place: Location) -> PlanError {
    PlanError::new("a query without a stream has nothing to run on").hint("read a declared table").at(place.line, place.column)
}

fn select(select: &Select) -> Option<PlanError> {
    let place = select.select_token.0.span.start;
    let [from] = select.from.as_slice() else {
        let error = match select.from.get(1) {
            Some(second) => {
                let place = second.span().start;
                PlanError::new("joins are not supported yet").hint("read one stream per INSERT").at(place.line, place.column)
            }
            None => nothing_to_run_on(place),
        };
        return Some(error);
    };
    let join = from.joins.first().map_or(place, |join| join.relation.span().start);
    let qualify = select.qualify.as_ref().map_or(place, |expr| expr.span().start);
    let clauses = [
        (!from.joins.is_empty(), "joins are not supported yet", "read one stream per INSERT", join),
        (
            matches!(select.distinct, Some(Distinct::On(_))),
            "DISTINCT ON is not supported",
            "write SELECT DISTINCT, or GROUP BY with an aggregate",
            place,
        ),
        (select.qualify.is_some(), "QUALIFY is not Flink's", "filter in an outer query", qualify),
        (!select.named_window.is_empty(), "OVER windows are not supported yet", "use TABLE(TUMBLE(..)) with GROUP BY", place),
        (
            has_unknown_clause(select),
            "this clause of SELECT is not supported",
            "supported: SELECT, FROM, WHERE, GROUP BY, HAVING",
            place,
        ),
    ];
    first(&clauses).or_else(|| grouping(select)).or_else(|| select.projection.iter().find_map(item))
}

fn has_unknown_clause(select: &Select) -> bool {
    let lists = [select.cluster_by.is_empty(), select.distribute_by.is_empty(), select.sort_by.is_empty()];
    lists.contains(&false)
        || !select.optimizer_hints.is_empty()
        || select.select_modifiers.is_some()
        || select.top.is_some()
        || select.exclude.is_some()
        || select.into.is_some()
        || !select.lateral_views.is_empty()
        || select.prewhere.is_some()
        || !select.connect_by.is_empty()
        || select.value_table_mode.is_some()
        || select.flavor != SelectFlavor::Standard
}

fn grouping(select: &Select) -> Option<PlanError> {
    let (found, place) = match &select.group_by {
        GroupByExpr::All(_) => (true, select.select_token.0.span.start),
        GroupByExpr::Expressions(exprs, modifiers) => {
            let set = exprs.iter().find(|expr| matches!(expr, Expr::GroupingSets(_) | Expr::Rollup(_) | Expr::Cube(_)));
            let place = set.or(exprs.first()).map_or(select.select_token.0.span.start, |expr| expr.span().start);
            (set.is_some() || !modifiers.is_empty(), place)
        }
    };
    found.then(|| {
        PlanError::new("GROUPING SETS, ROLLUP, CUBE and GROUP BY ALL are not supported yet")
            .hint("write one INSERT per grouping")
            .at(place.line, place.column)
    })
}

/// `SELECT * EXCEPT ..` and the like are other dialects' words.
fn item(item: &SelectItem) -> Option<PlanError> {
    let (SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options)) = item else { return None };
    let plain = options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none();
    let place = item.span().start;
    (!plain).then(|| PlanError::new("options of * are not supported").hint("name the columns").at(place.line, place.column))
}

/// Names the columns that the query leaves without one, as Flink does: the engine would take the expression's text, which need not be
/// unique.
pub(super) fn name_columns(select: &mut Select) {
    let mut taken: Vec<String> = Vec::new();
    for (number, item) in select.projection.iter_mut().enumerate() {
        let name = match &*item {
            SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
            SelectItem::UnnamedExpr(expr) => match column_name(expr).filter(|name| !taken.contains(name)) {
                Some(name) => name,
                None => format!("EXPR${number}"),
            },
            _ => continue,
        };
        // A field of a ROW bears its own name, which the engine would spell with its path.
        if let SelectItem::UnnamedExpr(expr) = item
            && !matches!(expr, Expr::Identifier(known) if known.value == name)
        {
            let alias = Ident::with_span(expr.span(), &name);
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
        taken.push(name);
    }
}

fn column_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(name.value.clone()),
        Expr::CompoundIdentifier(path) => path.last().map(|name| name.value.clone()),
        _ => None,
    }
}

fn first(clauses: &[(bool, &str, &str, Location)]) -> Option<PlanError> {
    let (_, what, hint, place) = clauses.iter().find(|(present, ..)| *present)?;
    Some(PlanError::new(*what).hint(*hint).at(place.line, place.column))
}

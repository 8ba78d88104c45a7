//! The engine's rewrites that a stream's plan may undergo, listed by name, with the reason for each that is left out.
//!
//! An upgrade that brings a rule nobody decided on fails a test.

use std::sync::Arc;

use datafusion::optimizer::{Optimizer, OptimizerRule};

/// Rules that run: they rewrite expressions and move projections and filters, and mean the same on a stream.
const KEPT: [&str; 7] = [
    "simplify_expressions",
    "rewrite_set_comparison",
    "push_down_filter",
    "common_sub_expression_eliminate",
    "optimize_projections",
    "eliminate_duplicated_expr",
    "extract_leaf_expressions",
];

/// Rules that merge a filter with the one below it, or make AND and OR of a CASE.
const MOVES_PAST_GUARDS: [&str; 2] = ["push_down_filter", "simplify_expressions"];

/// The engine's rules, in its order, without those for joins, subqueries, limits, sorts, unions and DISTINCT: plans with these are
/// refused, and a rule that assumed the whole input is there (empty relations, aggregate statistics) must never run.
///
/// - `guards`: leave out also those that evaluate an expression before its guard, because one can fail.
pub(crate) fn optimizer(guards: bool) -> Optimizer {
    let runs = |rule: &Arc<dyn OptimizerRule + Send + Sync>| {
        KEPT.contains(&rule.name()) && !(guards && MOVES_PAST_GUARDS.contains(&rule.name()))
    };
    Optimizer::with_rules(Optimizer::new().rules.into_iter().filter(runs).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For shapes that are refused before any rule runs, or rewrites that assume the whole input is there.
    const LEFT_OUT: &[&str] = &[
        // Unions are refused; SELECT DISTINCT becomes GROUP BY before any rule runs.
        "optimize_unions",
        "unions_to_filter",
        "replace_distinct_aggregate",
        "single_distinct_aggregation_to_group_by",
        // Joins and subqueries are refused.
        "eliminate_join",
        "decorrelate_predicate_subquery",
        "scalar_subquery_to_join",
        "decorrelate_lateral_join",
        "extract_equijoin_predicate",
        "eliminate_cross_join",
        "filter_null_join_keys",
        "eliminate_outer_join",
        // Limits are refused.
        "eliminate_limit",
        "push_down_limit",
        // A stream that a filter empties is still a stream: its lane must advance the watermark.
        "eliminate_filter",
        "propagate_empty_relation",
        // Window bounds must stay in the GROUP BY, where the cut looks for them.
        "eliminate_group_by_constant",
        // Undoes for scans what `extract_leaf_expressions` prepares; streams take no pushed-down expressions.
        "push_down_leaf_projections",
    ];

    #[test]
    fn every_rule_of_the_engine_is_decided_on() {
        let undecided: Vec<String> = (Optimizer::new().rules.iter().map(|rule| rule.name().to_owned()))
            .filter(|name| !KEPT.contains(&name.as_str()) && !LEFT_OUT.contains(&name.as_str()))
            .collect();
        assert_eq!(undecided, Vec::<String>::new(), "decide: keep, or leave out with the reason");
    }
}

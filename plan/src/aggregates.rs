//! Which aggregates a window may have, by the size of their state.
//!
//! | class | state of one (pane, key) | here |
//! | --- | --- | --- |
//! | constant size | a few values, whatever the number of rows | supported |
//! | list | every value: median, array_agg, string_agg, nth_value | refused until lists have a limit and a metric |
//! | sketch | an approximation bound to one version: approx_distinct, quantiles | refused until the sketch is ours |
//! | by order | which value came first: first_value, last_value, any_value | refused until rows carry their order |
//! | distinct | a row per distinct value, beside the partial | supported for those of one argument: see `cut::distinct` |

/// Constant size; Flink's names and the engine's own.
#[rustfmt::skip]
const CONSTANT_SIZE: &[&str] = &[
    "count", "sum", "min", "max", "avg", "mean", "var", "var_samp", "var_sample", "var_pop", "var_population", "stddev", "stddev_samp",
    "stddev_pop", "covar_samp", "covar", "covar_pop", "corr", "bool_and", "bool_or", "bit_and", "bit_or", "bit_xor",
];

/// Everything else that the engine or Flink knows, by class.
#[rustfmt::skip]
const OTHERS: &[(&[&str], &str)] = &[
    (&["median", "array_agg", "string_agg", "listagg", "collect", "nth_value", "percentile_cont", "quantile_cont"], "keeps every value"),
    (&["approx_distinct", "approx_median", "approx_percentile_cont", "approx_percentile_cont_with_weight", "approx_count_distinct"],
     "keeps a sketch whose form is not fixed"),
    (&["first_value", "last_value", "any_value"], "depends on the order of rows"),
    (&["grouping", "grouping_id", "group_id"], "belongs to GROUPING SETS"),
    (&["regr_slope", "regr_intercept", "regr_count", "regr_r2", "regr_avgx", "regr_avgy", "regr_sxx", "regr_syy", "regr_sxy"],
     "is not checked yet"),
];

/// Whether `function` is an aggregate whose partial has constant size.
pub(crate) fn is_aggregate(function: &str) -> bool {
    CONSTANT_SIZE.contains(&function)
}

/// Why an aggregate is refused, if it is one.
pub(crate) fn refusal(function: &str) -> Option<&'static str> {
    OTHERS.iter().find(|(names, _)| names.contains(&function)).map(|(_, why)| *why)
}

/// Names for `did you mean ..?`.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    CONSTANT_SIZE.iter().copied()
}

/// The supported names, for messages.
pub(crate) fn supported() -> &'static str {
    "supported: COUNT, SUM, MIN, MAX, AVG, VAR_POP, VAR_SAMP, STDDEV_POP, STDDEV_SAMP, COVAR_POP, COVAR_SAMP, CORR, BOOL_AND, \
     BOOL_OR, BIT_AND, BIT_OR, BIT_XOR"
}

#[cfg(test)]
mod tests {
    use datafusion::execution::SessionStateDefaults;

    use super::*;

    #[test]
    fn every_aggregate_of_the_engine_has_a_class() {
        let undecided: Vec<String> = SessionStateDefaults::default_aggregate_functions()
            .iter()
            .flat_map(|f| std::iter::once(f.name().to_owned()).chain(f.aliases().iter().cloned()))
            .filter(|name| !is_aggregate(name) && refusal(name).is_none())
            .collect();
        assert_eq!(undecided, Vec::<String>::new());
    }
}

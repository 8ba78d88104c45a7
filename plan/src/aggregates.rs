//! Which aggregates a window may have, by the size of their state.

/// Constant-size state: a partial is a few values, whatever the number of rows.
const CONSTANT_SIZE: [&str; 24] = [
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "mean",
    "var",
    "var_samp",
    "var_sample",
    "var_pop",
    "var_population",
    "stddev",
    "stddev_samp",
    "stddev_pop",
    "covar_samp",
    "covar",
    "covar_pop",
    "corr",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "any_value",
];

/// Whether `function` has a partial of constant size.
pub(crate) fn is_constant_size(function: &str) -> bool {
    CONSTANT_SIZE.contains(&function)
}

/// The supported names, for messages.
pub(crate) fn supported() -> String {
    "count, sum, min, max, avg, var_pop, var_samp, stddev_pop, stddev_samp, covar_pop, covar_samp, corr, bool_and, bool_or, bit_and, bit_or, bit_xor".to_owned()
}

//! One stated rule for every scalar function that the engine knows: kept, ours, or refused with the reason.
//!
//! Why: some of the engine's functions bear a Flink name and mean something else, and some give another value at each call, which a
//! replay would not repeat (R1). A function that an upgrade adds is refused, and fails a test until somebody decides.

use std::sync::Arc;

use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

use crate::aggregates;

/// The engine's, as they are: either the same in Flink or unknown there.
#[rustfmt::skip]
const KEPT: &[&str] = &[
    // values
    "coalesce", "nullif", "nvl", "ifnull", "nvl2", "named_struct", "get_field",
    // numbers
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "cos", "cosh", "cot", "degrees", "exp",
    "factorial", "floor", "gcd", "isnan", "iszero", "lcm", "ln", "log10", "log2", "nanvl", "pi", "radians", "round", "signum",
    "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
    // text
    "bit_length", "btrim", "trim", "char_length", "character_length", "length", "concat_ws", "contains", "ends_with",
    "find_in_set", "initcap", "instr", "left", "levenshtein", "lower", "lpad", "ltrim", "octet_length", "overlay", "position", "regexp_like",
    "regexp_match", "repeat", "replace", "reverse", "right", "rpad", "rtrim", "split_part", "starts_with", "strpos", "substr_index",
    "substring_index", "substr", "substring", "to_hex", "translate", "upper",
    // time
    "date_bin", "date_part", "datepart", "date_trunc", "datetrunc", "make_date", "make_time", "to_char", "to_timestamp_micros",
    "to_timestamp_millis", "to_timestamp_nanos", "to_timestamp_seconds", "to_unixtime",
    // lists
    "array_length", "list_length", "make_array", "make_list", "array_element", "array_extract", "list_element", "list_extract",
];

/// Written as in Flink, and put into the engine's words by [`super::calls`].
#[rustfmt::skip]
pub(super) const REWRITTEN: &[&str] = &[
    "mod", "concat", "greatest", "least", "log", "power", "pow", "sign", "truncate", "e", "if", "locate", "split_index", "date_format",
    "from_unixtime", "to_timestamp_ltz", "year", "quarter", "month", "week", "dayofmonth", "dayofyear", "dayofweek", "hour", "minute",
    "second",
];

/// The engine's words that only rewritten calls use.
const BEHIND: &[&str] = &["greatest", "least", "log", "power"];

/// Read the recipe: its instant, or why a window fires ([`crate::functions`]).
#[rustfmt::skip]
const CLOCK: &[&str] = &[
    "now", "current_timestamp", "proctime", "localtimestamp", "current_date", "current_time", "localtime",
    "unix_timestamp", "firing",
];

/// Refused, and why.
#[rustfmt::skip]
const REFUSED: &[(&[&str], &str)] = &[
    (&["random", "rand", "rand_integer", "uuid"], "it gives another value at each call, so a replay would differ: take the value from a column"),
    (&["today"], "write CURRENT_DATE"),
    (&["encode", "decode"], "in Flink the second argument is a character set, in the engine an encoding"),
    (&["ascii"], "beyond ASCII Flink gives the first byte, the engine the code point"),
    (&["regexp_replace", "regexp_extract", "regexp"], "Java's patterns are not translated yet; regexp_like(text, pattern) takes the engine's"),
    (&["to_timestamp", "to_date"], "write CAST(text AS TIMESTAMP(3)) or CAST(text AS DATE)"),
    (&["chr"], "in Flink codes above 255 wrap around"),
    (&["arrow_cast", "arrow_try_cast", "cast_to_type", "try_cast_to_type", "to_local_time", "to_time"], "write CAST(x AS type)"),
    (&["struct", "row"], "write named_struct('name', value, ..)"),
    (&["arrow_typeof", "arrow_metadata", "arrow_field", "with_metadata", "version", "union_extract", "union_tag", "file_row_index",
       "input_file_name"], "it looks at how the engine works, not at the data"),
    (&["regexp_count", "regexp_instr"], "they are not supported yet"),
    (&["tumble_start", "tumble_end", "tumble_rowtime", "hop_start", "hop_end", "session_start", "session_end"],
     "select window_start and window_end of TABLE(TUMBLE(TABLE t, DESCRIPTOR(time), INTERVAL '10' SECOND))"),
    (&["tumble", "hop", "cumulate", "session"],
     "write the window in FROM: TABLE(TUMBLE(TABLE t, DESCRIPTOR(time), INTERVAL '10' SECOND)), and GROUP BY window_start, window_end"),
];

/// Array and map functions are refused as one family: their NULL and range rules differ from Flink's one by one.
const FAMILIES: &[&str] =
    &["array_", "list_", "map_", "arrays_", "string_to_", "any_match", "cosine_distance", "inner_product", "element_at"];
const FAMILY_NAMES: &[&str] = &["map", "flatten", "cardinality", "element", "empty", "range", "generate_series", "dot_product"];

/// What a name in a script means.
pub(super) enum Rule {
    /// It may be called.
    Known,
    /// It is an aggregate that may not: what is wrong with its state.
    Refused(&'static str),
    /// It may not: why, or what to write instead.
    RefusedFor(&'static str),
    /// Nobody knows it.
    Unknown,
}

/// The rule for a scalar function or an aggregate, by its name in lower case.
pub(super) fn rule(name: &str) -> Rule {
    if [KEPT, REWRITTEN, CLOCK].iter().any(|list| list.contains(&name)) || aggregates::is_aggregate(name) {
        return Rule::Known;
    }
    if let Some((_, why)) = REFUSED.iter().find(|(names, _)| names.contains(&name)) {
        return Rule::RefusedFor(why);
    }
    if let Some(why) = aggregates::refusal(name) {
        return Rule::Refused(why);
    }
    if FAMILIES.iter().any(|family| name.starts_with(family)) || FAMILY_NAMES.contains(&name) {
        return Rule::RefusedFor("array and map functions are not supported yet, but array[1] and array_length are");
    }
    Rule::Unknown
}

/// Names for `did you mean ..?`.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    [KEPT, REWRITTEN, CLOCK].into_iter().flatten().copied().chain(aggregates::names())
}

/// The engine's scalar functions that plans may hold. Its clock functions are not among them, under no alias: it would fold them.
pub(crate) fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let used = |function: &Arc<ScalarUDF>| {
        let name = function.name();
        !CLOCK.contains(&name) && (KEPT.contains(&name) || BEHIND.contains(&name))
    };
    SessionStateDefaults::default_scalar_functions().into_iter().filter(used).collect()
}

/// The engine's aggregates that plans may hold.
pub(crate) fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    let used = |function: &Arc<AggregateUDF>| aggregates::is_aggregate(function.name());
    SessionStateDefaults::default_aggregate_functions().into_iter().filter(used).collect()
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::Volatility;

    use super::*;

    fn engine_names() -> Vec<String> {
        let functions = SessionStateDefaults::default_scalar_functions();
        functions.iter().flat_map(|f| std::iter::once(f.name().to_owned()).chain(f.aliases().iter().cloned())).collect()
    }

    #[test]
    fn every_scalar_function_of_the_engine_has_a_rule() {
        let undecided: Vec<_> = engine_names().into_iter().filter(|name| matches!(rule(name), Rule::Unknown)).collect();
        assert_eq!(undecided, Vec::<String>::new(), "decide: keep, rewrite, or refuse with the reason");
    }

    #[test]
    fn no_kept_function_gives_another_value_at_each_call() {
        let unsteady: Vec<_> = scalar_functions()
            .iter()
            .filter(|f| f.signature().volatility != Volatility::Immutable)
            .map(|f| f.name().to_owned())
            .collect();
        assert_eq!(unsteady, Vec::<String>::new(), "a replay would differ (R1)");
    }

    #[test]
    fn a_kept_name_is_one_of_the_engine() {
        let engine = engine_names();
        let lost: Vec<_> = KEPT.iter().filter(|name| !engine.iter().any(|known| known == **name)).collect();
        assert_eq!(lost, Vec::<&&str>::new(), "the engine dropped them");
    }

    #[test]
    fn no_name_has_two_rules() {
        let refused = REFUSED.iter().flat_map(|(names, _)| names.iter());
        let mut all: Vec<&str> = KEPT.iter().chain(REWRITTEN).chain(CLOCK).chain(refused).copied().collect();
        all.sort_unstable();
        let twice: Vec<_> = all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        assert_eq!(twice, Vec::<&str>::new());
    }
}

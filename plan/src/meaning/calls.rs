//! Calls, casts and operators in the engine's words, where these mean the same as in Flink.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, CeilFloorKind, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, ObjectName, TimezoneInfo,
};
use datafusion::sql::sqlparser::ast::{DataType, Spanned};

use super::ast::{as_number, as_text, bigint, binary, call, case, cast, double, nested, null, number, text};
use super::dates::format_of;
use super::rules::{Rule, names, rule};
use crate::{PlanError, aggregates};

type Rewritten = Result<Option<Expr>, PlanError>;

/// What `expr` means in the engine's words; `None` where it is the same. Its children are rewritten already.
pub(super) fn in_engines_words(expr: &Expr) -> Rewritten {
    match expr {
        Expr::Function(function) => of_call(function),
        Expr::Extract { field, expr, .. } => part(&field.to_string(), expr).map(Some),
        Expr::Substring { expr, substring_from, substring_for, .. } => {
            positive(substring_from.as_deref(), "SUBSTRING")?;
            let args = [Some((**expr).clone()), substring_from.as_deref().cloned(), substring_for.as_deref().cloned()];
            Ok(Some(call("substr", args.into_iter().flatten().collect())))
        }
        Expr::Ceil { field, .. } | Expr::Floor { field, .. } => whole(field).map(|()| None),
        Expr::Cast { kind, format, array, .. } if *kind == CastKind::SafeCast || format.is_some() || *array => {
            Err(PlanError::new("this form of CAST is not supported").hint("write CAST(x AS type), or TRY_CAST(x AS type)"))
        }
        Expr::Like { pattern, escape_char, any, negated, expr } => {
            let escape = escape_char.as_ref().and_then(|escape| as_text(&Expr::Value(escape.clone())).map(str::to_owned));
            let pattern = Box::new(text(like_pattern(pattern, escape.as_deref(), *any)?));
            Ok(Some(Expr::Like { negated: *negated, any: *any, expr: expr.clone(), pattern, escape_char: None }))
        }
        Expr::SimilarTo { .. } => {
            Err(PlanError::new("SIMILAR TO is not supported yet").hint("write LIKE, or REGEXP_LIKE(text, pattern)"))
        }
        Expr::AtTimeZone { .. } => {
            Err(PlanError::new("AT TIME ZONE is not supported yet").hint("times are UTC: add an interval"))
        }
        Expr::Exists { .. } | Expr::InSubquery { .. } | Expr::Subquery(_) => Err(no_subquery()),
        _ => Ok(None),
    }
}

fn no_subquery() -> PlanError {
    PlanError::new("subqueries in expressions are not supported yet").hint("use a view or a subquery in FROM")
}

fn whole(field: &CeilFloorKind) -> Result<(), PlanError> {
    match field {
        CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) => Ok(()),
        CeilFloorKind::DateTimeField(unit) => Err(PlanError::new(format!("CEIL and FLOOR to a {unit} are not supported yet"))
            .hint("write date_trunc('hour', time) for FLOOR(time TO HOUR)")),
        CeilFloorKind::Scale(_) => Err(PlanError::new("CEIL and FLOOR take one argument").hint("write ROUND(x, digits)")),
    }
}

/// The engine always has `\` as escape character; Flink has the one that ESCAPE names, or none.
fn like_pattern(pattern: &Expr, escape: Option<&str>, any: bool) -> Result<String, PlanError> {
    let Some(literal) = as_text(pattern).filter(|_| !any) else {
        return Err(PlanError::new("a pattern of LIKE must be a literal").hint("write a text, as in name LIKE 'A%'"));
    };
    let mut same = String::with_capacity(literal.len());
    let mut characters = literal.chars();
    while let Some(character) = characters.next() {
        let escaped = if escape.is_some_and(|escape| escape.chars().eq([character])) { characters.next() } else { None };
        match escaped.unwrap_or(character) {
            '\\' => same.push_str("\\\\"),
            special if escaped.is_some() => same.extend(['\\', special]),
            plain => same.push(plain),
        }
    }
    Ok(same)
}

fn of_call(function: &Function) -> Rewritten {
    let written = function.name.to_string();
    let written = written.trim_matches('`');
    let name = written.to_lowercase();
    match rule(&name) {
        Rule::Known => {}
        Rule::Refused(why) => {
            let error = PlanError::new(format!("{written} is not supported: it {why}"));
            return Err(error.hint(aggregates::supported()));
        }
        Rule::RefusedFor(why) => return Err(PlanError::new(format!("{written} is not supported")).hint(why)),
        Rule::Unknown => return Err(PlanError::new(format!("unknown function {written}")).did_you_mean(&name, names(), "")),
    }
    if function.over.is_some() {
        return Err(PlanError::new("OVER windows are not supported yet").hint("use TABLE(TUMBLE(..)) with GROUP BY"));
    }
    match arguments(function) {
        Some(args) => same_call(&name, &args).map(|same| same.or_else(|| renamed(function, &name))),
        None => Ok(renamed(function, &name)),
    }
}

/// The engine knows its functions in lower case only.
fn renamed(function: &Function, name: &str) -> Option<Expr> {
    let place = function.name.span();
    let name = Ident::with_span(place, name);
    Some(Expr::Function(Function { name: ObjectName::from(vec![name]), ..function.clone() }))
}

fn arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let arg = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) => Some(arg.clone()),
        _ => None,
    };
    list.args.iter().map(arg).collect()
}

fn same_call(name: &str, args: &[Expr]) -> Rewritten {
    let arg = |at: usize| args[at].clone();
    Ok(Some(match (name, args.len()) {
        ("mod", 2) => binary(arg(0), BinaryOperator::Modulo, arg(1)),
        ("concat", 1..) => concatenated(args),
        ("greatest" | "least", 1..) => unless_null(args, call(name, args.to_vec())),
        ("log", 1) => call("ln", vec![double(arg(0))]),
        ("log", 2) => call("log", vec![double(arg(0)), double(arg(1))]),
        ("power" | "pow", 2) => call("power", vec![double(arg(0)), double(arg(1))]),
        ("sign", 1) => call("signum", vec![arg(0)]),
        ("truncate", 1 | 2) => call("trunc", args.to_vec()),
        ("e", 0) => call("exp", vec![double(number(1))]),
        ("if", 3) => case(arg(0), arg(1), arg(2)),
        ("locate", 2) => call("strpos", vec![arg(1), arg(0)]),
        ("split_index", 3) => piece(&args[0], &args[1], &args[2])?,
        ("substr" | "substring", 2 | 3) => {
            positive(args.get(1), &name.to_uppercase())?;
            return Ok(None);
        }
        ("left" | "right" | "lpad" | "rpad", 2 | 3) => {
            let at_least_0 = args.get(1).and_then(as_number).is_some_and(|length| length >= 0);
            if !at_least_0 {
                return Err(needs_number(name, "a length that is 0 or above"));
            }
            return Ok(None);
        }
        ("date_format", 2) => formatted(arg(0), &args[1])?,
        ("from_unixtime", 1) => formatted(of_seconds(arg(0)), &text("yyyy-MM-dd HH:mm:ss"))?,
        ("from_unixtime", 2) => formatted(of_seconds(arg(0)), &args[1])?,
        ("to_timestamp_ltz", 2) => local_time(arg(0), as_number(&args[1]))?,
        ("year" | "quarter" | "month" | "week" | "hour" | "minute" | "second", 1) => part(name, &args[0])?,
        ("dayofmonth", 1) => part("day", &args[0])?,
        ("dayofyear", 1) => part("doy", &args[0])?,
        ("dayofweek", 1) => part("dow", &args[0])?,
        (name, count) if super::rules::REWRITTEN.contains(&name) => {
            return Err(PlanError::new(format!("{} does not take {count} arguments", name.to_uppercase())));
        }
        _ => return Ok(None),
    }))
}

/// NULL if any is NULL, unlike the engine's `concat`.
fn concatenated(args: &[Expr]) -> Expr {
    let first = cast(args[0].clone(), DataType::String(None));
    args[1..].iter().fold(first, |text, arg| binary(text, BinaryOperator::StringConcat, arg.clone()))
}

fn unless_null(args: &[Expr], value: Expr) -> Expr {
    let is_null = |arg: &Expr| Expr::IsNull(Box::new(nested(arg.clone())));
    let any = args[1..].iter().fold(is_null(&args[0]), |any, arg| binary(any, BinaryOperator::Or, is_null(arg)));
    case(any, null(), value)
}

/// Piece `index` (from 0) of `whole` between `separator`s; NULL past the last.
fn piece(whole: &Expr, separator: &Expr, index: &Expr) -> Result<Expr, PlanError> {
    let (Some(literal), Some(index)) = (as_text(separator), as_number(index)) else {
        return Err(
            PlanError::new("SPLIT_INDEX takes a literal separator and a literal index").hint("write SPLIT_INDEX(url, '/', 3)")
        );
    };
    let width = i64::try_from(literal.chars().count()).unwrap_or(0);
    if width == 0 || index < 0 {
        return Ok(null());
    }
    let length = |text: Expr| call("character_length", vec![text]);
    let without = call("replace", vec![whole.clone(), separator.clone(), text("")]);
    let removed = binary(length(whole.clone()), BinaryOperator::Minus, length(without));
    let has_it = binary(removed, BinaryOperator::GtEq, number(index.saturating_mul(width)));
    let not_empty = binary(whole.clone(), BinaryOperator::NotEq, text(""));
    let value = call("split_part", vec![whole.clone(), separator.clone(), number(index.saturating_add(1))]);
    Ok(case(binary(has_it, BinaryOperator::And, not_empty), value, null()))
}

fn formatted(time: Expr, pattern: &Expr) -> Result<Expr, PlanError> {
    let hint = "write a literal of yyyy, MM, dd, HH, mm, ss, SSS and quoted text, as in 'yyyy-MM-dd HH:mm:ss'";
    let Some(java) = as_text(pattern) else { return Err(PlanError::new("a date pattern must be a literal").hint(hint)) };
    let format =
        format_of(java).map_err(|letters| PlanError::new(format!("date pattern '{letters}' is not supported")).hint(hint))?;
    Ok(call("to_char", vec![time, text(format)]))
}

fn of_seconds(seconds: Expr) -> Expr {
    call("to_timestamp_seconds", vec![bigint(seconds)])
}

fn local_time(value: Expr, digits: Option<i64>) -> Result<Expr, PlanError> {
    let (function, digits) = match digits {
        Some(0) => ("to_timestamp_seconds", 0),
        Some(3) => ("to_timestamp_millis", 3),
        _ => {
            return Err(PlanError::new("TO_TIMESTAMP_LTZ takes a number and 0 or 3")
                .hint("TO_TIMESTAMP_LTZ(seconds, 0) or TO_TIMESTAMP_LTZ(milliseconds, 3)"));
        }
    };
    Ok(cast(call(function, vec![bigint(value)]), DataType::Timestamp(Some(digits), TimezoneInfo::WithTimeZone)))
}

/// Fields count from Flink's start: days of the week from Sunday = 1.
fn part(field: &str, time: &Expr) -> Result<Expr, PlanError> {
    let field = field.to_lowercase();
    let value = bigint(call("date_part", vec![text(field.as_str()), time.clone()]));
    match field.as_str() {
        "year" | "quarter" | "month" | "week" | "day" | "doy" | "hour" | "minute" | "second" => Ok(value),
        "dow" => Ok(binary(value, BinaryOperator::Plus, number(1))),
        _ => Err(PlanError::new(format!("EXTRACT({} ..) is not supported yet", field.to_uppercase()))
            .hint("supported: YEAR, QUARTER, MONTH, WEEK, DAY, DOY, DOW, HOUR, MINUTE, SECOND")),
    }
}

/// From a place before the text Flink counts from its end, the engine goes on before its start.
fn positive(start: Option<&Expr>, function: &str) -> Result<(), PlanError> {
    match start.map(as_number) {
        None => Ok(()),
        Some(Some(start)) if start > 0 => Ok(()),
        Some(_) => Err(needs_number(function, "a start that is 1 or above")),
    }
}

fn needs_number(function: &str, what: &str) -> PlanError {
    PlanError::new(format!("{} needs {what}, written as a number", function.to_uppercase()))
        .hint("other values mean something else in Flink than in the engine")
}

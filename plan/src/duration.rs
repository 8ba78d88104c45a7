//! Durations as options write them.

/// Microseconds of a duration such as `500 ms`, `30 s`, `5 min`, `2 h` or `1 d`; `None` if it is none.
pub(crate) fn micros(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let number = text[..digits].replace('_', "").parse::<i64>().ok()?;
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1_000,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000,
        "min" | "m" | "minute" | "minutes" => 60_000_000,
        "h" | "hour" | "hours" => 3_600_000_000,
        "d" | "day" | "days" => 86_400_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_units_and_nothing_else() {
        assert_eq!([micros("500 ms"), micros("30s"), micros("2 Hours")], [Some(500_000), Some(30_000_000), Some(7_200_000_000)]);
        assert_eq!([micros("30"), micros("s"), micros("-1 s"), micros("1.5 s"), micros("9223372036854775807 s")], [None; 5]);
    }
}

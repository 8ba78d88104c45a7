//! Java's date patterns as the engine's.

/// `yyyy-MM-dd HH:mm:ss.SSS` as `%Y-%m-%d %H:%M:%S%.3f`.
///
/// # Errors
/// The letters that have no counterpart.
pub(super) fn format_of(pattern: &str) -> Result<String, String> {
    let mut format = String::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let run = rest.len() - rest.trim_start_matches(first).len();
        let (letters, after) = rest.split_at(run);
        rest = after;
        match letters {
            "'" => {
                let (literal, after) = rest.split_once('\'').ok_or_else(|| "'".to_owned())?;
                format.push_str(&literal.replace('%', "%%"));
                rest = after;
            }
            "yyyy" | "uuuu" => format.push_str("%Y"),
            "yy" => format.push_str("%y"),
            "MM" => format.push_str("%m"),
            "dd" => format.push_str("%d"),
            "HH" => format.push_str("%H"),
            "hh" => format.push_str("%I"),
            "mm" => format.push_str("%M"),
            "ss" => format.push_str("%S"),
            "SSS" => format.push_str("%3f"),
            "SSSSSS" => format.push_str("%6f"),
            "DDD" => format.push_str("%j"),
            "a" => format.push_str("%p"),
            _ if first.is_ascii_alphabetic() || first == '\'' || "[]{}#".contains(first) => return Err(letters.to_owned()),
            _ => format.push_str(&letters.replace('%', "%%")),
        }
    }
    Ok(format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_patterns_have_a_counterpart() {
        for (java, engine) in [
            ("yyyy-MM-dd HH:mm:ss.SSS", "%Y-%m-%d %H:%M:%S.%3f"),
            ("yyyyMMdd'T'HHmm", "%Y%m%dT%H%M"),
            ("HH:mm", "%H:%M"),
            ("yy/MM/dd hh a", "%y/%m/%d %I %p"),
            ("100%", "100%%"),
        ] {
            assert_eq!(format_of(java).as_deref(), Ok(engine), "{java}");
        }
    }

    #[test]
    fn letters_without_a_counterpart_are_named() {
        assert_eq!(format_of("yyyy-MMM"), Err("MMM".to_owned()));
        assert_eq!(format_of("y"), Err("y".to_owned()));
        assert_eq!(format_of("'open"), Err("'".to_owned()));
    }
}

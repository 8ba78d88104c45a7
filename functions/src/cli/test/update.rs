//! Writes the rows that came into a case, in place of those expected; the rest of the file stays as it is.

use std::ops::Range;
use std::path::Path;

use anyhow::Context;

use super::case::Case;
use super::compare::Pending;
use super::play::Played;

/// Returns whether the file is another one now.
///
/// # Errors
/// The file cannot be read or written.
pub(super) fn write(path: &Path, case: &Case, played: &[Played]) -> anyhow::Result<bool> {
    let old = std::fs::read_to_string(path)?;
    let mut pending = Pending::default();
    let mut edits = Vec::new();
    for (step, played) in case.steps.iter().zip(played) {
        pending.add(played);
        for expected in &step.expected {
            let mut rows = pending.take(expected, played);
            rows.sort();
            edits.push((expected.span.clone(), literal(&rows)));
        }
    }
    let new = edited(&old, edits);
    if new != old {
        std::fs::write(path, &new).with_context(|| format!("{}", path.display()))?;
    }
    Ok(new != old)
}

/// Rows as a TOML string.
fn literal(rows: &[String]) -> String {
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    match text.contains("'''") {
        // A JSON string is a TOML string, too.
        true => serde_json::Value::String(text).to_string(),
        false if rows.is_empty() => "''".to_owned(),
        false => format!("'''\n{text}'''"),
    }
}

/// `text` with the parts at `edits`, which do not overlap, replaced.
fn edited(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    let mut text = text.to_owned();
    edits.into_iter().for_each(|(span, new)| text.replace_range(span, &new));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_rows_are_another_text() {
        let text = "# a case\nexpect.a = ''  # none\nexpect.b = '''\n{}\n'''\n";
        let (a, b) = (text.find("''").unwrap(), text.find("'''").unwrap());
        let edits = vec![(a..a + 2, literal(&["{\"x\":1}".to_owned()])), (b..text.len() - 1, literal(&[]))];
        assert_eq!(edited(text, edits), "# a case\nexpect.a = '''\n{\"x\":1}\n'''  # none\nexpect.b = ''\n");
        assert_eq!(literal(&["{\"x\":\"'''\"}".to_owned()]), "\"{\\\"x\\\":\\\"'''\\\"}\\n\"");
    }
}

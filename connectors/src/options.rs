//! `WITH` options of a table, typed; an unknown key is an error that names the nearest right one.

use std::collections::BTreeMap;
use std::time::Duration;

/// An option that is missing, unknown or wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table {table}: {message}")]
pub struct OptionsError {
    /// The table.
    pub table: String,
    /// What is wrong and what to write.
    pub message: String,
}

/// Options of one table.
#[derive(Debug, Clone, Copy)]
pub struct TableOptions<'a> {
    /// The table.
    pub table: &'a str,
    /// Its options.
    pub options: &'a BTreeMap<String, String>,
}

impl<'a> TableOptions<'a> {
    /// An error about this table.
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> OptionsError {
        OptionsError { table: self.table.to_owned(), message: message.into() }
    }

    /// Refuses keys that are not in `known`.
    ///
    /// # Errors
    /// [`OptionsError`] naming the key and the nearest known one.
    pub fn only(&self, known: &[&str]) -> Result<(), OptionsError> {
        let Some(unknown) = self.options.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
        let hint = nearest(unknown, known)
            .map_or_else(|| format!("known: {}", known.join(", ")), |near| format!("did you mean '{near}'?"));
        Err(self.error(format!("unknown option '{unknown}': {hint}")))
    }

    /// A text option.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.options.get(key).map(String::as_str)
    }

    /// A text option that must be there.
    ///
    /// # Errors
    /// [`OptionsError`] naming the key.
    pub fn require(&self, key: &str) -> Result<&'a str, OptionsError> {
        self.get(key).ok_or_else(|| self.error(format!("option '{key}' is missing")))
    }

    /// One of several named values.
    ///
    /// # Errors
    /// [`OptionsError`] naming the key, its value and the nearest right one.
    pub fn choice<T: Clone>(&self, key: &str, default: T, choices: &[(&str, T)]) -> Result<T, OptionsError> {
        let Some(text) = self.get(key) else { return Ok(default) };
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Ok(value.clone());
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let hint = nearest(text, &names)
            .map_or_else(|| format!("write one of {}", names.join(", ")), |near| format!("did you mean '{near}'?"));
        Err(self.error(format!("'{key}' = '{text}' is unknown: {hint}")))
    }

    /// A number.
    ///
    /// # Errors
    /// [`OptionsError`] naming the key and its value.
    pub fn number(&self, key: &str) -> Result<Option<u64>, OptionsError> {
        let parse = |text: &str| {
            text.replace('_', "").parse().map_err(|_| self.error(format!("option '{key}' = '{text}' is not a whole number")))
        };
        self.get(key).map(parse).transpose()
    }

    /// A size in bytes, as `128MB`, `64 kb` or a plain number; units are powers of 1024.
    ///
    /// # Errors
    /// [`OptionsError`] naming the key and its value.
    pub fn bytes(&self, key: &str) -> Result<Option<u64>, OptionsError> {
        let scale = |unit: &str| match unit {
            "" | "b" | "bytes" => Some(1u64),
            "k" | "kb" | "kib" => Some(1 << 10),
            "m" | "mb" | "mib" => Some(1 << 20),
            "g" | "gb" | "gib" => Some(1 << 30),
            _ => None,
        };
        self.with_unit(key, "a size: write it as 64 KB, 128 MB or 1 GB", scale)
    }

    /// A duration, as `500 ms`, `1 s`, `5 min`, `2 h` or `1 d`.
    ///
    /// # Errors
    /// [`OptionsError`] naming the key and its value.
    pub fn duration(&self, key: &str) -> Result<Option<Duration>, OptionsError> {
        let scale = |unit: &str| match unit {
            "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => Some(1u64),
            "s" | "sec" | "secs" | "second" | "seconds" => Some(1_000),
            "min" | "m" | "minute" | "minutes" => Some(60_000),
            "h" | "hour" | "hours" => Some(3_600_000),
            "d" | "day" | "days" => Some(86_400_000),
            _ => None,
        };
        Ok(self.with_unit(key, "a duration: write it as 500 ms, 1 s or 5 min", scale)?.map(Duration::from_millis))
    }

    fn with_unit(&self, key: &str, what: &str, scale: impl Fn(&str) -> Option<u64>) -> Result<Option<u64>, OptionsError> {
        let parse = |text: &str| {
            let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
            let number = text[..digits].replace('_', "").parse::<u64>().ok();
            let value = number
                .zip(scale(&text[digits..].trim().to_ascii_lowercase()))
                .and_then(|(number, scale)| number.checked_mul(scale));
            value.ok_or_else(|| self.error(format!("option '{key}' = '{text}' is not {what}")))
        };
        self.get(key).map(parse).transpose()
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`OptionsError`] naming the key and its value.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, OptionsError> {
        self.choice(key, default, &[("true", true), ("false", false)])
    }

    /// One ASCII character; `\t` is a tab.
    ///
    /// # Errors
    /// [`OptionsError`] naming the key and its value.
    pub fn character(&self, key: &str, default: u8) -> Result<u8, OptionsError> {
        match self.get(key).map(|text| (text, text.as_bytes())) {
            None => Ok(default),
            Some(("\\t", _)) => Ok(b'\t'),
            Some((_, [one])) if one.is_ascii() && !matches!(one, b'\n' | b'\r') => Ok(*one),
            Some((text, _)) => Err(self.error(format!("option '{key}' = '{text}' must be one ASCII character or \\t"))),
        }
    }
}

/// The known word that a slip of the finger made into `word`: at most a third of its letters are wrong, missing, extra or swapped.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_lowercase();
    let best = known.iter().map(|known| (slips(&word, &known.to_lowercase()), *known)).min()?;
    (best.0 <= 1 + word.chars().count() / 3).then_some(best.1)
}

/// Fewest edits (insert, delete, replace, swap neighbours) from one word to another.
fn slips(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn an_unknown_option_is_refused_with_the_nearest_known() {
        let options = with("fromat", "json");
        let table = TableOptions { table: "plays", options: &options };
        let error = table.only(&["connector", "path", "format"]).unwrap_err().to_string();
        assert_eq!(error, "table plays: unknown option 'fromat': did you mean 'format'?");
        let error = table.only(&["rows-per-second"]).unwrap_err().to_string();
        assert_eq!(error, "table plays: unknown option 'fromat': known: rows-per-second");
    }

    #[test]
    fn sizes_and_durations_take_units() {
        let options = with("k", "128 MB");
        assert_eq!(TableOptions { table: "t", options: &options }.bytes("k"), Ok(Some(128 << 20)));
        let options = with("k", "1_000");
        assert_eq!(TableOptions { table: "t", options: &options }.bytes("k"), Ok(Some(1_000)));
        let options = with("k", "2min");
        assert_eq!(TableOptions { table: "t", options: &options }.duration("k"), Ok(Some(Duration::from_secs(120))));
        let options = with("k", "5 parsecs");
        let error = TableOptions { table: "t", options: &options }.duration("k").unwrap_err().to_string();
        assert_eq!(error, "table t: option 'k' = '5 parsecs' is not a duration: write it as 500 ms, 1 s or 5 min");
    }

    #[test]
    fn a_wrong_choice_names_the_right_one() {
        let options = with("mode", "bouned");
        let table = TableOptions { table: "t", options: &options };
        let error = table.choice("mode", 0, &[("bounded", 1), ("continuous", 2)]).unwrap_err().to_string();
        assert_eq!(error, "table t: 'mode' = 'bouned' is unknown: did you mean 'bounded'?");
    }
}

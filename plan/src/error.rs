//! A user's error: the place, what was found, what was expected, and the nearest supported form.

use std::fmt;

use datafusion::error::DataFusionError;

/// Text that cannot be compiled. Shows like a compiler's message, with the line and a caret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PlanError {
    /// What is wrong, lower-case.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// Line and column in the script, from 1; `None` where the engine does not say.
    pub place: Option<(usize, usize)>,
    /// The line's text, once known.
    pub line: Option<String>,
}

impl PlanError {
    /// An error without a place yet.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, place: None, line: None }
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the place, unless it has one.
    pub(crate) fn at(mut self, line: u64, column: u64) -> Self {
        if self.place.is_none() && line > 0 {
            self.place = Some((usize::try_from(line).unwrap_or(0), usize::try_from(column).unwrap_or(0)));
        }
        self
    }

    /// Adds the source line that the place names.
    pub(crate) fn in_text(mut self, sql: &str) -> Self {
        self.line = self.place.and_then(|(line, _)| sql.lines().nth(line.saturating_sub(1))).map(str::to_owned);
        self
    }

    /// Carries the error through the engine's planner.
    pub(crate) fn into_engine(self) -> DataFusionError {
        DataFusionError::External(Box::new(self))
    }

    /// Takes an error of the engine's planner apart: ours, or theirs with its place.
    pub(crate) fn from_engine(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(other) => Self::new(other.to_string()),
            },
            DataFusionError::Context(_, inner) => Self::from_engine(*inner),
            DataFusionError::Diagnostic(diagnostic, inner) => {
                let mut error = Self::from_engine(*inner);
                if let Some(note) = diagnostic.helps.first().map(|help| help.message.clone()) {
                    error.hint.get_or_insert(note);
                }
                match diagnostic.span {
                    Some(span) => error.at(span.start.line, span.start.column),
                    None => error,
                }
            }
            other => {
                let text = other.strip_backtrace();
                let text = text.strip_prefix("Error during planning: ").unwrap_or(&text);
                let text = text.strip_prefix("Schema error: ").unwrap_or(text);
                Self::new(text.strip_prefix("SQL error: ").unwrap_or(text))
            }
        }
    }

    /// A parser error; the parser writes the place at the end of its message.
    pub(crate) fn from_parser(error: &datafusion::sql::sqlparser::parser::ParserError) -> Self {
        let text = error.to_string();
        let text = text.strip_prefix("sql parser error: ").unwrap_or(&text);
        let number = |key: &str| {
            let rest = text.rsplit_once(key)?.1.trim_start();
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        let place = number("Line:").zip(number("Column:"));
        let message = text.rsplit_once(" at Line:").map_or(text, |(message, _)| message);
        let error = Self::new(message);
        place.map_or(error.clone(), |(line, column)| error.at(line, column))
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some((line, column)) = self.place {
            write!(f, "\n  --> line {line}, column {column}")?;
            if let Some(text) = &self.line {
                let number = line.to_string();
                let margin = " ".repeat(number.len());
                let caret = " ".repeat(column.saturating_sub(1));
                write!(f, "\n{margin} |\n{number} | {text}\n{margin} | {caret}^")?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhelp: {hint}")?;
        }
        Ok(())
    }
}

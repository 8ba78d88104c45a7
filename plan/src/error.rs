//! A user's error: the place, what was found, what was expected, and the nearest supported form.

use std::fmt;

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::ast::Ident;

use crate::nearest;

/// What the engine writes before its messages.
const PREFIXES: [&str; 6] = [
    "Error during planning: ",
    "This feature is not implemented: ",
    "Schema error: ",
    "SQL error: ",
    "Execution error: ",
    "Optimizer rule failed: ",
];

/// What to do without `FOR SYSTEM_TIME AS OF`.
pub(crate) const TEMPORAL: &str = "temporal and lookup joins are not supported yet: read one stream per INSERT";

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

    pub(crate) fn into_hint(self) -> Option<String> {
        self.hint
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

    /// Adds the place of a name, unless the error has one.
    pub(crate) fn at_ident(self, ident: &Ident) -> Self {
        self.at(ident.span.start.line, ident.span.start.column)
    }

    /// Adds `did you mean ..?` if a candidate is close to `name`, else `otherwise`.
    pub(crate) fn did_you_mean<'a>(self, name: &str, candidates: impl IntoIterator<Item = &'a str>, otherwise: &str) -> Self {
        match nearest(name, candidates) {
            Some(known) => self.hint(format!("did you mean {known}?")),
            None if otherwise.is_empty() => self,
            None => self.hint(otherwise),
        }
    }

    /// Takes an error of the engine's planner apart: ours, or theirs with its place.
    pub(crate) fn from_engine(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(other) => Self::new(other.to_string()),
            },
            DataFusionError::Context(_, inner) => Self::from_engine(*inner),
            DataFusionError::SchemaError(schema, _) => Self::from_schema(&schema),
            DataFusionError::Diagnostic(diagnostic, inner) => {
                let error = match &*inner {
                    DataFusionError::Plan(text) if text.contains("must appear in the GROUP BY") => {
                        Self::new(diagnostic.message.clone()).hint("add it to GROUP BY, or aggregate it: MAX(..), SUM(..)")
                    }
                    _ => Self::from_engine(*inner),
                };
                match diagnostic.span {
                    Some(span) => error.at(span.start.line, span.start.column),
                    None => error,
                }
            }
            other => {
                let text = other.strip_backtrace();
                let text = PREFIXES.iter().fold(text.as_str(), |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
                Self::new(text)
            }
        }
    }

    fn from_schema(error: &SchemaError) -> Self {
        match error {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let place = field.spans.first().map_or((0, 0), |span| (span.start.line, span.start.column));
                let known: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
                Self::new(format!("unknown column {}", field.flat_name()))
                    .did_you_mean(&field.name, known.iter().copied(), &format!("known here: {}", known.join(", ")))
                    .at(place.0, place.1)
            }
            SchemaError::AmbiguousReference { field } => {
                Self::new(format!("column {} is ambiguous", field.flat_name())).hint("write table.column")
            }
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                Self::new(format!("two columns are named {name}")).hint("give one another name with AS")
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
        let message = message.replacen("Expected:", "expected", 1).replace("found:", "found");
        let error = match message.to_lowercase() {
            said if said.contains("recursion") => too_deep(),
            // The parser looks for FOR UPDATE there.
            said if said.ends_with("found system_time") => Self::new("FOR SYSTEM_TIME AS OF is not supported").hint(TEMPORAL),
            _ => Self::new(message),
        };
        match place {
            Some((line, column)) => error.at(line, column),
            None => error,
        }
    }
}

/// A query nested deeper than the stack may bear.
pub(crate) fn too_deep() -> PlanError {
    PlanError::new("the query is nested too deeply").hint("split it with CREATE VIEW, or write long lists with IN (..)")
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

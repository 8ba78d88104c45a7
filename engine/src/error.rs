//! What can go wrong while a batch runs.

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;

/// A batch that cannot be run. Nothing of it was committed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An expression of the user's SQL failed on a row, or the engine refused the plan.
    #[error("running the job's SQL: {0}")]
    Query(#[from] DataFusionError),
    /// An expression failed on a row.
    #[error(
        "{reason}, on this row of {table}: {row}\nhelp: guard the expression with CASE or WHERE, or set such rows aside with 'on-error' = 'dead-letter' in the WITH of {table}; the edited script runs under another --name"
    )]
    Row {
        /// Table that the row came from.
        table: String,
        /// The row, as JSON.
        row: String,
        /// What the engine says.
        reason: String,
    },
    /// Arrow refused to build a batch.
    #[error("building a batch: {0}")]
    Arrow(#[from] ArrowError),
    /// Rows do not have the columns the plan says.
    #[error("{place}: expected columns {expected}, found {found}")]
    Schema {
        /// Where the rows came from.
        place: &'static str,
        /// Names and types of the plan.
        expected: String,
        /// Names and types of the rows.
        found: String,
    },
    /// The disk refused what memory could not hold.
    #[error("state of open windows, past the memory given, in {place}: {source}; free space there, or give more with --memory")]
    Spill {
        /// Folder or file.
        place: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A type that key groups are not defined for.
    #[error(transparent)]
    State(#[from] weir_state::StateError),
}

impl EngineError {
    /// Whether a row may be to blame; not so for what the engine itself or its memory refuses.
    pub(crate) fn may_be_a_rows(&self) -> bool {
        match self {
            Self::Arrow(_) => true,
            Self::Query(error) => matches!(
                error.find_root(),
                DataFusionError::ArrowError(..) | DataFusionError::Execution(_) | DataFusionError::External(_)
            ),
            Self::Row { .. } | Self::Schema { .. } | Self::Spill { .. } | Self::State(_) => false,
        }
    }

    /// What is wrong, without where.
    pub(crate) fn reason(&self) -> String {
        let text = match self {
            Self::Query(error) => error.find_root().strip_backtrace(),
            other => other.to_string(),
        };
        let prefixes = ["Arrow error: ", "Execution error: ", "External error: ", "building a batch: "];
        prefixes.iter().fold(text.as_str(), |text, prefix| text.strip_prefix(prefix).unwrap_or(text)).to_owned()
    }

    /// Rows whose columns differ from the plan's.
    pub(crate) fn schema(
        place: &'static str,
        expected: &datafusion::arrow::datatypes::Schema,
        found: &datafusion::arrow::datatypes::Schema,
    ) -> Self {
        let columns = |schema: &datafusion::arrow::datatypes::Schema| {
            schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect::<Vec<_>>().join(", ")
        };
        Self::Schema { place, expected: columns(expected), found: columns(found) }
    }
}

//! Whether an invocation that failed is worth another try.

use serde::{Deserialize, Serialize};
use weir_coordinator::StoreError;
use weir_seams::OpenError;

use super::WorkerError;

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// Try again a little later: a store or table did not answer, a process died.
    Passing,
    /// Tell somebody: it would fail in the same way again.
    Lasting,
}

impl WorkerError {
    /// Whether trying again may help.
    #[must_use]
    pub const fn failure(&self) -> Failure {
        match self {
            Self::Table(StoreError::Determinate(_) | StoreError::Indeterminate(_))
            | Self::State(weir_state::StateError::Store { .. })
            | Self::Source(weir_connectors::SourceError::Store { .. } | weir_connectors::SourceError::Away { .. })
            | Self::Task(_) => Failure::Passing,
            Self::Elsewhere { failure, .. } => *failure,
            Self::Table(_)
            | Self::State(_)
            | Self::Source(_)
            | Self::Engine(_)
            | Self::Options(_)
            | Self::Job(_)
            | Self::Arrow(_)
            | Self::Print(_)
            | Self::Refused { .. }
            | Self::Replay { .. }
            | Self::OtherRows { .. }
            | Self::Kills { .. }
            | Self::Gone { .. } => Failure::Lasting,
        }
    }
}

impl From<OpenError> for WorkerError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Store(error) => Self::State(error),
            OpenError::Table(error) => Self::Table(error),
            OpenError::Settings(message) => Self::Task(message),
        }
    }
}

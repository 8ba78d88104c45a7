//! What a dispatcher says: calls of workers, and messages to itself that come later.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use weir_model::JobId;
use weir_model::decide::Called;
use weir_model::invocation::Invocation;

/// A slot to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The job.
    pub job: JobId,
    /// Place of the slot in its routes.
    pub slot: usize,
    /// When it was planned for, microseconds UTC: tells a repeat from the next.
    pub at_micros: i64,
    /// The call that it follows up; empty if there was none.
    #[serde(default)]
    pub called: Called,
}

/// Something that could not be sent.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {message}")]
pub struct OutboxError {
    /// Where it was to go.
    pub what: String,
    /// Why it did not.
    pub message: String,
}

/// Where calls and delayed messages go. Both may be lost or doubled.
#[async_trait]
pub trait Outbox: Send + Sync + std::fmt::Debug {
    /// Calls a worker; returns when the call is taken, not when it is done.
    ///
    /// # Errors
    /// [`OutboxError`].
    async fn call(&self, invocation: &Invocation) -> Result<(), OutboxError>;

    /// Sends `look` to a dispatcher after a time, or sooner where the carrier cannot wait so long.
    ///
    /// # Errors
    /// [`OutboxError`].
    async fn look_after(&self, look: &Look, after: Duration) -> Result<(), OutboxError>;
}

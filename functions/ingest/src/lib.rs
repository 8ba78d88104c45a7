//! Ingest: requests become rows of a stream, durable before they are answered, counted once (X3, X4).
//!
//! ```text
//! request --decode--> rows --fold many into one--> segment --put--> commit lane head + key rows --> answers
//! ```
//!
//! Why a crate of its own: the function must start fast and stay small, so it links no query engine; what the rows mean is the
//! business of the jobs that read the stream. docs/decisions/0008.
//! Never: reads event times, runs SQL, or answers before the commit.

pub mod appender;
pub mod server;
pub mod stream;

mod lane;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use object_store::ObjectStore;
use weir_coordinator::CoordinationStore;
use weir_model::{Clock, Ids, OwnerId};
use weir_seams::Liveness;

pub use appender::{Appender, FoldSettings, Lasts, Receipt, Refusal, RequestKey, RowsRequest};
pub use lane::close_lanes;
pub use stream::{StreamError, open_or_create, read_schema};

/// What appending stands on.
#[derive(Debug, Clone)]
pub struct Seams {
    /// Objects.
    pub objects: Arc<dyn ObjectStore>,
    /// The coordination table.
    pub table: Arc<dyn CoordinationStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identities.
    pub ids: Arc<dyn Ids>,
    /// This process.
    pub owner: OwnerId,
    /// Hints about other processes.
    pub liveness: Arc<dyn Liveness>,
}

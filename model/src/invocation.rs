//! What starts a worker, and how it ended: small enough for any queue.

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, ShardKey};

/// What starts an invocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// The job.
    pub job: JobId,
    /// Shards to serve, together.
    pub shards: Vec<ShardKey>,
    /// Rounds after which to leave although there is more; `None` leaves only when idle.
    #[serde(default)]
    pub rounds_max: Option<u32>,
    /// Milliseconds after which to leave although there is more.
    #[serde(default)]
    pub run_millis_max: Option<u64>,
}

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Left {
    /// Every shard has said its last word.
    Done,
    /// Nothing to do for now.
    Idle,
    /// The limit of rounds or time was reached, or somebody asked it to stop.
    More,
    /// Another process holds the shards.
    Held,
    /// Another generation has taken a shard over.
    Fenced,
}

//! A stream: a named, append-only log that requests and messages are appended to, by lanes of its own (X3, X4).
//!
//! A stream is no job, but its lanes are shards like any other: their heads, segments and retention row are named by the stream's id
//! as a job's are by its own, with one stage, [`STREAM_STAGE`]. So claims, fenced commits, manifests and floors hold for it unchanged.

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, JobId, ShardId, ShardKey, StageId};

/// Version of the stream row's encoding; a reader refuses any other.
pub const STREAM_FORMAT: u16 = 1;

/// Version of a key row's encoding; a reader refuses any other.
pub const KEY_FORMAT: u16 = 1;

/// The one stage of a stream: its lanes.
pub const STREAM_STAGE: StageId = StageId(0);

/// Most lanes of a stream: a reader's head names each.
pub const STREAM_LANES_MAX: u16 = 64;

/// A stream as it was declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRow {
    /// [`STREAM_FORMAT`].
    pub format: u16,
    /// The stream; unique among jobs and streams.
    pub stream: JobId,
    /// Name the user gave it; unique among the streams of its table.
    pub name: String,
    /// Object with the columns: an Arrow IPC stream without batches.
    pub schema: String,
    /// Lanes: writers that may commit at once.
    pub lanes: u16,
    /// Nothing is appended any more; readers end with the last epoch of each lane.
    pub closed: bool,
    /// Instant of creation, microseconds UTC.
    pub created_micros: i64,
}

impl StreamRow {
    /// Its lanes, in order.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardKey> {
        (0..u32::from(self.lanes)).map(|lane| ShardKey::new(self.stream, STREAM_STAGE, ShardId(lane))).collect()
    }
}

/// What a request that bore a key was told; a repeat is told the same (X3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// [`KEY_FORMAT`].
    pub format: u16,
    /// The key as the client gave it.
    pub key: String,
    /// xxh3-128 of the request's body, hexadecimal: another body under the key is refused.
    pub body: String,
    /// Rows that the request appended.
    pub rows: u64,
    /// Lane that took them.
    pub lane: ShardId,
    /// Commit that holds them.
    pub epoch: Epoch,
    /// When the row may be forgotten, seconds since 1970 UTC: after the client's last retry.
    pub expires_at: i64,
}

//! The head: one row per shard, and the only thing a commit advances.
//!
//! Written only by its holder (T3), in one conditional write together with every other head of the same round. At one version it
//! names what the shard consumed, what it published, its watermark and its checkpoint.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::entry::{Activity, CommitEntry, SegmentRef};
use crate::ids::{CommitId, Epoch, Generation, OwnerId, ShardKey};
use crate::recipe::Offset;
use crate::time::Watermark;

/// Version of the head's encoding; a reader refuses any other.
pub const HEAD_FORMAT: u16 = 1;

/// Recent commits kept in the head; older ones spill into a manifest (T4).
pub const RECENT_COMMITS_MAX: usize = 16;

/// Encoded size of the recent commits past which the writer spills them into a manifest even if they are few (T4).
pub const HEAD_BYTES_SPILL: usize = 16 * 1024;

/// Encoded size that is never written (T4).
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Who holds a shard. A hint for manners, never a fence: the generation is (idea 5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The holding process.
    pub id: OwnerId,
    /// Until when others should leave the shard alone, microseconds UTC.
    pub lease_until_micros: i64,
}

/// A chain of objects that hold the commits which no longer fit the head.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ManifestRef {
    /// Object name below the store's root.
    pub object: String,
    /// First epoch in the object.
    pub first: Epoch,
    /// Last epoch in the object.
    pub last: Epoch,
    /// Size of the object.
    pub bytes: u64,
}

/// Newest list of the segments with late and dead-letter rows whose entries have left the head: these rows stay when their entries go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeptRef {
    /// Object name below the store's root.
    pub object: String,
    /// Size of the object.
    pub bytes: u64,
}

/// A snapshot of a shard's state and the restart point that goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// Epoch whose state it is; what comes later is replayed.
    pub epoch: Epoch,
    /// Its objects, in order: rows ascending by pane and key group across all. None where the state at that epoch is empty.
    #[serde(default)]
    pub objects: Vec<SegmentRef>,
    /// Inputs at that epoch, by upstream shard: nothing at or before their epochs is read again by this shard (G3).
    pub inputs: BTreeMap<String, InputState>,
    /// Watermark of the shard at that epoch.
    pub watermark: Watermark,
}

/// What a shard knows of one upstream shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct InputState {
    /// Last epoch consumed.
    pub epoch: Epoch,
    /// Watermark carried by that epoch (R3).
    pub watermark: Watermark,
    /// Activity carried by that epoch (W1).
    #[serde(default)]
    pub activity: Activity,
}

/// A publisher's unacknowledged step: named by a commit, then carried out, then acknowledged by the next (X5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PendingPublish {
    /// Number of the target file.
    pub number: u64,
    /// Target file, relative to the sink's path.
    pub file: String,
    /// Size of the file before the step; 0 if it must not exist.
    pub bytes_before: u64,
    /// Rows of the file before the step.
    pub rows_before: u64,
    /// Positions the step publishes up to, by upstream shard; the head's inputs are what is acknowledged.
    pub upto: BTreeMap<String, InputState>,
    /// Rows in the step.
    pub rows: u64,
}

/// A publisher's place in its target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct PublishState {
    /// Number of the file that grows.
    pub file_number: u64,
    /// Its acknowledged size in bytes; 0 before its first row.
    pub file_bytes: u64,
    /// Its acknowledged rows.
    pub file_rows: u64,
    /// Step that was named and may or may not have been carried out.
    pub pending: Option<PendingPublish>,
}

/// Counters that only grow; every one is a sum over committed epochs, so none counts a row twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ShardStats {
    /// Rows read: events for a lane, partial or result rows for others.
    pub rows_in: u64,
    /// Rows published to the next stage or the sink.
    pub rows_out: u64,
    /// Source bytes or segment bytes read.
    pub bytes_in: u64,
    /// Segment bytes written.
    pub bytes_out: u64,
    /// Rows that came after their window had fired.
    pub rows_late: u64,
    /// Rows in the dead-letter stream.
    pub rows_dead: u64,
    /// Rows a filter dropped or that a blackhole took.
    pub rows_dropped: u64,
    /// Events folded into the partial rows read or written.
    pub events: u64,
}

/// The shard's row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Head {
    /// [`HEAD_FORMAT`].
    pub format: u16,
    /// The shard.
    pub shard: ShardKey,
    /// Number of the current ownership; 0 before the first claim.
    pub generation: Generation,
    /// Who holds it; `None` after a release.
    pub owner: Option<Owner>,
    /// Claims since the last commit: a batch that kills its process shows here.
    pub claims_since_commit: u32,
    /// Last committed epoch.
    pub epoch: Epoch,
    /// Attempt that committed it: what a warm cache is valid against (C2).
    pub last_commit: Option<CommitId>,
    /// Upstream shards: last epoch consumed, its watermark and activity. Keyed by [`ShardKey`]'s text.
    pub inputs: BTreeMap<String, InputState>,
    /// A lane's place in its source.
    pub source: Option<Offset>,
    /// What the places in a source that learns on its way mean, as of the last commit: parts, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ledger: Vec<SegmentRef>,
    /// Last commits, oldest first, at most [`RECENT_COMMITS_MAX`].
    pub recent: VecDeque<CommitEntry>,
    /// Newest manifest of older commits.
    pub manifest: Option<ManifestRef>,
    /// Newest list of late and dead-letter segments of those older commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptRef>,
    /// The shard's watermark.
    pub watermark: Watermark,
    /// Whether its watermark counts for its receivers.
    pub activity: Activity,
    /// Least watermark at which the shard has something to say.
    pub act_at: Option<Watermark>,
    /// State snapshot and restart point.
    pub checkpoint: Option<CheckpointRef>,
    /// Segment bytes that loads re-read since the checkpoint (C5).
    pub replayed_bytes: u64,
    /// Instant of the last batch, so that recipes never go back in time (R1).
    pub now_micros: i64,
    /// A publisher's place in its target.
    pub publish: Option<PublishState>,
    /// Counters.
    pub stats: ShardStats,
}

impl Head {
    /// A shard that nobody has claimed.
    #[must_use]
    pub fn new(shard: ShardKey) -> Self {
        Self {
            format: HEAD_FORMAT,
            shard,
            generation: Generation(0),
            owner: None,
            claims_since_commit: 0,
            epoch: Epoch(0),
            last_commit: None,
            inputs: BTreeMap::new(),
            source: None,
            ledger: Vec::new(),
            recent: VecDeque::new(),
            manifest: None,
            kept: None,
            watermark: Watermark::NONE,
            activity: Activity::Active,
            act_at: None,
            checkpoint: None,
            replayed_bytes: 0,
            now_micros: i64::MIN,
            publish: None,
            stats: ShardStats::default(),
        }
    }

    /// What it knows of `upstream`; the default before anything was consumed.
    #[must_use]
    pub fn input(&self, upstream: ShardKey) -> InputState {
        self.inputs.get(&upstream.to_string()).copied().unwrap_or_default()
    }

    /// Whether the commit `id` is among the recent ones (T5); older ones lie in the manifest.
    #[must_use]
    pub fn has_recent_commit(&self, id: CommitId) -> bool {
        self.recent.iter().any(|entry| entry.commit == id)
    }

    /// The restart point for `upstream`: nothing at or before it is read again by this shard (G3).
    ///
    /// A shard without a checkpoint restarts from the beginning unless it keeps no state (`stateless`), when its positions do.
    #[must_use]
    pub fn restart_point(&self, upstream: ShardKey, stateless: bool) -> Epoch {
        let name = upstream.to_string();
        if stateless {
            return self.inputs.get(&name).map(|input| input.epoch).unwrap_or_default();
        }
        self.checkpoint.as_ref().and_then(|c| c.inputs.get(&name)).map(|input| input.epoch).unwrap_or_default()
    }
}

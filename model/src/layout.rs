//! The layout row: the shards of a stage and the key groups each owns (RS-1).

use serde::{Deserialize, Serialize};

use crate::ids::ShardId;
use crate::key_group::KeyGroupRange;

/// One shard of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardLayout {
    /// The shard.
    pub shard: ShardId,
    /// Its key groups; empty for a lane or a publisher, which own no keys.
    pub range: KeyGroupRange,
    /// Shards it was made from; empty in a job's first layout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<ShardId>,
}

/// All shards of a stage, ordered by key group (by number, where they own none).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Version of the encoding.
    pub format: u16,
    /// Key groups of the job.
    pub key_groups: u16,
    /// The shards.
    pub shards: Vec<ShardLayout>,
}

/// Version of the layout's encoding; a reader refuses any other.
pub const LAYOUT_FORMAT: u16 = 1;

impl Layout {
    /// `shards` shards that split `key_groups` evenly.
    #[must_use]
    pub fn keyed(key_groups: u16, shards: u16) -> Self {
        let ranges = KeyGroupRange::split_evenly(key_groups, shards);
        Self::of(key_groups, ranges)
    }

    /// `shards` shards that own no keys: lanes or publishers.
    #[must_use]
    pub fn unkeyed(key_groups: u16, shards: u16) -> Self {
        Self::of(key_groups, vec![KeyGroupRange { start: 0, end: 0 }; usize::from(shards)])
    }

    fn of(key_groups: u16, ranges: Vec<KeyGroupRange>) -> Self {
        let shards = (0..).map(ShardId).zip(ranges).map(|(shard, range)| ShardLayout { shard, range, parents: Vec::new() });
        Self { format: LAYOUT_FORMAT, key_groups, shards: shards.collect() }
    }
}

//! Commit: the head after a batch. Advancing it by compare-and-set is the only commit there is (idea 2).

use std::collections::BTreeMap;

use crate::entry::CommitEntry;
use crate::head::{
    CheckpointRef, HEAD_BYTES_MAX, HEAD_BYTES_SPILL, Head, InputState, ManifestRef, Owner, PublishState, RECENT_COMMITS_MAX, ShardStats,
};
use crate::ids::Epoch;
use crate::recipe::Offset;
use crate::time::Watermark;

/// What a batch changes in its shard's head.
#[derive(Debug, Clone)]
pub struct Advance {
    /// The entry to append; its epoch is the head's next.
    pub entry: CommitEntry,
    /// Upstream shards consumed further.
    pub inputs: BTreeMap<String, InputState>,
    /// A lane's place after the batch.
    pub source: Option<Offset>,
    /// Least watermark at which the shard has something to say after the batch.
    pub act_at: Option<Watermark>,
    /// A checkpoint taken with this batch.
    pub checkpoint: Option<CheckpointRef>,
    /// A publisher's place after the batch.
    pub publish: Option<PublishState>,
    /// What to add to the counters.
    pub stats: ShardStats,
    /// The holder and its renewed lease.
    pub owner: Option<Owner>,
}

/// A batch that must not be committed: a bug upstream of the commit, caught before it becomes durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitRefusal {
    /// The entry is not the head's next.
    #[error("epoch {found} does not follow epoch {head}")]
    Epoch {
        /// The head's epoch.
        head: Epoch,
        /// The entry's epoch.
        found: Epoch,
    },
    /// Another generation made the entry (FN-1).
    #[error("the entry was made by another generation than the head's")]
    Generation,
    /// The watermark would move back (WM-1).
    #[error("watermark {found} is behind {head}")]
    Watermark {
        /// The head's watermark.
        head: Watermark,
        /// The entry's watermark.
        found: Watermark,
    },
    /// The recipe's instant would move back (R1).
    #[error("the batch's instant is before the last one's")]
    Now,
    /// An input's position would move back.
    #[error("position of input {input} moves back")]
    Position {
        /// The upstream shard.
        input: String,
    },
    /// The head would not fit its row (T4).
    #[error("the head would have {bytes} bytes, a row holds {HEAD_BYTES_MAX}")]
    TooLarge {
        /// Encoded size.
        bytes: usize,
    },
}

/// The head after `advance`.
///
/// # Errors
/// [`CommitRefusal`] where the batch would break an invariant; nothing may be written then.
pub fn decide_commit(head: &Head, advance: Advance) -> Result<Head, CommitRefusal> {
    let entry = advance.entry;
    if entry.epoch != head.epoch.next() {
        return Err(CommitRefusal::Epoch { head: head.epoch, found: entry.epoch });
    }
    if entry.generation != head.generation {
        return Err(CommitRefusal::Generation);
    }
    if entry.watermark < head.watermark {
        return Err(CommitRefusal::Watermark { head: head.watermark, found: entry.watermark });
    }
    if entry.recipe.now_micros < head.now_micros {
        return Err(CommitRefusal::Now);
    }
    let mut next = head.clone();
    for (input, state) in advance.inputs {
        let before = next.inputs.get(&input).copied().unwrap_or_default();
        if state.epoch < before.epoch || state.watermark < before.watermark {
            return Err(CommitRefusal::Position { input });
        }
        next.inputs.insert(input, state);
    }
    next.epoch = entry.epoch;
    next.last_commit = Some(entry.commit);
    next.watermark = entry.watermark;
    next.activity = entry.activity;
    next.now_micros = entry.recipe.now_micros;
    next.claims_since_commit = 0;
    next.owner = advance.owner;
    next.source = advance.source.or(head.source);
    next.act_at = advance.act_at;
    next.publish = advance.publish.or_else(|| head.publish.clone());
    if let Some(checkpoint) = advance.checkpoint {
        next.checkpoint = Some(checkpoint);
        next.replayed_bytes = 0;
    }
    next.stats = add(head.stats, advance.stats);
    next.recent.push_back(entry);
    let bytes = encoded_bytes(&next);
    if bytes > HEAD_BYTES_MAX {
        return Err(CommitRefusal::TooLarge { bytes });
    }
    Ok(next)
}

/// How many of the oldest commits must move into a manifest before another is appended (T4); 0 while the head is small.
#[must_use]
pub fn plan_spill(head: &Head) -> usize {
    let full = head.recent.len() >= RECENT_COMMITS_MAX || (head.recent.len() > 1 && encoded_bytes(head) > HEAD_BYTES_SPILL);
    if full { head.recent.len().div_ceil(2) } else { 0 }
}

/// The head once its `count` oldest commits lie in `manifest`.
#[must_use]
pub fn spill(head: &Head, count: usize, manifest: ManifestRef) -> Head {
    let mut next = head.clone();
    next.recent.drain(..count.min(head.recent.len()));
    next.manifest = Some(manifest);
    next
}

fn encoded_bytes(head: &Head) -> usize {
    serde_json::to_vec(head).map_or(usize::MAX, |bytes| bytes.len())
}

fn add(a: ShardStats, b: ShardStats) -> ShardStats {
    ShardStats {
        rows_in: a.rows_in + b.rows_in,
        rows_out: a.rows_out + b.rows_out,
        bytes_in: a.bytes_in + b.bytes_in,
        bytes_out: a.bytes_out + b.bytes_out,
        rows_late: a.rows_late + b.rows_late,
        rows_dead: a.rows_dead + b.rows_dead,
        rows_dropped: a.rows_dropped + b.rows_dropped,
        events: a.events + b.events,
    }
}

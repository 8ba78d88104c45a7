//! Commit: the head after a batch. Advancing it by compare-and-set is the only commit there is (idea 2).
//!
//! Why the checks: what a batch claims to have read must begin where the head stands, else rows would be skipped or counted twice
//! (EO-1); nothing that says "until now" may move back (WM-1, R1). A refusal is a bug upstream of the commit.
//! Never: fences. Whether the head is still ours is decided by the version its write is conditional on (FN-1).

use std::collections::BTreeMap;

use crate::entry::{Activity, CommitEntry};
use crate::head::{CheckpointRef, HEAD_BYTES_MAX, Head, InputState, Owner, PublishState, RECENT_COMMITS_MAX, ShardStats};
use crate::ids::Epoch;
use crate::recipe::{Inputs, Offset};
use crate::time::Watermark;

/// What a batch changes in its shard's head.
#[derive(Debug, Clone)]
pub struct Advance {
    /// The entry to append; its epoch is the head's next.
    pub entry: CommitEntry,
    /// Upstream shards consumed further; each epoch is the `upto` of the recipe's cut, except a publisher's, whose positions are what
    /// its target acknowledged (X5).
    pub inputs: BTreeMap<String, InputState>,
    /// A lane's place after the batch: the `upto` of the recipe's reference.
    pub source: Option<Offset>,
    /// Least watermark at which the shard has something to say after the batch.
    pub act_at: Option<Watermark>,
    /// A checkpoint taken with this batch.
    pub checkpoint: Option<CheckpointRef>,
    /// A publisher's place after the batch.
    pub publish: Option<PublishState>,
    /// What to add to the counters.
    pub stats: ShardStats,
    /// The holder and its renewed lease; `None` releases the shard with this commit.
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
    /// The recipe's watermarks are not those of the head and the entry, so the batch could not be replayed (R1).
    #[error("the recipe says watermark {before} to {after}, the head and the entry say otherwise")]
    Recipe {
        /// The recipe's watermark before the batch.
        before: Watermark,
        /// The recipe's watermark after it.
        after: Watermark,
    },
    /// The recipe's instant would move back (R1).
    #[error("the batch's instant is before the last one's")]
    Now,
    /// A closed shard would open again (W2).
    #[error("the shard is closed for ever")]
    Reopened,
    /// An input's position would move back, or the cut does not begin and end where the positions do (EO-1).
    #[error("position of input {input} does not continue the head's")]
    Position {
        /// The upstream shard.
        input: String,
    },
    /// The lane's read does not begin and end where its place does (EO-1).
    #[error("the read does not continue the lane's place in its source")]
    Source,
    /// The checkpoint is older than the one it replaces, or newer than the batch (RP-1).
    #[error("checkpoint of epoch {found} does not lie between the last one and the batch")]
    Checkpoint {
        /// The checkpoint's epoch.
        found: Epoch,
    },
    /// The recent commits must move into a manifest first (T4): see [`super::plan_spill`].
    #[error("the head holds {RECENT_COMMITS_MAX} recent commits: spill before the next")]
    Full,
    /// The head would not fit its row (T4).
    #[error("the head would have {bytes} bytes, a row holds {HEAD_BYTES_MAX}")]
    TooLarge {
        /// Encoded size.
        bytes: usize,
    },
}

/// The head after `advance`.
///
/// - Cost: one encoding of the head, to know its size.
///
/// # Errors
/// [`CommitRefusal`] where the batch would break an invariant; nothing may be written then.
pub fn decide_commit(head: &Head, advance: Advance) -> Result<Head, CommitRefusal> {
    check_entry(head, &advance.entry)?;
    check_inputs(head, &advance)?;
    check_checkpoint(head, &advance)?;
    let Advance { entry, inputs, source, act_at, checkpoint, publish, stats, owner } = advance;
    let mut next = head.clone();
    next.inputs.extend(inputs);
    next.epoch = entry.epoch;
    next.last_commit = Some(entry.commit);
    next.watermark = entry.watermark;
    next.activity = entry.activity;
    next.now_micros = entry.recipe.now_micros;
    next.claims_since_commit = 0;
    next.owner = owner;
    next.source = source.or(head.source);
    next.act_at = act_at;
    next.publish = publish.or_else(|| head.publish.clone());
    if let Some(checkpoint) = checkpoint {
        next.checkpoint = Some(checkpoint);
        next.replayed_bytes = 0;
    }
    next.stats = add(head.stats, stats);
    next.recent.push_back(entry);
    let bytes = super::spill::encoded_bytes(&next);
    if bytes > HEAD_BYTES_MAX { Err(CommitRefusal::TooLarge { bytes }) } else { Ok(next) }
}

fn check_entry(head: &Head, entry: &CommitEntry) -> Result<(), CommitRefusal> {
    let recipe = &entry.recipe;
    if entry.epoch != head.epoch.next() {
        return Err(CommitRefusal::Epoch { head: head.epoch, found: entry.epoch });
    }
    if entry.generation != head.generation {
        return Err(CommitRefusal::Generation);
    }
    if entry.watermark < head.watermark {
        return Err(CommitRefusal::Watermark { head: head.watermark, found: entry.watermark });
    }
    if recipe.watermark_before != head.watermark || recipe.watermark_after != entry.watermark {
        return Err(CommitRefusal::Recipe { before: recipe.watermark_before, after: recipe.watermark_after });
    }
    if recipe.now_micros < head.now_micros {
        return Err(CommitRefusal::Now);
    }
    if head.activity == Activity::Closed && entry.activity != Activity::Closed {
        return Err(CommitRefusal::Reopened);
    }
    if head.recent.len() >= RECENT_COMMITS_MAX { Err(CommitRefusal::Full) } else { Ok(()) }
}

/// What was read begins at the head's positions and ends at the next ones.
fn check_inputs(head: &Head, advance: &Advance) -> Result<(), CommitRefusal> {
    let publishes = advance.publish.is_some() || head.publish.is_some();
    for (input, state) in &advance.inputs {
        let before = head.inputs.get(input).copied().unwrap_or_default();
        if state.epoch < before.epoch || state.watermark < before.watermark {
            return Err(CommitRefusal::Position { input: input.clone() });
        }
    }
    match &advance.entry.recipe.inputs {
        Inputs::Reference { from, upto } => {
            let stands = head.source.unwrap_or_default();
            let continues = *from == stands && *from <= *upto && advance.source.unwrap_or(stands) == *upto;
            if continues { Ok(()) } else { Err(CommitRefusal::Source) }
        }
        Inputs::Segments(_) if publishes => Ok(()),
        Inputs::Segments(cuts) => {
            for cut in cuts {
                let input = cut.from.to_string();
                let stands = head.inputs.get(&input).copied().unwrap_or_default();
                let goes = advance.inputs.get(&input).copied().unwrap_or(stands);
                if cut.after != stands.epoch || cut.upto != goes.epoch {
                    return Err(CommitRefusal::Position { input });
                }
            }
            let moved =
                |input: &String, state: &InputState| state.epoch != head.inputs.get(input).copied().unwrap_or_default().epoch;
            let uncut = |input: &String| !cuts.iter().any(|cut| cut.from.to_string() == *input);
            match advance.inputs.iter().find(|(input, state)| moved(input, state) && uncut(input)) {
                Some((input, _)) => Err(CommitRefusal::Position { input: input.clone() }),
                None => Ok(()),
            }
        }
    }
}

fn check_checkpoint(head: &Head, advance: &Advance) -> Result<(), CommitRefusal> {
    let Some(checkpoint) = &advance.checkpoint else { return Ok(()) };
    let last = head.checkpoint.as_ref().map(|last| last.epoch).unwrap_or_default();
    let between = last <= checkpoint.epoch && checkpoint.epoch <= advance.entry.epoch;
    if between { Ok(()) } else { Err(CommitRefusal::Checkpoint { found: checkpoint.epoch }) }
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

#[cfg(test)]
mod tests;

//! The past of a shard: from where a batch that was committed long ago can be run again (R1).
//!
//! A head names its newest checkpoint only. Which there were before follows from the entries: one that brings a checkpoint names its
//! objects, and those of the checkpoint that it takes the place of.
//!
//! ```text
//! head: [c]    entry 9 names c, a, b    entry 6 names b    entry 3 names a    -->    [c] at 9, [a, b] at 6, [a] at 3, nothing at 0
//! ```
//! Not told: a checkpoint of an empty state in the place of another such. Whoever begins before it comes to the same state.

use std::collections::BTreeSet;

use crate::entry::{CommitEntry, SegmentKind, SegmentRef};
use crate::head::Head;
use crate::ids::{Epoch, ShardKey};
use crate::recipe::Inputs;
use crate::time::Watermark;

/// The state of a shard as it was stored at an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Epoch whose state it is.
    pub epoch: Epoch,
    /// Its objects, in order; none where the state was empty.
    pub objects: Vec<SegmentRef>,
    /// Watermark of the shard at that epoch.
    pub watermark: Watermark,
}

/// Snapshots of the shard of `head`, oldest first; the first of all is that of a shard which has committed nothing.
///
/// - `entries`: those that are still there, oldest first, without gaps, up to the head's epoch.
#[must_use]
pub fn snapshots(head: &Head, entries: &[CommitEntry]) -> Vec<Snapshot> {
    let newest = head.checkpoint.as_ref().map(|newest| Snapshot {
        epoch: newest.epoch,
        objects: newest.objects.clone(),
        watermark: newest.watermark,
    });
    let mut objects = newest.as_ref().map(|newest| newest.objects.clone()).unwrap_or_default();
    let mut found: Vec<Snapshot> = newest.into_iter().collect();
    for entry in entries.iter().rev() {
        let named = entry.segments.iter().filter(|segment| segment.kind == SegmentKind::Checkpoint);
        let (stored, replaced): (Vec<_>, Vec<_>) = named.cloned().partition(|segment| objects.contains(segment));
        if stored.is_empty() && replaced.is_empty() {
            continue;
        }
        if found.last().is_none_or(|last| last.epoch != entry.epoch) {
            found.push(Snapshot { epoch: entry.epoch, objects: objects.clone(), watermark: entry.watermark });
        }
        if replaced.is_empty() {
            objects.retain(|segment| !stored.contains(segment));
        } else {
            objects = replaced;
        }
    }
    if entries.first().is_none_or(|first| first.epoch == Epoch(1)) && head.epoch.0 == entries.len() as u64 {
        found.push(Snapshot { epoch: Epoch(0), objects: Vec::new(), watermark: Watermark::NONE });
    }
    found.reverse();
    found
}

/// The first epoch of the shard of `head` whose batch can be run again; `None` if what all of them need may be gone.
///
/// - `entries`: as for [`snapshots`].
/// - `keeps_state`: whether a batch needs the state before it.
/// - `floor`: of each shard, the last epoch whose data may be gone (G2).
#[must_use]
pub fn oldest_replayable(
    head: &Head,
    entries: &[CommitEntry],
    keeps_state: bool,
    floor: impl Fn(ShardKey) -> Epoch,
) -> Option<Epoch> {
    let reads = |entry: &&CommitEntry| match &entry.recipe.inputs {
        Inputs::Reference { .. } => true,
        Inputs::Segments(cuts) => cuts.iter().all(|cut| cut.after >= floor(cut.from)),
    };
    if !keeps_state {
        return entries.iter().find(reads).map(|entry| entry.epoch);
    }
    let own = floor(head.shard);
    let newest = head.checkpoint.iter().flat_map(|newest| &newest.objects);
    let above = entries.iter().filter(|entry| entry.epoch > own).flat_map(|entry| &entry.segments);
    let named: BTreeSet<&str> = newest.chain(above).map(|segment| segment.object.as_str()).collect();
    let is_kept = |snapshot: &Snapshot| snapshot.objects.iter().all(|segment| named.contains(segment.object.as_str()));
    let first_after = |snapshot: Snapshot| entries.iter().find(|entry| entry.epoch == snapshot.epoch.next()).filter(reads);
    snapshots(head, entries).into_iter().filter(is_kept).find_map(first_after).map(|entry| entry.epoch)
}

#[cfg(test)]
mod tests;

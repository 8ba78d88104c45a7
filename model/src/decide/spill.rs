//! Spill: what keeps a head small (T4). Older commits move into a chain of manifests.

use crate::entry::CommitEntry;
use crate::head::{HEAD_BYTES_SPILL, Head, KeptRef, ManifestRef, RECENT_COMMITS_MAX};

/// How many of the oldest commits must move into a manifest before another is appended (T4); 0 while the head is small.
///
/// The oldest half, and more where entries are so large that the rest would leave no room for another of their kind.
#[must_use]
pub fn plan_spill(head: &Head) -> usize {
    let sizes: Vec<usize> = head.recent.iter().map(entry_bytes).collect();
    let mut rest: usize = sizes.iter().sum();
    if sizes.len() < RECENT_COMMITS_MAX && rest <= HEAD_BYTES_SPILL {
        return 0;
    }
    let half = sizes.len().div_ceil(2);
    rest -= sizes.iter().take(half).sum::<usize>();
    let more = sizes.iter().skip(half).take_while(|size| {
        let large = rest > HEAD_BYTES_SPILL / 2;
        rest -= if large { **size } else { 0 };
        large
    });
    half + more.count()
}

/// The head once its `count` oldest commits lie in `manifest`, and their late and dead-letter segments, if any, in the list `kept`.
#[must_use]
pub fn spill(head: &Head, count: usize, manifest: ManifestRef, kept: Option<KeptRef>) -> Head {
    let mut next = head.clone();
    next.recent.drain(..count.min(head.recent.len()));
    next.manifest = Some(manifest);
    next.kept = kept.or(next.kept);
    next
}

/// Size of the head as it is written; what cannot be encoded has no size that fits.
pub(super) fn encoded_bytes(head: &Head) -> usize {
    serde_json::to_vec(head).map_or(usize::MAX, |bytes| bytes.len())
}

fn entry_bytes(entry: &CommitEntry) -> usize {
    serde_json::to_vec(entry).map_or(0, |bytes| bytes.len())
}

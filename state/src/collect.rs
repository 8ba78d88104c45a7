//! The objects' half of retention: what may be deleted once a floor has been raised (G2), and orphans that no head ever named (G1).
//!
//! Why here: which objects an entry names is known to manifests and checkpoints alone; floors, pins and generations are decided in
//! `weir_model::decide` and written by the coordinator *before* anything here runs.
//! Never: decides by age, or deletes a plan or anything whose name is not one of ours.
//!
//! ```text
//! raise floors in the retention row (compare-and-set)  -->  delete objects of entries at or below a floor that nothing above names
//! LIST (rarely), names no head, manifest or checkpoint knows  -->  delete if the anchor's generation is below its head's
//! ```
//! Invariants: GC-1 (see `weir_model::invariants`).

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, path::Path};
use weir_model::decide::{Orphan, decide_orphan, orphans_may_go};
use weir_model::retention::Retention;
use weir_model::{CommitEntry, Epoch, Head, JobId, SegmentKind, ShardKey};

use crate::error::Kind;
use crate::{StateError, kept, manifest, paths};

/// Everything one shard names, split at its floor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Objects that something above the floor names, those of the head itself, late and dead rows of its entries, which stay, and under
    /// a pin its earlier checkpoints.
    pub live: BTreeSet<String>,
    /// Objects that only entries at or below the floor name.
    pub fallen: BTreeSet<String>,
}

/// Whether a reader has pinned the past of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Nobody has: what the head no longer names may go.
    Free,
    /// It may have read an earlier head, whose checkpoint has been replaced since: checkpoints stay, at or below the floor too.
    Pinned,
}

impl Past {
    /// - `row`: read *after* the head, so that whoever pinned since then reads heads that name no older checkpoint than it does.
    #[must_use]
    pub fn of(row: &Retention, head: &Head) -> Self {
        if orphans_may_go(row, &head.shard.to_string()) { Self::Free } else { Self::Pinned }
    }
}

/// Walks a head and its chain. A manifest stays while one of its entries is above the floor.
///
/// # Errors
/// [`StateError`] if a manifest that should be there cannot be read.
pub async fn named_by(store: &dyn ObjectStore, head: &Head, floor: Epoch, past: Past) -> Result<Named, StateError> {
    let mut named = Named::default();
    let checkpoint = head.checkpoint.iter().flat_map(|checkpoint| &checkpoint.objects);
    named.live.extend(checkpoint.chain(&head.ledger).map(|object| object.object.clone()));
    for entry in &head.recent {
        named.sort(entry, floor, past);
    }
    let mut next = head.manifest.clone();
    while let Some(reference) = next {
        let fallen = reference.last <= floor;
        let found = match manifest::read(store, &reference).await {
            Ok(found) => found,
            // Below a manifest that fell whole, everything did: it was deleted then.
            Err(error) if error.kind() == Kind::Missing && fallen => break,
            Err(error) => return Err(error),
        };
        for entry in &found.entries {
            named.sort(entry, floor, past);
        }
        let set = if fallen { &mut named.fallen } else { &mut named.live };
        set.insert(reference.object);
        next = found.previous;
    }
    Ok(named)
}

impl Named {
    fn sort(&mut self, entry: &CommitEntry, floor: Epoch, past: Past) {
        for segment in &entry.segments {
            let stays = kept::stays(segment.kind) || (past == Past::Pinned && segment.kind == SegmentKind::Checkpoint);
            let set = if stays || entry.epoch > floor { &mut self.live } else { &mut self.fallen };
            set.insert(segment.object.clone());
        }
    }
}

/// What may go: fallen objects of any shard that no shard still needs.
#[must_use]
pub fn deletable(named: &[Named]) -> Vec<String> {
    let live: BTreeSet<&String> = named.iter().flat_map(|named| &named.live).collect();
    let fallen: BTreeSet<&String> = named.iter().flat_map(|named| &named.fallen).collect();
    fallen.difference(&live).map(|object| (*object).clone()).collect()
}

/// Deletes objects; one that is gone already is fine. Returns how many the store says it deleted: some count those that were gone.
/// Manifests last and oldest first: whoever goes on after a crash still finds the way to the rest.
///
/// # Errors
/// [`StateError::Store`] naming the first object that the store kept; others may be gone.
pub async fn delete(store: &dyn ObjectStore, objects: &[String]) -> Result<u64, StateError> {
    let (mut manifests, rows): (Vec<&String>, Vec<&String>) = objects.iter().partition(|object| object.contains("/manifest/"));
    manifests.sort_by_key(|object| paths::id(object));
    let mut deleted = delete_all(store, rows).await?;
    for manifest in manifests {
        deleted += delete_all(store, vec![manifest]).await?;
    }
    Ok(deleted)
}

async fn delete_all(store: &dyn ObjectStore, objects: Vec<&String>) -> Result<u64, StateError> {
    let named: Vec<_> = objects.iter().map(|object| Ok(Path::from(object.as_str()))).collect();
    // Answers come in the order of the names.
    let mut answers = store.delete_stream(futures::stream::iter(named).boxed());
    let mut deleted = 0;
    for object in objects {
        match answers.next().await {
            Some(Ok(_)) => deleted += 1,
            Some(Err(object_store::Error::NotFound { .. })) => {}
            Some(Err(error)) => return Err(StateError::store(object, error)),
            None => break,
        }
    }
    Ok(deleted)
}

/// What a pass below the floors found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// What each head names, in the order of the heads: what [`orphans`] needs.
    pub named: Vec<Named>,
    /// Objects deleted.
    pub deleted: u64,
}

/// Deletes what only entries at or below the floors of `row` name (G2, G3).
///
/// - `heads`: every head of the job, read *after* the floors were raised to those of `row`.
///
/// # Errors
/// [`StateError`]; nothing that is needed was deleted, and the next pass goes on.
pub async fn collect_below(store: &dyn ObjectStore, heads: &[Head], row: &Retention) -> Result<Collected, StateError> {
    let mut named = Vec::with_capacity(heads.len());
    for head in heads {
        named.push(named_by(store, head, row.floor(&head.shard.to_string()), Past::of(row, head)).await?);
    }
    let deleted = delete(store, &deletable(&named)).await?;
    Ok(Collected { named, deleted })
}

/// Objects of ours that nothing names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unnamed {
    /// Whose makers can no longer commit them: they may go.
    pub lost: Vec<String>,
    /// Whose makers may still commit them, with the shards they are anchored at: for a quiet one, claim the shard and judge them again.
    pub unfinished: Vec<(ShardKey, String)>,
}

/// Looks for objects of the job that nothing names (G1). Call it rarely.
///
/// - Requests: one LIST, and one GET per list of late and dead-letter segments.
///
/// - `heads`: the shards whose orphans may go (`decide::orphans_may_go`: those without a pin); objects of others stay. Read before the
///   listing, and not later than the heads that `named` comes from: once a generation is over, names read after that are final.
/// - `named`: what *all* heads of the job name.
///
/// # Errors
/// [`StateError`] if the listing fails, or a list of late and dead-letter segments cannot be read.
pub async fn orphans(store: &dyn ObjectStore, job: JobId, heads: &[Head], named: &[Named]) -> Result<Unnamed, StateError> {
    let folder = paths::job(job);
    let listed: Vec<_> =
        store.list(Some(&Path::from(folder.as_str()))).try_collect().await.map_err(|error| StateError::store(&folder, error))?;
    judge(store, heads, named, listed.into_iter().map(|meta| meta.location.to_string())).await
}

/// Judges objects that a listing found; `heads` and `named` as for [`orphans`].
///
/// # Errors
/// [`StateError`] if a list of late and dead-letter segments cannot be read.
pub async fn judge(
    store: &dyn ObjectStore,
    heads: &[Head],
    named: &[Named],
    listed: impl IntoIterator<Item = String>,
) -> Result<Unnamed, StateError> {
    let generations: BTreeMap<_, _> = heads.iter().map(|head| (head.shard, head.generation)).collect();
    let mut known: BTreeSet<String> = named.iter().flat_map(|named| named.live.iter().chain(&named.fallen)).cloned().collect();
    for head in heads {
        known.extend(kept::objects(store, head).await?);
    }
    let mut unnamed = Unnamed::default();
    for name in listed {
        let Some((shard, generation)) = paths::anchor(&name) else { continue };
        let Some(current) = generations.get(&shard) else { continue };
        match decide_orphan(generation, *current, known.contains(&name)) {
            Orphan::Delete => unnamed.lost.push(name),
            Orphan::ClaimFirst => unnamed.unfinished.push((shard, name)),
            Orphan::Keep => {}
        }
    }
    Ok(unnamed)
}

#[cfg(test)]
mod tests;

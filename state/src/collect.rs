//! The objects' half of retention: what may be deleted once a floor has been raised (G2), and orphans that no head ever named (G1).
//!
//! ```text
//! raise floors in the retention row (compare-and-set)  -->  delete objects of entries at or below a floor that nothing above names
//! LIST (rarely), names no head, manifest or checkpoint knows  -->  delete if the anchor's generation is below its head's
//! ```

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use weir_model::decide::{Orphan, decide_orphan};
use weir_model::{CommitEntry, Epoch, Head, JobId};

use crate::error::Kind;
use crate::{StateError, manifest, paths};

/// Everything one shard names, split at its floor.
#[derive(Debug, Default)]
pub struct Named {
    /// Objects that something above the floor names, and those of the head itself.
    pub live: BTreeSet<String>,
    /// Objects that only entries at or below the floor name.
    pub fallen: BTreeSet<String>,
}

/// Walks a head and its chain. A manifest stays while one of its entries is above the floor.
///
/// # Errors
/// [`StateError`] if a manifest that should be there cannot be read.
pub async fn named_by(store: &dyn ObjectStore, head: &Head, floor: Epoch) -> Result<Named, StateError> {
    let mut named = Named::default();
    if let Some(object) = head.checkpoint.as_ref().and_then(|checkpoint| checkpoint.object.as_ref()) {
        named.live.insert(object.object.clone());
    }
    head.recent.iter().for_each(|entry| named.sort(entry, floor));
    let mut next = head.manifest.clone();
    while let Some(reference) = next {
        // Below a manifest that has fallen whole, everything has: it was deleted when it fell, or is about to be.
        let fallen = reference.last <= floor;
        let found = match manifest::read(store, &reference).await {
            Ok(found) => found,
            Err(error) if error.kind() == Kind::Missing && fallen => break,
            Err(error) => return Err(error),
        };
        if fallen { named.fallen.insert(reference.object) } else { named.live.insert(reference.object) };
        found.entries.iter().for_each(|entry| named.sort(entry, floor));
        next = found.previous;
    }
    Ok(named)
}

impl Named {
    fn sort(&mut self, entry: &CommitEntry, floor: Epoch) {
        let objects = entry.segments.iter().map(|segment| segment.object.clone());
        if entry.epoch <= floor { self.fallen.extend(objects) } else { self.live.extend(objects) }
    }
}

/// What may go: fallen objects of any shard that no shard still needs.
#[must_use]
pub fn deletable(named: &[Named]) -> Vec<String> {
    let live: BTreeSet<&String> = named.iter().flat_map(|named| &named.live).collect();
    let fallen: BTreeSet<&String> = named.iter().flat_map(|named| &named.fallen).collect();
    fallen.difference(&live).map(|object| (*object).clone()).collect()
}

/// Deletes objects; one that is gone already is fine. Manifests last: until then a second collector can still find the rest.
///
/// # Errors
/// [`StateError::Store`] naming the object.
pub async fn delete(store: &dyn ObjectStore, objects: &[String]) -> Result<u64, StateError> {
    let (manifests, rows): (Vec<_>, Vec<_>) = objects.iter().partition(|object| object.contains("/manifest/"));
    let mut deleted = 0;
    for object in rows.into_iter().chain(manifests.into_iter()) {
        match store.delete(&Path::from(object.as_str())).await {
            Ok(()) => deleted += 1,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(StateError::store(object, error)),
        }
    }
    Ok(deleted)
}

/// Objects of the job that nothing names and whose maker can no longer commit (G1). One LIST per call: call it rarely.
///
/// - `heads`: every head of the job, read *before* the listing: an object made later has a generation that is not below its head's.
///
/// # Errors
/// [`StateError::Store`] if the listing fails.
pub async fn orphans(store: &dyn ObjectStore, job: JobId, heads: &[Head], named: &[Named]) -> Result<Vec<String>, StateError> {
    let generations: BTreeMap<_, _> = heads.iter().map(|head| (head.shard, head.generation)).collect();
    let known: BTreeSet<&String> = named.iter().flat_map(|named| named.live.iter().chain(&named.fallen)).collect();
    let folder = paths::job(job);
    let listed: Vec<_> = store.list(Some(&Path::from(folder.as_str()))).try_collect().await.map_err(|error| StateError::store(&folder, error))?;
    let is_orphan = |name: &String| {
        let Some((shard, generation)) = paths::anchor(name) else { return false };
        let Some(current) = generations.get(&shard) else { return false };
        decide_orphan(generation, *current, known.contains(name)) == Orphan::Delete
    };
    Ok(listed.into_iter().map(|meta| meta.location.to_string()).filter(is_orphan).collect())
}

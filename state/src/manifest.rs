//! Commit entries that no longer fit their head, as JSON objects linked from newest to oldest (T4).
//!
//! Readers walk head, then chain, only as far back as the first epoch they miss.

use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use serde::{Deserialize, Serialize};
use weir_model::{CommitEntry, Epoch, Head, Ids, ManifestRef, ShardKey};

use crate::StateError;
use crate::error::Kind;
use crate::paths::{self, Folder};

/// Version of the manifest's encoding; a reader refuses any other.
pub const MANIFEST_FORMAT: u16 = 1;

/// A manifest object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u16,
    /// The shard whose commits these are.
    pub shard: ShardKey,
    /// Commits, oldest first, without gaps.
    pub entries: Vec<CommitEntry>,
    /// The manifest before this one.
    pub previous: Option<ManifestRef>,
}

/// An encoded manifest and the reference that names it.
#[derive(Debug)]
pub struct EncodedManifest {
    /// What the head will hold.
    pub reference: ManifestRef,
    /// The object's bytes.
    pub bytes: Vec<u8>,
}

/// Encodes `entries` (oldest first, not empty) of the shard that `head` describes, in front of its present chain.
///
/// # Errors
/// [`StateError::Corrupt`] if there is nothing to encode.
pub fn encode(ids: &dyn Ids, head: &Head, entries: Vec<CommitEntry>) -> Result<EncodedManifest, StateError> {
    let object = paths::object(Folder::Manifest, ids.object(), head.shard, head.generation);
    let corrupt = |message: &str| StateError::Corrupt { object: object.clone(), message: message.to_owned() };
    let (first, last) = entries.first().zip(entries.last()).map(|(a, b)| (a.epoch, b.epoch)).ok_or_else(|| corrupt("an empty manifest"))?;
    let manifest = Manifest { format: MANIFEST_FORMAT, shard: head.shard, entries, previous: head.manifest.clone() };
    let bytes = serde_json::to_vec(&manifest).map_err(|error| corrupt(&error.to_string()))?;
    Ok(EncodedManifest { reference: ManifestRef { first, last, bytes: bytes.len() as u64, object }, bytes })
}

/// Reads one manifest.
///
/// # Errors
/// [`StateError::Store`] (kind `Missing` if it is gone: G4), [`StateError::Corrupt`] for another format.
pub async fn read(store: &dyn ObjectStore, reference: &ManifestRef) -> Result<Manifest, StateError> {
    let path = Path::from(reference.object.as_str());
    let bytes = store.get_range(&path, 0..reference.bytes).await.map_err(|error| StateError::store(&reference.object, error))?;
    let corrupt = |message: String| StateError::Corrupt { object: reference.object.clone(), message };
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
    if manifest.format != MANIFEST_FORMAT {
        return Err(corrupt(format!("manifest format {}, this build reads {MANIFEST_FORMAT}", manifest.format)));
    }
    Ok(manifest)
}

/// What a reader finds between two epochs.
#[derive(Debug, PartialEq, Eq)]
pub enum Entries {
    /// All entries `(after, upto]`, oldest first.
    Found(Vec<CommitEntry>),
    /// Some are gone: the head has moved on, or something deleted too much (G4).
    Missing,
}

/// Entries of `head`'s shard in `(after, upto]`.
///
/// # Errors
/// [`StateError`] if a manifest that is there cannot be read.
pub async fn entries_between(store: &dyn ObjectStore, head: &Head, after: Epoch, upto: Epoch) -> Result<Entries, StateError> {
    let mut found: Vec<CommitEntry> = Vec::new();
    let wanted = |entry: &&CommitEntry| entry.epoch > after && entry.epoch <= upto;
    found.extend(head.recent.iter().filter(wanted).cloned());
    let mut next = head.manifest.clone();
    let oldest = |found: &[CommitEntry]| found.first().map_or(upto.next(), |entry| entry.epoch);
    while oldest(&found) > after.next() {
        let Some(reference) = next else { return Ok(Entries::Missing) };
        if reference.last <= after {
            return Ok(Entries::Missing);
        }
        let manifest = match read(store, &reference).await {
            Ok(manifest) => manifest,
            Err(error) if error.kind() == Kind::Missing => return Ok(Entries::Missing),
            Err(error) => return Err(error),
        };
        let older: Vec<CommitEntry> = manifest.entries.iter().filter(wanted).cloned().collect();
        found.splice(0..0, older);
        next = manifest.previous;
    }
    let whole = found.iter().map(|entry| entry.epoch.0).eq(after.0 + 1..=upto.0);
    Ok(if whole { Entries::Found(found) } else { Entries::Missing })
}

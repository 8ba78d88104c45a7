//! Commit entries that no longer fit their head, as JSON objects linked from newest to oldest (T4).
//!
//! Readers walk head, then chain, only as far back as the first epoch they miss.

use bytes::Bytes;
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use weir_model::decide::{plan_spill, spill};
use weir_model::{CommitEntry, CommitId, Epoch, Head, Ids, ManifestRef, ShardKey};

use crate::error::Kind;
use crate::json::{self, Json, corrupt};
use crate::paths::{self, Folder};
use crate::{StateError, kept};

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

impl Json for Manifest {
    const WHAT: &str = "manifest";
    const FORMAT: u16 = MANIFEST_FORMAT;
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
/// [`StateError::Corrupt`] if there is nothing to encode, or if the entries have gaps: a reader could not tell them from lost ones.
pub fn encode(ids: &dyn Ids, head: &Head, entries: Vec<CommitEntry>) -> Result<EncodedManifest, StateError> {
    let object = paths::object(Folder::Manifest, ids.object(), head.shard, head.generation);
    let (first, last) = entries
        .first()
        .zip(entries.last())
        .map(|(a, b)| (a.epoch, b.epoch))
        .ok_or_else(|| corrupt(&object, "an empty manifest"))?;
    if !entries.iter().map(|entry| entry.epoch.0).eq(first.0..=last.0) {
        return Err(corrupt(&object, "its entries have gaps"));
    }
    let manifest = Manifest { format: MANIFEST_FORMAT, shard: head.shard, entries, previous: head.manifest.clone() };
    let bytes = json::encode(&object, &manifest)?;
    Ok(EncodedManifest { reference: ManifestRef { first, last, bytes: bytes.len() as u64, object }, bytes })
}

/// The head with room for another commit, and the objects to be stored before a commit names them: a manifest of its oldest entries if
/// there are many (T4), and the list of their late and dead rows if they have any.
///
/// # Errors
/// [`StateError::Corrupt`] if they cannot be encoded.
pub fn spilled(ids: &dyn Ids, head: &Head) -> Result<(Head, Vec<(String, Bytes)>), StateError> {
    let count = plan_spill(head);
    if count == 0 {
        return Ok((head.clone(), Vec::new()));
    }
    let entries: Vec<CommitEntry> = head.recent.iter().take(count).cloned().collect();
    let list = kept::encode(ids, head, &entries)?;
    let manifest = encode(ids, head, entries)?;
    let mut objects = vec![(manifest.reference.object.clone(), manifest.bytes.into())];
    let kept = list.map(|list| {
        objects.push((list.reference.object.clone(), list.bytes.into()));
        list.reference
    });
    Ok((spill(head, count, manifest.reference, kept), objects))
}

/// Whether a manifest of `head` holds `commit`. One that was deleted lay below a floor that rose after the version moved: whose commit
/// it was makes no difference any more.
///
/// # Errors
/// [`StateError`] if a manifest that is there cannot be read.
pub async fn has_commit(store: &dyn ObjectStore, head: &Head, commit: CommitId) -> Result<bool, StateError> {
    let mut next = head.manifest.clone();
    while let Some(reference) = next {
        let found = match read(store, &reference).await {
            Ok(found) => found,
            Err(error) if error.kind() == Kind::Missing => return Ok(false),
            Err(error) => return Err(error),
        };
        if found.entries.iter().any(|entry| entry.commit == commit) {
            return Ok(true);
        }
        next = found.previous;
    }
    Ok(false)
}

/// Reads one manifest.
///
/// # Errors
/// [`StateError::Store`] (kind `Missing` if it is gone: G4), [`StateError::UnknownFormat`], [`StateError::Corrupt`] if it is not what
/// the reference says.
pub async fn read(store: &dyn ObjectStore, reference: &ManifestRef) -> Result<Manifest, StateError> {
    let manifest: Manifest = json::read(store, &reference.object, reference.bytes).await?;
    let epochs = manifest.entries.iter().map(|entry| entry.epoch.0);
    if epochs.eq(reference.first.0..=reference.last.0) {
        return Ok(manifest);
    }
    Err(corrupt(&reference.object, &format!("its epochs are not {} to {}", reference.first, reference.last)))
}

/// What a reader finds between two epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entries {
    /// All entries `(after, upto]`, oldest first.
    Found(Vec<CommitEntry>),
    /// Some are gone: the head has moved on, or something deleted too much (G4).
    Missing,
}

/// Entries of `head`'s shard in `(after, upto]`.
///
/// - Requests: one GET per manifest between the head and `after`; none while the head holds them.
///
/// # Errors
/// [`StateError`] if a manifest that is there cannot be read.
pub async fn entries_between(store: &dyn ObjectStore, head: &Head, after: Epoch, upto: Epoch) -> Result<Entries, StateError> {
    let wanted = |entry: &CommitEntry| entry.epoch > after && entry.epoch <= upto;
    let mut newest_first: Vec<CommitEntry> = head.recent.iter().rev().filter(|entry| wanted(entry)).cloned().collect();
    let mut next = head.manifest.clone();
    while after < upto && newest_first.last().is_none_or(|oldest| oldest.epoch > after.next()) {
        let Some(reference) = next.filter(|reference| reference.last > after) else { return Ok(Entries::Missing) };
        let manifest = match read(store, &reference).await {
            Ok(manifest) => manifest,
            Err(error) if error.kind() == Kind::Missing => return Ok(Entries::Missing),
            Err(error) => return Err(error),
        };
        newest_first.extend(manifest.entries.into_iter().rev().filter(&wanted));
        next = manifest.previous;
    }
    newest_first.reverse();
    let whole = newest_first.iter().map(|entry| entry.epoch.0).eq(after.0 + 1..=upto.0);
    Ok(if whole { Entries::Found(newest_first) } else { Entries::Missing })
}

/// Every entry of `head`'s shard that is still there, oldest first, without gaps up to the head's epoch.
///
/// - Requests: one GET per manifest that is left, and one that finds none.
///
/// # Errors
/// [`StateError`] if a manifest that is there cannot be read.
pub async fn entries_left(store: &dyn ObjectStore, head: &Head) -> Result<Vec<CommitEntry>, StateError> {
    let mut newest_first: Vec<CommitEntry> = head.recent.iter().rev().cloned().collect();
    let mut next = head.manifest.clone();
    while let Some(reference) = next {
        let manifest = match read(store, &reference).await {
            Ok(manifest) => manifest,
            Err(error) if error.kind() == Kind::Missing => break,
            Err(error) => return Err(error),
        };
        newest_first.extend(manifest.entries.into_iter().rev());
        next = manifest.previous;
    }
    newest_first.reverse();
    Ok(newest_first)
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use weir_model::{JobId, SegmentKind, ShardId, StageId};

    use super::*;
    use crate::store::put;
    use crate::testing::{SequentialIds, entry, golden};

    /// Epochs 1 to 20: 1-8 and 9-14 spilled, 15-20 in the head.
    async fn with_two_manifests(store: &dyn ObjectStore) -> Head {
        let mut head = Head::new(ShardKey::new(JobId(1), StageId(0), ShardId(0)));
        let ids = SequentialIds::default();
        for (first, last) in [(1, 8), (9, 14)] {
            let manifest = encode(&ids, &head, (first..=last).map(|epoch| entry(epoch, &[])).collect()).unwrap();
            put(store, &manifest.reference.object, manifest.bytes.into()).await.unwrap();
            head.manifest = Some(manifest.reference);
        }
        head.recent = (15..=20).map(|epoch| entry(epoch, &[])).collect();
        head.epoch = Epoch(20);
        head
    }

    #[tokio::test]
    async fn every_range_is_found_from_the_head_and_its_chain() {
        let store = InMemory::new();
        let head = with_two_manifests(&store).await;
        for after in 0..=20 {
            for upto in after..=20 {
                let found = entries_between(&store, &head, Epoch(after), Epoch(upto)).await.unwrap();
                let expected = (after + 1..=upto).map(|epoch| entry(epoch, &[])).collect();
                assert_eq!(found, Entries::Found(expected), "({after}, {upto}]");
            }
        }
        assert_eq!(entries_between(&store, &head, Epoch(18), Epoch(21)).await.unwrap(), Entries::Missing);
    }

    #[tokio::test]
    async fn a_commit_is_found_in_the_chain_until_its_manifest_is_deleted() {
        let store = InMemory::new();
        let head = with_two_manifests(&store).await;
        for (commit, found) in [(3, true), (14, true), (15, false), (99, false)] {
            assert_eq!(has_commit(&store, &head, CommitId(commit)).await.unwrap(), found, "{commit}");
        }
        let newest = head.manifest.clone().unwrap();
        store.delete(&Path::from(newest.object)).await.unwrap();
        assert!(!has_commit(&store, &head, CommitId(3)).await.unwrap());
    }

    #[tokio::test]
    async fn only_manifests_that_are_needed_are_read() {
        let store = InMemory::new();
        let head = with_two_manifests(&store).await;
        let newest = head.manifest.clone().unwrap();
        let oldest = read(&store, &newest).await.unwrap().previous.unwrap();
        store.delete(&Path::from(oldest.object)).await.unwrap();
        assert!(matches!(entries_between(&store, &head, Epoch(8), Epoch(20)).await.unwrap(), Entries::Found(_)));
        assert_eq!(entries_between(&store, &head, Epoch(7), Epoch(9)).await.unwrap(), Entries::Missing);
        store.delete(&Path::from(newest.object)).await.unwrap();
        assert!(matches!(entries_between(&store, &head, Epoch(14), Epoch(20)).await.unwrap(), Entries::Found(_)));
        assert_eq!(entries_between(&store, &head, Epoch(13), Epoch(20)).await.unwrap(), Entries::Missing);
    }

    #[tokio::test]
    async fn what_is_left_goes_back_to_the_first_manifest_that_is_gone() {
        let store = InMemory::new();
        let head = with_two_manifests(&store).await;
        let left = async || entries_left(&store, &head).await.unwrap().iter().map(|entry| entry.epoch.0).collect::<Vec<_>>();
        assert_eq!(left().await, (1..=20).collect::<Vec<_>>());
        let newest = head.manifest.clone().unwrap();
        let oldest = read(&store, &newest).await.unwrap().previous.unwrap();
        store.delete(&Path::from(oldest.object)).await.unwrap();
        assert_eq!(left().await, (9..=20).collect::<Vec<_>>());
        store.delete(&Path::from(newest.object)).await.unwrap();
        assert_eq!(left().await, (15..=20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_manifest_that_is_not_what_was_committed_is_refused() {
        let store = InMemory::new();
        let reference = with_two_manifests(&store).await.manifest.unwrap();
        let whole = store.get(&Path::from(reference.object.as_str())).await.unwrap().bytes().await.unwrap();
        let text = String::from_utf8(whole.to_vec()).unwrap();
        for (bytes, expected) in [
            (text[..text.len() - 1].to_owned(), "bytes were committed"),
            (text.replace("\"format\":1", "\"format\":9"), "manifest format 9, this build reads 1"),
            (text.replace("\"epoch\":9,", "\"epoch\":8,"), "its epochs are not 9 to 14"),
        ] {
            put(&store, &reference.object, bytes.into()).await.unwrap();
            let error = read(&store, &reference).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_manifest_with_gaps_is_never_written() {
        let head = Head::new(ShardKey::new(JobId(1), StageId(0), ShardId(0)));
        for entries in [vec![], vec![entry(1, &[]), entry(3, &[])]] {
            assert!(matches!(encode(&SequentialIds::default(), &head, entries), Err(StateError::Corrupt { .. })));
        }
    }

    /// Byte for byte: a reader compares the object's size with the one that was committed.
    #[test]
    fn a_manifest_of_format_1_is_golden() {
        let mut head = Head::new(ShardKey::new(JobId(0xabc), StageId(1), ShardId(2)));
        let object = "jobs/0000000000000abc/manifest/07/00000000000000000000000000000007-s001-00002-0000000001.json";
        head.manifest = Some(ManifestRef { object: object.to_owned(), first: Epoch(1), last: Epoch(4), bytes: 1_234 });
        let named = [(SegmentKind::Output, "jobs/0000000000000abc/data/01/a.parquet"), (SegmentKind::Late, "b.parquet")];
        let entries = vec![entry(5, &named), entry(6, &[])];
        let encoded = encode(&SequentialIds::default(), &head, entries.clone()).unwrap();
        let kept = golden("manifest-1.json", std::str::from_utf8(&encoded.bytes).unwrap());
        let expected = Manifest { format: 1, shard: head.shard, entries, previous: head.manifest };
        assert_eq!(json::decode::<Manifest>(object, encoded.reference.bytes, kept.as_bytes()).unwrap(), expected);
    }
}

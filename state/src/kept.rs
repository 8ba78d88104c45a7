//! The late and the dead-letter rows of a shard: rows that retention keeps, however old their epoch is.
//!
//! Entries and their manifests fall with the floor. When a commit spills, the segments of these rows are copied into a list, linked
//! to the list before it and named by the head: the way to the rows stays, and is no longer than they are many.
//! Never: lists a folder, or reads the rows themselves.
//!
//! ```text
//! head.recent --> head.kept: newest list --> .. --> until as many rows are named as the head counts
//! ```

use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use weir_model::{CommitEntry, Epoch, Head, Ids, KeptRef, SegmentKind, SegmentRef, ShardKey};

use crate::StateError;
use crate::json::{self, Json};
use crate::paths::{self, Folder};

/// Version of a list's encoding; a reader refuses any other.
pub const KEPT_FORMAT: u16 = 1;

/// Whether rows of this kind stay when their entry falls below the floor.
#[must_use]
pub const fn stays(kind: SegmentKind) -> bool {
    matches!(kind, SegmentKind::Late | SegmentKind::Dead)
}

/// A list object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeptList {
    format: u16,
    shard: ShardKey,
    /// Oldest first.
    segments: Vec<KeptSegment>,
    previous: Option<KeptRef>,
}

impl Json for KeptList {
    const WHAT: &str = "list of late and dead rows";
    const FORMAT: u16 = KEPT_FORMAT;
}

/// A segment of such rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSegment {
    /// The commit that named it.
    pub epoch: Epoch,
    /// Where it lies.
    pub segment: SegmentRef,
}

/// An encoded list and the reference that names it.
#[derive(Debug)]
pub struct EncodedKept {
    /// What the head will hold.
    pub reference: KeptRef,
    /// The object's bytes.
    pub bytes: Vec<u8>,
}

/// Encodes where the late and dead rows of `entries` lie (oldest first; they are about to leave `head`), in front of its present
/// lists. `None` if they name none.
///
/// # Errors
/// [`StateError::Corrupt`] if the list cannot be encoded.
pub fn encode(ids: &dyn Ids, head: &Head, entries: &[CommitEntry]) -> Result<Option<EncodedKept>, StateError> {
    let of = |entry: &CommitEntry| {
        let epoch = entry.epoch;
        let kept = entry.segments.iter().filter(|segment| stays(segment.kind)).cloned();
        kept.map(|segment| KeptSegment { epoch, segment }).collect::<Vec<_>>()
    };
    let segments: Vec<KeptSegment> = entries.iter().flat_map(of).collect();
    if segments.is_empty() {
        return Ok(None);
    }
    let object = paths::object(Folder::Kept, ids.object(), head.shard, head.generation);
    let bytes =
        json::encode(&object, &KeptList { format: KEPT_FORMAT, shard: head.shard, segments, previous: head.kept.clone() })?;
    Ok(Some(EncodedKept { reference: KeptRef { object, bytes: bytes.len() as u64 }, bytes }))
}

async fn read(store: &dyn ObjectStore, reference: &KeptRef) -> Result<KeptList, StateError> {
    json::read(store, &reference.object, reference.bytes).await
}

/// Where the rows of one kind of one shard lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Segments in the order of their epochs.
    pub segments: Vec<KeptSegment>,
    /// Rows that the segments name.
    pub rows: u64,
}

impl Kept {
    /// Takes those of `kind`; segments come newest first.
    fn take<'a>(&mut self, newest_first: impl Iterator<Item = (Epoch, &'a SegmentRef)>, kind: SegmentKind) {
        for (epoch, segment) in newest_first.filter(|(_, segment)| segment.kind == kind) {
            self.rows += segment.rows();
            self.segments.push(KeptSegment { epoch, segment: segment.clone() });
        }
    }
}

/// Finds the segments of `kind` that `head`'s shard has committed.
///
/// - `rows`: rows of the kind that the head counts; 0 costs nothing.
/// - Requests: one GET per list between the head and the oldest of the rows.
///
/// # Errors
/// [`StateError`] if a list cannot be read: they are never deleted.
pub async fn kept_rows(store: &dyn ObjectStore, head: &Head, kind: SegmentKind, rows: u64) -> Result<Kept, StateError> {
    let mut kept = Kept::default();
    if rows == 0 {
        return Ok(kept);
    }
    let recent = head.recent.iter().rev();
    kept.take(recent.flat_map(|entry| entry.segments.iter().rev().map(|segment| (entry.epoch, segment))), kind);
    let mut next = head.kept.clone();
    while let Some(reference) = next.filter(|_| kept.rows < rows) {
        let list = read(store, &reference).await?;
        kept.take(list.segments.iter().rev().map(|kept| (kept.epoch, &kept.segment)), kind);
        next = list.previous;
    }
    kept.segments.reverse();
    Ok(kept)
}

/// Names of the lists of a head, and of every segment in them: one GET per list.
///
/// # Errors
/// [`StateError`] if a list cannot be read.
pub async fn objects(store: &dyn ObjectStore, head: &Head) -> Result<Vec<String>, StateError> {
    let mut objects = Vec::new();
    let mut next = head.kept.clone();
    while let Some(reference) = next {
        let list = read(store, &reference).await?;
        objects.push(reference.object);
        objects.extend(list.segments.into_iter().map(|kept| kept.segment.object));
        next = list.previous;
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use weir_model::{JobId, ShardId, StageId};

    use super::*;
    use crate::error::Kind;
    use crate::store::put;
    use crate::testing::{SequentialIds, entry, golden};

    /// Epochs 1 to 6, a dead row and a late row each; 1-2 and 3-4 spilled.
    async fn six_epochs(store: &dyn ObjectStore) -> Head {
        let mut head = Head::new(ShardKey::new(JobId(1), StageId(0), ShardId(0)));
        let ids = SequentialIds::default();
        let of = |epoch: u64| {
            let (dead, late) = (format!("dead-{epoch}"), format!("late-{epoch}"));
            entry(epoch, &[(SegmentKind::Dead, dead.as_str()), (SegmentKind::Late, late.as_str())])
        };
        for first in [1, 3] {
            let list = encode(&ids, &head, &[of(first), of(first + 1)]).unwrap().unwrap();
            put(store, &list.reference.object, list.bytes.into()).await.unwrap();
            head.kept = Some(list.reference);
        }
        head.recent = [of(5), of(6)].into();
        head.epoch = Epoch(6);
        head
    }

    fn names(kept: &Kept) -> Vec<&str> {
        let expected: Vec<u64> = (7 - kept.segments.len() as u64..=6).collect();
        assert_eq!(kept.segments.iter().map(|kept| kept.epoch.0).collect::<Vec<_>>(), expected);
        kept.segments.iter().map(|kept| kept.segment.object.as_str()).collect()
    }

    #[tokio::test]
    async fn all_rows_of_a_kind_are_found_in_the_order_of_their_epochs() {
        let store = InMemory::new();
        let head = six_epochs(&store).await;
        let kept = kept_rows(&store, &head, SegmentKind::Dead, 6).await.unwrap();
        assert_eq!(names(&kept), ["dead-1", "dead-2", "dead-3", "dead-4", "dead-5", "dead-6"]);
        assert_eq!(kept.rows, 6);
        assert_eq!(kept_rows(&store, &head, SegmentKind::Late, 0).await.unwrap(), Kept::default());
        let all = objects(&store, &head).await.unwrap();
        let (lists, rows): (Vec<_>, Vec<_>) = all.iter().partition(|name| name.contains("/kept/"));
        assert_eq!(lists.len(), 2);
        assert_eq!(rows, ["dead-3", "late-3", "dead-4", "late-4", "dead-1", "late-1", "dead-2", "late-2"]);
    }

    #[tokio::test]
    async fn the_walk_ends_with_the_last_row_counted_and_a_list_that_is_gone_is_told() {
        let store = InMemory::new();
        let head = six_epochs(&store).await;
        let oldest = read(&store, head.kept.as_ref().unwrap()).await.unwrap().previous.unwrap();
        store.delete(&Path::from(oldest.object)).await.unwrap();
        let kept = kept_rows(&store, &head, SegmentKind::Late, 4).await.unwrap();
        assert_eq!((names(&kept), kept.rows), (vec!["late-3", "late-4", "late-5", "late-6"], 4));
        assert_eq!(kept_rows(&store, &head, SegmentKind::Late, 6).await.unwrap_err().kind(), Kind::Missing);
    }

    #[test]
    fn entries_without_such_rows_make_no_list() {
        let head = Head::new(ShardKey::new(JobId(1), StageId(0), ShardId(0)));
        let entries = [entry(1, &[(SegmentKind::Output, "a")]), entry(2, &[])];
        assert!(encode(&SequentialIds::default(), &head, &entries).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_list_of_format_1_is_golden_and_another_is_refused() {
        let mut head = Head::new(ShardKey::new(JobId(0xabc), StageId(1), ShardId(2)));
        head.kept = Some(KeptRef { object: "jobs/0000000000000abc/kept/07/a.json".to_owned(), bytes: 1_234 });
        let entries = [entry(5, &[(SegmentKind::Output, "a.parquet"), (SegmentKind::Late, "b.parquet")]), entry(6, &[])];
        let list = encode(&SequentialIds::default(), &head, &entries).unwrap().unwrap();
        let text = golden("kept-1.json", std::str::from_utf8(&list.bytes).unwrap());
        let store = InMemory::new();
        put(&store, &list.reference.object, text.clone().into()).await.unwrap();
        let found = read(&store, &list.reference).await.unwrap();
        assert_eq!((found.previous, found.segments.len()), (head.kept, 1));
        put(&store, "other", text.replace("\"format\":1", "\"format\":9").into()).await.unwrap();
        let other = KeptRef { object: "other".to_owned(), ..list.reference };
        assert!(read(&store, &other).await.unwrap_err().to_string().contains("format 9, this build reads 1"));
    }
}

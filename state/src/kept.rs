//! The late and the dead-letter rows of a shard: rows that retention keeps, however old their epoch is.
//!
//! The head counts them, so the walk back along its chain ends as soon as all of them are found, and knows if some are not.
//! Never: lists a folder, or reads the rows themselves.
//!
//! ```text
//! head.recent --> newest manifest --> .. --> until as many rows are named as the head counts
//! ```

use object_store::ObjectStore;
use weir_model::{CommitEntry, Epoch, Head, ManifestRef, SegmentKind, SegmentRef};

use crate::error::Kind;
use crate::{StateError, manifest};

/// Where the rows of one kind of one shard lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Segments in the order of their epochs.
    pub segments: Vec<SegmentRef>,
    /// Rows that the segments name.
    pub rows: u64,
    /// The manifest at which the walk ended because it is gone: rows of its epochs and of older ones are not found.
    pub gone: Option<ManifestRef>,
}

impl Kept {
    /// First epoch whose rows were looked for; 1 unless older ones are gone.
    #[must_use]
    pub fn first_epoch(&self) -> Epoch {
        self.gone.as_ref().map_or(Epoch(1), |gone| gone.last.next())
    }

    /// Takes the segments of an entry; entries come newest first.
    fn take(&mut self, entry: &CommitEntry, kind: SegmentKind) {
        for segment in entry.segments.iter().rev().filter(|segment| segment.kind == kind) {
            self.rows += segment.rows();
            self.segments.push(segment.clone());
        }
    }
}

/// Finds the segments of `kind` that `head`'s shard has committed.
///
/// - `rows`: rows of the kind that the head counts; 0 costs nothing.
/// - Requests: one GET per manifest between the head and the oldest of the rows.
///
/// # Errors
/// [`StateError`] if a manifest that is there cannot be read.
pub async fn kept_rows(store: &dyn ObjectStore, head: &Head, kind: SegmentKind, rows: u64) -> Result<Kept, StateError> {
    let mut kept = Kept::default();
    if rows == 0 {
        return Ok(kept);
    }
    head.recent.iter().rev().for_each(|entry| kept.take(entry, kind));
    let mut next = head.manifest.clone();
    while kept.rows < rows {
        let Some(reference) = next else { break };
        let found = match manifest::read(store, &reference).await {
            Ok(found) => found,
            Err(error) if error.kind() == Kind::Missing => {
                kept.gone = Some(reference);
                break;
            }
            Err(error) => return Err(error),
        };
        found.entries.iter().rev().for_each(|entry| kept.take(entry, kind));
        next = found.previous;
    }
    kept.segments.reverse();
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use weir_model::{JobId, ShardId, ShardKey, StageId};

    use super::*;
    use crate::store::put;
    use crate::testing::{SequentialIds, entry};

    /// Epochs 1 to 6, a dead row and a late row each; 1-2 and 3-4 spilled.
    async fn six_epochs(store: &dyn ObjectStore) -> Head {
        let mut head = Head::new(ShardKey::new(JobId(1), StageId(0), ShardId(0)));
        let ids = SequentialIds::default();
        let of = |epoch: u64| {
            let (dead, late) = (format!("dead-{epoch}"), format!("late-{epoch}"));
            entry(epoch, &[(SegmentKind::Dead, dead.as_str()), (SegmentKind::Late, late.as_str())])
        };
        for first in [1, 3] {
            let encoded = manifest::encode(&ids, &head, vec![of(first), of(first + 1)]).unwrap();
            put(store, &encoded.reference.object, encoded.bytes.into()).await.unwrap();
            head.manifest = Some(encoded.reference);
        }
        head.recent = [of(5), of(6)].into();
        head.epoch = Epoch(6);
        head
    }

    fn names(kept: &Kept) -> Vec<&str> {
        kept.segments.iter().map(|segment| segment.object.as_str()).collect()
    }

    #[tokio::test]
    async fn all_rows_of_a_kind_are_found_in_the_order_of_their_epochs() {
        let store = InMemory::new();
        let head = six_epochs(&store).await;
        let kept = kept_rows(&store, &head, SegmentKind::Dead, 6).await.unwrap();
        assert_eq!(names(&kept), ["dead-1", "dead-2", "dead-3", "dead-4", "dead-5", "dead-6"]);
        assert_eq!((kept.rows, kept.first_epoch()), (6, Epoch(1)));
        assert_eq!(kept_rows(&store, &head, SegmentKind::Late, 0).await.unwrap(), Kept::default());
    }

    #[tokio::test]
    async fn the_walk_ends_with_the_last_row_counted_and_says_where_the_chain_is_broken() {
        let store = InMemory::new();
        let head = six_epochs(&store).await;
        let newest = head.manifest.clone().unwrap();
        let oldest = manifest::read(&store, &newest).await.unwrap().previous.unwrap();
        store.delete(&Path::from(oldest.object)).await.unwrap();
        let kept = kept_rows(&store, &head, SegmentKind::Late, 4).await.unwrap();
        assert_eq!((kept.rows, kept.gone), (4, None));
        let kept = kept_rows(&store, &head, SegmentKind::Late, 6).await.unwrap();
        assert_eq!((kept.rows, kept.first_epoch()), (4, Epoch(3)));
        store.delete(&Path::from(newest.object)).await.unwrap();
        let kept = kept_rows(&store, &head, SegmentKind::Late, 6).await.unwrap();
        assert_eq!((names(&kept), kept.first_epoch()), (vec!["late-5", "late-6"], Epoch(5)));
    }
}

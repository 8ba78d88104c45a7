//! The late rows and dead letters of a shard, as its head counts them.

use datafusion::arrow::array::RecordBatch;
use object_store::ObjectStore;
use weir_model::{Head, SegmentKind, ShardId};
use weir_state::{Kept, KeptSegment, SegmentCache, StateError, kept_rows, segment};

/// A stream beside the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Rows that came after their window took rows, in the source's columns.
    Late,
    /// Rows that could not be decoded or have no place in time: see [`crate::dead_letter`].
    Dead,
}

impl Stream {
    const fn kind(self) -> SegmentKind {
        match self {
            Self::Late => SegmentKind::Late,
            Self::Dead => SegmentKind::Dead,
        }
    }

    /// Rows of the stream that `head`'s shard has committed.
    pub(crate) const fn counted(self, head: &Head) -> u64 {
        match self {
            Self::Late => head.stats.rows_late,
            Self::Dead => head.stats.rows_dead,
        }
    }

    /// What its rows are called.
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Late => "late rows",
            Self::Dead => "dead letters",
        }
    }

    /// Where the rows of `head`'s shard lie.
    ///
    /// # Errors
    /// A list that cannot be read, or that names other rows than the head counts.
    pub(crate) async fn find(self, objects: &dyn ObjectStore, head: &Head) -> anyhow::Result<Kept> {
        let rows = self.counted(head);
        let kept = kept_rows(objects, head, self.kind(), rows).await?;
        anyhow::ensure!(kept.rows == rows, "shard {} counts {rows} {}, its commits name {}", head.shard, self.noun(), kept.rows);
        Ok(kept)
    }

    /// All rows of `head`'s shard.
    ///
    /// # Errors
    /// As [`Self::find`]; or rows that cannot be read.
    pub(crate) async fn rows(
        self,
        objects: &dyn ObjectStore,
        cache: &SegmentCache,
        head: &Head,
    ) -> anyhow::Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for kept in &self.find(objects, head).await?.segments {
            rows.extend(read(objects, cache, kept).await?);
        }
        Ok(rows)
    }
}

/// The rows of one segment, in order.
///
/// # Errors
/// Rows that cannot be read.
pub(crate) async fn read(
    objects: &dyn ObjectStore,
    cache: &SegmentCache,
    kept: &KeptSegment,
) -> Result<Vec<RecordBatch>, StateError> {
    // Nobody is their receiver: all are written for shard 0.
    segment::read_for(objects, cache, &kept.segment, ShardId(0)).await
}

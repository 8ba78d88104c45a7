//! A committed epoch: what one advance of a shard's head published.
//!
//! An entry is a fact for ever (C7): it may be learned from the head, a manifest, a trigger or a neighbour in the same process.

use serde::{Deserialize, Serialize};

use crate::ids::{CommitId, Epoch, Generation, ShardId};
use crate::recipe::Recipe;
use crate::time::Watermark;

/// What a segment holds. Persisted: the names are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SegmentKind {
    /// Mergeable partials for the next stage, row groups by receiver.
    Exchange,
    /// Rows behind their own lane's watermark, travelling as rows (R3), row groups by receiver.
    Behind,
    /// Results for the publisher.
    Output,
    /// Rows that came after their window had fired.
    Late,
    /// Input that could not be decoded or has no place in time, with its address and the reason.
    Dead,
    /// State of the shard that committed it, in the columns of an exchange.
    Checkpoint,
    /// Rows of a stream as they arrived, in its declared columns.
    Events,
    /// What a lane's offsets mean, as its source wrote it: not Parquet, no row groups.
    Ledger,
}

/// One row group of a segment and whom it is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RowGroupRef {
    /// Index of the row group in the object.
    #[serde(rename = "g")]
    pub index: u16,
    /// Receiving shard of the next stage (0 where the receiver is the publisher or nobody).
    #[serde(rename = "to")]
    pub receiver: ShardId,
    /// Rows in the group.
    #[serde(rename = "n")]
    pub rows: u32,
}

/// An immutable Parquet object of ours, or the part of it that one shard's commit names.
///
/// Holds what a reader needs for one GET: never a HEAD or LIST.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SegmentRef {
    /// What the rows are.
    pub kind: SegmentKind,
    /// Object name below the store's root.
    pub object: String,
    /// Size of the whole object.
    pub bytes: u64,
    /// Size of the Parquet footer at its end, with its length and magic.
    pub footer_bytes: u32,
    /// The row groups this commit names, ascending by index.
    pub groups: Vec<RowGroupRef>,
}

impl SegmentRef {
    /// Rows named for `receiver`.
    #[must_use]
    pub fn rows_for(&self, receiver: ShardId) -> u64 {
        self.groups.iter().filter(|group| group.receiver == receiver).map(|group| u64::from(group.rows)).sum()
    }

    /// Rows named in all.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.rows)).sum()
    }
}

/// Whether a shard's watermark counts in its receivers' minimum (W1, W2). A fact with an epoch, not a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// Rows may come; its watermark counts.
    #[default]
    Active,
    /// Its owner said that nothing comes for now; its watermark does not count.
    Idle,
    /// Rows come again and its watermark counts, but it does not know yet how far its receivers are: its rows travel as rows.
    Joining,
    /// Nothing will ever come from it again.
    Closed,
}

impl Activity {
    /// Whether its watermark counts.
    #[must_use]
    pub fn counts(self) -> bool {
        matches!(self, Self::Active | Self::Joining)
    }
}

/// One committed epoch of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CommitEntry {
    /// The attempt that made it (T5).
    pub commit: CommitId,
    /// Number of the commit.
    pub epoch: Epoch,
    /// Generation that wrote it.
    pub generation: Generation,
    /// What it published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentRef>,
    /// The shard's watermark after it.
    pub watermark: Watermark,
    /// The shard's activity after it.
    #[serde(default)]
    pub activity: Activity,
    /// What makes the batch replayable (R1).
    pub recipe: Recipe,
}

impl CommitEntry {
    /// The segment of `kind`, if this epoch published one.
    #[must_use]
    pub fn segment(&self, kind: SegmentKind) -> Option<&SegmentRef> {
        self.segments.iter().find(|segment| segment.kind == kind)
    }
}

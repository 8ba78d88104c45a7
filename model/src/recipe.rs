//! Recipes: everything a batch's result depends on besides the state before it (R1).
//!
//! `(state, recipe) -> (state, output)`. A clock, a memory limit or a time-out may decide *when* a batch is cut; the cut is
//! recorded here, and replaying it looks at nothing else.

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, ShardKey};
use crate::time::Watermark;

/// A place in a lane's replayable source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Offset {
    /// Index into the lane's ordered splits (file ranges, row groups, generator blocks).
    pub split: u64,
    /// Position within the split: decoded bytes for text, rows for Parquet and generators.
    pub at: u64,
}

/// The part of one upstream shard's output that a batch consumed: epochs `(after, upto]`, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InputCut {
    /// The upstream shard.
    pub from: ShardKey,
    /// Last epoch consumed before this batch.
    pub after: Epoch,
    /// Last epoch consumed by it; never below `after`.
    pub upto: Epoch,
    /// That input's watermark after the batch: the one carried by the last epoch consumed (R3).
    pub watermark: Watermark,
}

/// What a batch read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inputs {
    /// A range of the lane's source: `from` inclusive, `upto` exclusive.
    Reference {
        /// First place read.
        from: Offset,
        /// First place not read.
        upto: Offset,
    },
    /// Epochs of upstream shards, ordered by shard; rows in the order (upstream shard, epoch, row) (R2).
    Segments(Vec<InputCut>),
}

/// The record of one batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Recipe {
    /// What was read.
    pub inputs: Inputs,
    /// The shard's watermark before the batch: judges what is late (R3).
    pub watermark_before: Watermark,
    /// The shard's watermark after it: decides what fires (R3).
    pub watermark_after: Watermark,
    /// The one instant that clock functions see, microseconds UTC; never less than the batch before.
    pub now_micros: i64,
    /// Whether open windows gave what had changed of their results: a clock decided that it was time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub early: bool,
    /// Whether all rows of the batch travelled as rows, because the lane had slept and was only joining.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_rows: bool,
    /// Version of the plan that ran.
    pub plan: u32,
    /// Build that ran, as `version+architecture+sources`; without sources where rows are only taken in.
    pub build: String,
    /// xxh3 of the data pages of everything published, in the order of the entry's segments; 0 where nothing was.
    pub digest: u64,
}

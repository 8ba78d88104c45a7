//! Weir's vocabulary and its decisions: ids, key groups, time, heads, recipes, and the pure functions that say what may be
//! committed, deleted or published.
//!
//! Why: every rule of the protocol can be explored by a model checker only if it is a function on what was read.
//! Never: I/O, async, a clock of its own, or the query engine.
//!
//! ```text
//! observed rows --> decide::* (here) --> Decision --> executed by `coordinator`, `state`, `functions`
//! ```
pub mod ids;
pub mod key_group;
pub mod time;

pub mod entry;
pub mod head;
pub mod invocation;
pub mod job;
pub mod layout;
pub mod recipe;
pub mod retention;
pub mod routes;
pub mod stream;

pub mod decide;
pub mod invariants;

#[cfg(test)]
mod golden;

pub use entry::{Activity, CommitEntry, RowGroupRef, SegmentKind, SegmentRef};
pub use head::{Head, KeptRef, ManifestRef, Owner, ShardStats};
pub use ids::{CommitId, Epoch, Generation, Ids, Incarnation, JobId, ObjectId, OwnerId, ShardId, ShardKey, StageId};
pub use key_group::{KeyGroup, KeyGroupRange};
pub use recipe::{InputCut, Inputs, Offset, Recipe};
pub use time::{Clock, Watermark};

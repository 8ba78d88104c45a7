//! Rows and the one conditional write: the coordination table, claims and fenced commits.
//!
//! Why: every decision rests on a strongly consistent read and is executed by one all-or-nothing conditional transaction (T1), so a
//! zombie's write fails instead of being prevented by clocks.
//! Never: reads or writes objects, or decides (`weir_model::decide` does).
pub mod store;

pub mod keys;
pub mod memory;
pub mod sqlite;

#[cfg(feature = "dynamodb")]
pub mod dynamodb;

pub mod claim;
pub mod commit;
pub mod jobs;
pub mod retention;
pub mod streams;

pub mod contract;
pub mod counting;
pub mod self_test;
pub mod units;

pub use claim::{Claim, ClaimOutcome, claim, fence, hand_on, release};
pub use commit::{CommitOutcome, Committed, KeyedOutcome, ManifestLookup, commit, commit_keyed};
pub use counting::{CountingTable, TableCounts, TableReading};
pub use memory::MemoryTable;
pub use sqlite::SqliteTable;
pub use store::{Changes, Condition, Conflict, CoordinationStore, Item, ItemKey, StoreError, TransactOutcome, Write};

//! Sinks: where results become visible outside.
//!
//! | connector | guarantee |
//! | --- | --- |
//! | `filesystem` | exactly once: a step is named by a commit, carried out by atomic replacement, acknowledged by the next commit |
//! | `jdbc` | exactly once in PostgreSQL: a step's number is in the transaction that writes its rows |
//! | `print` | at least once: rows committed but not acknowledged are printed again after a crash |
//! | `blackhole` | nothing is kept |
mod files;
mod postgres;

pub use files::{FileTarget, Published, SnapshotOutcome, Snapshots, Stands, Step, StepOutcome, readable};
pub use postgres::PostgresTarget;

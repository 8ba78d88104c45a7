//! The stage runner: feeds batches through a stage's fragment and folds them into the state we own.
//!
//! Why: DataFusion evaluates expressions and knows the aggregates; what must survive a crash, a rescale or a replay (panes, partials,
//! watermarks, firing order) is ours.
//! Never: storage, coordination, clocks, or a table of its own.
//!
//! ```text
//! source batch -> Rowtime -> Fragment -> PaneTable --partials--> [segment] --> PaneTable  -> fire    -> Fragment -> results
//!                 (lane.rs)                                       (merge.rs) `-> KeyedTable -> changes -> Fragment -> changelog
//! ```
pub mod lane;
pub mod merge;

pub mod aggregate;
pub mod fragment;
pub mod pane_table;
pub mod panes;
pub mod rowtime;

mod accumulators;
mod chunks;
mod distinct;
mod error;
mod extreme;
mod keyed_table;
mod moments;
mod open_panes;
mod sender;
mod sieve;
mod sorted_rows;
mod spill;
mod spill_files;
mod updating;
mod window;

pub use chunks::slice_bytes;
pub use error::EngineError;
pub use lane::{LaneEpoch, LaneOperator};
pub use merge::{CheckpointPass, Extent, MergeOperator, Moment};
pub use open_panes::StateBudget;
pub use sieve::FailedRow;
pub use window::FIRED_ROWS_MAX;

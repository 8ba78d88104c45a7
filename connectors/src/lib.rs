//! Sources, sinks and formats: what stands between the world's bytes and record batches.
//!
//! Why: a lane needs exactly two things of a source: rows in a replayable order, and a place to go on from.
//! Never: DataFusion, coordination, or a decision about what is committed.
pub mod source;

pub mod body;
pub mod encode;
pub mod files;
pub mod generate;
pub mod options;
pub mod sink;

pub use options::{OptionsError, TableOptions};
pub use source::{BadRow, Pull, Source, SourceBatch, SourceError, SourceReader};

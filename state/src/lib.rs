//! What Weir stores as objects: segments, checkpoints, manifests; their names, their encoding, and the stores they lie in.
//!
//! Why: Parquet throughout, so that any engine can read a stream or a live window.
//! Never: decides what is committed or deleted (`weir_model::decide`), runs a query, or updates an object in place.
pub mod paths;

pub mod checkpoint;
pub mod key_hash;
pub mod key_sort;
pub mod manifest;
pub mod segment;

pub mod cache;
pub mod collect;
pub mod kept;

pub mod counting;
pub mod faulty;
pub mod s3;
pub mod store;

pub mod contract;

mod error;
mod json;
#[cfg(test)]
mod testing;

pub use cache::SegmentCache;
pub use counting::{CountingStore, Hook, Hooked, Op, RequestCounts, Requests};
pub use error::{Kind, StateError};
pub use faulty::{After, Fault, Faults, FaultyStore, InjectedFault};
pub use kept::{Kept, KeptSegment, kept_rows};
pub use key_hash::key_groups;
pub use key_sort::{sort_by_key_group, split_by_receiver};
pub use manifest::{Entries, entries_between};
pub use segment::{EncodedSegment, SegmentMeta, encode, read_for};

//! Segments and checkpoints: one Parquet object per (round, kind), row groups by receiver.
//!
//! Why: any engine can read a stream or a live window, and a reader of ours needs nothing but the [`SegmentRef`] that was committed.
//! It holds the object's size, its footer's size and the row groups, so there is never a HEAD or LIST.
//! Never: decides what is committed, or reads anything that no commit names.
//!
//! ```text
//! | rows of receiver 0 | rows of receiver 1 | .. | footer |        a row group belongs to exactly one receiver
//! ```
//!
//! LZ4_RAW; dictionaries only where a sample of the strings repeats; statistics only for key group, pane and event time. The bytes
//! before the footer depend on the rows alone, not on the batches they come in: their xxh3 is the digest that replay compares (R1).
//!
//! Key-value metadata of the file (format version 1, frozen):
//!
//! | key | value |
//! | --- | --- |
//! | `weir.format` | [`SEGMENT_FORMAT`]; a reader refuses any other |
//! | `weir.kind` | exchange, behind, output, late, dead, checkpoint |
//! | `weir.schema` | [`fingerprint`] of the columns, 16 hexadecimal digits |
//! | `weir.plan` | version of the plan that wrote it |

mod pieces;
mod read;
mod schema;
mod write;

pub use read::{decode, read_as, read_for, read_for_all};
pub use schema::{check_schema, fingerprint, unstorable};
pub(crate) use write::SegmentWriter;
pub use write::encode;

use bytes::Bytes;
use weir_model::{RowGroupRef, SegmentKind, SegmentRef};

/// Version of the segment's encoding.
pub const SEGMENT_FORMAT: &str = "1";

/// What the file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentMeta {
    /// What the rows are.
    pub kind: SegmentKind,
    /// Version of the plan that wrote it.
    pub plan: u32,
}

/// An object ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSegment {
    /// The object.
    pub bytes: Bytes,
    /// Size of the footer at its end, with its length and magic.
    pub footer_bytes: u32,
    /// Row groups in the order given; a receiver without rows has none.
    pub groups: Vec<RowGroupRef>,
    /// xxh3 of the bytes before the footer: equal for equal rows (R1).
    pub digest: u64,
}

impl EncodedSegment {
    /// What a commit that publishes all of it names.
    #[must_use]
    pub fn reference(&self, kind: SegmentKind, object: String) -> SegmentRef {
        SegmentRef { kind, object, bytes: self.bytes.len() as u64, footer_bytes: self.footer_bytes, groups: self.groups.clone() }
    }
}

#[cfg(test)]
mod tests;

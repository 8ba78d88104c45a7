//! A warm cache is valid only at the commit it was left at (C2).

use crate::head::Head;
use crate::ids::CommitId;

/// Whether state held in memory since commit `left_at` is the state of `head`. A failed or unclear commit leaves nothing
/// (`left_at` is `None`): what it computed on top is not what the head names.
///
/// An equal epoch proves nothing: two attempts at the same epoch may have read different inputs.
#[must_use]
pub fn cache_is_valid(head: &Head, left_at: Option<CommitId>) -> bool {
    left_at.is_some() && head.last_commit == left_at
}

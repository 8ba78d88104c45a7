//! Resolve: what an unclear answer means (T5). An answer can be lost or late, so "not there" while the version is unchanged means
//! *not yet*: the write may still land.

use crate::head::Head;
use crate::ids::{CommitId, Generation};

/// What to do after re-reading a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The commit is there: go on as if the answer had come.
    Committed,
    /// Nothing has changed: send the same write again. It must not be given up as failed, for it may land late.
    Resend,
    /// The head moved and a manifest holds commits since the version started from: look there before deciding.
    LookInManifest,
    /// The head moved without the commit: it can never land any more.
    Lost {
        /// The generation found.
        by: Generation,
    },
}

/// Decides on an attempt `commit` that started from `version`, given the head and version read after the unclear answer.
///
/// - `manifest_has`: whether the manifests since that version hold the commit; `None` if they were not looked at.
#[must_use]
pub fn decide_resolve(head: &Head, found_version: u64, version: u64, commit: CommitId, manifest_has: Option<bool>) -> Resolution {
    if head.has_recent_commit(commit) || manifest_has == Some(true) {
        return Resolution::Committed;
    }
    if found_version == version {
        return Resolution::Resend;
    }
    if head.manifest.is_some() && manifest_has.is_none() {
        return Resolution::LookInManifest;
    }
    Resolution::Lost { by: head.generation }
}

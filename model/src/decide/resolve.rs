//! Resolve: what an unclear answer means (T5). An answer can be lost or late, so "not there" while the version is unchanged means
//! *not yet*: the write may still land.
//!
//! A round writes all its heads in one transaction, so one head that is decided decides for all. "Not yet" on one head says nothing.
//! A throttled call, a time-out or a transaction conflict is never "fenced": only a version that moved is.

use crate::head::Head;
use crate::ids::{CommitId, Generation};

/// What to do after re-reading a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The commit is there: go on as if the answer had come.
    Committed,
    /// Nothing has changed: send the same write again, with the same id. It must not be given up as failed, for it may land late.
    Resend,
    /// The head moved and a manifest holds commits since the version started from: look there before deciding.
    LookInManifest,
    /// The head moved and nothing that is still known names the commit: it can never land any more. Drop the state and load again.
    Lost {
        /// The generation found.
        by: Generation,
    },
}

/// Decides on an attempt `commit` that started from `version`, given the head and version read after the unclear answer.
///
/// - `found_version`: read together with `head`, strongly consistent (T1).
/// - `manifest_has`: whether the manifests of *this* `head` hold the commit; `None` if they were not looked at.
#[must_use]
pub fn decide_resolve(head: &Head, found_version: u64, version: u64, commit: CommitId, manifest_has: Option<bool>) -> Resolution {
    if head.last_commit == Some(commit) || head.has_recent_commit(commit) || manifest_has == Some(true) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::ManifestRef;
    use crate::ids::{Epoch, JobId, ShardId, ShardKey, StageId};

    const ID: CommitId = CommitId(7);

    fn head() -> Head {
        Head { generation: Generation(3), ..Head::new(ShardKey::new(JobId(1), StageId(0), ShardId(0))) }
    }

    #[test]
    fn an_unmoved_version_means_not_yet() {
        assert_eq!(decide_resolve(&head(), 4, 4, ID, None), Resolution::Resend);
    }

    #[test]
    fn a_moved_version_without_the_commit_means_never() {
        assert_eq!(decide_resolve(&head(), 5, 4, ID, None), Resolution::Lost { by: Generation(3) });
    }

    #[test]
    fn the_manifest_is_asked_before_a_commit_is_given_up() {
        let manifest = Some(ManifestRef { object: "m".to_owned(), first: Epoch(1), last: Epoch(2), bytes: 1 });
        let head = Head { manifest, ..head() };
        assert_eq!(decide_resolve(&head, 5, 4, ID, None), Resolution::LookInManifest);
        assert_eq!(decide_resolve(&head, 5, 4, ID, Some(true)), Resolution::Committed);
        assert_eq!(decide_resolve(&head, 5, 4, ID, Some(false)), Resolution::Lost { by: Generation(3) });
    }

    #[test]
    fn the_last_commit_is_known_even_when_it_was_spilled() {
        let head = Head { last_commit: Some(ID), ..head() };
        assert_eq!(decide_resolve(&head, 5, 4, ID, None), Resolution::Committed);
    }
}

//! When the collector passes while a job runs.
//!
//! A pass costs a read per shard and at most one write beside its deletes, a search for orphans one LIST per thousand objects more. So a
//! job pays for a pass with at least 16 commits, for a search with 256: less than one request in a hundred. A slow job is searched every
//! ten minutes, if it has committed enough for a pass. What killed predecessors left is searched for with the first pass.

use std::time::Duration;

use super::Slots;
use crate::collector::{self, Search};
use crate::context::Ctx;
use crate::job::Loaded;
use crate::worker::{Failure, WorkerError};

/// Shortest time between two passes.
const PASS_EVERY: Duration = Duration::from_secs(5);
/// Commits that make a pass worth its requests.
const PASS_COMMITS: u64 = 16;
/// Commits that make a search for orphans worth its requests.
const SEARCH_COMMITS: u64 = 256;
/// Time after which orphans are searched for in a job that commits seldom.
const SEARCH_EVERY: Duration = Duration::from_secs(600);
/// How often it is asked whether a pass is due: it costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A point in the life of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    at_micros: i64,
    commits: u64,
}

impl Mark {
    fn now(ctx: &Ctx) -> Self {
        Self { at_micros: ctx.clock.monotonic_micros(), commits: ctx.progress.commits.get() }
    }

    fn is_past(self, before: Self, time: Duration) -> bool {
        self.at_micros - before.at_micros >= i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
    }
}

/// What was done, and when.
#[derive(Debug)]
struct Pace {
    passed: Mark,
    searched: Option<Mark>,
}

impl Pace {
    fn due(&self, now: Mark) -> Option<Search> {
        if !now.is_past(self.passed, PASS_EVERY) || now.commits - self.passed.commits < PASS_COMMITS {
            return None;
        }
        let searches = self
            .searched
            .is_none_or(|searched| now.commits - searched.commits >= SEARCH_COMMITS || now.is_past(searched, SEARCH_EVERY));
        Some(if searches { Search::Orphans } else { Search::Fallen })
    }

    /// A pass that failed is not tried again at once; a search that failed is still due.
    fn done(&mut self, now: Mark, search: Search, went_well: bool) {
        self.passed = now;
        if search == Search::Orphans && went_well {
            self.searched = Some(now);
        }
    }
}

/// Collects now and then until the run ends.
///
/// # Errors
/// [`WorkerError`] that trying again does not mend.
pub(super) async fn until_done(ctx: &Ctx, loaded: &Loaded, slots: &Slots) -> Result<(), WorkerError> {
    let mut pace = Pace { passed: Mark::now(ctx), searched: None };
    while !slots.finished() && !ctx.stop.requested() {
        ctx.clock.sleep(LOOK_EVERY).await;
        let now = Mark::now(ctx);
        let Some(search) = pace.due(now) else { continue };
        let collected = collector::collect(ctx, loaded, search).await;
        pace.done(now, search, collected.is_ok());
        match collected {
            Ok(collected) => tracing::debug!(fallen = collected.fallen, orphans = collected.orphans, "collected"),
            Err(error) if error.failure() == Failure::Passing => tracing::warn!(%error, "collector: trying again later"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64, commits: u64) -> Mark {
        Mark { at_micros: second * 1_000_000, commits }
    }

    #[test]
    fn a_pass_is_paid_for_by_commits_and_time() {
        let pace = Pace { passed: at(0, 100), searched: Some(at(0, 100)) };
        assert_eq!(pace.due(at(4, 1_000)), None);
        assert_eq!(pace.due(at(500, 115)), None, "an idle job makes no requests");
        assert_eq!(pace.due(at(5, 116)), Some(Search::Fallen));
    }

    #[test]
    fn orphans_are_searched_for_first_and_then_seldom() {
        let mut pace = Pace { passed: at(0, 0), searched: None };
        assert_eq!(pace.due(at(5, 16)), Some(Search::Orphans));
        pace.done(at(5, 16), Search::Orphans, false);
        assert_eq!(pace.due(at(10, 32)), Some(Search::Orphans), "a search that failed is still due");
        pace.done(at(10, 32), Search::Orphans, true);
        assert_eq!(pace.due(at(15, 32 + 255)), Some(Search::Fallen));
        pace.done(at(15, 32 + 255), Search::Fallen, true);
        assert_eq!(pace.due(at(20, 32 + 271)), Some(Search::Orphans));
        assert_eq!(pace.due(at(610, 32 + 255)), None);
        assert_eq!(pace.due(at(610, 32 + 255 + 16)), Some(Search::Orphans), "a slow job is searched too");
    }
}

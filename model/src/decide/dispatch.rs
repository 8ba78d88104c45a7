//! Dispatch: whether a slot, shards that one worker takes together, is called, looked at later, or settled (C6).
//!
//! ```text
//! all has been said -----------------------------------------> settled
//! a lease runs -----------------------------------------------> look again when it is over
//! one holder after the other has died of it ------------------> given up
//! a lease is over and its holder did not let go -------------> call: it died, or left with more to do
//! free, a step of a publisher is named and not carried out --> call
//! free, never held ------------------------------------------> call
//! free, an upstream epoch that no position includes ---------> call, unless somebody was called for it and has come and gone
//! ```
//! A shard that has read an epoch and found nothing to say does not commit, so its positions stay: that somebody came after the call
//! (a newer generation) and let go again is what settles it: only who has seen all there was lets go. A call that was lost leaves the
//! generations as they were.

use super::claim::is_given_up;
use crate::entry::Activity;
use crate::head::Head;
use crate::ids::{Epoch, Generation, ShardKey};

use serde::{Deserialize, Serialize};

/// What was known of a slot when it was last called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Called {
    /// Generations of its shards, in order.
    pub generations: Vec<Generation>,
    /// Upstream shards and their epochs: all that was known to be committed, which whoever comes for the call finds.
    pub upto: Vec<(ShardKey, Epoch)>,
}

impl Called {
    /// A call now.
    #[must_use]
    pub fn now(heads: &[Head], upstream: &[(ShardKey, Epoch)]) -> Self {
        Self { generations: heads.iter().map(|head| head.generation).collect(), upto: upstream.to_vec() }
    }

    /// Whether somebody has come for the call.
    fn was_answered(&self, heads: &[Head]) -> bool {
        self.generations.len() == heads.len()
            && heads.iter().zip(&self.generations).all(|(head, before)| said_all(head) || head.generation > *before)
    }

    fn includes(&self, upstream: ShardKey, epoch: Epoch) -> bool {
        self.upto.iter().any(|(shard, upto)| *shard == upstream && epoch <= *upto)
    }
}

/// What to do about a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatch {
    /// Nothing until something else happens.
    Settled,
    /// Look again then.
    LookAt {
        /// Microseconds UTC.
        at_micros: i64,
    },
    /// Call a worker, and look again after a lease.
    Call,
    /// Call nobody: each who came died before it could commit.
    GivenUp {
        /// A shard that kills.
        shard: ShardKey,
    },
}

/// Whether a shard will never commit again.
#[must_use]
pub fn said_all(head: &Head) -> bool {
    let pending = head.publish.as_ref().is_some_and(|publish| publish.pending.is_some());
    head.activity == Activity::Closed && !pending
}

/// Decides on a slot whose heads were just read.
///
/// - `reads`: whether a shard reads from an upstream shard. - `upstream`: those of interest with their epochs, read before the heads.
/// - `called`: calls that are known to have been made.
#[must_use]
pub fn decide_dispatch(
    heads: &[Head],
    reads: impl Fn(ShardKey, ShardKey) -> bool,
    upstream: &[(ShardKey, Epoch)],
    called: &[&Called],
    now_micros: i64,
) -> Dispatch {
    let open: Vec<&Head> = heads.iter().filter(|head| !said_all(head)).collect();
    if open.is_empty() {
        return Dispatch::Settled;
    }
    let leases = open.iter().filter_map(|head| head.owner.as_ref()).map(|owner| owner.lease_until_micros);
    if let Some(at_micros) = leases.clone().filter(|until| *until > now_micros).max() {
        return Dispatch::LookAt { at_micros };
    }
    if let Some(head) = open.iter().find(|head| is_given_up(head, now_micros)) {
        return Dispatch::GivenUp { shard: head.shard };
    }
    if leases.count() > 0 {
        return Dispatch::Call;
    }
    let unpublished = |head: &&&Head| head.publish.as_ref().is_some_and(|publish| publish.pending.is_some());
    if open.iter().find(unpublished).is_some() || open.iter().any(|head| head.generation == Generation(0)) {
        return Dispatch::Call;
    }
    let unread = |(shard, epoch): &&(ShardKey, Epoch)| {
        open.iter().any(|head| reads(*shard, head.shard) && head.input(*shard).epoch < *epoch)
    };
    let seen =
        |shard: ShardKey, epoch: Epoch| called.iter().any(|called| called.was_answered(heads) && called.includes(shard, epoch));
    if upstream.iter().filter(unread).any(|(shard, epoch)| !seen(*shard, *epoch)) { Dispatch::Call } else { Dispatch::Settled }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::head::{InputState, Owner, PendingPublish, PublishState};
    use crate::ids::{JobId, OwnerId, ShardId, StageId};

    fn key(stage: u16) -> ShardKey {
        ShardKey::new(JobId(1), StageId(stage), ShardId(0))
    }

    /// Shard of stage 1 that stands at epoch 2 of its upstream, free, once held.
    fn head() -> Head {
        let inputs = BTreeMap::from([(key(0).to_string(), InputState { epoch: Epoch(2), ..InputState::default() })]);
        Head { generation: Generation(1), inputs, ..Head::new(key(1)) }
    }

    fn decide(head: &Head, epoch: u64, called: Option<&Called>) -> Dispatch {
        let reads = |upstream: ShardKey, receiver: ShardKey| upstream.stage.0 + 1 == receiver.stage.0;
        let called: Vec<&Called> = called.into_iter().collect();
        decide_dispatch(std::slice::from_ref(head), reads, &[(key(0), Epoch(epoch))], &called, 50)
    }

    #[test]
    fn only_what_is_unread_calls_a_free_slot() {
        assert_eq!(decide(&head(), 2, None), Dispatch::Settled);
        assert_eq!(decide(&head(), 3, None), Dispatch::Call);
        assert_eq!(decide(&Head { activity: Activity::Closed, ..head() }, 3, None), Dispatch::Settled);
        assert_eq!(decide(&Head { generation: Generation(0), ..head() }, 2, None), Dispatch::Call, "nobody ever came");
    }

    #[test]
    fn a_lease_is_waited_for_and_then_its_holder_is_gone() {
        let held = |until| Head { owner: Some(Owner { id: OwnerId(7), lease_until_micros: until }), ..head() };
        assert_eq!(decide(&held(60), 3, None), Dispatch::LookAt { at_micros: 60 });
        assert_eq!(decide(&held(50), 2, None), Dispatch::Call);
        let killing = |until| Head { claims_since_commit: crate::decide::VANISHED_MAX, ..held(until) };
        assert_eq!(decide(&killing(60), 3, None), Dispatch::LookAt { at_micros: 60 });
        assert_eq!(decide(&killing(50), 3, None), Dispatch::GivenUp { shard: key(1) });
    }

    #[test]
    fn a_step_that_was_named_is_carried_out() {
        let pending =
            PendingPublish { number: 1, file: "f".to_owned(), bytes_before: 0, rows_before: 0, upto: BTreeMap::new(), rows: 1 };
        let publish = Some(PublishState { pending: Some(pending), ..PublishState::default() });
        assert_eq!(decide(&Head { publish: publish.clone(), ..head() }, 2, None), Dispatch::Call);
        assert_eq!(decide(&Head { publish, activity: Activity::Closed, ..head() }, 2, None), Dispatch::Call);
    }

    #[test]
    fn a_call_settles_what_it_was_for_once_somebody_came() {
        let before = head();
        let called = Called::now(std::slice::from_ref(&before), &[(key(0), Epoch(3))]);
        assert_eq!(decide(&before, 3, Some(&called)), Dispatch::Call, "the call was lost");
        let after = Head { generation: Generation(2), ..before };
        assert_eq!(decide(&after, 3, Some(&called)), Dispatch::Settled, "it came, and had nothing to say");
        assert_eq!(decide(&after, 4, Some(&called)), Dispatch::Call, "it may not have seen that");
    }
}

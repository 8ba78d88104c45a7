//! Claim: compare-and-set generation + 1 (C1). The lease is manners; the generation is the fence (FN-1).
//!
//! A batch that kills its process leaves nothing but a claim that nobody ended, so those are counted: a claim counts itself, a commit
//! sets the count to nothing, and who leaves in person takes its own claim out again. Each that is left doubles the next lease and
//! halves the next batch; at [`VANISHED_MAX`] the shard is given up.
//!
//! ```text
//! claim +1 --> commit: 0 | release, all was seen through: 0 | hand on: -1 | the process dies: stays
//! ```

use crate::head::{Head, Owner};
use crate::ids::OwnerId;

/// A hint about the present owner's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwnerLiveness {
    /// It runs, and says so itself: its shards are its own for as long as it lives. It need not renew a lease while it idles.
    Alive,
    /// It is gone: take over at once.
    Dead,
    /// Nobody knows: respect its lease.
    Unknown,
}

/// What to do about a shard one would like to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimDecision {
    /// Write this head, on condition that nothing has changed since it was read.
    Take(Box<Head>),
    /// Leave it alone for now.
    Held {
        /// Who holds it.
        by: OwnerId,
        /// When to ask again, microseconds UTC.
        until_micros: i64,
    },
}

/// Decides on a claim of `head` by `owner`.
///
/// - `owner`: the claimant and until when its lease would run. - `liveness`: a hint about the present holder: one that is
///   [`OwnerLiveness::Alive`] is left alone, from one that is [`OwnerLiveness::Dead`] it is taken at once, which is also how a claim
///   is forced; its lease decides where nobody knows.
///
/// A holder that claims its own shard again gets a new generation: what it had in flight is fenced with the rest.
#[must_use]
pub fn decide_claim(head: &Head, owner: &Owner, now_micros: i64, liveness: OwnerLiveness) -> ClaimDecision {
    if let Some(holder) = &head.owner
        && holder.id != owner.id
        && is_respected(holder, now_micros, liveness)
    {
        return ClaimDecision::Held { by: holder.id, until_micros: holder.lease_until_micros.max(now_micros) };
    }
    let mut next = head.clone();
    next.generation = head.generation.next();
    next.owner = Some(owner.clone());
    next.claims_since_commit = head.claims_since_commit.saturating_add(1);
    ClaimDecision::Take(Box::new(next))
}

/// Holders that vanished without a commit, one after the other, after which a shard is given up where nobody watches.
pub const VANISHED_MAX: u32 = 8;
/// Doublings of a lease: a load that takes longer than it must come to its end some day.
const LEASE_DOUBLINGS_MAX: u32 = 6;

/// How many times longer a lease is after so many holders that vanished.
#[must_use]
pub fn lease_factor(vanished: u32) -> i64 {
    1 << vanished.min(LEASE_DOUBLINGS_MAX)
}

/// Whether one holder after the other has died of the shard: it is left alone until somebody commits.
#[must_use]
pub fn is_given_up(head: &Head, now_micros: i64) -> bool {
    let held = head.owner.as_ref().is_some_and(|owner| owner.lease_until_micros > now_micros);
    !held && head.claims_since_commit >= VANISHED_MAX
}

/// How a holder leaves in person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// All there was has been seen through, or somebody asked it to stop.
    Released,
    /// There is more to do, by anybody, from then on; nobody need be told but by the head (C6).
    HandedOn {
        /// Microseconds UTC.
        at_micros: i64,
    },
}

/// The head once its holder has left.
#[must_use]
pub fn decide_leave(head: &Head, leaving: Leaving) -> Head {
    let mut next = head.clone();
    match leaving {
        Leaving::Released => {
            next.owner = None;
            next.claims_since_commit = 0;
        }
        Leaving::HandedOn { at_micros } => {
            // Nobody's: who is known to live keeps its shards, and this one is for anybody.
            next.owner = head.owner.as_ref().map(|_| Owner { id: OwnerId::NOBODY, lease_until_micros: at_micros });
            next.claims_since_commit = head.claims_since_commit.saturating_sub(1);
        }
    }
    next
}

/// Decides on a claim that is let go of at once: nobody holds the shard then, and what older generations have under way can never
/// commit (FN-1). For a collector that found an object of the present generation that nothing names (G1).
///
/// It is no attempt at a batch, so it is not counted as one.
#[must_use]
pub fn decide_fence(head: &Head, now_micros: i64, liveness: OwnerLiveness) -> ClaimDecision {
    match &head.owner {
        Some(holder) if is_respected(holder, now_micros, liveness) => {
            ClaimDecision::Held { by: holder.id, until_micros: holder.lease_until_micros.max(now_micros) }
        }
        _ => ClaimDecision::Take(Box::new(Head { generation: head.generation.next(), owner: None, ..head.clone() })),
    }
}

fn is_respected(holder: &Owner, now_micros: i64, liveness: OwnerLiveness) -> bool {
    match liveness {
        OwnerLiveness::Alive => true,
        OwnerLiveness::Dead => false,
        OwnerLiveness::Unknown => holder.lease_until_micros > now_micros,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Generation, JobId, ShardId, ShardKey, StageId};

    fn owner(id: u128) -> Owner {
        Owner { id: OwnerId(id), lease_until_micros: 100 }
    }

    fn held() -> Head {
        let head = Head::new(ShardKey::new(JobId(1), StageId(0), ShardId(0)));
        Head { generation: Generation(4), owner: Some(owner(1)), claims_since_commit: 1, ..head }
    }

    fn taken(decision: ClaimDecision) -> Option<(Generation, Option<Owner>, u32)> {
        match decision {
            ClaimDecision::Take(head) => Some((head.generation, head.owner, head.claims_since_commit)),
            ClaimDecision::Held { .. } => None,
        }
    }

    #[test]
    fn a_lease_is_respected_until_it_is_over() {
        let held_by_one = ClaimDecision::Held { by: OwnerId(1), until_micros: 100 };
        assert_eq!(decide_claim(&held(), &owner(2), 99, OwnerLiveness::Unknown), held_by_one);
        assert_eq!(decide_claim(&held(), &owner(2), 99, OwnerLiveness::Alive), held_by_one);
        assert!(taken(decide_claim(&held(), &owner(2), 100, OwnerLiveness::Unknown)).is_some());
    }

    #[test]
    fn a_holder_that_is_known_to_live_keeps_its_shard_though_it_has_had_nothing_to_commit_for_longer_than_a_lease() {
        let held_by_one = ClaimDecision::Held { by: OwnerId(1), until_micros: 5_000 };
        assert_eq!(decide_claim(&held(), &owner(2), 5_000, OwnerLiveness::Alive), held_by_one);
    }

    #[test]
    fn a_fence_starts_a_generation_that_nobody_holds_and_counts_no_attempt() {
        let free = Head { owner: None, ..held() };
        for (head, liveness) in [(&free, OwnerLiveness::Unknown), (&held(), OwnerLiveness::Dead)] {
            assert_eq!(taken(decide_fence(head, 0, liveness)), Some((Generation(5), None, 1)));
        }
        assert_eq!(taken(decide_fence(&held(), 99, OwnerLiveness::Unknown)), None);
        assert_eq!(taken(decide_fence(&held(), 5_000, OwnerLiveness::Alive)), None);
    }

    #[test]
    fn a_dead_holder_is_taken_over_at_once() {
        let taken = taken(decide_claim(&held(), &owner(2), 0, OwnerLiveness::Dead));
        assert_eq!(taken, Some((Generation(5), Some(owner(2)), 2)));
    }

    #[test]
    fn claiming_again_fences_what_the_holder_had_in_flight() {
        assert_eq!(taken(decide_claim(&held(), &owner(1), 0, OwnerLiveness::Alive)), Some((Generation(5), Some(owner(1)), 2)));
    }

    #[test]
    fn only_a_claim_whose_holder_vanished_stays_counted() {
        let counted = |head: &Head| match decide_claim(head, &owner(2), 100, OwnerLiveness::Unknown) {
            ClaimDecision::Take(head) => *head,
            ClaimDecision::Held { .. } => panic!("its lease is over"),
        };
        let mut head = Head { claims_since_commit: 0, ..held() };
        for _ in 0..6 {
            head = decide_leave(&counted(&head), Leaving::Released);
            assert_eq!((head.claims_since_commit, head.owner.clone()), (0, None));
        }
        let died_once = counted(&head);
        let handed_on = decide_leave(&counted(&died_once), Leaving::HandedOn { at_micros: 7 });
        assert_eq!((handed_on.claims_since_commit, handed_on.owner.map(|owner| owner.lease_until_micros)), (1, Some(7)));
    }

    #[test]
    fn a_shard_of_which_every_holder_died_is_given_up_once_the_last_lease_is_over() {
        let head = Head { claims_since_commit: VANISHED_MAX, ..held() };
        assert!(!is_given_up(&head, 99));
        assert!(is_given_up(&head, 100));
        assert!(!is_given_up(&Head { claims_since_commit: VANISHED_MAX - 1, ..held() }, 100));
        assert_eq!([0, 1, 6, 7].map(lease_factor), [1, 2, 64, 64]);
    }
}

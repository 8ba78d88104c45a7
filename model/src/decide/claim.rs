//! Claim: compare-and-set generation + 1 (C1). The lease is manners; the generation is the fence (FN-1).

use crate::head::{Head, Owner};
use crate::ids::OwnerId;

/// A hint about the present owner's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwnerLiveness {
    /// It runs: respect its lease.
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
/// - `owner`: the claimant and until when its lease would run. - `liveness`: a hint about the present holder; [`OwnerLiveness::Dead`]
///   takes over at once, which is also how a claim is forced.
///
/// A holder that claims its own shard again gets a new generation: what it had in flight is fenced with the rest.
#[must_use]
pub fn decide_claim(head: &Head, owner: &Owner, now_micros: i64, liveness: OwnerLiveness) -> ClaimDecision {
    if let Some(holder) = &head.owner
        && holder.id != owner.id
        && liveness != OwnerLiveness::Dead
        && holder.lease_until_micros > now_micros
    {
        return ClaimDecision::Held { by: holder.id, until_micros: holder.lease_until_micros };
    }
    let mut next = head.clone();
    next.generation = head.generation.next();
    next.owner = Some(owner.clone());
    next.claims_since_commit = head.claims_since_commit.saturating_add(1);
    ClaimDecision::Take(Box::new(next))
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
        assert!(taken(decide_claim(&held(), &owner(2), 100, OwnerLiveness::Alive)).is_some());
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
}

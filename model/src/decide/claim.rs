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

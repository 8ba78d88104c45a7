//! Taking shards and leaving them: a holder that leaves in person says in its heads whether there is more to do.
//!
//! ```text
//! nothing is left to do, or asked to stop ---> released
//! time is over, fenced off another shard ----> handed on: whoever is called next goes on at once
//! failed ------------------------------------> handed on for a little later: trying again at once would fail again
//! died --------------------------------------> the lease ends; the claim stays counted (see `decide_claim`)
//! ```
//! Only who has seen through all there was may release: the dispatcher takes a release for an answer to its call (C6).

use std::time::Duration;

use weir_coordinator::{Claim, ClaimOutcome};
use weir_model::decide::{ClaimDecision, OwnerLiveness, decide_claim, is_given_up, lease_factor, said_all};
use weir_model::head::Owner;
use weir_model::{Generation, Head, ShardKey};

use super::{Invocation, WorkerError, publisher};
use crate::context::Ctx;
use crate::job::Loaded;
use crate::topology::Role;

/// How long shards rest whose worker failed, at most: a lease if that is shorter.
const REST_MAX: Duration = Duration::from_secs(5);

/// What an invocation got of its shards.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    pub(super) claims: Vec<Claim>,
    /// Shards that have said all.
    pub(super) closed: usize,
    /// Holders in a row that vanished from one of them without a commit.
    pub(super) vanished: u32,
}

impl Claimed {
    /// Whether nobody else holds any of the shards.
    pub(super) fn is_complete(&self, invocation: &Invocation) -> bool {
        self.claims.len() + self.closed == invocation.shards.len()
    }

    pub(super) fn generations(&self) -> Vec<(ShardKey, Generation)> {
        self.claims.iter().map(|claim| (claim.shard(), claim.head.generation)).collect()
    }
}

/// Claims what can be had.
///
/// # Errors
/// [`WorkerError`]; nothing is held then.
pub(super) async fn claim_all(ctx: &Ctx, loaded: &Loaded, shards: &[ShardKey]) -> Result<Claimed, WorkerError> {
    let mut claimed = Claimed::default();
    for shard in shards {
        match claim(ctx, loaded, *shard).await {
            Ok(Claiming::Claimed(claim)) => {
                claimed.vanished = claimed.vanished.max(claim.head.claims_since_commit.saturating_sub(1));
                claimed.claims.push(*claim);
            }
            Ok(Claiming::Closed) => claimed.closed += 1,
            // Everybody asks in one order: two that come at once do not end up with a part each.
            Ok(Claiming::NotNow) => break,
            Err(error) => {
                leave_after_failure(ctx, claimed.claims).await;
                return Err(error);
            }
        }
    }
    Ok(claimed)
}

/// What came of asking for a shard.
pub(super) enum Claiming {
    Claimed(Box<Claim>),
    Closed,
    NotNow,
}

async fn claim(ctx: &Ctx, loaded: &Loaded, shard: ShardKey) -> Result<Claiming, WorkerError> {
    let (head, _) = weir_coordinator::claim::read_head(ctx.table.as_ref(), shard).await?;
    if said_all(&head) {
        return Ok(Claiming::Closed);
    }
    let now = ctx.clock.now_micros();
    if head.claims_since_commit >= ctx.tuning.vanished_max && is_given_up(&head, now) {
        return Err(WorkerError::Kills { shard, workers: head.claims_since_commit });
    }
    let claimant = owner(ctx, head.claims_since_commit);
    if loaded.topology.stage(shard.stage).role == Role::Publish {
        return publisher::claim(ctx, loaded, &head, &claimant).await;
    }
    let outcome = weir_coordinator::claim(ctx.table.as_ref(), shard, &claimant, now, |id| ctx.liveness.of(id));
    Ok(match outcome.await? {
        ClaimOutcome::Claimed(claim) => Claiming::Claimed(claim),
        ClaimOutcome::Held { .. } | ClaimOutcome::Lost => {
            // Whoever serves it counts them.
            ctx.progress.open_panes.forget(shard);
            Claiming::NotNow
        }
    })
}

/// Whether somebody else holds the first of `shards`, and with it the rest: then an invocation would find nothing to do.
pub(crate) async fn is_held(ctx: &Ctx, shards: &[ShardKey]) -> Result<bool, WorkerError> {
    let Some(first) = shards.first() else { return Ok(false) };
    let (head, _) = weir_coordinator::claim::read_head(ctx.table.as_ref(), *first).await?;
    Ok(!said_all(&head) && is_held_now(ctx, &head, &owner(ctx, head.claims_since_commit)))
}

/// Whether a claim of the shard would be refused, as far as `head` knows.
pub(super) fn is_held_now(ctx: &Ctx, head: &Head, claimant: &Owner) -> bool {
    let hint = head.owner.as_ref().map_or(OwnerLiveness::Unknown, |holder| ctx.liveness.of(holder.id));
    matches!(decide_claim(head, claimant, ctx.clock.now_micros(), hint), ClaimDecision::Held { .. })
}

/// This process, with a lease from now on; holders that vanished before it double it.
pub(super) fn owner(ctx: &Ctx, vanished: u32) -> Owner {
    let lease = micros(ctx.tuning.lease).saturating_mul(lease_factor(vanished));
    Owner { id: ctx.owner, lease_until_micros: ctx.clock.now_micros().saturating_add(lease) }
}

/// Whoever is called next goes on at once.
pub(super) async fn hand_on(ctx: &Ctx, claims: Vec<Claim>) -> Result<(), WorkerError> {
    Ok(weir_coordinator::hand_on(ctx.table.as_ref(), claims, ctx.clock.now_micros()).await?)
}

/// The failure is what the caller must hear of; if the table does not answer either, leases end all the same.
pub(super) async fn leave_after_failure(ctx: &Ctx, claims: Vec<Claim>) {
    let at = ctx.clock.now_micros().saturating_add(micros(ctx.tuning.lease.min(REST_MAX)));
    if let Err(error) = weir_coordinator::hand_on(ctx.table.as_ref(), claims, at).await {
        tracing::info!(%error, "shards were not handed on");
    }
}

/// Whether one of these shards has a newer generation. A table that does not answer says nothing.
pub(super) async fn is_fenced(ctx: &Ctx, held: &[(ShardKey, Generation)]) -> bool {
    for (shard, generation) in held {
        let head = weir_coordinator::claim::read_head(ctx.table.as_ref(), *shard).await;
        if head.is_ok_and(|(head, _)| head.generation > *generation) {
            return true;
        }
    }
    false
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

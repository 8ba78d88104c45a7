//! The worker: one invocation of a set of shards. Claim, load, rounds, leave.
//!
//! ```text
//! claim --> load --> round: lanes read and fold | own merge shards fold and fire | encode
//!                      |        `--> upload and commit in the background, in order, at most two rounds deep
//!                      `--> nothing to say: linger, then leave
//! ```
//! A round is one transaction: the lane's new place, the merge shards' new positions and everything published advance together, so
//! an event can be counted, folded, fired and committed without ever being read back.

mod checkpoint;
mod committer;
mod edge;
mod lane;
mod learn;
mod merge;
mod publisher;
mod round;
mod source;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use weir_coordinator::{Claim, ClaimOutcome};
use weir_engine::MergeOperator;
pub use weir_model::decide::said_all;
use weir_model::head::Owner;
pub use weir_model::invocation::{Invocation, Left};
use weir_model::{CommitId, Epoch, Generation, Head, ShardKey};

use crate::context::Ctx;
use crate::job::{self, JobError, Loaded};
use crate::topology::Role;
use committer::Committer;
use lane::LaneShard;
use merge::MergeShard;
use publisher::PublisherShard;
use round::Round;

/// Longest time between two looks at heads of other processes.
const PATIENCE_MAX: Duration = Duration::from_millis(50);

/// Longest idle time of a worker that did not get all of its shards.
const LINGER_INCOMPLETE: Duration = Duration::from_millis(500);

/// How often a worker asks whether another process would take its share.
const SHARE_ASKED_EVERY_MICROS: i64 = 500_000;
/// Doublings of a lease by claims that ended without a commit.
const LEASE_DOUBLINGS_MAX: u32 = 6;

/// A worker that cannot go on. What was committed stays; the shards are taken up again by the next invocation.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The table.
    #[error(transparent)]
    Table(#[from] weir_coordinator::StoreError),
    /// An object.
    #[error(transparent)]
    State(#[from] weir_state::StateError),
    /// The SQL failed on a row.
    #[error(transparent)]
    Engine(#[from] weir_engine::EngineError),
    /// A source or sink.
    #[error(transparent)]
    Source(#[from] weir_connectors::SourceError),
    /// A connector's options.
    #[error(transparent)]
    Options(#[from] weir_connectors::OptionsError),
    /// The job.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Arrow refused to build a batch.
    #[error(transparent)]
    Arrow(#[from] datafusion::arrow::error::ArrowError),
    /// A commit that would break an invariant.
    #[error("shard {shard}: {refusal}")]
    Refused {
        /// The shard.
        shard: ShardKey,
        /// Why.
        refusal: weir_model::decide::CommitRefusal,
    },
    /// Replay gave another result than the one committed (R1).
    #[error("shard {shard}, epoch {epoch}: replay gives digest {found:016x}, {committed:016x} was committed {}", .builds.told())]
    Replay {
        /// The shard.
        shard: ShardKey,
        /// The epoch.
        epoch: Epoch,
        /// Digest of the replay.
        found: u64,
        /// Digest committed.
        committed: u64,
        /// Who ran the batch, and who replayed it.
        builds: Builds,
    },
    /// Committed data is gone (G4).
    #[error("shard {shard}: epochs after {after} of its input are gone although it has not consumed them")]
    Gone {
        /// The upstream shard.
        shard: ShardKey,
        /// Last epoch consumed.
        after: Epoch,
    },
    /// Standard output, where the `print` connector writes.
    #[error("printing results: {0}")]
    Print(std::io::Error),
    /// A background task died.
    #[error("a background task ended: {0}")]
    Task(String),
}

/// The builds that ran a batch and replayed it (R6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builds {
    /// The recipe's.
    pub committed: String,
    /// This one.
    pub replayed: String,
}

impl Builds {
    fn told(&self) -> String {
        let Self { committed, replayed } = self;
        if committed == replayed {
            return format!(
                "by this same build, {replayed}: its objects or its table were changed; restore them, nothing was written"
            );
        }
        format!("by build {committed}, this is {replayed}: go on with the build that committed it, nothing was written")
    }
}

/// State that an invocation leaves for the next of the same process (C2).
#[derive(Debug)]
pub struct Warm {
    left_at: Option<CommitId>,
    operator: MergeOperator,
    /// What a cold load would replay.
    pending: checkpoint::Pending,
}

/// Serves the shards of `invocation` until there is nothing to do or a limit is reached. The same everywhere: thread, process,
/// function, simulation.
///
/// # Errors
/// [`WorkerError`]; shards are released as far as the table answers.
pub async fn handle(invocation: &Invocation, ctx: &Ctx) -> Result<Left, WorkerError> {
    let loaded = Arc::new(job::open(ctx, invocation.job).await?);
    run(invocation, ctx, &loaded).await
}

/// As [`handle`], with the job opened before.
///
/// # Errors
/// [`WorkerError`].
pub async fn run(invocation: &Invocation, ctx: &Ctx, loaded: &Arc<Loaded>) -> Result<Left, WorkerError> {
    let mut claims = Vec::new();
    let mut closed = 0;
    for shard in &invocation.shards {
        match claim(ctx, loaded, *shard).await? {
            Claiming::Claimed(claim) => claims.push(*claim),
            Claiming::Closed => closed += 1,
            Claiming::NotNow => {}
        }
    }
    if claims.is_empty() {
        return Ok(if closed == invocation.shards.len() { Left::Done } else { Left::Held });
    }
    let complete = claims.len() + closed == invocation.shards.len();
    let held: Vec<(ShardKey, Generation)> = claims.iter().map(|claim| (claim.shard(), claim.head.generation)).collect();
    let mut worker = match Worker::load(ctx, loaded, &claims).await {
        Ok(worker) => worker,
        Err(error) => {
            let fenced = is_fenced(ctx, &held).await;
            weir_coordinator::release(ctx.table.as_ref(), claims).await?;
            return if fenced { Ok(Left::Fenced) } else { Err(error) };
        }
    };
    let mut committer = Committer::new(ctx.clone(), claims);
    let served = worker.serve(ctx, loaded, &mut committer, invocation, complete).await;
    let committed = committer.drain().await;
    let left = match (served, committed) {
        (Ok(left), Ok(true)) => left,
        (Ok(_), Ok(false)) => Left::Fenced,
        (Err(error), _) | (_, Err(error)) => {
            let fenced = is_fenced(ctx, &held).await;
            weir_coordinator::release(ctx.table.as_ref(), committer.into_claims()).await?;
            // Another generation may have deleted what this one was about to read: that is its right, not corruption (G4).
            return if fenced { Ok(Left::Fenced) } else { Err(error) };
        }
    };
    if left == Left::Fenced {
        ctx.progress.fenced.add(1);
    } else {
        worker.leave(ctx);
    }
    let claims = committer.into_claims();
    if left == Left::More && !ctx.stop.requested() {
        weir_coordinator::hand_on(ctx.table.as_ref(), claims, ctx.clock.now_micros()).await?;
    } else {
        weir_coordinator::release(ctx.table.as_ref(), claims).await?;
    }
    Ok(if left == Left::Done && !complete { Left::Idle } else { left })
}

/// Whether one of these shards has a newer generation. A table that does not answer says nothing.
async fn is_fenced(ctx: &Ctx, held: &[(ShardKey, Generation)]) -> bool {
    for (shard, generation) in held {
        let head = weir_coordinator::claim::read_head(ctx.table.as_ref(), *shard).await;
        if head.is_ok_and(|(head, _)| head.generation > *generation) {
            return true;
        }
    }
    false
}

enum Claiming {
    Claimed(Box<Claim>),
    Closed,
    NotNow,
}

async fn claim(ctx: &Ctx, loaded: &Loaded, shard: ShardKey) -> Result<Claiming, WorkerError> {
    let stage = loaded.topology.stage(shard.stage);
    let (head, _) = weir_coordinator::claim::read_head(ctx.table.as_ref(), shard).await?;
    if said_all(&head) {
        return Ok(Claiming::Closed);
    }
    if stage.role == Role::Publish {
        publisher::before_claim(ctx, loaded, shard, &head)?;
    }
    let claimant = owner(ctx, &head);
    let outcome = weir_coordinator::claim(ctx.table.as_ref(), shard, &claimant, ctx.clock.now_micros(), |id| ctx.liveness.of(id));
    Ok(match outcome.await? {
        // Another claim came between: this generation has no staging folder, and must not make one any more.
        ClaimOutcome::Claimed(claim) if stage.role == Role::Publish && claim.head.generation != head.generation.next() => {
            weir_coordinator::release(ctx.table.as_ref(), vec![*claim]).await?;
            Claiming::NotNow
        }
        ClaimOutcome::Claimed(claim) => Claiming::Claimed(claim),
        ClaimOutcome::Held { .. } | ClaimOutcome::Lost => Claiming::NotNow,
    })
}

/// Each claim that ended without a commit doubles the lease: a load that takes longer than it must come to its end some day.
fn owner(ctx: &Ctx, head: &Head) -> Owner {
    let lease = i64::try_from(ctx.tuning.lease.as_micros()).unwrap_or(i64::MAX);
    let lease = lease.saturating_mul(1 << head.claims_since_commit.min(LEASE_DOUBLINGS_MAX));
    Owner { id: ctx.owner, lease_until_micros: ctx.clock.now_micros().saturating_add(lease) }
}

/// Claimed and loaded shards.
struct Worker {
    lanes: Vec<LaneShard>,
    merges: Vec<MergeShard>,
    publishers: Vec<PublisherShard>,
}

impl Worker {
    async fn load(ctx: &Ctx, loaded: &Arc<Loaded>, claims: &[Claim]) -> Result<Self, WorkerError> {
        let mut worker = Self { lanes: Vec::new(), merges: Vec::new(), publishers: Vec::new() };
        for claim in claims {
            let head = claim.head.clone();
            match loaded.topology.stage(claim.shard().stage).role {
                Role::Lane => worker.lanes.push(LaneShard::load(ctx, loaded, head).await?),
                Role::Merge => worker.merges.push(MergeShard::load(ctx, loaded, head).await?),
                Role::Publish => worker.publishers.push(PublisherShard::load(ctx, loaded, head)?),
            }
        }
        Ok(worker)
    }

    async fn serve(
        &mut self,
        ctx: &Ctx,
        loaded: &Arc<Loaded>,
        committer: &mut Committer,
        invocation: &Invocation,
        complete: bool,
    ) -> Result<Left, WorkerError> {
        // Shards that somebody else held may be free by now: only leaving finds out.
        let linger = if complete { ctx.tuning.linger } else { ctx.tuning.linger.min(LINGER_INCOMPLETE) };
        let linger = i64::try_from(linger.as_micros()).unwrap_or(i64::MAX);
        let mut changes = ctx.table.changes();
        let began = ctx.clock.monotonic_micros();
        let run_max =
            invocation.run_millis_max.map_or(i64::MAX, |millis| i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1_000));
        let mut rounds = 0;
        let mut asked = i64::MIN / 2;
        let mut idle_since = None;
        let mut idle_rounds = 0;
        loop {
            let mut round = Round::new(ctx);
            self.run_round(ctx, loaded, &mut round).await?;
            if round.is_empty() {
                // What was computed ahead must be committed before others, or we, can build on it.
                if !committer.drain().await? {
                    return Ok(Left::Fenced);
                }
                if self.done() {
                    return Ok(Left::Done);
                }
                let now = ctx.clock.monotonic_micros();
                let since = *idle_since.get_or_insert(now);
                if ctx.stop.requested() {
                    return Ok(Left::More);
                }
                if now - since >= linger {
                    // Nobody else tells when such a source has more.
                    return Ok(if self.polls() { Left::More } else { Left::Idle });
                }
                let patience = self.patience(ctx, idle_rounds);
                idle_rounds += 1;
                tokio::select! {
                    () = changes.next() => {}
                    () = ctx.clock.sleep(patience) => {}
                }
            } else {
                idle_since = None;
                idle_rounds = 0;
                rounds += 1;
                // A publisher acts on its target only once the commit that names the step was heard (X5).
                let heard = committer.submit(round).await? && (self.publishers.is_empty() || committer.drain().await?);
                if !heard {
                    return Ok(Left::Fenced);
                }
            }
            let served = ctx.clock.monotonic_micros() - began;
            let share = i64::try_from(ctx.tuning.share_after.as_micros()).unwrap_or(i64::MAX);
            let asks = served >= share && served - asked >= SHARE_ASKED_EVERY_MICROS;
            let wanted = asks && (!complete || ctx.liveness.participants() > 1);
            asked = if asks { served } else { asked };
            let out_of_time = served >= run_max || wanted;
            if ctx.stop.requested() || out_of_time || invocation.rounds_max.is_some_and(|max| rounds >= max) {
                return Ok(if self.done() { Left::Done } else { Left::More });
            }
        }
    }

    async fn run_round(&mut self, ctx: &Ctx, loaded: &Arc<Loaded>, round: &mut Round) -> Result<(), WorkerError> {
        for lane in &mut self.lanes {
            if let Some(fed) = lane.run_epoch(ctx, loaded, round).await? {
                for merge in &mut self.merges {
                    merge.hand_over(&fed);
                }
            }
        }
        for merge in &mut self.merges {
            merge.run_if_needed(ctx, loaded, round).await?;
        }
        for publisher in &mut self.publishers {
            publisher.step(ctx, loaded, round).await?;
        }
        Ok(())
    }

    /// How long to wait before asking again: an open source often, heads of other processes ever less.
    fn patience(&self, ctx: &Ctx, idle_rounds: u32) -> Duration {
        if self.polls() { ctx.tuning.ask_again } else { (ctx.tuning.ask_again * (1 << idle_rounds.min(10))).min(PATIENCE_MAX) }
    }

    /// Whether a source of its lanes must be asked for more.
    fn polls(&self) -> bool {
        self.lanes.iter().any(LaneShard::polls)
    }

    fn done(&self) -> bool {
        let lanes = self.lanes.iter().all(|lane| said_all(lane.head()));
        let merges = self.merges.iter().all(|merge| said_all(merge.head()));
        lanes && merges && self.publishers.iter().all(|publisher| said_all(publisher.head()))
    }

    /// Leaves warm state behind; only after every commit was heard (C2).
    fn leave(self, ctx: &Ctx) {
        for merge in self.merges {
            let (shard, warm) = merge.into_warm();
            if warm.left_at.is_some() {
                ctx.warm.leave(shard, warm);
            }
        }
        for publisher in self.publishers {
            publisher.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(committed: &str) -> String {
        let builds = Builds { committed: committed.to_owned(), replayed: job::build() };
        let shard = ShardKey::new(weir_model::JobId(1), weir_model::StageId(1), weir_model::ShardId(0));
        WorkerError::Replay { shard, epoch: Epoch(3), found: 1, committed: 2, builds }.to_string()
    }

    #[test]
    fn a_replay_that_differs_names_the_build_that_committed_and_this_one() {
        let said = told("0.0.9+aarch64+0000000000000001");
        assert!(said.contains("by build 0.0.9+aarch64+0000000000000001"), "{said}");
        assert!(said.contains(&job::build()) && said.contains("go on with the build that committed it"), "{said}");
    }

    #[test]
    fn a_replay_that_differs_within_one_build_blames_what_is_stored() {
        let said = told(&job::build());
        assert!(said.contains("this same build") && said.contains("restore"), "{said}");
    }

    #[test]
    fn a_build_is_named_by_version_architecture_and_sources() {
        let build = job::build();
        let parts: Vec<&str> = build.split('+').collect();
        assert_eq!(parts[..2], [env!("CARGO_PKG_VERSION"), std::env::consts::ARCH]);
        assert!(parts[2].len() == 16 && u64::from_str_radix(parts[2], 16).is_ok(), "{build}");
    }
}

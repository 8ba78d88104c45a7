//! The worker: one invocation of a set of shards. Claim, load, rounds, leave.
//!
//! ```text
//! claim --> load --> round: lanes read and fold | own merge shards fold and fire | encode
//!                      |        `--> upload and commit in the background, in order, at most two rounds deep
//!                      `--> nothing to say: linger, then leave
//! ```
//! A round is one transaction: the lane's new place, the merge shards' new positions and everything published advance together, so
//! an event can be counted, folded, fired and committed without ever being read back.

mod builds;
mod checkpoint;
mod claiming;
mod committer;
mod edge;
mod failure;
mod lane;
mod learn;
pub(crate) mod look;
mod looks;
mod merge;
mod publisher;
mod replay;
pub(crate) mod rerun;
mod round;
mod sample;
mod snapshots;
mod source;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use weir_coordinator::Claim;
use weir_engine::MergeOperator;
pub use weir_model::decide::said_all;
pub use weir_model::invocation::{Invocation, Left};
use weir_model::{CommitId, Epoch, Offset, ShardKey};

use crate::context::Ctx;
use crate::job::{self, JobError, Loaded};
use crate::topology::Role;
pub use builds::Builds;
pub(crate) use claiming::is_held;
use committer::Committer;
pub use failure::Failure;
use lane::LaneShard;
use looks::Looks;
use merge::MergeShard;
use publisher::PublisherShard;
use round::Round;

/// Longest idle time of a worker that did not get all of its shards.
const LINGER_INCOMPLETE: Duration = Duration::from_millis(500);

/// How often a worker asks whether another process would take its share.
const SHARE_ASKED_EVERY_MICROS: i64 = 500_000;

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
    /// A source gives other rows than those that a batch read.
    #[error(
        "the source gives other rows than before: the batch ended at {}/{}, now the rows end at {}/{}",
        .upto.split, .upto.at, .at.split, .at.at
    )]
    OtherRows {
        /// Where it ends now.
        at: Offset,
        /// Where the batch ended.
        upto: Offset,
    },
    /// Committed data is gone (G4).
    #[error("shard {shard}: epochs after {after} of its input are gone although it has not consumed them")]
    Gone {
        /// The upstream shard.
        shard: ShardKey,
        /// Last epoch consumed.
        after: Epoch,
    },
    /// One worker after the other died of the shard.
    #[error(
        "shard {shard}: the last {workers} workers died before they could commit, with ever smaller batches\nhelp: give the function more memory, then run the job once with weir run, which tries it without this limit"
    )]
    Kills {
        /// The shard.
        shard: ShardKey,
        /// How many.
        workers: u32,
    },
    /// Standard output, where the `print` connector writes.
    #[error("printing results: {0}")]
    Print(std::io::Error),
    /// A background task died.
    #[error("a background task ended: {0}")]
    Task(String),
    /// An invocation in a process of its own failed there.
    #[error("{message}")]
    Elsewhere {
        /// What the process said.
        message: String,
        /// Whether trying again may help.
        failure: Failure,
    },
}

/// State that an invocation leaves for the next of the same process (C2).
#[derive(Debug)]
pub struct Warm {
    left_at: Option<CommitId>,
    operator: MergeOperator,
    /// What a cold load would replay.
    pending: checkpoint::Pending,
}

impl Warm {
    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.operator.bytes()
    }
}

/// Serves the shards of `invocation` until there is nothing to do or a limit is reached. The same everywhere: thread, process,
/// function, simulation.
///
/// # Errors
/// [`WorkerError`]; shards are handed on as far as the table answers.
pub async fn handle(invocation: &Invocation, ctx: &Ctx) -> Result<Left, WorkerError> {
    let leave_at = leave_at(invocation, ctx);
    let loaded = Arc::new(job::open(ctx, invocation.job).await?);
    run_until(leave_at, invocation, ctx, &loaded).await
}

/// As [`handle`], with the job opened before.
///
/// # Errors
/// [`WorkerError`].
pub async fn run(invocation: &Invocation, ctx: &Ctx, loaded: &Arc<Loaded>) -> Result<Left, WorkerError> {
    run_until(leave_at(invocation, ctx), invocation, ctx, loaded).await
}

/// The instant, monotonic, at which an invocation that begins now is to leave.
pub(crate) fn leave_at(invocation: &Invocation, ctx: &Ctx) -> i64 {
    let run_max = invocation.run_millis_max.map(|millis| i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1_000));
    run_max.map_or(i64::MAX, |run_max| ctx.clock.monotonic_micros().saturating_add(run_max))
}

/// As [`run`], until `leave_at`: claims and loads count.
pub(crate) async fn run_until(
    leave_at: i64,
    invocation: &Invocation,
    ctx: &Ctx,
    loaded: &Arc<Loaded>,
) -> Result<Left, WorkerError> {
    let claimed = claiming::claim_all(ctx, loaded, &invocation.shards).await?;
    if claimed.claims.is_empty() {
        return Ok(if claimed.closed == invocation.shards.len() { Left::Done } else { Left::Held });
    }
    let complete = claimed.is_complete(invocation);
    let held = claimed.generations();
    let ctx = &ctx.of_invocation(leave_at, claimed.vanished);
    let (ended, claims) = serve(ctx, loaded, claimed.claims, invocation, complete).await;
    let left = match ended {
        Ok(left) => left,
        Err(error) => {
            // Another generation may have deleted what this one was about to read: that is its right, not corruption (G4).
            let fenced = claiming::is_fenced(ctx, &held).await;
            claiming::leave_after_failure(ctx, claims).await;
            return if fenced { Ok(Left::Fenced) } else { Err(error) };
        }
    };
    if left == Left::Fenced || left == Left::More && !ctx.stop.requested() {
        claiming::hand_on(ctx, claims).await?;
    } else {
        weir_coordinator::release(ctx.table.as_ref(), claims).await?;
    }
    Ok(if left == Left::Done && !complete { Left::Idle } else { left })
}

/// Loads and serves; gives back what is still held.
async fn serve(
    ctx: &Ctx,
    loaded: &Arc<Loaded>,
    claims: Vec<Claim>,
    invocation: &Invocation,
    complete: bool,
) -> (Result<Left, WorkerError>, Vec<Claim>) {
    let mut worker = match Worker::load(ctx, loaded, &claims).await {
        Ok(worker) => worker,
        Err(error) => return (Err(error), claims),
    };
    let mut committer = Committer::new(ctx.clone(), claims);
    let served = worker.serve(ctx, loaded, &mut committer, invocation, complete).await;
    let committed = committer.drain().await;
    let left = match (served, committed) {
        (Ok(left), Ok(true)) => Ok(left),
        (Ok(_), Ok(false)) => Ok(Left::Fenced),
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    match &left {
        Ok(Left::Fenced) => ctx.progress.fenced.add(1),
        Ok(_) => worker.leave(ctx),
        Err(_) => {}
    }
    (left, committer.into_claims())
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
        // Who is fed by another comes after it.
        worker.merges.sort_by_key(|merge| merge.head().shard);
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
        let mut looks = Looks::new(ctx);
        let began = ctx.clock.monotonic_micros();
        let mut rounds = 0;
        let mut asked = i64::MIN / 2;
        let mut idle_since = None;
        loop {
            let looked = looks.take(ctx.clock.monotonic_micros());
            let mut round = Round::new(ctx, looked);
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
                // What has come and only waits for more is nobody else's to take.
                if now - since >= linger && !self.gathers() {
                    if self.hurries() {
                        continue;
                    }
                    if looked {
                        return Ok(if self.has_more() { Left::More } else { Left::Idle });
                    }
                    // Who leaves for want of work has looked for it last (C6).
                    looks.again();
                    continue;
                }
                looks.wait(ctx, self.polls()).await;
            } else {
                idle_since = None;
                looks.busy(ctx.clock.monotonic_micros());
                rounds += 1;
                // A publisher acts on its target only once the commit that names the step was heard (X5).
                let heard = committer.submit(round).await? && (self.publishers.is_empty() || committer.drain().await?);
                if !heard {
                    return Ok(Left::Fenced);
                }
            }
            let now = ctx.clock.monotonic_micros();
            let served = now - began;
            let share = i64::try_from(ctx.tuning.share_after.as_micros()).unwrap_or(i64::MAX);
            let asks = served >= share && served - asked >= SHARE_ASKED_EVERY_MICROS;
            let wanted = asks && (!complete || ctx.liveness.share_wanted());
            asked = if asks { served } else { asked };
            let out_of_time = now >= ctx.tuning.leave_at_micros || wanted;
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
        for number in 0..self.merges.len() {
            if let Some(fed) = self.merges[number].run_if_needed(ctx, loaded, round).await? {
                for merge in &mut self.merges[number + 1..] {
                    merge.hand_over(&fed);
                }
            }
        }
        for publisher in &mut self.publishers {
            publisher.step(ctx, loaded, round).await?;
        }
        Ok(())
    }

    /// Whether rows have come that a lane has not taken yet: it waits for more of them until its interval is over.
    fn gathers(&self) -> bool {
        self.lanes.iter().any(LaneShard::gathers)
    }

    /// Whether merge shards have early results to give before the worker leaves.
    fn hurries(&mut self) -> bool {
        // Each is told, whatever the others say.
        let told: Vec<bool> = self.merges.iter_mut().map(MergeShard::hurry).collect();
        told.contains(&true)
    }

    /// Whether there may be more to do that nobody else tells of: a source to ask, or rows that wait until receivers have caught up.
    fn has_more(&self) -> bool {
        self.polls() || self.lanes.iter().any(LaneShard::is_blocked) || self.merges.iter().any(MergeShard::is_blocked)
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
mod tests;

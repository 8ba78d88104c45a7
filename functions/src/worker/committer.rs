//! Stores and commits rounds in the background: uploads of a round may overlap the commit before it, commits keep their order.

use std::collections::{BTreeMap, VecDeque};

use futures::future::try_join_all;
use tokio::task::JoinHandle;
use weir_coordinator::{Claim, CommitOutcome, ManifestLookup, StoreError};
use weir_model::{CommitId, Head, ShardKey};
use weir_state::manifest;

use super::WorkerError;
use super::round::Round;
use crate::context::Ctx;
use crate::trace::{Reached, Step};

/// Claims by shard, moved from commit to commit.
type Claims = BTreeMap<ShardKey, Claim>;

/// How the commit of a round ended, and what is still held.
#[derive(Debug)]
struct Ended {
    claims: Claims,
    heard: Result<Heard, WorkerError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Committed,
    Fenced,
}

/// Rounds under way.
#[derive(Debug)]
pub(super) struct Committer {
    ctx: Ctx,
    claims: Claims,
    /// Uploads of rounds whose commit has not begun, oldest first.
    waiting: VecDeque<(Round, JoinHandle<Result<(), WorkerError>>)>,
    /// The commit under way; it holds the claims.
    running: Option<JoinHandle<Ended>>,
    fenced: bool,
}

impl Committer {
    pub(super) fn new(ctx: Ctx, claims: Vec<Claim>) -> Self {
        let claims = claims.into_iter().map(|claim| (claim.shard(), claim)).collect();
        Self { ctx, claims, waiting: VecDeque::new(), running: None, fenced: false }
    }

    /// Takes a round; waits while too many are under way. `false` once a shard is fenced: nothing more will be committed.
    pub(super) async fn submit(&mut self, mut round: Round) -> Result<bool, WorkerError> {
        self.ctx.progress.trace.note(self.ctx.clock.as_ref(), || Step::round(Reached::Encoded, &round.heads));
        let uploads = std::mem::take(&mut round.uploads);
        let ctx = self.ctx.clone();
        self.waiting.push_back((round, tokio::spawn(upload(ctx, uploads))));
        let began = self.ctx.clock.monotonic_micros();
        if self.running.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish_running().await?;
        }
        self.start_next();
        while self.waiting.len() + usize::from(self.running.is_some()) > self.ctx.tuning.rounds_in_flight && !self.fenced {
            self.finish_running().await?;
            self.start_next();
        }
        self.ctx.progress.wait_micros.add_between(began, self.ctx.clock.monotonic_micros());
        Ok(!self.fenced)
    }

    /// Waits for everything under way. `false` if a shard was fenced.
    pub(super) async fn drain(&mut self) -> Result<bool, WorkerError> {
        while !self.fenced && (self.running.is_some() || !self.waiting.is_empty()) {
            self.start_next();
            self.finish_running().await?;
        }
        Ok(!self.fenced)
    }

    /// Claims as of the last commit heard; one that was fenced gives back those that nobody has taken over.
    pub(super) fn into_claims(self) -> Vec<Claim> {
        self.claims.into_values().collect()
    }

    fn start_next(&mut self) {
        if self.running.is_some() || self.fenced {
            return;
        }
        if let Some((round, uploading)) = self.waiting.pop_front() {
            let claims = std::mem::take(&mut self.claims);
            self.running = Some(tokio::spawn(commit(self.ctx.clone(), claims, round, uploading)));
        }
    }

    async fn finish_running(&mut self) -> Result<(), WorkerError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let ended = running.await.map_err(|error| WorkerError::Task(error.to_string()))?;
        self.claims = ended.claims;
        self.fenced = ended.heard? == Heard::Fenced;
        Ok(())
    }
}

async fn upload(ctx: Ctx, uploads: Vec<(String, bytes::Bytes)>) -> Result<(), WorkerError> {
    let began = ctx.clock.monotonic_micros();
    try_join_all(uploads.into_iter().map(|(name, bytes)| put(&ctx, name, bytes))).await?;
    ctx.progress.put_micros.add_between(began, ctx.clock.monotonic_micros());
    Ok(())
}

/// Stores one object.
pub(super) async fn put(ctx: &Ctx, name: String, bytes: bytes::Bytes) -> Result<(), WorkerError> {
    Ok(weir_state::store::put_again(ctx.objects.as_ref(), ctx.clock.as_ref(), &name, bytes).await?)
}

/// Commits one round once its objects are stored.
async fn commit(ctx: Ctx, mut claims: Claims, round: Round, uploading: JoinHandle<Result<(), WorkerError>>) -> Ended {
    let heard = match stored(uploading).await {
        Ok(()) => advance(&ctx, &mut claims, round).await,
        Err(error) => Err(error),
    };
    Ended { claims, heard }
}

async fn stored(uploading: JoinHandle<Result<(), WorkerError>>) -> Result<(), WorkerError> {
    uploading.await.map_err(|error| WorkerError::Task(error.to_string()))?
}

/// Claims whose commit had no clear answer are lost: nobody knows their version.
async fn advance(ctx: &Ctx, claims: &mut Claims, round: Round) -> Result<Heard, WorkerError> {
    let trace = &ctx.progress.trace;
    trace.note(ctx.clock.as_ref(), || Step::round(Reached::Stored, &round.heads));
    let named: Vec<_> = round.heads.iter().map(|head| (head.shard, head.epoch)).collect();
    let began = ctx.clock.monotonic_micros();
    let mut advances = Vec::with_capacity(round.heads.len());
    for head in round.heads {
        let claim = claims.remove(&head.shard).ok_or_else(|| WorkerError::Task(format!("no claim of shard {}", head.shard)))?;
        advances.push((claim, head));
    }
    let lookup = Manifests(ctx);
    let outcome = weir_coordinator::commit(ctx.table.as_ref(), ctx.clock.as_ref(), &lookup, advances, round.id).await?;
    ctx.progress.commit_micros.add_between(began, ctx.clock.monotonic_micros());
    let (held, heard) = match outcome {
        CommitOutcome::Committed(committed) => {
            ctx.progress.commits.add(1);
            trace.note(ctx.clock.as_ref(), || Step::Round { reached: Reached::Committed, heads: named });
            (committed, Heard::Committed)
        }
        CommitOutcome::Fenced { shard, by, claims } => {
            tracing::info!(%shard, generation = by.0, "fenced: another worker has taken the shard over");
            (claims, Heard::Fenced)
        }
    };
    claims.extend(held.into_iter().map(|claim| (claim.shard(), claim)));
    Ok(heard)
}

struct Manifests<'a>(&'a Ctx);

#[async_trait::async_trait]
impl ManifestLookup for Manifests<'_> {
    async fn has(&self, head: &Head, commit: CommitId) -> Result<bool, StoreError> {
        let found = manifest::has_commit(self.0.objects.as_ref(), head, commit).await;
        found.map_err(|error| StoreError::Indeterminate(error.to_string()))
    }
}

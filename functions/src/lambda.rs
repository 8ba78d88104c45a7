//! The worker as a function: one invocation per event, state kept warm between them, left before the deadline.
//!
//! Settings come from the environment, by the names that the command line has: `WEIR_STORE`, `WEIR_COORDINATION`, `WEIR_MEMORY`, ...

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::sync::Mutex;
use weir_coordinator::jobs;
use weir_model::JobId;
use weir_model::decide::VANISHED_MAX;

use crate::cli::{Common, Running, check_environment};
use crate::collector::{self, Search};
use crate::config::Config;
use crate::context::Ctx;
use crate::job::{self, Loaded};
use crate::open::{self, OpenError};
use crate::recent::Recent;
use crate::stream;
use crate::worker::{self, Invocation, Left, WorkerError, said_all};

/// Time kept for committing and leaving before the platform ends the process; of a short invocation a quarter.
const LEAVE_BEFORE: Duration = Duration::from_secs(3);
/// What the program takes of a function's memory before any state.
const PROGRAM_BYTES: u64 = 320 << 20;
/// Part of the rest that state and batches get: freed memory is given back to the system after a while only.
const MEMORY_PART: u64 = 2;
/// What they get at least.
const MEMORY_MIN: u64 = 64 << 20;
/// Compiled scripts kept.
const LOADED_MAX: usize = 16;

/// Settings of the process, all from the environment.
#[derive(Debug, Parser)]
struct Settings {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    running: Running,
}

/// What is kept between invocations of one process.
#[derive(Debug)]
pub struct Worker {
    ctx: Ctx,
    /// Whether the environment sets the commit interval; else each job's script may.
    interval_is_set: bool,
    /// Compiled scripts of the jobs served last.
    loaded: Mutex<Recent<JobId, Arc<Loaded>>>,
}

impl Worker {
    /// Opens what the environment names.
    ///
    /// # Errors
    /// A sentence that names the variable or the place.
    pub async fn from_environment() -> anyhow::Result<Self> {
        check_environment()?;
        let settings = Settings::try_parse_from(["weir-worker"])?;
        let mut config = settings.common.config()?;
        if let Some(megabytes) = std::env::var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").ok().and_then(|text| text.parse::<u64>().ok()) {
            config.memory = ((megabytes << 20).saturating_sub(PROGRAM_BYTES) / MEMORY_PART).max(MEMORY_MIN);
        }
        settings.running.apply(&mut config);
        anyhow::ensure!(
            config.store != "memory:" && config.places().coordination() != "memory:",
            "a function keeps nothing: set WEIR_STORE=s3://BUCKET/PREFIX and WEIR_COORDINATION=dynamodb://TABLE"
        );
        let worker = Self::open(&config).await?;
        Ok(Self { interval_is_set: settings.running.has_commit_interval(), ..worker })
    }

    pub(crate) async fn open(config: &Config) -> Result<Self, OpenError> {
        // Who submitted the job has tested the table: a cold start need not.
        let mut ctx = open::open_for_invocation(config).await?.ctx;
        // Nobody sees a function die over and over.
        ctx.tuning.vanished_max = VANISHED_MAX;
        Ok(Self { ctx, interval_is_set: false, loaded: Mutex::new(Recent::new(LOADED_MAX)) })
    }

    #[cfg(test)]
    pub(crate) fn ctx(&self) -> &Ctx {
        &self.ctx
    }

    /// Serves one event and leaves before the time is over, which runs from now: opening the job, claims and loads count.
    ///
    /// # Errors
    /// [`WorkerError`]; what was committed stays, and the table's feed brings the next call.
    pub async fn handle(&self, invocation: Invocation, left: Duration) -> Result<Left, WorkerError> {
        let time = left.saturating_sub(LEAVE_BEFORE.min(left / 4));
        let time = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let deadline = self.ctx.clock.monotonic_micros().saturating_add(time);
        let leave_at = worker::leave_at(&invocation, &self.ctx).min(deadline);
        let loaded = self.loaded(invocation.job).await?;
        let left = worker::run_until(leave_at, &invocation, &self.ctx_for(&loaded), &loaded).await?;
        self.tidy(&invocation, &loaded, left).await?;
        Ok(left)
    }

    /// The context with what the job's script sets.
    pub(crate) fn ctx_for(&self, loaded: &Loaded) -> Ctx {
        let mut ctx = self.ctx.clone();
        if let Some(interval) = loaded.commit_interval.filter(|_| !self.interval_is_set) {
            ctx.tuning.commit_interval = interval;
        }
        ctx
    }

    async fn loaded(&self, job: JobId) -> Result<Arc<Loaded>, WorkerError> {
        let mut loaded = self.loaded.lock().await;
        if let Some(known) = loaded.get(&job) {
            return Ok(known);
        }
        let opened = Arc::new(job::open(&self.ctx, job).await?);
        loaded.put(job, Arc::clone(&opened), 1);
        Ok(opened)
    }

    /// The first slot's worker deletes what nobody needs any more; whoever finds that all has been said finishes the job: a worker that
    /// said the job's last word, or, if that one died, another that is called for it.
    async fn tidy(&self, invocation: &Invocation, loaded: &Loaded, left: Left) -> Result<(), WorkerError> {
        let (ctx, table) = (&self.ctx, self.ctx.table.as_ref());
        if left == Left::Done {
            let heads = jobs::heads(table, &loaded.topology.all_shards()).await?;
            if heads.iter().all(said_all) {
                // Finished last: then the rest was done.
                collector::collect(ctx, loaded, Search::Orphans).await?;
                stream::release(ctx, loaded).await?;
                return Ok(jobs::finish(table, loaded.job).await?);
            }
        }
        let first = loaded.topology.slots().first().is_some_and(|slot| *slot == invocation.shards);
        if first && let Err(error) = collector::collect(ctx, loaded, Search::Fallen).await {
            tracing::warn!(%error, "collector: a later invocation tries again");
        }
        Ok(())
    }
}

//! The local host: turns a job's slots into invocations until the job is done, on threads or in fresh processes.
//!
//! A slot is served by one thread at a time; which thread or process serves it next makes no difference to the result.

mod collecting;
mod process;
mod share;
mod slots;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use weir_coordinator::jobs;

use crate::collector::{self, Search};
use crate::config::{Config, Invoke};
use crate::context::Ctx;
use crate::job::Loaded;
use crate::stream;
use crate::worker::{self, Failure, Invocation, Left, WorkerError, said_all};
pub use process::serve_invocation;
use share::FairShare;
use slots::{LEFT_ALONE_MICROS, Slots, Turn};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All input was read and everything was published.
    Finished,
    /// Somebody asked it to stop; run again to go on.
    Stopped,
}

/// Threads for lanes and merge shards; a job with more of them takes turns.
const THREADS_MAX: usize = 64;
/// Rounds of an invocation in a process of its own.
const PROCESS_ROUNDS: u32 = 8;
/// Consecutive failures of a slot after which the run gives up.
const FAILURES_MAX: u32 = 5;
/// The same while a store does not answer: half a minute of one that refuses connections, more of a slow one, so that it may be started
/// again under a run.
const FAILURES_AWAY_MAX: u32 = 9;
/// Doublings of the wait after a failure.
const WAIT_DOUBLINGS_MAX: u32 = 6;

/// Runs `loaded` until it is done or asked to stop.
///
/// # Errors
/// The first [`WorkerError`] that trying again does not mend; what was committed stays.
pub async fn run(ctx: &Ctx, loaded: &Arc<Loaded>, config: &Config) -> Result<Outcome, WorkerError> {
    let slots = loaded.topology.slots();
    let threads =
        usize::from(config.parallelism().max(loaded.topology.parallelism)).min(THREADS_MAX) + loaded.plan.pipelines.len();
    let served = patient(ctx, slots.len() > threads);
    let slots = Arc::new(Slots::new(slots, threads));
    let mut servers = Vec::new();
    for number in 0..threads.min(slots.len()) {
        match spawn_server(number, served.clone(), Arc::clone(loaded), Arc::clone(&slots), config.clone()) {
            Ok(server) => servers.push(server),
            // Those that have begun must not go on alone.
            Err(error) => give_up(ctx, &slots, error),
        }
    }
    if let Err(error) = collecting::until_done(ctx, loaded, &slots).await {
        // A job that cannot be collected fills its store: it must not run on unseen.
        give_up(ctx, &slots, error);
    }
    for server in servers {
        server.await.map_err(|error| WorkerError::Task(error.to_string()))?;
    }
    match slots.take_error() {
        Some(error) => Err(error),
        None => end(ctx, loaded).await,
    }
}

/// Says that the job is finished, if it is, and deletes what nobody needs any more.
async fn end(ctx: &Ctx, loaded: &Loaded) -> Result<Outcome, WorkerError> {
    if !finished(ctx, loaded).await? {
        return Ok(Outcome::Stopped);
    }
    // The results are there whatever becomes of this, and nobody else would tidy up: stores and tables are asked again.
    for attempt in 1..TIDY_ATTEMPTS {
        match tidy(ctx, loaded).await {
            Err(error) if error.failure() == Failure::Passing => {
                tracing::warn!(%error, attempt, "tidying up after the job: trying again");
                ctx.clock.sleep(TIDY_AGAIN * attempt).await;
            }
            tidied => return tidied.map(|()| Outcome::Finished),
        }
    }
    tidy(ctx, loaded).await.map(|()| Outcome::Finished)
}

/// Times that a finished job is tidied up at most, and what is waited after the first.
const TIDY_ATTEMPTS: u32 = 8;
const TIDY_AGAIN: Duration = Duration::from_millis(200);

/// Each step may be done again (G1, G2).
async fn tidy(ctx: &Ctx, loaded: &Loaded) -> Result<(), WorkerError> {
    jobs::finish(ctx.table.as_ref(), loaded.job).await?;
    collector::collect(ctx, loaded, Search::Orphans).await?;
    stream::release(ctx, loaded).await
}

/// Where every slot has a thread of its own, a worker that leaves would only be called again: it stays until another process wants
/// its share, so an idle job writes nothing.
fn patient(ctx: &Ctx, takes_turns: bool) -> Ctx {
    let mut ctx = ctx.clone();
    if !takes_turns && ctx.tuning.linger > Duration::ZERO {
        ctx.tuning.linger = Duration::MAX;
    }
    ctx
}

async fn finished(ctx: &Ctx, loaded: &Loaded) -> Result<bool, WorkerError> {
    let heads = jobs::heads(ctx.table.as_ref(), &loaded.topology.all_shards()).await?;
    Ok(heads.iter().all(said_all))
}

/// A server thread of its own: batches are computed on it, while the runtime's threads store and commit.
fn spawn_server(
    number: usize,
    ctx: Ctx,
    loaded: Arc<Loaded>,
    slots: Arc<Slots>,
    config: Config,
) -> Result<oneshot::Receiver<()>, WorkerError> {
    let (done, ended) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let serve = move || {
        let serving = std::panic::AssertUnwindSafe(|| runtime.block_on(serve(&ctx, &loaded, &slots, &config)));
        if let Err(panic) = std::panic::catch_unwind(serving) {
            give_up(&ctx, &slots, WorkerError::Task(format!("worker {number} panicked: {}", said(panic.as_ref()))));
        }
        // The last to let go of the context signs the process off: not after its end has been told.
        drop(ctx);
        let _ = done.send(());
    };
    let thread = std::thread::Builder::new().name(format!("weir-worker-{number}")).spawn(serve);
    thread.map_err(|error| WorkerError::Task(error.to_string()))?;
    Ok(ended)
}

async fn serve(ctx: &Ctx, loaded: &Arc<Loaded>, slots: &Arc<Slots>, config: &Config) {
    // Each server compiles the plan for itself: its clock functions see its own batches only.
    let own = match crate::job::open(ctx, loaded.job).await {
        Ok(own) => Arc::new(own),
        Err(error) => return give_up(ctx, slots, error.into()),
    };
    // Without a thread for every slot, a source that never ends must not keep the others from theirs.
    let turn = (slots.len() > slots.threads()).then(|| u64::try_from(ctx.tuning.share_after.as_millis()).unwrap_or(u64::MAX));
    loop {
        if ctx.stop.requested() {
            return;
        }
        match slots.next(ctx.clock.monotonic_micros()) {
            Turn::AllDone => return,
            Turn::Wait => ctx.clock.sleep(Duration::from_millis(10)).await,
            Turn::Serve(index, shards) => {
                let invocation = Invocation { job: loaded.job, shards, rounds_max: None, run_millis_max: turn };
                let ctx = sharing(ctx, slots, index);
                let result = match config.invoke {
                    Invoke::Thread => worker::run(&invocation, &ctx, &own).await,
                    Invoke::Process => {
                        process::invoke(&Invocation { rounds_max: Some(PROCESS_ROUNDS), ..invocation }, &ctx, config).await
                    }
                };
                settle(&ctx, slots, index, result);
            }
        }
    }
}

/// The context of one slot's worker: it leaves where another process should have the slot.
fn sharing(ctx: &Ctx, slots: &Arc<Slots>, index: usize) -> Ctx {
    let (others, clock) = (Arc::clone(&ctx.liveness), Arc::clone(&ctx.clock));
    let liveness = Arc::new(FairShare { others, slots: Arc::clone(slots), index, clock });
    Ctx { liveness, ..ctx.clone() }
}

/// Ends the run: the others commit what they have and leave, even where their source never ends.
fn give_up(ctx: &Ctx, slots: &Slots, error: WorkerError) {
    tracing::info!(%error, "the run ends");
    slots.give_up(error);
    ctx.stop.request();
}

/// What a panic says.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}

/// Says when the slot may be served again.
fn settle(ctx: &Ctx, slots: &Slots, index: usize, result: Result<Left, WorkerError>) {
    let now = ctx.clock.monotonic_micros();
    match result {
        Ok(Left::Done) => slots.done(index),
        Ok(Left::More) if ctx.liveness.share_wanted() => slots.again(index, now + LEFT_ALONE_MICROS),
        Ok(Left::More) => slots.go_on(index, now),
        Ok(Left::Fenced) => slots.again(index, now),
        Ok(Left::Idle) => slots.again(index, now + 10_000),
        // No success: after a failure shards rest, held by nobody, and what failed must still be counted then.
        Ok(Left::Held) => slots.retry(index, now + 50_000),
        Err(error) => {
            let failures = slots.failed(index);
            if error.failure() == Failure::Lasting || failures >= failures_max(&error) {
                give_up(ctx, slots, error);
                return;
            }
            tracing::warn!(%error, failures, "invocation failed; trying again");
            slots.retry(index, now + (100_000 << failures.min(WAIT_DOUBLINGS_MAX)));
        }
    }
}

/// Failures in a row that are borne.
fn failures_max(error: &WorkerError) -> u32 {
    let away = match error {
        WorkerError::Table(_) | WorkerError::Source(weir_connectors::SourceError::Away { .. }) => true,
        WorkerError::State(error) => error.kind() == weir_state::Kind::Retry,
        _ => false,
    };
    if away { FAILURES_AWAY_MAX } else { FAILURES_MAX }
}

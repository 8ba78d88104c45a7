//! The dispatcher: turns the table's commits into calls of workers, and looks again later at what may have been lost (C6).
//!
//! ```text
//! table --stream of changes--> routes of the job --> slots that read it --> heads --> call | look later | settled
//!                                                          ^                            |        |
//!                                                          `------ delayed message -----+--------'
//! ```
//! Why at all: functions that sleep cost nothing, so somebody must wake them. Never: decides what is committed. A call that is lost,
//! late or doubled costs effort, never a row.

mod aws;
mod event;
mod outbox;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use weir_coordinator::{CoordinationStore, StoreError, claim, jobs, retention};
use weir_model::decide::{Called, Dispatch, decide_dispatch};
use weir_model::invocation::Invocation;
use weir_model::routes::RoutesRow;
use weir_model::{Clock, Epoch, Generation, Head, JobId, ShardKey};

pub use aws::{AwsOutbox, Targets};
pub use event::{Changed, Event, EventError};
pub use outbox::{Look, Outbox, OutboxError};

/// How long after a call its slot is looked at, unless a lease says when.
const LOOK_AFTER: Duration = Duration::from_secs(15);
/// How long after the end of a lease: its holder may be renewing it.
const LEASE_MARGIN: Duration = Duration::from_secs(1);
/// How long a call may take until somebody has claimed what it is for.
const CALL_UNDER_WAY: Duration = Duration::from_secs(5);
/// How much too early a look may come.
const EARLY_MAX: Duration = Duration::from_secs(2);
/// Routes kept in memory.
const ROUTES_MAX: usize = 1_024;

/// An event that could not be handled; delivering it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// The table.
    #[error(transparent)]
    Table(#[from] StoreError),
    /// A call or a delayed message could not be sent.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// A slot of a job, by its place in the routes.
type Slot = (JobId, usize);
/// What is new for a slot: upstream shards and their epochs.
type News = BTreeMap<ShardKey, Epoch>;

/// A look that is sure to come.
#[derive(Debug)]
struct Armed {
    at_micros: i64,
    /// The call that it follows up: when it was made, and the slot's generations then.
    call: Option<(i64, Vec<Generation>)>,
}

/// Handles events. One for the life of a process: it remembers routes and what it has armed.
#[derive(Debug)]
pub struct Dispatcher {
    table: Arc<dyn CoordinationStore>,
    clock: Arc<dyn Clock>,
    outbox: Arc<dyn Outbox>,
    /// They never change.
    routes: Mutex<HashMap<JobId, Arc<RoutesRow>>>,
    /// Memory of this process alone, forgotten without harm.
    armed: Mutex<HashMap<Slot, Armed>>,
}

impl Dispatcher {
    /// A dispatcher that reads `table` and speaks by `outbox`.
    #[must_use]
    pub fn new(table: Arc<dyn CoordinationStore>, clock: Arc<dyn Clock>, outbox: Arc<dyn Outbox>) -> Self {
        Self { table, clock, outbox, routes: Mutex::default(), armed: Mutex::default() }
    }

    /// Handles one event whole; what concerns the same slot is decided once.
    ///
    /// # Errors
    /// [`DispatchError`]: deliver the event again.
    pub async fn handle(&self, event: Event) -> Result<(), DispatchError> {
        let mut slots: BTreeMap<Slot, News> = BTreeMap::new();
        for changed in event.changed {
            self.concern(changed, &mut slots).await?;
        }
        for job in event.created {
            if let Some(routes) = self.routes(job).await? {
                slots.extend((0..routes.slots.len()).map(|place| ((job, place), News::new())));
            }
        }
        for ((job, place), news) in slots {
            let news: Vec<_> = news.into_iter().collect();
            self.consider(job, place, &news, None).await?;
        }
        for look in event.looks {
            // A message may come twice: the first of them has armed the next look. One that comes early, as clocks are set, is no repeat.
            if !self.is_armed((look.job, look.slot), EARLY_MAX).await {
                self.look(&look).await?;
            }
        }
        Ok(())
    }

    /// The slots that a changed head concerns: its own, and those that read it.
    async fn concern(&self, changed: Changed, slots: &mut BTreeMap<Slot, News>) -> Result<(), DispatchError> {
        let shard = changed.shard;
        let mut jobs = vec![shard.job];
        if self.routes(shard.job).await?.is_none() {
            // A lane of a stream: its readers have pins.
            jobs = readers(self.table.as_ref(), shard.job).await?;
        }
        for job in jobs {
            let Some(routes) = self.routes(job).await? else { continue };
            if job == shard.job
                && let Some(place) = routes.slot_of(shard)
            {
                slots.entry((job, place)).or_default();
            }
            for place in routes.slots_reading(shard) {
                let news = slots.entry((job, place)).or_default().entry(shard).or_default();
                *news = (*news).max(changed.epoch);
            }
        }
        Ok(())
    }

    /// Looks at a slot again, with all that it reads.
    async fn look(&self, look: &Look) -> Result<(), DispatchError> {
        let Some(routes) = self.routes(look.job).await? else { return Ok(()) };
        let mut upstream = Vec::new();
        for shard in routes.upstream_of(look.slot) {
            upstream.push((shard, claim::read_head(self.table.as_ref(), shard).await?.0.epoch));
        }
        self.consider(look.job, look.slot, &upstream, Some(&look.called)).await
    }

    /// Calls a slot, looks at it later, or leaves it.
    async fn consider(
        &self,
        job: JobId,
        place: usize,
        upstream: &[(ShardKey, Epoch)],
        called: Option<&Called>,
    ) -> Result<(), DispatchError> {
        let Some(routes) = self.routes(job).await? else { return Ok(()) };
        let Some(shards) = routes.slots.get(place) else { return Ok(()) };
        let heads = jobs::heads(self.table.as_ref(), shards).await?;
        let now = self.clock.now_micros();
        match decide_dispatch(&heads, |upstream, shard| routes.reads(upstream, shard), upstream, called, now) {
            Dispatch::Settled => Ok(()),
            Dispatch::LookAt { .. } if self.is_armed((job, place), Duration::ZERO).await => Ok(()),
            Dispatch::LookAt { at_micros } => {
                let at = at_micros.saturating_add(micros(LEASE_MARGIN));
                let called = called.cloned().unwrap_or_default();
                self.arm(Look { job, slot: place, called }, at, None).await
            }
            Dispatch::Call if self.is_under_way((job, place), &heads).await => Ok(()),
            Dispatch::Call => self.call(job, place, shards, &heads, upstream).await,
        }
    }

    async fn call(
        &self,
        job: JobId,
        place: usize,
        shards: &[ShardKey],
        heads: &[Head],
        upstream: &[(ShardKey, Epoch)],
    ) -> Result<(), DispatchError> {
        // Armed before the call: if this process dies between the two, the slot is looked at all the same.
        let look = Look { job, slot: place, called: Called::now(heads, upstream) };
        let now = self.clock.now_micros();
        let call = (now, look.called.generations.clone());
        self.arm(look, now.saturating_add(micros(LOOK_AFTER)), Some(call)).await?;
        let invocation = Invocation { job, shards: shards.to_vec(), rounds_max: None, run_millis_max: None };
        Ok(self.outbox.call(&invocation).await?)
    }

    /// Whether the slot is sure to be looked at again, in more than `than`.
    async fn is_armed(&self, slot: Slot, than: Duration) -> bool {
        let least = self.clock.now_micros().saturating_add(micros(than));
        self.armed.lock().await.get(&slot).is_some_and(|armed| armed.at_micros > least)
    }

    /// Whether the slot was called a moment ago and nobody has come yet: what is new meanwhile is seen by who comes.
    async fn is_under_way(&self, slot: Slot, heads: &[Head]) -> bool {
        let now = self.clock.now_micros();
        let armed = self.armed.lock().await;
        let call = armed.get(&slot).filter(|armed| armed.at_micros > now).and_then(|armed| armed.call.as_ref());
        call.is_some_and(|(at, generations)| {
            now - at < micros(CALL_UNDER_WAY) && heads.iter().map(|head| head.generation).eq(generations.iter().copied())
        })
    }

    /// Sends a message that comes back.
    async fn arm(&self, look: Look, at_micros: i64, call: Option<(i64, Vec<Generation>)>) -> Result<(), DispatchError> {
        let now = self.clock.now_micros();
        let after = u64::try_from(at_micros.saturating_sub(now)).unwrap_or(0);
        let sent = self.outbox.look_after(&look, Duration::from_micros(after)).await?;
        let mut armed = self.armed.lock().await;
        armed.retain(|_, armed| armed.at_micros > now);
        armed.insert((look.job, look.slot), Armed { at_micros: now.saturating_add(micros(sent)), call });
        Ok(())
    }

    /// `None` if the id is a stream's.
    async fn routes(&self, job: JobId) -> Result<Option<Arc<RoutesRow>>, DispatchError> {
        let mut known = self.routes.lock().await;
        if let Some(routes) = known.get(&job) {
            return Ok(Some(Arc::clone(routes)));
        }
        let Some(row) = jobs::routes(self.table.as_ref(), job).await? else { return Ok(None) };
        let row = Arc::new(row);
        if known.len() >= ROUTES_MAX {
            known.clear();
        }
        known.insert(job, Arc::clone(&row));
        Ok(Some(row))
    }
}

/// Jobs that hold the past of a stream.
async fn readers(table: &dyn CoordinationStore, stream: JobId) -> Result<Vec<JobId>, StoreError> {
    let row = retention::read(table, stream).await?;
    Ok(row.pins.keys().filter_map(|pin| pin.strip_prefix(retention::JOB_PIN)?.parse().ok()).collect())
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

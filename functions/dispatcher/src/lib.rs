//! The dispatcher: turns the table's commits into calls of workers, and looks again later at what may have been lost (C6).
//!
//! ```text
//! table --stream of changes--> routes of the job --> slots that read it --> memory --> heads --> call | look later | settled
//!                                                          ^                                       |        |
//!                                                          `-------------- delayed message --------+--------'
//! ```
//! Why at all: functions that sleep cost nothing, so somebody must wake them. Never: decides what is committed. A call that is lost,
//! late or doubled costs effort, never a row.
//!
//! What costs requests is asked in this order: what this process remembers of the slot, the slot's own heads (two or three), and only of
//! a slot that was let go of the heads of everything that it reads: who let go may not have seen the last of them.

mod aws;
mod event;
mod outbox;
mod slots;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::Mutex;
use weir_coordinator::{CoordinationStore, StoreError, jobs, retention};
use weir_model::decide::{Act, Called, LOOK_AFTER, said_all};
use weir_model::invocation::Invocation;
use weir_model::job::DesiredState;
use weir_model::routes::RoutesRow;
use weir_model::{Clock, Epoch, Head, JobId, ShardKey};

pub use aws::{AwsOutbox, Targets};
pub use event::{Changed, Event, EventError, Holding};
pub use outbox::{Look, Outbox, OutboxError};
use slots::{Slot, Slots};

/// Routes kept in memory.
const ROUTES_MAX: usize = 1_024;
/// Slots attended to at a time.
const SLOTS_AT_A_TIME: usize = 16;

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

/// What an event says about a slot.
#[derive(Debug, Default)]
struct Concern {
    /// Upstream shards and their epochs.
    news: BTreeMap<ShardKey, Epoch>,
    /// Of its own heads, where one has changed: the freest.
    own: Option<Holding>,
}

/// How far a slot is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Its heads, for what was said to be new.
    News,
    /// All that it reads too.
    Everything,
}

/// Handles events. One for the life of a process: it remembers routes and what it has armed and called.
#[derive(Debug)]
pub struct Dispatcher {
    table: Arc<dyn CoordinationStore>,
    clock: Arc<dyn Clock>,
    outbox: Arc<dyn Outbox>,
    /// They never change.
    routes: Mutex<HashMap<JobId, Arc<RoutesRow>>>,
    slots: Slots,
}

impl Dispatcher {
    /// A dispatcher that reads `table` and speaks by `outbox`.
    #[must_use]
    pub fn new(table: Arc<dyn CoordinationStore>, clock: Arc<dyn Clock>, outbox: Arc<dyn Outbox>) -> Self {
        Self { table, clock, outbox, routes: Mutex::default(), slots: Slots::default() }
    }

    /// Handles one event whole; what concerns the same slot is decided once. What fails for one slot holds up no other.
    ///
    /// # Errors
    /// The first [`DispatchError`] that trying again may mend: deliver the event again.
    pub async fn handle(&self, event: Event) -> Result<(), DispatchError> {
        let mut failed = Ok(());
        let mut slots: BTreeMap<Slot, Concern> = BTreeMap::new();
        for changed in event.changed {
            failed = failed.and(passing(self.concern(changed, &mut slots).await));
        }
        for job in event.created {
            failed = failed.and(passing(self.concern_all(job, &mut slots).await));
        }
        let attending = slots.into_iter().map(|(slot, concern)| self.attend(slot, concern));
        failed = failed.and(all(attending).await);
        failed.and(all(event.looks.into_iter().map(|look| self.look(look))).await)
    }

    /// The slots that a changed head concerns: its own, and those that read it.
    async fn concern(&self, changed: Changed, slots: &mut BTreeMap<Slot, Concern>) -> Result<(), DispatchError> {
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
                let own = &mut slots.entry((job, place)).or_default().own;
                *own = Some(own.map_or(changed.holding, |known| known.min(changed.holding)));
            }
            for place in routes.slots_reading(shard) {
                let news = slots.entry((job, place)).or_default().news.entry(shard).or_default();
                *news = (*news).max(changed.epoch);
            }
        }
        Ok(())
    }

    async fn concern_all(&self, job: JobId, slots: &mut BTreeMap<Slot, Concern>) -> Result<(), DispatchError> {
        if let Some(routes) = self.routes(job).await? {
            for place in 0..routes.slots.len() {
                slots.entry((job, place)).or_default();
            }
        }
        Ok(())
    }

    /// Does what an event asks for a slot, unless its holder does.
    async fn attend(&self, slot: Slot, concern: Concern) -> Result<(), DispatchError> {
        let now = self.clock.now_micros();
        let news: Vec<_> = concern.news.into_iter().collect();
        let free = concern.own == Some(Holding::Free);
        let left_to_its_holder = self.slots.with(slot, now, |memory| {
            memory.hear(&news);
            if let Some(holding) = concern.own {
                memory.hear_of_holder(holding.until_micros(), now);
            }
            !free && memory.is_left_to_its_holder(now)
        });
        if left_to_its_holder {
            return Ok(());
        }
        let reach = if free { Reach::Everything } else { Reach::News };
        self.consider(slot, &news, reach, None).await
    }

    /// Looks at a slot again, with all that it reads.
    async fn look(&self, look: Look) -> Result<(), DispatchError> {
        let slot = (look.job, look.slot);
        let now = self.clock.now_micros();
        if !self.slots.with(slot, now, |memory| memory.begin_look(look.at_micros)) {
            return Ok(());
        }
        let looked = self.consider(slot, &[], Reach::Everything, Some(&look.called)).await;
        if looked.is_err() {
            // The message comes again, and is no repeat.
            self.slots.with(slot, now, |memory| memory.take_look_back(look.at_micros));
        }
        looked
    }

    /// Calls a slot, looks at it later, or leaves it.
    async fn consider(
        &self,
        slot: Slot,
        news: &[(ShardKey, Epoch)],
        reach: Reach,
        look: Option<&Called>,
    ) -> Result<(), DispatchError> {
        let Some(routes) = self.routes(slot.0).await? else { return Ok(()) };
        let Some(shards) = routes.slots.get(slot.1) else { return Ok(()) };
        let heads = jobs::heads(self.table.as_ref(), shards).await?;
        let mut act = self.decide(slot, &routes, &heads, news, look);
        if act == Act::Settled && heads.iter().all(said_all) {
            return self.finish(&routes, look.is_some()).await;
        }
        if act == Act::Settled && reach == Reach::Everything {
            // Upstream before the heads: whoever claims after these generations finds all of it.
            let upstream = self.upstream(&routes, slot.1).await?;
            let heads = jobs::heads(self.table.as_ref(), shards).await?;
            act = self.decide(slot, &routes, &heads, &upstream, look);
        }
        self.carry_out(slot, shards, act).await
    }

    fn decide(
        &self,
        slot: Slot,
        routes: &RoutesRow,
        heads: &[Head],
        upstream: &[(ShardKey, Epoch)],
        look: Option<&Called>,
    ) -> Act {
        let now = self.clock.now_micros();
        let reads = |upstream, shard| routes.reads(upstream, shard);
        self.slots.with(slot, now, |memory| memory.decide(heads, reads, upstream, look, now))
    }

    async fn upstream(&self, routes: &RoutesRow, place: usize) -> Result<Vec<(ShardKey, Epoch)>, DispatchError> {
        let heads = jobs::heads(self.table.as_ref(), &routes.upstream_of(place)).await?;
        Ok(heads.iter().map(|head| (head.shard, head.epoch)).collect())
    }

    /// A job whose shards have all said their last word is finished by the worker that said it; if that one died, by another.
    async fn finish(&self, routes: &RoutesRow, is_look: bool) -> Result<(), DispatchError> {
        let table = self.table.as_ref();
        if jobs::row(table, routes.job).await?.desired == DesiredState::Finished {
            return Ok(());
        }
        // Those that close last first.
        for shards in routes.slots.iter().rev() {
            if !jobs::heads(table, shards).await?.iter().all(said_all) {
                return Ok(());
            }
        }
        let (slot, Some(shards)) = ((routes.job, 0), routes.slots.first()) else { return Ok(()) };
        let heads = jobs::heads(table, shards).await?;
        let now = self.clock.now_micros();
        let at = slots::after(now, LOOK_AFTER);
        let act = self.slots.with(slot, now, |memory| match is_look {
            true => memory.call(&heads, &[], now),
            false if memory.is_armed_by(at, now) => Act::Waits,
            false => Act::Arm { at_micros: at, called: Called::default() },
        });
        self.carry_out(slot, shards, act).await
    }

    async fn carry_out(&self, slot: Slot, shards: &[ShardKey], act: Act) -> Result<(), DispatchError> {
        match act {
            Act::Settled | Act::Waits => Ok(()),
            Act::GivenUp { shard } => {
                tracing::error!(job = %slot.0, %shard, "given up: every worker of this shard died before it could commit; give the \
                     function more memory, then run the job once with weir run, which tries it without this limit");
                Ok(())
            }
            Act::Arm { at_micros, called } => self.arm(slot, at_micros, called).await,
            Act::Call(called) => self.call(slot, shards, called).await,
        }
    }

    async fn call(&self, slot: Slot, shards: &[ShardKey], called: Called) -> Result<(), DispatchError> {
        // Armed before the call: if this process dies between the two, the slot is looked at all the same.
        let now = self.clock.now_micros();
        self.arm(slot, slots::after(now, LOOK_AFTER), called.clone()).await?;
        let invocation = Invocation { job: slot.0, shards: shards.to_vec(), rounds_max: None, run_millis_max: None };
        self.outbox.call(&invocation).await?;
        self.slots.with(slot, now, |memory| memory.called(called, now));
        Ok(())
    }

    /// Sends a message that comes back.
    async fn arm(&self, slot: Slot, at_micros: i64, called: Called) -> Result<(), DispatchError> {
        let now = self.clock.now_micros();
        let planned = self.slots.with(slot, now, |memory| memory.plan(at_micros));
        let look = Look { job: slot.0, slot: slot.1, at_micros: planned, called };
        self.outbox.look_after(&look, slots::between(now, planned)).await?;
        self.slots.with(slot, now, |memory| memory.armed(planned));
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

/// All of them, a few at a time; the first failure that trying again may mend.
async fn all(acts: impl Iterator<Item = impl Future<Output = Result<(), DispatchError>>>) -> Result<(), DispatchError> {
    let acts = futures::stream::iter(acts).buffered(SLOTS_AT_A_TIME);
    acts.fold(Ok(()), |failed, act| std::future::ready(failed.and(passing(act)))).await
}

/// A row that cannot be read stops its own job: trying the event again would not mend it, and hold up all others.
fn passing(result: Result<(), DispatchError>) -> Result<(), DispatchError> {
    match result {
        Err(DispatchError::Table(error @ StoreError::Corrupt { .. })) => {
            tracing::error!(%error, "passed over");
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;

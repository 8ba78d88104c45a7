//! Plays a case at one schedule: each step's rows are given, then workers are called until nothing moves any more.
//!
//! A slot is called when something came that its shards have not seen: rows of a step, or epochs of shards of other slots.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use weir_coordinator::{CoordinationStore, jobs};
use weir_model::key_group::KEY_GROUPS_DEFAULT;
use weir_model::{Head, ShardKey};

use super::case::{Case, Step};
use super::crashes::{Crashes, Life};
use super::results::{Results, Seen};
use super::rows;
use super::world::World;
use crate::context::Ctx;
use crate::job::{self, Loaded};
use crate::kept::Stream;
use crate::worker::{self, Invocation, Left};

/// Turns after which a step that does not settle is given up.
const TURNS_MAX: usize = 200;

/// How a case is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) parallelism: u16,
    /// Seed of the crashes; `None` if there are none.
    pub(super) crashes: Option<u64>,
}

impl Schedule {
    pub(super) const fn steady(parallelism: u16) -> Self {
        Self { parallelism, crashes: None }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at parallelism {}", self.parallelism)?;
        self.crashes.map_or(Ok(()), |seed| write!(f, ", with crashes (seed {seed})"))
    }
}

/// What one step did.
#[derive(Debug, Clone, Default)]
pub(super) struct Played {
    /// By table that the job writes.
    pub(super) tables: BTreeMap<String, Seen>,
    /// Late and dead rows of this and all earlier steps.
    pub(super) late: Vec<String>,
    pub(super) dead: Vec<String>,
}

/// Plays all steps of `case`.
///
/// # Errors
/// The job stops.
pub(super) async fn play(case: &Case, schedule: Schedule) -> anyhow::Result<Vec<Played>> {
    let world = World::new()?;
    let mut player = Player::new(&world, case, schedule).await?;
    let mut results = Results::new(&player.loaded, &case.plan, &world.connectors);
    let mut played = Vec::new();
    for (number, step) in (1..).zip(&case.steps) {
        let context = || format!("step {number}");
        player.take(step).await.with_context(context)?;
        let (late, dead) = (player.kept(Stream::Late).await?, player.kept(Stream::Dead).await?);
        played.push(Played { tables: results.look().with_context(context)?, late, dead });
    }
    Ok(played)
}

struct Player<'w> {
    world: &'w World,
    loaded: Arc<Loaded>,
    slots: Vec<Slot>,
    crashes: Crashes,
    life: Arc<Life>,
    process: Ctx,
}

/// Shards that are called together.
struct Slot {
    shards: Vec<ShardKey>,
    /// Shards of other slots that they read from.
    upstream: Vec<ShardKey>,
    /// What was there when it was last called.
    seen: Option<u64>,
}

impl<'w> Player<'w> {
    async fn new(world: &'w World, case: &Case, schedule: Schedule) -> anyhow::Result<Self> {
        let life = Arc::new(Life::endless());
        let process = world.process(&life);
        let first = case.steps.first().map_or(0, |step| step.now_micros);
        world.clock.set(first);
        let plan = case.plan.clone();
        let loaded = job::create(&process, "test", &case.sql, plan, schedule.parallelism, KEY_GROUPS_DEFAULT).await?;
        let slots = loaded.topology.slots().into_iter().map(|shards| Slot::new(&loaded, shards)).collect();
        Ok(Self { world, loaded: Arc::new(loaded), slots, crashes: Crashes::new(schedule.crashes), life, process })
    }

    /// Gives a step's rows and waits until all is said about them.
    async fn take(&mut self, step: &Step) -> anyhow::Result<()> {
        self.world.clock.set(step.now_micros);
        self.world.connectors.given.add(&step.given, step.closes);
        if self.crashes.begin_step() {
            self.start_process();
        }
        for _ in 0..TURNS_MAX {
            let mut still = true;
            for slot in 0..self.slots.len() {
                let news = self.news(slot).await?;
                if self.slots[slot].seen != Some(news) {
                    still = false;
                    self.slots[slot].seen = self.call(slot).await?.then_some(news);
                }
            }
            if still {
                return Ok(());
            }
        }
        bail!("the job does not come to rest: that is a fault of Weir, please report it")
    }

    /// The process that follows one that died, or one that lived long enough.
    fn start_process(&mut self) {
        self.life = Arc::new(self.crashes.next_life());
        self.process = self.world.process(&self.life);
    }

    /// A number that grows with what there is for a slot.
    async fn news(&self, slot: usize) -> anyhow::Result<u64> {
        let heads = self.heads(&self.slots[slot].upstream).await?;
        Ok(self.world.connectors.given.steps() + heads.iter().map(|head| head.epoch.0).sum::<u64>())
    }

    async fn heads(&self, shards: &[ShardKey]) -> anyhow::Result<Vec<Head>> {
        let table: &dyn CoordinationStore = self.world.table.as_ref();
        Ok(jobs::heads(table, shards).await?)
    }

    /// One invocation; whether it saw all there was.
    async fn call(&mut self, slot: usize) -> anyhow::Result<bool> {
        let shards = self.slots[slot].shards.clone();
        let invocation = Invocation { job: self.loaded.job, shards, rounds_max: None, run_millis_max: None };
        let ended = worker::run(&invocation, &self.process, &self.loaded).await;
        if self.life.is_over() {
            self.start_process();
            return Ok(false);
        }
        Ok(match ended? {
            Left::Done | Left::Idle | Left::More => true,
            Left::Held | Left::Fenced => false,
        })
    }

    /// All late or dead rows so far.
    async fn kept(&self, stream: Stream) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for head in self.heads(&self.loaded.topology.all_shards()).await? {
            for batch in stream.rows(self.world.objects.as_ref(), &self.process.cache, &head).await? {
                lines.extend(rows::lines(&batch)?);
            }
        }
        Ok(lines)
    }
}

impl Slot {
    fn new(loaded: &Loaded, shards: Vec<ShardKey>) -> Self {
        let upstream = shards.iter().flat_map(|shard| loaded.topology.upstream_of(*shard));
        let upstream = upstream.filter(|shard| !shards.contains(shard)).collect();
        Self { shards, upstream, seen: None }
    }
}

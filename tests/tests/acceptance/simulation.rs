//! Simulation: seeded workers on simulated clock, store and table, with every storage call able to fail, answers that get lost, workers
//! killed at any await and zombies whose writes land after their successors'. The oracle is the fold of all input.
//!
//! `WEIR_SIM_SEEDS=100000 cargo test --release simulation` runs more seeds; a failure prints its seed, `WEIR_SIM_FIRST` starts there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use weir_connectors::generate::{Generator, PlaySource, Plays};
use weir_connectors::sink::FileTarget;
use weir_connectors::{OptionsError, Source, TableOptions};
use weir_coordinator::counting::{Fault, Faults};
use weir_coordinator::{CoordinationStore, CountingTable, MemoryTable, jobs};
use weir_functions::collector;
use weir_functions::connect::{Connectors, Pinned, Target};
use weir_functions::context::{Ctx, StateBudget, Stop, Tuning, WarmCache};
use weir_functions::job::{self, Loaded};
use weir_functions::progress::Progress;
use weir_functions::worker::{self, Invocation, Left};
use weir_model::decide::{CheckpointLimits, OwnerLiveness};
use weir_model::time::Sleep;
use weir_model::{Clock, Ids, OwnerId, ShardKey};
use weir_plan::{SinkTable, SourceTable};
use weir_seams::Liveness;
use weir_state::{Hook, Hooked, Op, SegmentCache};

use crate::support::{Bag, assert_same};

const ROWS: u64 = 3_000;

/// Time that moves only when somebody sleeps or asks.
#[derive(Debug, Default)]
struct SimClock(AtomicI64);

impl Clock for SimClock {
    fn now_micros(&self) -> i64 {
        1_800_000_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn monotonic_micros(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.0.fetch_add(i64::try_from(duration.as_micros()).unwrap_or(0), Ordering::Relaxed);
        Box::pin(tokio::task::yield_now())
    }
}

#[derive(Debug, Default)]
struct SeqIds(AtomicU64);

impl Ids for SeqIds {
    fn next_u128(&self) -> u128 {
        let next = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        // Like real ids: ordered, and with a scattered low end.
        (u128::from(next) << 80) | u128::from(next.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Splitmix: one seed, one schedule.
#[derive(Debug)]
struct Dice(Mutex<u64>);

impl Dice {
    fn below(&self, bound: u64) -> u64 {
        let mut state = self.0.lock().expect("dice");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// When storage calls fail.
#[derive(Debug)]
enum Plan {
    /// Each with a chance of one in this many, drawn from the dice.
    Random { dice: Arc<Dice>, one_in: u64 },
    /// Exactly the n-th call, in one of the ways; 0 = never.
    Nth { calls: AtomicU64, n: u64, way: u64 },
}

impl Plan {
    /// 0: no fault; 1: it did not happen; 2: it happened, nobody hears; 3: it did not happen, nobody hears.
    fn draw(&self) -> u64 {
        match self {
            Self::Random { dice, one_in } => {
                if dice.below(*one_in) == 0 {
                    1 + dice.below(3)
                } else {
                    0
                }
            }
            Self::Nth { calls, n, way } => {
                if calls.fetch_add(1, Ordering::Relaxed) + 1 == *n {
                    *way
                } else {
                    0
                }
            }
        }
    }
}

#[derive(Debug)]
struct ObjectFaults {
    plan: Arc<Plan>,
    lost: Mutex<bool>,
}

fn injected() -> object_store::Error {
    object_store::Error::Generic { store: "simulated", source: "injected fault".into() }
}

impl Hook for ObjectFaults {
    fn before(&self, _op: Op, _object: &ObjectPath) -> object_store::Result<()> {
        match self.plan.draw() {
            1 | 3 => Err(injected()),
            2 => {
                *self.lost.lock().expect("lock") = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn after(&self, _op: Op, _object: &ObjectPath, _bytes: u64) -> object_store::Result<()> {
        if std::mem::take(&mut *self.lost.lock().expect("lock")) { Err(injected()) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct TableFaults(Arc<Plan>);

impl Faults for TableFaults {
    fn next(&self) -> Fault {
        match self.0.draw() {
            1 => Fault::Refused,
            2 => Fault::AnswerLost,
            3 => Fault::RequestLost,
            _ => Fault::None,
        }
    }

    fn read_fails(&self) -> bool {
        matches!(self.0.draw(), 1 | 3)
    }
}

/// Others are always thought dead: every claim is a take-over, so zombies are everywhere.
#[derive(Debug)]
struct EveryoneIsDead;

impl Liveness for EveryoneIsDead {
    fn of(&self, _owner: OwnerId) -> OwnerLiveness {
        OwnerLiveness::Dead
    }
}

#[derive(Debug)]
struct SimConnectors(Arc<SimClock>);

#[async_trait]
impl Connectors for SimConnectors {
    async fn pin(&self, _table: &SourceTable) -> Result<Pinned, OptionsError> {
        Ok(Pinned::Nothing)
    }

    fn source(&self, table: &SourceTable, _pinned: &Pinned) -> Result<Arc<dyn Source>, OptionsError> {
        let options = TableOptions { table: &table.name, options: &table.options };
        Ok(Arc::new(PlaySource::new(options, Arc::clone(&table.schema), Arc::clone(&self.0) as Arc<dyn Clock>)?))
    }

    fn target(&self, table: &SinkTable, shard: ShardKey) -> Result<Target, OptionsError> {
        let options = TableOptions { table: &table.name, options: &table.options };
        Ok(Target::Files(FileTarget::new(options, Arc::clone(&table.schema), shard, false)?))
    }
}

/// One simulated world; workers come and go in it.
struct World {
    objects: Arc<InMemory>,
    table: Arc<MemoryTable>,
    clock: Arc<SimClock>,
    ids: Arc<SeqIds>,
    sink: tempfile::TempDir,
    disorder_millis: u64,
}

impl World {
    fn new(disorder_millis: u64) -> Self {
        Self {
            objects: Arc::new(InMemory::new()),
            table: Arc::new(MemoryTable::new()),
            clock: Arc::default(),
            ids: Arc::default(),
            sink: tempfile::tempdir().expect("a folder for the sink"),
            disorder_millis,
        }
    }

    fn sql(&self) -> String {
        format!(
            "CREATE TABLE plays (song_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3), WATERMARK FOR etime AS etime - INTERVAL '1' SECOND)
               WITH ('connector' = 'plays', 'number-of-rows' = '{ROWS}', 'disorder-ms' = '{}', 'rows-per-second' = '1000000', 'start-time' = '0');
             CREATE TABLE hot (window_start TIMESTAMP(3), plays BIGINT, score DOUBLE)
               WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv');
             INSERT INTO hot SELECT window_start, count(*), sum(play_score)
             FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '1' SECOND)) GROUP BY window_start, window_end, song_id % 20;",
            self.disorder_millis,
            self.sink.path().display()
        )
    }

    /// A worker process of its own: owner, caches, and faults.
    fn process(&self, plan: &Arc<Plan>) -> Ctx {
        let objects = Hooked::new(
            Arc::clone(&self.objects) as _,
            Arc::new(ObjectFaults { plan: Arc::clone(plan), lost: Mutex::new(false) }),
        );
        let table =
            CountingTable::new(Arc::clone(&self.table) as _, Arc::default()).with_faults(Arc::new(TableFaults(Arc::clone(plan))));
        let owner = self.ids.owner();
        // Every other process has so little memory that windows spill: what it commits must be the same (R1).
        let memory = if owner.0.is_multiple_of(2) { 1 << 12 } else { 1 << 30 };
        let tuning = Tuning {
            commit_interval: Duration::from_secs(3600),
            // One source batch an epoch: a paced source deals blocks of 64 rows.
            epoch_rows_max: 1,
            linger: Duration::ZERO,
            checkpoints: CheckpointLimits { replay_epochs_max: 3, interval: None, ..CheckpointLimits::default() },
            state: StateBudget { bytes_max: memory, ..StateBudget::default() },
            publish_rows_max: 50,
            // A window has twenty results: shards fire them in parts.
            fired_rows_max: 7,
            // Little room between stages: lanes wait for their receivers.
            unread_bytes_max: 1 << 11,
            edge_bytes_max: 1,
            ..Tuning::default()
        };
        Ctx {
            objects: Arc::new(objects),
            table: Arc::new(table),
            clock: Arc::clone(&self.clock) as _,
            ids: Arc::clone(&self.ids) as _,
            owner,
            liveness: Arc::new(EveryoneIsDead),
            connectors: Arc::new(SimConnectors(Arc::clone(&self.clock))),
            cache: Arc::new(SegmentCache::new(1 << 20)),
            warm: Arc::new(WarmCache::default()),
            progress: Arc::new(Progress::default()),
            tuning,
            stop: Stop::default(),
        }
    }

    async fn done(&self, loaded: &Loaded) -> bool {
        let heads =
            jobs::heads(self.table.as_ref() as &dyn CoordinationStore, &loaded.topology.all_shards()).await.expect("heads");
        heads.iter().all(worker::said_all)
    }

    /// Published rows, and the numbers of events, late and dead rows that the heads count.
    async fn result(&self, loaded: &Loaded) -> (Bag, u64, u64) {
        let heads =
            jobs::heads(self.table.as_ref() as &dyn CoordinationStore, &loaded.topology.all_shards()).await.expect("heads");
        let events = heads.iter().map(|head| head.stats.events).sum();
        let late = heads.iter().map(|head| head.stats.rows_late).sum();
        (read_sink(self.sink.path()), events, late)
    }
}

fn read_sink(folder: &Path) -> Bag {
    let mut bag = Bag::new();
    for entry in std::fs::read_dir(folder).expect("sink").flatten().filter(|entry| entry.path().is_file()) {
        for line in std::fs::read_to_string(entry.path()).expect("file").lines() {
            *bag.entry(line.to_owned()).or_default() += 1;
        }
    }
    bag
}

/// The fold of all input, without Weir: bag of `window_start,plays,score`.
fn oracle(disorder_millis: u64) -> Bag {
    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
    let rows = Plays::new(0, disorder_millis).rows(0..ROWS, &[], &Plays::schema()).expect("plays");
    let songs = rows.column(0).as_primitive::<Int64Type>();
    let scores = rows.column(2).as_primitive::<Float64Type>();
    let times = rows.column(3).as_primitive::<TimestampMillisecondType>();
    let mut windows: BTreeMap<(i64, i64), (u64, f64)> = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let window = windows.entry((times.value(row).div_euclid(1_000), songs.value(row) % 20)).or_default();
        window.0 += 1;
        window.1 += scores.value(row);
    }
    let mut bag = Bag::new();
    for ((second, _), (plays, score)) in windows {
        let seconds_of_day = second - 1_767_225_600;
        let (day, second) = (seconds_of_day.div_euclid(86_400), seconds_of_day.rem_euclid(86_400));
        let date = if day < 0 { "2025-12-31" } else { "2026-01-01" };
        let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
        *bag.entry(format!("{date}T{time},{plays},{score:?}")).or_default() += 1;
    }
    bag
}

/// Runs a world to its end: workers of several generations at once, killed at random, until every shard has said all.
async fn live(world: &World, dice: &Arc<Dice>, faults: &Arc<Plan>, kills: bool) -> Arc<Loaded> {
    let quiet = Arc::new(Plan::Nth { calls: AtomicU64::new(0), n: 0, way: 0 });
    let parallelism = u16::try_from(1 + dice.below(3)).expect("small");
    let loaded =
        job::open_or_create(&world.process(&quiet), "sim", &world.sql(), parallelism, 12).await.expect("the job is created");
    let loaded = Arc::new(loaded);
    let slots = loaded.topology.slots();
    let mut processes: Vec<Ctx> = (0..3).map(|_| world.process(faults)).collect();
    for turn in 0u64.. {
        assert!(turn < 3_000, "no progress");
        if turn % 8 == 7 && world.done(&loaded).await {
            break;
        }
        let process = usize::try_from(dice.below(3)).expect("small");
        let slot = usize::try_from(dice.below(slots.len() as u64)).expect("small");
        let rounds = u32::try_from(1 + dice.below(4)).expect("small");
        let invocation =
            Invocation { job: loaded.job, shards: slots[slot].clone(), rounds_max: Some(rounds), run_millis_max: None };
        let ctx = processes[process].clone();
        if kills && dice.below(4) == 0 {
            // Killed after some awaits; what it has sent may land later, when others are at work.
            let mut run = Box::pin(worker::run(&invocation, &ctx, &loaded));
            for _ in 0..dice.below(60) {
                tokio::select! {
                    biased;
                    _ = &mut run => break,
                    () = tokio::task::yield_now() => {}
                }
            }
            drop(run);
            processes[process] = world.process(faults);
        } else {
            match worker::run(&invocation, &ctx, &loaded).await {
                Ok(Left::Done | Left::Idle | Left::More | Left::Held | Left::Fenced) => {}
                Err(error) => assert!(error.to_string().contains("injected"), "{error}"),
            }
        }
        if dice.below(6) == 0
            && let Err(error) = collector::collect(&ctx, &loaded, dice.below(2) == 0).await
        {
            assert!(error.to_string().contains("injected"), "{error}");
        }
    }
    loaded
}

fn simulate(seed: u64) -> Vec<(String, usize)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(async {
        let dice = Arc::new(Dice(Mutex::new(seed)));
        // Within the declared disorder nothing is late, so the result must not depend on the schedule.
        let world = World::new(900);
        let faults = Arc::new(Plan::Random { dice: Arc::clone(&dice), one_in: 12 + dice.below(80) });
        let loaded = live(&world, &dice, &faults, true).await;
        let (found, events, late) = world.result(&loaded).await;
        assert_same(&format!("seed {seed}"), &found, &oracle(900));
        assert_eq!((events, late), (ROWS, 0), "seed {seed}: rows counted");
        found.into_iter().collect()
    })
}

#[test]
fn any_schedule_of_faults_and_kills_gives_the_oracles_result() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, seeds): (u64, u64) = (number("WEIR_SIM_FIRST", 0), number("WEIR_SIM_SEEDS", 2_000));
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    if std::panic::catch_unwind(|| simulate(seed)).is_err() {
                        panic!("simulation failed: run it again with WEIR_SIM_FIRST={seed} WEIR_SIM_SEEDS=1");
                    }
                }
            });
        }
    });
    println!("{seeds} seeds simulated");
}

#[test]
fn a_seed_run_twice_takes_the_same_way() {
    for seed in 0..5 {
        assert_eq!(simulate(seed), simulate(seed));
    }
}

/// Rows beyond the declared disorder: which of them are late depends on the schedule, but each is counted once.
#[test]
fn rows_beyond_the_declared_disorder_are_counted_once_as_late_or_in_a_result() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    for seed in 0..20 {
        runtime.block_on(async {
            let dice = Arc::new(Dice(Mutex::new(seed)));
            let world = World::new(2_500);
            let faults = Arc::new(Plan::Random { dice: Arc::clone(&dice), one_in: 40 });
            let loaded = live(&world, &dice, &faults, true).await;
            let (found, events, late) = world.result(&loaded).await;
            let counted: u64 = found
                .iter()
                .map(|(row, n)| row.split(',').nth(1).expect("plays").parse::<u64>().expect("number") * *n as u64)
                .sum();
            assert_eq!((events, counted + late), (ROWS, ROWS), "seed {seed}: on time {counted}, late {late}");
        });
    }
}

/// Fails the 1st, 2nd, 3rd .. storage call, in each way, until a run meets no fault any more.
#[test]
fn a_fault_at_any_single_storage_call_changes_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let expected = oracle(900);
    let mut enumerated = 0;
    for way in 1..=3 {
        for n in 1.. {
            let met = runtime.block_on(async {
                let dice = Arc::new(Dice(Mutex::new(42)));
                let world = World::new(900);
                let faults = Arc::new(Plan::Nth { calls: AtomicU64::new(0), n, way });
                let loaded = live(&world, &dice, &faults, false).await;
                let (found, events, _) = world.result(&loaded).await;
                assert_same(&format!("way {way}, call {n}"), &found, &expected);
                assert_eq!(events, ROWS, "way {way}, call {n}");
                let Plan::Nth { calls, .. } = faults.as_ref() else { return false };
                calls.load(Ordering::Relaxed) >= n
            });
            if !met {
                break;
            }
            enumerated += 1;
        }
    }
    println!("{enumerated} single faults enumerated");
    assert!(enumerated > 100, "only {enumerated} storage calls were failed");
}

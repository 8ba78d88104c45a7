//! One simulated world: clock, ids, objects, table, sink, and the fold of all input as its oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use weir_connectors::generate::{Generator, PlaySource, Plays};
use weir_connectors::sink::FileTarget;
use weir_connectors::{OptionsError, Source, TableOptions};
use weir_coordinator::{CoordinationStore, MemoryTable, jobs};
use weir_functions::changelog;
use weir_functions::connect::{Connectors, Pinned, Target};
use weir_functions::context::{Ctx, StateBudget, Stop, Tuning, WarmCache};
use weir_functions::job::Loaded;
use weir_functions::progress::Progress;
use weir_functions::worker;
use weir_model::decide::{CheckpointLimits, OwnerLiveness};
use weir_model::time::Sleep;
use weir_model::{Clock, Head, Ids, OwnerId, ShardKey};
use weir_plan::{SinkTable, SourceTable};
use weir_seams::Liveness;
use weir_state::SegmentCache;

use super::sleepers::{Asked, Sleepy};
use crate::support::Bag;

pub(super) const ROWS: u64 = 3_000;

/// Time that moves only when somebody sleeps or asks.
#[derive(Debug, Default)]
pub(super) struct SimClock(AtomicI64);

impl Clock for SimClock {
    fn now_micros(&self) -> i64 {
        // A millisecond a look: batches have instants of their own, whatever the precision.
        1_800_000_000_000_000 + self.0.fetch_add(1_000, Ordering::Relaxed)
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
pub(super) struct SeqIds(AtomicU64);

impl Ids for SeqIds {
    fn next_u128(&self) -> u128 {
        let next = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        // Like real ids: ordered, and with a scattered low end.
        (u128::from(next) << 80) | u128::from(next.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Splitmix: one seed, one schedule.
#[derive(Debug)]
pub(super) struct Dice(Mutex<u64>);

impl Dice {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(seed)))
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        let mut state = self.0.lock().expect("dice");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
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
struct SimConnectors {
    clock: Arc<SimClock>,
    /// Of lanes that sleep.
    asked: Option<Asked>,
}

#[async_trait]
impl Connectors for SimConnectors {
    async fn pin(&self, _table: &SourceTable) -> Result<Pinned, OptionsError> {
        Ok(Pinned::Nothing)
    }

    fn source(&self, table: &SourceTable, _pinned: &Pinned) -> Result<Arc<dyn Source>, OptionsError> {
        let options = TableOptions { table: &table.name, options: &table.options };
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let plays = Arc::new(PlaySource::new(options, Arc::clone(&table.schema), clock)?);
        match &self.asked {
            Some(asked) => Ok(Arc::new(Sleepy { inner: plays, asked: Arc::clone(asked) })),
            None => Ok(plays),
        }
    }

    fn target(&self, table: &SinkTable, shard: ShardKey) -> Result<Target, OptionsError> {
        let options = TableOptions { table: &table.name, options: &table.options };
        Ok(Target::Files(FileTarget::new(options, changelog::sink_schema(table), shard, false)?))
    }
}

/// What the job of a world is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Lanes, merge shards that keep state and fire, a publisher.
    Windowed,
    /// The same with windows that give results early and take late rows.
    Early,
    /// Lanes and a publisher.
    Stateless,
    /// Lanes, merge shards that keep a table and say what changes, a publisher.
    Updating,
    /// The same, and more merge shards between, that keep a table of what the first ones say.
    Nested,
}

/// Whether results also say when they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clocks {
    /// They follow from the input alone.
    Unasked,
    /// Two more columns: the batch's instant, and 1 if the clock functions agree on it.
    Asked,
}

/// One simulated world; workers come and go in it.
pub(super) struct World {
    pub(super) shape: Shape,
    clocks: Clocks,
    /// After which keys of an updating job are forgotten.
    state_ttl: Option<&'static str>,
    /// Of lanes that sleep.
    asked: Option<Asked>,
    pub(super) objects: Arc<InMemory>,
    pub(super) table: Arc<MemoryTable>,
    pub(super) sink: tempfile::TempDir,
    clock: Arc<SimClock>,
    ids: Arc<SeqIds>,
    disorder_millis: u64,
}

impl World {
    pub(super) fn new(shape: Shape, disorder_millis: u64) -> Self {
        Self {
            shape,
            clocks: Clocks::Unasked,
            state_ttl: None,
            asked: None,
            objects: Arc::new(InMemory::new()),
            table: Arc::new(MemoryTable::new()),
            clock: Arc::default(),
            ids: Arc::default(),
            sink: tempfile::tempdir().expect("a folder for the sink"),
            disorder_millis,
        }
    }

    pub(super) fn asking_the_clock(self) -> Self {
        Self { clocks: Clocks::Asked, ..self }
    }

    pub(super) fn forgetting_after(self, state_ttl: &'static str) -> Self {
        Self { state_ttl: Some(state_ttl), ..self }
    }

    pub(super) fn with_lanes_that_sleep(self) -> Self {
        Self { asked: Some(Asked::default()), ..self }
    }

    pub(super) fn sql(&self) -> String {
        let (columns, select, from) = match self.shape {
            Shape::Updating if self.state_ttl.is_some() => (
                "song BIGINT, plays BIGINT, score DOUBLE, PRIMARY KEY (song) NOT ENFORCED",
                "SELECT song_id % 40 AS song, count(*), sum(play_score)",
                "FROM plays GROUP BY song_id % 40 HAVING count(*) % 3 <> 0",
            ),
            Shape::Updating => (
                "song BIGINT, plays BIGINT, score DOUBLE, songs BIGINT, PRIMARY KEY (song) NOT ENFORCED",
                "SELECT song_id % 40 AS song, count(*), sum(play_score), count(DISTINCT song_id)",
                "FROM plays GROUP BY song_id % 40 HAVING count(*) % 3 <> 0",
            ),
            Shape::Nested => (
                "plays BIGINT, songs BIGINT, least BIGINT, best BIGINT, kinds BIGINT, PRIMARY KEY (plays) NOT ENFORCED",
                "SELECT plays, count(*), min(song), max(song), count(DISTINCT song % 4)",
                "FROM (SELECT song_id % 400 AS song, count(*) AS plays FROM plays GROUP BY song_id % 400) GROUP BY plays",
            ),
            Shape::Windowed => (
                "window_start TIMESTAMP(3), plays BIGINT, score DOUBLE, songs BIGINT",
                "SELECT window_start, count(*), sum(play_score), count(DISTINCT song_id) FILTER (WHERE song_id % 3 = 0)",
                "FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '1' SECOND)) GROUP BY window_start, window_end, song_id % 20",
            ),
            Shape::Early => (
                "window_start TIMESTAMP(3), song BIGINT, plays BIGINT, score DOUBLE, PRIMARY KEY (window_start, song) NOT ENFORCED",
                "SELECT window_start, song_id % 20 AS song, count(*), sum(play_score)",
                "FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '1' SECOND)) GROUP BY window_start, window_end, song_id % 20
                 EMIT EVERY INTERVAL '0.00002' SECOND",
            ),
            Shape::Stateless => {
                ("song_id BIGINT, score DOUBLE", "SELECT song_id, play_score * 2", "FROM plays WHERE song_id % 3 = 0")
            }
        };
        let lateness = if self.shape == Shape::Early { ", 'allowed-lateness' = '300 ms'" } else { "" };
        let idle = if self.asked.is_some() { ", 'scan.watermark.idle-timeout' = '1 us'" } else { "" };
        let (more_columns, more) = match self.clocks {
            Clocks::Unasked => ("", ""),
            Clocks::Asked => {
                (", made TIMESTAMP(3), same INT", ", LOCALTIMESTAMP, CASE WHEN NOW() = CURRENT_TIMESTAMP THEN 1 ELSE 0 END")
            }
        };
        let setting = self.state_ttl.map_or_else(String::new, |ttl| format!("SET 'table.exec.state.ttl' = '{ttl}';"));
        format!(
            "{setting}
             CREATE TABLE plays (song_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3), WATERMARK FOR etime AS etime - INTERVAL '1' SECOND)
               WITH ('connector' = 'plays', 'number-of-rows' = '{ROWS}', 'disorder-ms' = '{}', 'rows-per-second' = '1000000', 'start-time' = '0'{lateness}{idle});
             CREATE TABLE hot ({columns}{more_columns}) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv');
             INSERT INTO hot {select}{more} {from};",
            self.disorder_millis,
            self.sink.path().display()
        )
    }

    /// A worker process of its own: owner and caches, over what it sees of objects and table.
    pub(super) fn process(&self, objects: Arc<dyn ObjectStore>, table: Arc<dyn CoordinationStore>) -> Ctx {
        let owner = self.ids.owner();
        // Every other process has so little memory that windows spill: what it commits must be the same (R1).
        let memory = if owner.0.is_multiple_of(2) { 1 << 12 } else { 1 << 30 };
        let tuning = Tuning {
            commit_interval: Duration::from_secs(3600),
            // One source batch an epoch: a paced source deals blocks of 64 rows.
            epoch_rows_max: 1,
            linger: Duration::ZERO,
            checkpoints: CheckpointLimits { replay_epochs_max: 3, ..CheckpointLimits::default() },
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
            objects,
            table,
            clock: Arc::clone(&self.clock) as _,
            ids: Arc::clone(&self.ids) as _,
            owner,
            liveness: Arc::new(EveryoneIsDead),
            connectors: Arc::new(SimConnectors { clock: Arc::clone(&self.clock), asked: self.asked.clone() }),
            cache: Arc::new(SegmentCache::new(1 << 20)),
            warm: Arc::new(WarmCache::default()),
            progress: Arc::new(Progress::default()),
            tuning,
            stop: Stop::default(),
        }
    }

    pub(super) async fn heads(&self, loaded: &Loaded) -> Vec<Head> {
        jobs::heads(self.table.as_ref() as &dyn CoordinationStore, &loaded.topology.all_shards()).await.expect("heads")
    }

    pub(super) async fn done(&self, loaded: &Loaded) -> bool {
        self.heads(loaded).await.iter().all(worker::said_all)
    }

    /// Published rows, and the numbers of events and late rows that the heads count.
    pub(super) async fn result(&self, loaded: &Loaded) -> (Bag, u64, u64) {
        let heads = self.heads(loaded).await;
        let events = heads.iter().map(|head| head.stats.events).sum();
        let late = heads.iter().map(|head| head.stats.rows_late).sum();
        let lines = lines(self.sink.path());
        let rows = match self.shape {
            Shape::Updating | Shape::Nested => applied(&lines, 1, self.state_ttl.is_some()),
            // Rows as those of windows that fire once.
            Shape::Early => applied(&lines, 2, false).iter().map(|row| without_song(row)).collect(),
            Shape::Windowed | Shape::Stateless => lines,
        };
        (rows.into_iter().fold(Bag::new(), counted), events, late)
    }

    /// The fold of all input, without Weir.
    pub(super) fn oracle(&self) -> Bag {
        let rows = Plays::new(0, self.disorder_millis).rows(0..ROWS, &[], &Plays::schema()).expect("plays");
        let songs = rows.column(0).as_primitive::<Int64Type>().values();
        let scores = rows.column(2).as_primitive::<Float64Type>().values();
        let times = rows.column(3).as_primitive::<TimestampMillisecondType>().values();
        match self.shape {
            Shape::Windowed => windows(songs, scores, times),
            Shape::Early => without_last_column(windows(songs, scores, times)),
            Shape::Stateless => doubled(songs, scores),
            Shape::Updating if self.state_ttl.is_some() => without_last_column(totals(songs, scores)),
            Shape::Updating => totals(songs, scores),
            Shape::Nested => by_plays(songs),
        }
    }
}

fn counted(mut bag: Bag, row: String) -> Bag {
    *bag.entry(row).or_default() += 1;
    bag
}

/// Rows as of a job that counts nothing DISTINCT.
fn without_last_column(bag: Bag) -> Bag {
    let mut without = Bag::new();
    for (row, count) in bag {
        *without.entry(row.rsplit_once(',').expect("columns").0.to_owned()).or_default() += count;
    }
    without
}

/// Lines of the sink, in the order in which they were written.
fn lines(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("sink").flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    let text = |path| std::fs::read_to_string(path).expect("file");
    files.into_iter().flat_map(|path| text(path).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// `window_start,song,plays,score` without the song.
fn without_song(row: &str) -> String {
    let (start, rest) = row.split_once(',').expect("a window");
    format!("{start},{}", rest.split_once(',').expect("a song").1)
}

/// What counts in the end of a changelog of rows, the first columns of which are their key, and `op,epoch`: rows without these.
///
/// - `forgets`: whether a key may begin anew.
fn applied(lines: &[String], key_columns: usize, forgets: bool) -> Vec<String> {
    let mut rows: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for line in lines {
        let (rest, epoch) = line.rsplit_once(',').expect("an epoch");
        let (row, op) = rest.rsplit_once(',').expect("what happened");
        let (end, _) = row.match_indices(',').nth(key_columns - 1).expect("a key");
        let (key, epoch) = (&row[..end], epoch.parse().expect("a number"));
        let earlier = rows.get(key).map(|(epoch, _)| *epoch);
        assert!(earlier.is_none_or(|earlier| earlier < epoch), "{line}: older than what was said before");
        let begins_anew = forgets && op == "+I";
        assert!(begins_anew || (op != "+I") == earlier.is_some(), "{line}: it was {earlier:?} before");
        if op == "-D" {
            rows.remove(key);
        } else {
            rows.insert(key, (epoch, row));
        }
    }
    rows.into_values().map(|(_, row)| row.to_owned()).collect()
}

/// What is counted of a group: plays, their scores, and its songs.
type Total = (u64, f64, BTreeSet<i64>);

/// Bag of `song,plays,score,songs` of those songs whose number of plays is no multiple of three.
fn totals(songs: &[i64], scores: &[f64]) -> Bag {
    let mut totals: BTreeMap<i64, Total> = BTreeMap::new();
    for (song, score) in songs.iter().zip(scores) {
        let (plays, total, distinct) = totals.entry(song % 40).or_default();
        (*plays, *total) = (*plays + 1, *total + score);
        distinct.insert(*song);
    }
    let rows = totals.into_iter().filter(|(_, (plays, ..))| plays % 3 != 0);
    rows.map(|(song, (plays, score, songs))| format!("{song},{plays},{score:?},{}", songs.len())).fold(Bag::new(), counted)
}

/// Bag of `plays,songs,least,best,kinds`.
fn by_plays(songs: &[i64]) -> Bag {
    let mut plays: BTreeMap<i64, u64> = BTreeMap::new();
    songs.iter().for_each(|song| *plays.entry(song % 400).or_default() += 1);
    let mut songs: BTreeMap<u64, BTreeSet<i64>> = BTreeMap::new();
    plays.into_iter().for_each(|(song, plays)| {
        songs.entry(plays).or_default().insert(song);
    });
    let row = |(plays, songs): (u64, BTreeSet<i64>)| {
        let kinds: BTreeSet<i64> = songs.iter().map(|song| song % 4).collect();
        let (least, best) = (songs.first().expect("a song"), songs.last().expect("a song"));
        format!("{plays},{},{least},{best},{}", songs.len(), kinds.len())
    };
    songs.into_iter().map(row).fold(Bag::new(), counted)
}

/// Bag of `song_id,score`.
fn doubled(songs: &[i64], scores: &[f64]) -> Bag {
    let mut bag = Bag::new();
    for (song, score) in songs.iter().zip(scores).filter(|(song, _)| *song % 3 == 0) {
        *bag.entry(format!("{song},{:?}", score * 2.0)).or_default() += 1;
    }
    bag
}

/// Bag of `window_start,plays,score,songs`, songs whose number is a multiple of three.
fn windows(songs: &[i64], scores: &[f64], times: &[i64]) -> Bag {
    let mut windows: BTreeMap<(i64, i64), Total> = BTreeMap::new();
    for ((song, score), time) in songs.iter().zip(scores).zip(times) {
        let window = windows.entry((time.div_euclid(1_000), song % 20)).or_default();
        window.0 += 1;
        window.1 += score;
        window.2.extend((song % 3 == 0).then_some(*song));
    }
    let mut bag = Bag::new();
    for ((second, _), (plays, score, songs)) in windows {
        let seconds_of_day = second - 1_767_225_600;
        let (day, second) = (seconds_of_day.div_euclid(86_400), seconds_of_day.rem_euclid(86_400));
        let date = if day < 0 { "2025-12-31" } else { "2026-01-01" };
        let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
        *bag.entry(format!("{date}T{time},{plays},{score:?},{}", songs.len())).or_default() += 1;
    }
    bag
}

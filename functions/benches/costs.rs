//! What a worker pays before, between and around its rows: planning, an empty batch, a commit, merging keys, a process.
//!
//! `cargo bench -p weir-functions --bench costs` prints one line each: median and unit; `-- --large` adds 20 million keys (some GB).
//! Kept for `docs/decisions/0001`: commit interval, fold of waiting commits and the size of an invocation follow from it.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMillisecondArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::SchemaRef;
use futures::future::try_join_all;
use object_store::ObjectStore;
use weir_coordinator::{Condition, CoordinationStore, ItemKey, SqliteTable, TransactOutcome, Write};
use weir_engine::fragment::FragmentRunner;
use weir_engine::{LaneOperator, MergeOperator, Moment, StateBudget};
use weir_model::Watermark;
use weir_model::key_group::KEY_GROUPS_DEFAULT;
use weir_plan::Pipeline;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HOT_SONGS: &str = include_str!("../../examples/hot_songs/job.sql");
const WEIR: &str = env!("CARGO_BIN_EXE_weir");
/// On the disk of the build, for /tmp may be memory.
const SCRATCH: &str = env!("CARGO_TARGET_TMPDIR");
/// A small segment.
const OBJECT_BYTES: usize = 64 << 10;
/// The body of a head with some commits in it.
const ROW_BYTES: usize = 4 << 10;
/// Keys of one merge.
const UPDATES: usize = 100_000;
/// Batches that are measured.
const RUNS: usize = 20;
/// Has no divisor in common with the numbers of keys, so that consecutive draws are distinct keys.
const STRIDE: usize = 7_368_787;
/// Event time of every row, milliseconds: all lie in one window.
const TIME_MILLIS: i64 = 1_767_225_600_000;

fn main() -> anyhow::Result<()> {
    let large = std::env::args().any(|argument| argument == "--large");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        planning().await?;
        commits().await?;
        merging(1_000_000).await?;
        updating(1_000_000, usize::MAX).await?;
        updating(1_000_000, 16 << 20).await?;
        if large {
            merging(20_000_000).await?;
            updating(10_000_000, usize::MAX).await?;
        }
        process().await
    })
}

fn row(name: &str, value: f64, unit: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{name:<60} {value:>10.3} {unit}")?)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Median time of one call; `work` gets the call's number.
async fn median(times: usize, mut work: impl AsyncFnMut(usize) -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let mut taken = Vec::with_capacity(times);
    for number in 0..times {
        let began = Instant::now();
        work(number).await?;
        taken.push(began.elapsed());
    }
    Ok(middle(taken))
}

fn middle(mut taken: Vec<Duration>) -> Duration {
    taken.sort_unstable();
    taken.get(taken.len() / 2).copied().unwrap_or_default()
}

/// Cold and warm planning, and an empty batch through a plan that is kept. Comes first: it must find a cold process.
async fn planning() -> anyhow::Result<()> {
    let began = Instant::now();
    let plan = weir_plan::compile(HOT_SONGS).await?;
    row("compile hot_songs, first in the process", millis(began.elapsed()), "ms")?;
    let pipeline = &plan.pipelines[0];
    let began = Instant::now();
    black_box(operators(pipeline, usize::MAX).await?);
    row("its lane and merge operators, first in the process", millis(began.elapsed()), "ms")?;

    let compiled = median(50, async |_: usize| {
        black_box(weir_plan::compile(HOT_SONGS).await?);
        anyhow::Ok(())
    });
    row("compile hot_songs again", millis(compiled.await?), "ms")?;
    let built = median(50, async |_: usize| {
        black_box(operators(pipeline, usize::MAX).await?);
        anyhow::Ok(())
    });
    row("its lane and merge operators again", millis(built.await?), "ms")?;

    let mut runner = FragmentRunner::new(&pipeline.input).await?;
    let empty = RecordBatch::new_empty(Arc::clone(runner.input_schema()));
    let ran = median(200, async |_: usize| {
        black_box(runner.run(vec![empty.clone()]).await?);
        anyhow::Ok(())
    });
    row("empty batch through a reused fragment", millis(ran.await?) * 1e3, "us")
}

/// - `bytes_max`: memory for the state.
async fn operators(pipeline: &Pipeline, bytes_max: usize) -> anyhow::Result<(LaneOperator, MergeOperator)> {
    let lane = LaneOperator::new(pipeline, KEY_GROUPS_DEFAULT, Watermark::NONE).await?;
    let memory = StateBudget { bytes_max, folder: SCRATCH.into(), key_groups: None };
    let merge = MergeOperator::new(pipeline, 0, KEY_GROUPS_DEFAULT, memory).await?;
    Ok((lane, merge.context("the query has an aggregate")?))
}

/// What a commit consists of.
#[derive(Debug, Clone, Copy)]
enum Part {
    Put,
    Row,
    Both,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Put => "put and fsync a 64 KiB object",
            Self::Row => "commit a 4 KiB row to SQLite with fsync",
            Self::Both => "put and fsync, then commit",
        }
    }
}

/// The embedded stores, with fsync.
struct Stores {
    objects: Arc<dyn ObjectStore>,
    table: SqliteTable,
    object: Bytes,
    body: Bytes,
}

impl Stores {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        let objects = weir_state::store::open(&format!("file://{}", folder.display()), true)?;
        let table = SqliteTable::open(&folder.join("coordination.sqlite"), true)?;
        let body = format!("{{\"fill\":\"{}\"}}", "x".repeat(ROW_BYTES)).into();
        Ok(Self { objects, table, object: vec![7u8; OBJECT_BYTES].into(), body })
    }

    async fn write(&self, shard: usize, condition: Condition) -> anyhow::Result<()> {
        let key = ItemKey::new("bench", format!("{shard:03}"));
        let write = Write::Put { key, condition, body: self.body.clone() };
        let outcome = self.table.transact(vec![write]).await?;
        anyhow::ensure!(outcome == TransactOutcome::Applied, "the row of shard {shard} is not as expected: {outcome:?}");
        Ok(())
    }

    async fn put(&self, shard: usize, number: usize) -> anyhow::Result<()> {
        let name = format!("jobs/bench/{shard:03}-{number:06}");
        Ok(weir_state::store::put(self.objects.as_ref(), &name, self.object.clone()).await?)
    }

    async fn run(&self, part: Part, shard: usize, number: usize) -> anyhow::Result<()> {
        if matches!(part, Part::Put | Part::Both) {
            self.put(shard, number).await?;
        }
        if matches!(part, Part::Row | Part::Both) {
            self.write(shard, Condition::Exists).await?;
        }
        Ok(())
    }
}

/// One commit alone, and seven at once, whose rows the table's writer folds into one transaction.
async fn commits() -> anyhow::Result<()> {
    const SHARDS: usize = 7;
    let folder = tempfile::tempdir_in(SCRATCH)?;
    let stores = Stores::open(folder.path())?;
    for shard in 0..SHARDS {
        stores.write(shard, Condition::Absent).await?;
    }
    for part in [Part::Put, Part::Row, Part::Both] {
        for at_once in [1, SHARDS] {
            let time = median(200, async |number: usize| {
                try_join_all((0..at_once).map(|shard| stores.run(part, shard, number))).await?;
                anyhow::Ok(())
            });
            row(&format!("{}, {at_once} at once", part.name()), millis(time.await?), "ms")?;
        }
    }
    Ok(())
}

/// Merging partials of distinct keys into a pane that has `keys` keys.
async fn merging(keys: usize) -> anyhow::Result<()> {
    let plan = weir_plan::compile(HOT_SONGS).await?;
    let (mut lane, mut merge) = operators(&plan.pipelines[0], usize::MAX).await?;
    let began = Instant::now();
    for from in (0..keys).step_by(UPDATES) {
        for rows in partials(&mut lane, from..keys.min(from + UPDATES)).await? {
            merge.merge(&rows)?;
        }
    }
    row(&format!("fill {keys} keys through lane and merge"), keys as f64 / began.elapsed().as_secs_f64() / 1e6, "M keys/s")?;
    anyhow::ensure!(merge.groups() == keys, "{} groups of {keys} keys", merge.groups());
    let mut taken = Vec::with_capacity(RUNS);
    for run in 0..RUNS {
        let drawn = (run * UPDATES..(run + 1) * UPDATES).map(|number| number * STRIDE % keys);
        let rows = partials(&mut lane, drawn).await?;
        let began = Instant::now();
        for rows in &rows {
            merge.merge(rows)?;
        }
        taken.push(began.elapsed());
    }
    row(&format!("merge {UPDATES} updates into {keys} keys"), millis(middle(taken)), "ms")?;
    row(&format!("state of {keys} keys"), merge.bytes() as f64 / keys as f64, "bytes/key")
}

/// Changing the results of distinct keys of a table that has `keys` keys, in commits of [`UPDATES`].
///
/// - `bytes_max`: memory for the table; the rest of it lies on disk.
async fn updating(keys: usize, bytes_max: usize) -> anyhow::Result<()> {
    let plan = weir_plan::compile(TOTALS).await?;
    let (mut lane, mut merge) = operators(&plan.pipelines[0], bytes_max).await?;
    let mut taken = Vec::with_capacity(RUNS);
    let fills = keys.div_ceil(UPDATES);
    for run in 0..fills + RUNS {
        let drawn = (run * UPDATES..(run + 1) * UPDATES).map(|number| number * STRIDE % keys);
        let rows = partials(&mut lane, drawn).await?;
        let began = Instant::now();
        for rows in &rows {
            merge.merge(rows)?;
        }
        black_box(merge.fire(Moment { after: Watermark::NONE, early: false }).await?);
        if run >= fills {
            taken.push(began.elapsed());
        }
    }
    anyhow::ensure!(merge.groups() == keys, "{} groups of {keys} keys", merge.groups());
    let rate = UPDATES as f64 / middle(taken).as_secs_f64() / 1e6;
    let place = if bytes_max == usize::MAX { "in memory".to_owned() } else { format!("in {} MiB", bytes_max >> 20) };
    row(&format!("update {keys} keys of a table {place}"), rate, "M updates/s")?;
    row(&format!("table of {keys} keys {place}"), merge.bytes() as f64 / keys as f64, "bytes/key held")
}

const TOTALS: &str = "CREATE TABLE plays (song_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3)) WITH ('connector' = 'plays');
CREATE TABLE totals (song_id BIGINT, plays BIGINT, score DOUBLE, PRIMARY KEY (song_id) NOT ENFORCED)
  WITH ('connector' = 'filesystem', 'path' = 'totals', 'format' = 'parquet');
INSERT INTO totals SELECT song_id, count(*), sum(play_score) FROM plays GROUP BY song_id;";

/// Partial rows of one play of each song.
async fn partials(lane: &mut LaneOperator, songs: impl Iterator<Item = usize>) -> anyhow::Result<Vec<RecordBatch>> {
    let songs: Vec<i64> = songs.map(|song| i64::try_from(song).unwrap_or(i64::MAX)).collect();
    let plays = plays(lane.source_schema(), &songs)?;
    lane.push(plays, i64::MAX).await?;
    Ok(lane.finish()?.partials)
}

fn plays(schema: &SchemaRef, songs: &[i64]) -> anyhow::Result<RecordBatch> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let column: ArrayRef = match field.name().as_str() {
            "song_id" => Arc::new(Int64Array::from(songs.to_vec())),
            "play_score" => Arc::new(Float64Array::from(vec![0.5; songs.len()])),
            "etime" => Arc::new(TimestampMillisecondArray::from(vec![TIME_MILLIS; songs.len()])),
            other => anyhow::bail!("hot_songs reads column {other}, which this benchmark does not make"),
        };
        columns.push(cast(&column, field.data_type())?);
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Size, start and memory of the worker's binary, as this profile builds it.
async fn process() -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(SCRATCH)?;
    let job = folder.path().join("job.sql");
    std::fs::write(&job, TINY)?;
    let job = job.display().to_string();
    row("weir: size of the binary", std::fs::metadata(WEIR)?.len() as f64 / 1e6, "MB")?;
    let commands: [(&str, &[&str]); 3] = [
        ("weir --version", &["--version"]),
        ("weir explain", &["explain", job.as_str()]),
        ("weir run, 1,000 rows", &["run", job.as_str(), "-q"]),
    ];
    for (name, arguments) in commands {
        let time = median(20, async |number: usize| {
            peak_megabytes(&folder.path().join(number.to_string()), arguments)?;
            anyhow::Ok(())
        });
        row(&format!("{name}: start to end"), millis(time.await?), "ms")?;
        let peak = peak_megabytes(&folder.path().join("peak"), arguments)?;
        row(&format!("{name}: peak memory, as last seen"), peak, "MB")?;
    }
    Ok(())
}

const TINY: &str = "CREATE TABLE plays (song_id BIGINT, etime TIMESTAMP(3), WATERMARK FOR etime AS etime - INTERVAL '5' SECOND)
  WITH ('connector' = 'plays', 'number-of-rows' = '1000');
CREATE TABLE hot (window_start TIMESTAMP(3), song_id BIGINT, plays BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO hot SELECT window_start, song_id, count(*) FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND))
GROUP BY window_start, window_end, song_id;";

/// Runs weir with its data below `folder`, made if missing; returns the highest memory that the kernel showed while it ran.
fn peak_megabytes(folder: &Path, arguments: &[&str]) -> anyhow::Result<f64> {
    std::fs::create_dir_all(folder)?;
    let mut command = Command::new(WEIR);
    // No settings but the defaults: a store below the current folder.
    command.args(arguments).env_clear().current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.spawn()?;
    let mut peak = 0u32;
    let ended = loop {
        peak = peak.max(peak_kilobytes(child.id()));
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        std::thread::sleep(Duration::from_micros(200));
    };
    anyhow::ensure!(ended.success(), "weir {arguments:?} ended with {ended}");
    Ok(f64::from(peak) / 1024.0)
}

fn peak_kilobytes(process: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

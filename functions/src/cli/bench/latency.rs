//! From a row's arrival to its visible result, of two jobs over plays that come at a fixed rate.
//!
//! **Arrival** of play `n` is the instant at which the paced generator says that it is due, `start + (n + 1) / rate`, not the instant
//! at which somebody asks for it. Plays in order have one millisecond of event time each, so `n` is read off a result's event time.
//! **Visible** is the instant at which the publisher has put the Parquet file with the result into the sink's folder (renamed, and
//! with fsync on the disk). Both are the wall clock's, of one process: a clock that is set meanwhile spoils the run.
//!
//! - `q0` passes all columns through: one sample a row.
//! - `window-1s` counts per song in tumbling windows as long as one second of arrivals: one sample a window, from the arrival of the
//!   row that passed the watermark over the window's end in the last lane, until the last of the window's rows is visible. Windows
//!   that end with the input are left out.
//!
//! What arrives in the first second is left out: the plan is compiled and shards are claimed then. The parts add up to the latency:
//!
//! | part | from | until |
//! | --- | --- | --- |
//! | wait | arrival | a lane's reader gives the row |
//! | gather | | the lane ends its epoch: decode, execute, and mostly waiting for the commit interval |
//! | encode | | the round's segments are encoded; with merge shards of the same worker, their folding and firing too |
//! | put | | the segments are stored, and the commits before it are done |
//! | commit | | the commit of the row's lane is heard |
//! | publish | | visible: wake the next stage, for a window its firing elsewhere, name the step in a commit, write, sync, rename |
//!
//! Decoding and execution overlap with waiting, so they stand beside as processor time of a lane epoch, not in the sum.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use weir_connectors::generate::{Generator, Plays};

use super::arrivals::{Journal, PARTS, Pace, Parts};
use super::counted::Counts;
use super::{BenchArgs, Placed, Row, interval_seconds, millis, percentile, show, title};
use crate::cli::live::count;
use crate::config::{Config, Invoke};
use crate::cost::Measured;
use crate::open::{self, Opened};
use crate::topology::Role;
use crate::trace::NOTES_MAX;
use crate::{host, job};

/// Commit interval of this measurement unless said.
const COMMIT_INTERVAL: Duration = Duration::from_millis(50);
/// Time between making the job and its first row, for compiling it.
const LEAD_MICROS: i64 = 500_000;
/// What arrives before this is not counted.
const WARM_UP_MICROS: i64 = 1_000_000;

/// A job; its sink's first column is an event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    PassThrough,
    Window,
}

impl Job {
    const fn name(self) -> &'static str {
        match self {
            Self::PassThrough => "q0",
            Self::Window => "window-1s",
        }
    }

    /// The script.
    ///
    /// - `start_micros`: when the first row's time begins; - `out`: the sink's folder.
    fn script(self, args: &BenchArgs, start_micros: i64, out: &Path) -> String {
        let (rate, rows) = (args.rate, args.rate * args.seconds);
        let (sink, query) = match self {
            Self::PassThrough => (
                "etime TIMESTAMP(3), song_id BIGINT, user_id BIGINT, play_score DOUBLE",
                "SELECT etime, song_id, user_id, play_score FROM events".to_owned(),
            ),
            Self::Window => (
                "window_end TIMESTAMP(3), song_id BIGINT, plays BIGINT",
                format!(
                    "SELECT window_end, song_id, count(*) FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(etime), INTERVAL '{}' SECOND)) \
                     GROUP BY window_start, window_end, song_id",
                    interval_seconds(rate)
                ),
            ),
        };
        format!(
            "CREATE TABLE events (song_id BIGINT, user_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3), WATERMARK FOR etime AS etime)\n\
             WITH ('connector' = 'plays', 'number-of-rows' = '{rows}', 'rows-per-second' = '{rate}', 'disorder-ms' = '0', \
             'start-time' = '{start_micros}');\n\
             CREATE TABLE sink ({sink}) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');\n\
             INSERT INTO sink {query};\n",
            out.display()
        )
    }
}

pub(super) async fn latency(args: &BenchArgs, folder: &Path) -> anyhow::Result<()> {
    let mut config = Config { commit_interval: COMMIT_INTERVAL, ..Config::default() };
    args.running.apply(&mut config);
    anyhow::ensure!(config.invoke == Invoke::Thread, "--latency follows rows within one process: leave --invoke at thread");
    let how = format!(
        "{} rows/s for {} s, commit interval {:?}, durability {:?}, parallelism {}",
        count(args.rate),
        args.seconds,
        config.commit_interval,
        config.durability,
        config.parallelism()
    );
    let what = "milliseconds from arrival to visible result, its parts as means; then decoding and execution of a lane epoch";
    title(args, &format!("{how}; {what}"));
    let parts: String = PARTS.iter().map(|part| format!(" {part:>8}")).collect();
    title(
        args,
        &format!(
            "{:<10} {:>9} {:>8} {:>8} {:>8} {:>8}  ={parts}  | {:>8} {:>8}",
            "job", "samples", "p50", "p99", "max", "mean", "decode", "execute"
        ),
    );
    for job in [Job::PassThrough, Job::Window] {
        if args.only.as_ref().is_none_or(|only| job.name().contains(only.as_str())) {
            show(args, &row(args, folder, &config, job).await?)?;
        }
    }
    Ok(())
}

async fn row(args: &BenchArgs, folder: &Path, config: &Config, job: Job) -> anyhow::Result<Row> {
    let folder = folder.join("latency");
    drop(std::fs::remove_dir_all(&folder));
    let Placed { config, unique } = Placed::new(args, &folder.join("store"), config.clone());
    let opened = open::open(&config).await?;
    opened.ctx.progress.trace.start();
    let start_micros = opened.ctx.clock.now_micros() + LEAD_MICROS;
    let sql = job.script(args, start_micros, &folder.join("out"));
    let loaded =
        job::open_or_create(&opened.ctx, &format!("{}-{unique}", job.name()), &sql, config.parallelism(), config.key_groups)
            .await?;
    let stages = loaded.topology.stages.iter().filter(|stage| stage.role == Role::Lane);
    let lanes: usize = stages.map(|stage| stage.layout.shards.len()).sum();
    host::run(&opened.ctx, &Arc::new(loaded), &config).await?;
    let pace = Pace { start_micros, rate: args.rate, lanes: lanes.max(1) as u64 };
    let notes = opened.ctx.progress.trace.take();
    anyhow::ensure!(notes.len() < NOTES_MAX, "the run had more steps than are kept: lower --rate or --seconds");
    let journal = Journal::new(notes);
    let samples = samples(&journal, pace, job, args.rate * args.seconds)?;
    anyhow::ensure!(!samples.is_empty(), "{}: no result arrived after the first second: give it more --seconds", job.name());
    Ok(told(job, &samples, &journal, &opened))
}

/// Latencies of all results that count.
///
/// - `rows`: number of input rows.
fn samples(journal: &Journal, pace: Pace, job: Job, rows: u64) -> anyhow::Result<Vec<Parts>> {
    let first = first_millis()?;
    // Number of the row that brings a result about, and when the last of what it brings is visible.
    let mut results: BTreeMap<u64, i64> = BTreeMap::new();
    for (visible_micros, batches) in &journal.visible {
        for batch in batches {
            for time in event_times(batch, 0)? {
                let number = u64::try_from(time - first).unwrap_or(0);
                let number = if job == Job::Window { pace.passing(number) } else { number };
                let last = results.entry(number).or_insert(*visible_micros);
                *last = (*last).max(*visible_micros);
            }
        }
    }
    let counts = |number: u64| number < rows && pace.arrival_micros(number) >= pace.start_micros + WARM_UP_MICROS;
    let parts = |(number, visible_micros)| {
        let parts = journal.parts(pace, number, visible_micros);
        parts.with_context(|| format!("no lane says when it had read and committed row {number}"))
    };
    results.into_iter().filter(|(number, _)| counts(*number)).map(parts).collect()
}

/// Event time of play 0, milliseconds.
fn first_millis() -> anyhow::Result<i64> {
    let schema = Plays::schema();
    let play = Plays::new(0, 0).rows(0..1, &[], &schema)?;
    let times = event_times(&play, schema.index_of("etime")?)?;
    times.first().copied().context("the generator made no row")
}

/// Milliseconds of a column of times.
fn event_times(batch: &RecordBatch, column: usize) -> anyhow::Result<Vec<i64>> {
    let times = cast(batch.column(column), &DataType::Timestamp(TimeUnit::Millisecond, None))?;
    Ok(times.as_primitive::<TimestampMillisecondType>().values().to_vec())
}

fn told(job: Job, samples: &[Parts], journal: &Journal, opened: &Opened) -> Row {
    let mut totals: Vec<i64> = samples.iter().map(|parts| parts.iter().sum()).collect();
    totals.sort_unstable();
    let mean_of = |sum: i64| millis(sum) / samples.len() as f64;
    let part = |part: usize| format!(" {:>8.2}", mean_of(samples.iter().map(|parts| parts[part]).sum()));
    let parts: String = (0..PARTS.len()).map(part).collect();
    let progress = &opened.ctx.progress;
    let of_epoch = |micros: u64| micros as f64 / 1e3 / journal.epochs().max(1) as f64;
    let [p50, p99, max] = [50, 99, 100].map(|percent| millis(percentile(&totals, percent)));
    let mean = mean_of(totals.iter().sum());
    let line = format!(
        "{:<10} {:>9} {p50:>8.2} {p99:>8.2} {max:>8.2} {mean:>8.2}  ={parts}  | {:>8.2} {:>8.2}",
        job.name(),
        count(samples.len() as u64),
        of_epoch(progress.decode_micros.get()),
        of_epoch(progress.execute_micros.get()),
    );
    let counts = Counts::of(opened);
    let mut figures =
        vec![("samples", samples.len() as f64), ("p50-ms", p50), ("p99-ms", p99), ("max-ms", max), ("mean-ms", mean)];
    figures.extend(counts.figures());
    let usage = counts.usage(progress.events.get() as f64);
    Row { line, measured: Measured::new(format!("latency, {}", job.name()), usage, &figures) }
}

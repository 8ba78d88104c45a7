//! `weir bench`: throughput beside a plain batch; `--latency`: from a row's arrival to its visible result; `--recovery`: from a
//! killed process to another one's first commit; `--ingest`: rows and requests by HTTP; `--idle`: an hour in which nothing comes;
//! `--updates`: results that change, of many keys.
//!
//! A row is a line for people or, with `--json`, an object that `weir cost --from` turns into money.
//! Allocations per event are counted, and bounded, by a test: `tests/acceptance/allocations.rs`.

mod counted;

mod throughput;

mod arrivals;
mod latency;

mod recovery;

mod ingest;

mod idle;

mod updates;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use clap::builder::RangedU64ValueParser;

use weir_model::Ids as _;
use weir_seams::RandomIds;

use super::Running;
use crate::config::Config;
use crate::cost::Measured;

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Rows of input.
    #[arg(long, default_value_t = 4_000_000)]
    rows: u64,
    /// Folder for input and state; made if missing, input is re-used.
    #[arg(long, default_value = "target/weir-bench")]
    folder: PathBuf,
    /// Only rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Objects and table in memory instead of the folder.
    #[arg(long)]
    in_memory: bool,
    /// Print one JSON object a row, which weir cost --from reads
    #[arg(long, conflicts_with = "recovery")]
    json: bool,
    /// Measure latency instead: from a row's arrival to its visible result, at --rate for --seconds.
    #[arg(long, conflicts_with_all = ["in_memory", "recovery"])]
    latency: bool,
    /// Measure recovery instead: from the kill of a process to another one's first commit, --times times.
    #[arg(long, conflicts_with = "in_memory")]
    recovery: bool,
    /// Measure HTTP ingest instead: large batches, then requests of one row, each for --seconds.
    #[arg(long, conflicts_with_all = ["in_memory", "latency", "recovery"])]
    ingest: bool,
    /// Measure an idle hour instead: requests of a job to which nothing comes, counted for --seconds.
    #[arg(long, conflicts_with_all = ["in_memory", "latency", "recovery", "ingest"])]
    idle: bool,
    /// Measure results that change instead: --rows updates of --keys keys, in memory and on disk; early results of windows.
    #[arg(long, conflicts_with_all = ["in_memory", "latency", "recovery", "ingest", "idle"])]
    updates: bool,
    /// Updates: number of keys.
    #[arg(long, default_value_t = 10_000_000, value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_000_000_000))]
    keys: u64,
    /// Objects in a bucket instead of the folder: s3://BUCKET/PREFIX, with --coordination.
    #[arg(long, value_name = "ADDRESS", requires = "coordination", conflicts_with_all = ["in_memory", "recovery"])]
    store: Option<String>,
    /// Table instead of the folder's: dynamodb://TABLE.
    #[arg(long, value_name = "ADDRESS", requires = "store")]
    coordination: Option<String>,
    /// Latency and recovery: rows a second.
    #[arg(long, default_value_t = 10_000, value_parser = RangedU64ValueParser::<u64>::new().range(10..=1_000_000))]
    rate: u64,
    /// Latency, ingest and idle: seconds; the first one of latency is not counted.
    #[arg(long, default_value_t = 10, value_parser = RangedU64ValueParser::<u64>::new().range(2..=3_600))]
    seconds: u64,
    /// Recovery: number of kills.
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_000))]
    times: u64,
    #[command(flatten)]
    running: Running,
}

pub(super) async fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.folder).with_context(|| format!("folder {}", args.folder.display()))?;
    let folder = std::fs::canonicalize(&args.folder)?;
    if args.latency {
        latency::latency(args, &folder).await
    } else if args.ingest {
        ingest::ingest(args, &folder).await
    } else if args.idle {
        idle::idle(args, &folder).await
    } else if args.updates {
        updates::updates(args, &folder).await
    } else if args.recovery {
        recovery::recovery(args, &folder).await
    } else {
        throughput::throughput(args, &folder).await
    }
}

/// A row of a measurement.
struct Row {
    /// For people.
    line: String,
    measured: Measured,
}

/// A line above the rows, for people.
#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
fn title(args: &BenchArgs, line: &str) {
    if !args.json {
        println!("{line}");
    }
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
fn show(args: &BenchArgs, row: &Row) -> anyhow::Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(&row.measured)?);
    } else {
        println!("{}", row.line);
    }
    Ok(())
}

/// Where a measurement keeps its objects and its table.
struct Placed {
    config: Config,
    /// What no other measurement in the same table has: names end with it.
    unique: String,
}

impl Placed {
    /// In `folder`, which is emptied, or in a place of its own below what `--store` names.
    fn new(args: &BenchArgs, folder: &Path, config: Config) -> Self {
        let unique = RandomIds::new().object().to_string();
        let (store, coordination) = match &args.store {
            Some(store) => (format!("{}/bench-{unique}", store.trim_end_matches('/')), args.coordination.clone()),
            None => {
                drop(std::fs::remove_dir_all(folder));
                (format!("file://{}", folder.display()), None)
            }
        };
        Self { config: Config { store, coordination, ..config }, unique }
    }
}

/// The least value that `percent` of `sorted` do not exceed; 0 of nothing.
fn percentile(sorted: &[i64], percent: usize) -> i64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// Microseconds as milliseconds.
fn millis(micros: i64) -> f64 {
    micros as f64 / 1e3
}

/// Milliseconds as the text of an `INTERVAL '..' SECOND`.
fn interval_seconds(millis: u64) -> String {
    format!("{}.{:03}", millis / 1_000, millis % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let sorted: Vec<i64> = (1..=200).collect();
        assert_eq!([50, 99, 100].map(|percent| percentile(&sorted, percent)), [100, 198, 200]);
        assert_eq!([percentile(&[7], 50), percentile(&[], 99)], [7, 0]);
        assert_eq!(interval_seconds(10_050), "10.050");
    }
}

//! From the death of a process to the first commit that another one makes of its shards.
//!
//! ```text
//! first holds every shard --> second starts --> SIGKILL first --> second claims, rebuilds from checkpoint and recipes, commits
//!                                                     |---------------- measured: from the heads' rows ---------------|
//! ```
//! The job counts plays per song in windows as long as 100 ms of arrivals, from an endless paced generator in two lanes, with fsync.
//! This process only reads the coordination table and registers no owner, so the two processes see each other alone. It looks every
//! 2 ms: no time here is known better than that. A merge shard's first commit waits for the next window to end, which is in its time.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use weir_coordinator::{SqliteTable, jobs};
use weir_model::{Clock, Head, OwnerId, ShardKey};

use super::{BenchArgs, interval_seconds, millis, percentile};
use crate::cli::live::count;
use crate::config::Config;
use crate::topology::Topology;
use weir_seams::SystemClock;

/// Commit interval of this measurement unless said.
const COMMIT_INTERVAL: Duration = Duration::from_millis(50);
/// Shards of every stage unless said.
const PARALLELISM: u16 = 2;
/// How often the table is read.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// From the second process's registration to the kill: it compiles the plan and begins to ask for shards.
const SETTLE: Duration = Duration::from_millis(700);
/// After this nothing is waited for any more.
const PATIENCE_MICROS: i64 = 60_000_000;

/// A process that does not outlive the measurement.
struct Process(Child);

impl Process {
    fn start(folder: &Path, config: &Config) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let mut command = Command::new(program);
        command.arg("run").arg(folder.join("job.sql")).arg("--quiet");
        command.arg("--store").arg(format!("file://{}", folder.join("store").display()));
        command.arg("--parallelism").arg(config.parallelism().to_string());
        command.arg("--commit-interval").arg(format!("{}us", config.commit_interval.as_micros()));
        // Neither settings of the environment nor a weir.toml of where the user stands.
        let ours = std::env::vars_os().map(|(key, _)| key).filter(|key| key.to_string_lossy().starts_with("WEIR_"));
        for key in ours {
            command.env_remove(key);
        }
        let child = command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Self(child.context("starting a second weir")?))
    }

    /// SIGKILL, and waits until it is dead.
    fn kill(&mut self) -> std::io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.kill());
    }
}

/// What one kill cost, microseconds.
#[derive(Debug, Clone, Copy)]
struct Recovered {
    /// Until the first commit of any shard of the dead process.
    first: i64,
    /// Until every one of them had a commit.
    all: i64,
    /// Shards that the dead process held.
    shards: usize,
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
pub(super) async fn recovery(args: &BenchArgs, folder: &Path) -> anyhow::Result<()> {
    let mut config =
        Config { commit_interval: COMMIT_INTERVAL, parallelism: Some(PARALLELISM), coordination: None, ..Config::default() };
    args.running.apply(&mut config);
    println!(
        "{} rows/s, commit interval {:?}, fsync; milliseconds from SIGKILL to another process's commit of the same shards",
        count(args.rate),
        config.commit_interval
    );
    println!("{:<8} {:>7} {:>13} {:>11}", "kill", "shards", "first commit", "all shards");
    let mut recovered = Vec::new();
    for number in 1..=args.times {
        let once = once(args, &config, &folder.join("recovery")).await.with_context(|| format!("kill {number}"))?;
        println!("{number:<8} {:>7} {:>13.1} {:>11.1}", once.shards, millis(once.first), millis(once.all));
        recovered.push(once);
    }
    let sorted = |value: fn(&Recovered) -> i64| {
        let mut values: Vec<i64> = recovered.iter().map(value).collect();
        values.sort_unstable();
        values
    };
    let (first, all) = (sorted(|once| once.first), sorted(|once| once.all));
    for (name, percent) in [("p50", 50), ("max", 100)] {
        println!("{name:<8} {:>7} {:>13.1} {:>11.1}", "", millis(percentile(&first, percent)), millis(percentile(&all, percent)));
    }
    Ok(())
}

/// Starts two processes, kills the one that holds the shards, and watches the other take them over.
async fn once(args: &BenchArgs, config: &Config, folder: &Path) -> anyhow::Result<Recovered> {
    drop(std::fs::remove_dir_all(folder));
    let store = folder.join("store");
    std::fs::create_dir_all(&store).with_context(|| format!("folder {}", store.display()))?;
    let sql = script(args.rate);
    std::fs::write(folder.join("job.sql"), &sql)?;
    let clock = SystemClock::new();
    let table = SqliteTable::open(&store.join("coordination.sqlite"), false)?;

    let mut first = Process::start(folder, config)?;
    let found = async || anyhow::Ok(jobs::list(&table).await?.first().map(|(_, job)| *job));
    let job = until(&clock, "the job was not created", found).await?;
    let plan = weir_plan::compile(&sql).await?;
    let shards = Topology::new(job, &plan, &[], config.parallelism(), config.key_groups).all_shards();
    let held = async || anyhow::Ok(holder_of_all(&jobs::heads(&table, &shards).await?));
    let holder = until(&clock, "the first process did not commit every shard", held).await?;

    let second = Process::start(folder, config)?;
    let registered = async || anyhow::Ok((owners(&store.join("owners"))? >= 2).then_some(()));
    until(&clock, "the second process did not start", registered).await?;
    clock.sleep(SETTLE).await;

    let mut lost = jobs::heads(&table, &shards).await?;
    lost.retain(|head| is_held_by(head, holder));
    anyhow::ensure!(!lost.is_empty(), "the first process had shared out its shards before it was killed: is the machine busy?");
    let killed = clock.monotonic_micros();
    first.kill()?;
    let recovered = taken_over(&clock, &table, &lost, killed).await?;
    drop(second);
    Ok(recovered)
}

/// Waits until another generation has committed every shard in `lost`.
async fn taken_over(clock: &SystemClock, table: &SqliteTable, lost: &[Head], killed: i64) -> anyhow::Result<Recovered> {
    let shards: Vec<ShardKey> = lost.iter().map(|head| head.shard).collect();
    let mut first = None;
    let all = until(clock, "the second process did not take over", async || {
        let heads = jobs::heads(table, &shards).await?;
        let after = clock.monotonic_micros() - killed;
        let committed = heads.iter().zip(lost).filter(|(now, before)| committed_since(now, before)).count();
        if committed > 0 {
            first.get_or_insert(after);
        }
        anyhow::Ok((committed == lost.len()).then_some(after))
    })
    .await?;
    Ok(Recovered { first: first.unwrap_or(all), all, shards: lost.len() })
}

/// Asks again and again until there is an answer.
async fn until<T>(
    clock: &SystemClock,
    otherwise: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = clock.monotonic_micros() + PATIENCE_MICROS;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        anyhow::ensure!(clock.monotonic_micros() < deadline, "{otherwise} within {} s", PATIENCE_MICROS / 1_000_000);
        clock.sleep(LOOK_EVERY).await;
    }
}

/// The owner of every shard, once each has a commit.
fn holder_of_all(heads: &[Head]) -> Option<OwnerId> {
    let holder = heads.first()?.owner.as_ref()?.id;
    heads.iter().all(|head| head.epoch.0 > 0 && is_held_by(head, holder)).then_some(holder)
}

fn is_held_by(head: &Head, owner: OwnerId) -> bool {
    head.owner.as_ref().is_some_and(|holder| holder.id == owner)
}

/// Whether a later generation than that of `before` has committed; a claim alone is none.
fn committed_since(now: &Head, before: &Head) -> bool {
    now.recent.back().is_some_and(|entry| entry.generation > before.generation)
}

/// Processes that have registered.
fn owners(folder: &Path) -> std::io::Result<usize> {
    let paths: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    Ok(paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "lock")).count())
}

fn script(rate: u64) -> String {
    format!(
        "CREATE TABLE events (song_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3), WATERMARK FOR etime AS etime)\n\
         WITH ('connector' = 'plays', 'rows-per-second' = '{rate}', 'disorder-ms' = '0');\n\
         CREATE TABLE sink (window_start TIMESTAMP(3), song_id BIGINT, plays BIGINT, score DOUBLE) WITH ('connector' = 'blackhole');\n\
         INSERT INTO sink SELECT window_start, song_id, count(*), sum(play_score)\n\
         FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(etime), INTERVAL '{}' SECOND)) GROUP BY window_start, window_end, song_id;\n",
        interval_seconds(rate / 10)
    )
}

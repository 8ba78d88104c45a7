//! `weir test DIR`: cases of rows in, event time and rows expected, on the real engine with stores in memory and a clock of its own.
//!
//! ```text
//! NAME.test.toml --read--> case --play, once per schedule--> rows of every step --compare--> differences
//!                                 `-> worker invocations over memory store and table, killed at storage calls
//! ```
//! A schedule is a parallelism, and where processes die. Every one must give the same rows: a case says what they are.
//! Never: opens a connector of the job, or asks the machine's clock but to say how long a case took.

mod case;
mod given;
mod rows;

mod crashes;
mod play;
mod results;
mod world;

mod compare;
mod diff;
mod update;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures::StreamExt;
use weir_model::Clock;
use weir_seams::SystemClock;

use case::{Case, Reading};
use play::Schedule;

/// What ends the name of a case.
const SUFFIX: &str = ".test.toml";
/// Runs with crashes per parallelism.
const CRASHING_RUNS: u64 = 2;

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// Folder whose cases run, those of the folders in it too; or one case
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Only cases whose name contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Parallelisms at which each case runs
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 2, 7],
        value_parser = clap::value_parser!(u16).range(1..=128))]
    parallelism: Vec<u16>,
    /// Write the rows that came into the cases, in place of those expected
    #[arg(long)]
    update: bool,
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// Its expected rows were written anew.
    Updated,
    /// What to show.
    Failed(String),
}

/// Runs cases and prints a line for each.
pub(super) async fn test(args: &TestArgs) -> anyhow::Result<()> {
    let found = find(&args.folder)?;
    let chosen: Vec<_> = found.iter().filter(|(name, _)| args.filter.as_ref().is_none_or(|text| name.contains(text))).collect();
    anyhow::ensure!(!chosen.is_empty(), "{}", nothing(args, found.len()));
    let width = chosen.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let clock = SystemClock::new();
    let mut ended = futures::stream::iter(chosen.iter().map(|(name, path)| {
        let (name, path, parallelism, update) = (name.clone(), path.clone(), args.parallelism.clone(), args.update);
        async move { (name, on_a_thread(path, parallelism, update).await) }
    }))
    .buffered(std::thread::available_parallelism().map_or(1, usize::from));
    let mut failed = 0;
    while let Some((name, (verdict, took))) = ended.next().await {
        failed += usize::from(matches!(verdict, Verdict::Failed(_)));
        print(&name, width, &verdict, took);
    }
    let took = micros(clock.monotonic_micros()).as_millis();
    let count = chosen.len();
    anyhow::ensure!(failed == 0, "{failed} of {count} cases failed, in {took} ms");
    summary(count, took);
    Ok(())
}

fn micros(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

fn nothing(args: &TestArgs, found: usize) -> String {
    let folder = args.folder.display();
    match &args.filter {
        Some(text) if found > 0 => format!("nothing was tested: none of the {found} cases in {folder} has {text:?} in its name"),
        _ => format!("nothing was tested: {folder} has no case; a case is a file named NAME{SUFFIX}, weir test --help shows one"),
    }
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
fn print(name: &str, width: usize, verdict: &Verdict, took: Duration) {
    let (word, shown) = match verdict {
        Verdict::Passed => ("ok  ", ""),
        Verdict::Updated => ("new ", ""),
        Verdict::Failed(shown) => ("FAIL", shown.as_str()),
    };
    println!("{word}  {name:width$}  {:>5} ms", took.as_millis());
    shown.lines().for_each(|line| println!("      {line}"));
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
fn summary(count: usize, took: u128) {
    println!("{count} {} passed, in {took} ms", if count == 1 { "case" } else { "cases" });
}

/// A case on a thread of its own with a runtime of its own: its tasks take turns in one order, so its crashes come at one place.
async fn on_a_thread(path: PathBuf, parallelism: Vec<u16>, update: bool) -> (Verdict, Duration) {
    let work = tokio::task::spawn_blocking(move || {
        let clock = SystemClock::new();
        let verdict = tokio::runtime::Builder::new_current_thread()
            .build()
            .context("a runtime for the case")
            .and_then(|runtime| runtime.block_on(judge(&path, &parallelism, update)))
            .unwrap_or_else(|error| Verdict::Failed(super::told(&error)));
        (verdict, micros(clock.monotonic_micros()))
    });
    work.await.unwrap_or_else(|error| (Verdict::Failed(format!("the case panicked: {error}")), Duration::ZERO))
}

/// Plays a case at every schedule until one gives other rows.
async fn judge(path: &Path, parallelism: &[u16], update: bool) -> anyhow::Result<Verdict> {
    if !update {
        return compared(&Case::read(path, Reading::Whole).await?, parallelism).await;
    }
    let case = Case::read(path, Reading::WithoutExpected).await?;
    let first = Schedule::steady(parallelism.first().copied().unwrap_or(1));
    let steps = play::play(&case, first).await.with_context(|| first.to_string())?;
    let changed = update::write(path, &case, &steps)?;
    let verdict = compared(&Case::read(path, Reading::Whole).await?, parallelism).await?;
    Ok(if changed && verdict == Verdict::Passed { Verdict::Updated } else { verdict })
}

async fn compared(case: &Case, parallelism: &[u16]) -> anyhow::Result<Verdict> {
    for schedule in schedules(parallelism) {
        let steps = play::play(case, schedule).await.with_context(|| schedule.to_string())?;
        let differences = compare::compare(case, &steps);
        if !differences.is_empty() {
            return Ok(Verdict::Failed(format!("{schedule}\n{}", diff::show(&differences))));
        }
    }
    Ok(Verdict::Passed)
}

/// Without crashes first: what is wrong there is not the crashes' doing.
fn schedules(parallelism: &[u16]) -> Vec<Schedule> {
    let steady = parallelism.iter().map(|&parallelism| Schedule::steady(parallelism));
    let crashing = (parallelism.iter())
        .flat_map(|&parallelism| (1..=CRASHING_RUNS).map(move |seed| Schedule { parallelism, crashes: Some(seed) }));
    steady.chain(crashing).collect()
}

/// Cases below `folder` by name, sorted.
fn find(folder: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    if folder.is_file() {
        let file = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = file
            .strip_suffix(SUFFIX)
            .with_context(|| format!("{} is no case: its name must end in {SUFFIX}", folder.display()))?;
        return Ok(vec![(name.to_owned(), folder.to_owned())]);
    }
    let mut found = Vec::new();
    look(folder, "", &mut found)?;
    found.sort();
    Ok(found)
}

/// Links to folders are not followed: they may lead in a circle.
fn look(folder: &Path, prefix: &str, found: &mut Vec<(String, PathBuf)>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("folder {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("folder {}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_folder = entry.file_type().with_context(|| format!("{}", entry.path().display()))?.is_dir();
        if is_folder && !name.starts_with('.') {
            look(&entry.path(), &format!("{prefix}{name}/"), found)?;
        } else if let Some(name) = name.strip_suffix(SUFFIX).filter(|_| !is_folder) {
            found.push((format!("{prefix}{name}"), entry.path()));
        }
    }
    Ok(())
}

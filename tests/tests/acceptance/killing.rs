//! Real processes under SIGKILL: nothing is lost, nothing is counted twice, and others take over at once.

use std::path::Path;
use std::time::{Duration, Instant};

use weir_coordinator::{SqliteTable, claim, jobs};
use weir_model::{CommitEntry, Head, OwnerId, ShardId, ShardKey, StageId};

use crate::background::Background;
use crate::support::{Case, assert_ok, assert_same, hot_songs, hot_songs_batch, sink_rows, write_plays_of};
use crate::watched::{DEADLINE, Watched, owners, until};

const KILLS: u32 = 36;
const SEED: u64 = 11;

/// Stages of a job with one INSERT that groups.
pub(crate) const LANES: u16 = 0;
pub(crate) const PUBLISHER: u16 = 2;

/// Heads of the first two shards of a stage of the case's job; none before somebody has made the table.
pub(crate) async fn heads_of(case: &Case, stage: u16) -> Vec<Head> {
    let file = case.path("store/coordination.sqlite");
    let Some(table) = file.exists().then(|| SqliteTable::open(&file, false).ok()).flatten() else { return Vec::new() };
    let mut heads = Vec::new();
    for (_, job) in jobs::list(&table).await.unwrap_or_default() {
        for shard in [0, 1].map(|shard| ShardKey::new(job, StageId(stage), ShardId(shard))) {
            heads.extend(claim::read_head(&table, shard).await.ok().map(|(head, _)| head));
        }
    }
    heads
}

/// Commits of these heads.
pub(crate) async fn commits_of(case: &Case, stage: u16) -> u64 {
    heads_of(case, stage).await.iter().map(|head| head.epoch.0).sum()
}

/// Runs the case until its lanes have committed once more and `moment` is over, then kills it; returns whether it ended before. However
/// fast or busy the machine is, each life gets somewhere and none gets far.
pub(crate) async fn killed_at_work(case: &Case, moment: Duration, more: &[&str]) -> bool {
    let arguments = [&["--parallelism", "2", "--commit-interval", "10ms", "--quiet"], more].concat();
    let before = commits_of(case, LANES).await;
    let mut child = Background::start(&mut case.run(&arguments));
    let began = Instant::now();
    while commits_of(case, LANES).await == before {
        assert!(began.elapsed() < DEADLINE, "the job makes no progress");
        if child.ended_within(Duration::from_millis(5)).await {
            return true;
        }
    }
    if child.ended_within(moment).await {
        return true;
    }
    child.end();
    false
}

/// Runs the case to its end, killing it up to `kills` times; returns how often it was killed.
pub(crate) async fn killed_often(case: &Case, kills: u32, more: &[&str]) -> u32 {
    for killed in 0..kills {
        if killed_at_work(case, Duration::from_millis(u64::from(killed) * 7 % 10), more).await {
            return killed;
        }
    }
    let arguments = [&["--parallelism", "2", "--quiet"], more].concat();
    assert_ok(&case.run(&arguments).output().expect("weir starts"));
    kills
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_killed_over_and_over_gives_the_batch_result() {
    let case = Case::new(3_000_000, 1);
    let kills = killed_often(&case, KILLS, &[]).await;
    assert!(kills >= 30, "only {kills} kills before the job was done: give it more rows");
    assert_same("after kills", &sink_rows(&case.output()).await, &hot_songs_batch(&case.input()).await);
}

/// Plays of the example, as many each second as leaves time to share and to kill.
fn paced(rows: u64) -> String {
    hot_songs(Path::new("plays"), Path::new("${folder}/hot")).replace(
        "'connector' = 'filesystem', 'path' = 'plays', 'format' = 'json'",
        &format!("'connector' = 'plays', 'seed' = '{SEED}', 'number-of-rows' = '{rows}', 'rows-per-second' = '20000'"),
    )
}

/// Heads that `owner` holds.
fn held_by(heads: &[Head], owner: OwnerId) -> Vec<Head> {
    heads.iter().filter(|head| head.owner.as_ref().is_some_and(|holder| holder.id == owner)).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_shares_the_work_and_takes_over_when_the_first_is_killed() {
    let rows = 160_000;
    let job = Watched::new(&paced(rows), 2);
    let mut first = job.start(&["--quiet"]);
    let table = job.table().await;
    let all_held =
        |heads: &[Head]| (owners(heads).len() == 1 && heads.iter().all(|head| head.owner.is_some())).then(|| owners(heads)[0]);
    let dying = table.until("the first process holds every shard", all_held).await;
    let mut second = job.start(&["--quiet"]);
    let shared = |heads: &[Head]| {
        let others = owners(heads).into_iter().any(|owner| owner != dying);
        let kept = held_by(heads, dying);
        (others && !kept.is_empty()).then_some(kept)
    };
    let lost = table.until("both hold shards", shared).await;
    assert!(lost.len() < table.shards.len());
    first.kill();
    let killed = Instant::now();
    let taken_over = |heads: &[Head]| {
        let heir = |head: &Head| head.recent.back().is_some_and(|entry| is_newer(&lost, head, entry));
        heads.iter().any(heir).then_some(())
    };
    table.until("a commit of a shard that the dead process held", taken_over).await;
    println!("{} shards lost, the first commit of one {:?} after the kill", lost.len(), killed.elapsed());
    until("the survivor's end", || (!second.is_running()).then_some(()));
    assert!(second.ended_well(), "{}", job.said());
    let input = job.path("plays");
    write_plays_of(SEED, &input, rows, 1, 4_000);
    assert_same("after take-over", &sink_rows(&job.path("hot")).await, &hot_songs_batch(&input).await);
}

/// Whether `entry` was committed by a later generation than the one that was killed.
fn is_newer(lost: &[Head], head: &Head, entry: &CommitEntry) -> bool {
    lost.iter().any(|before| before.shard == head.shard && entry.generation > before.generation)
}

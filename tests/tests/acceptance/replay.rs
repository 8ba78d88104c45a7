//! `weir replay`: any batch whose past is still there gives again what it gave, and what it cannot do it says.

use std::path::Path;
use std::process::Output;

use weir_coordinator::{Condition, CoordinationStore, TransactOutcome, Write, claim, keys, retention};
use weir_model::{CommitEntry, Head, InputCut, Inputs, SegmentKind, StageId};

use crate::support::{assert_ok, hot_songs, text, write_plays};
use crate::watched::{Table, Watched, endless_windows};

const LANES: StageId = StageId(0);
const MERGES: StageId = StageId(1);
const PUBLISHERS: StageId = StageId(2);

fn replay(job: &Watched, shard: &str, epoch: u64) -> Output {
    let arguments = ["replay", "job", "--shard", shard, "--epoch", &epoch.to_string(), "--rows", "2"];
    job.weir(&arguments).output().expect("weir starts")
}

fn refusal(job: &Watched, shard: &str, epoch: u64) -> String {
    let output = replay(job, shard, epoch);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    text(&output.stderr)
}

/// Runs an endless job until each merge shard has committed so often, and kills it.
async fn killed(sql: &str, merge_epochs: u64) -> (Watched, Table) {
    let job = Watched::new(sql, 2);
    let mut process = job.start(&["--quiet"]);
    let table = job.table().await;
    let enough = |heads: &[Head]| of_stage(heads, MERGES).all(|head| head.epoch.0 >= merge_epochs).then_some(());
    table.until("commits of the merge shards", enough).await;
    process.kill();
    (job, table)
}

fn of_stage(heads: &[Head], stage: StageId) -> impl Iterator<Item = &Head> {
    heads.iter().filter(move |head| head.shard.stage == stage)
}

/// Replays every `step`th batch, newest first, as far as the past is there; returns how many gave again what they gave.
fn replayed(job: &Watched, head: &Head, step: usize) -> usize {
    let mut again = 0;
    for epoch in (1..=head.epoch.0).rev().step_by(step) {
        let output = replay(job, &head.shard.to_string(), epoch);
        let (found, said) = (text(&output.stdout), text(&output.stderr));
        if !output.status.success() {
            assert!(said.contains("can no longer be replayed"), "{} {epoch}: {said}{found}", head.shard);
            break;
        }
        assert!(found.contains(&format!("epoch {epoch} of {}", head.epoch)) && found.contains(", as committed"), "{found}");
        again += 1;
    }
    again
}

async fn assert_nothing_pinned(table: &Table) {
    let pins = retention::read(&table.table, table.job).await.expect("a row").pins;
    assert!(pins.is_empty(), "a replay left its pin: {pins:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_batch_of_a_killed_job_with_windows_gives_again_what_it_gave() {
    let (job, table) =
        killed(&endless_windows(1, "'connector' = 'filesystem', 'path' = '${folder}/hot', 'format' = 'parquet'"), 20).await;
    let heads = table.heads().await;
    for head in of_stage(&heads, LANES) {
        assert!(replayed(&job, head, 11) >= 3, "{} has {} epochs", head.shard, head.epoch);
    }
    for head in of_stage(&heads, MERGES) {
        assert!(replayed(&job, head, 1) >= 2, "{} has {} epochs", head.shard, head.epoch);
    }
    assert_eq!(table.heads().await, heads, "a replay wrote a head");
    assert_nothing_pinned(&table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_batch_of_a_killed_job_whose_results_change_gives_again_what_it_gave() {
    let sql = "CREATE TABLE plays (song_id BIGINT, play_score DOUBLE) WITH ('connector' = 'plays', 'rows-per-second' = '20000');
         CREATE TABLE totals (song_id BIGINT, plays BIGINT, score DOUBLE, PRIMARY KEY (song_id) NOT ENFORCED)
           WITH ('connector' = 'filesystem', 'path' = '${folder}/totals', 'format' = 'json');
         INSERT INTO totals SELECT song_id, count(*), sum(play_score) FROM plays GROUP BY song_id HAVING count(*) % 5 <> 0;";
    // After 64 commits there is a checkpoint.
    let (job, table) = killed(sql, 80).await;
    for head in of_stage(&table.heads().await, MERGES) {
        assert!(replayed(&job, head, 7) >= 2, "{} has {} epochs", head.shard, head.epoch);
    }
    assert_nothing_pinned(&table).await;
}

/// Epochs of `shard` that a lane has committed in one of its recent commits, and a merge shard has read in one of its.
fn read_by<'a>(heads: &'a [Head], merge: &Head) -> Option<(&'a CommitEntry, u64)> {
    let reads = |cut: &InputCut, lane: &Head, entry: &CommitEntry| {
        let rows = entry.segment(SegmentKind::Exchange).map_or(0, |segment| segment.rows_for(merge.shard.shard));
        cut.from == lane.shard && cut.after < entry.epoch && entry.epoch <= cut.upto && rows > 0
    };
    let lanes = || of_stage(heads, LANES).flat_map(|lane| lane.recent.iter().map(move |entry| (lane, entry)));
    merge.recent.iter().rev().find_map(|batch| {
        let Inputs::Segments(cuts) = &batch.recipe.inputs else { return None };
        let mut found = cuts.iter().flat_map(|cut| lanes().map(move |(lane, entry)| (cut, lane, entry)));
        found.find(|(cut, lane, entry)| reads(cut, lane, entry)).map(|(_, _, entry)| (entry, batch.epoch.0))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_gives_something_else_and_a_damaged_object_are_told() {
    let (job, table) =
        killed(&endless_windows(1, "'connector' = 'filesystem', 'path' = '${folder}/hot', 'format' = 'parquet'"), 6).await;
    let heads = table.heads().await;
    let merge = of_stage(&heads, MERGES).next().expect("a merge shard");
    let (mut head, version) = claim::read_head(&table.table, merge.shard).await.expect("a head");
    let entry = head.recent.back_mut().expect("a commit");
    let (epoch, committed) = (entry.epoch.0, entry.recipe.digest);
    entry.recipe.digest ^= 1;
    let body = serde_json::to_vec(&head).expect("it encodes").into();
    let write = Write::Put { key: keys::head(head.shard), condition: Condition::VersionIs(version), body };
    assert_eq!(table.table.transact(vec![write]).await.expect("it answers"), TransactOutcome::Applied);
    let said = refusal(&job, &merge.shard.to_string(), epoch);
    for expected in [format!("{committed:016x}"), format!("{:016x}", committed ^ 1), "by this same build".to_owned()] {
        assert!(said.contains(&expected), "{expected}: {said}");
    }
    let shown = text(&replay(&job, &merge.shard.to_string(), epoch).stdout);
    assert!(shown.contains(&format!("digest {committed:016x}, {:016x} was committed", committed ^ 1)), "{shown}");

    let (lane, epoch) = read_by(&heads, merge).expect("a recent commit that was read");
    let object = &lane.segment(SegmentKind::Exchange).expect("partials").object;
    let file = job.path("store").join(object);
    let bytes = std::fs::read(&file).expect("an object");
    std::fs::write(&file, &bytes[..bytes.len() / 2]).expect("an object");
    let said = refusal(&job, &merge.shard.to_string(), epoch);
    assert!(said.contains(object) && said.contains("bytes were committed"), "{said}");
    assert_nothing_pinned(&table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_finished_job_lanes_read_their_files_again_and_the_rest_is_told() {
    let job = Watched::new(&hot_songs(Path::new("plays"), Path::new("${folder}/hot")), 2);
    write_plays(&job.path("plays"), 120_000, 2, 4_000);
    assert_ok(&job.run(&["--quiet"]));
    let table = job.table().await;
    let heads = table.heads().await;
    for head in of_stage(&heads, LANES) {
        // As many entries as a head keeps at least.
        assert!(replayed(&job, head, 1) as u64 >= head.epoch.0.min(8), "{} has {} epochs", head.shard, head.epoch);
    }
    let merge = of_stage(&heads, MERGES).next().expect("a merge shard");
    let said = refusal(&job, "1/0", 1);
    let expected = format!("epoch 1 of shard {} can no longer be replayed, what it needs was deleted", merge.shard);
    assert!(said.contains(&expected), "{said}");
    let said = refusal(&job, "1/0", merge.epoch.0 + 1);
    let expected = format!("has not committed epoch {}: its last is {}", merge.epoch.0 + 1, merge.epoch);
    assert!(said.contains(&expected), "{said}");
    let said = refusal(&job, "9/0", 1);
    let expected = "job job has no shard 9/0: it has s000-00000 to s000-00001 (lane), s001-00000 to s001-00001 (merge shard), \
                    s002-00000 (publisher)";
    assert!(said.contains(expected), "{said}");

    let publisher = of_stage(&heads, PUBLISHERS).next().expect("a publisher");
    let output = replay(&job, &publisher.shard.to_string(), publisher.epoch.0);
    assert_ok(&output);
    let said = text(&output.stdout);
    assert!(said.contains("is a publisher") && said.contains("Its last step was number"), "{said}");

    let misnamed = replay(&job, "merge", 1);
    assert!(text(&misnamed.stderr).contains("a shard is named as in weir status"), "{}", text(&misnamed.stderr));
    let other = job.weir(&["replay", "jop", "--shard", "1/0", "--epoch", "1"]).output().expect("weir starts");
    assert!(text(&other.stderr).contains("did you mean \"job\"?"), "{}", text(&other.stderr));
    assert_nothing_pinned(&table).await;
}

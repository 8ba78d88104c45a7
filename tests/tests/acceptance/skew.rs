//! One key with most of the rows: lanes fold it before they send it, so no merge shard gets more than a row of it per commit and window.

use weir_coordinator::{SqliteTable, jobs};
use weir_model::{Head, SegmentKind, ShardId, ShardKey, StageId};

use crate::support::{Case, assert_ok, text};
use crate::watched::Watched;

const ROWS: u64 = 300_000;
const KEYS: u64 = 1_000;
const HOT: u64 = 17;

/// Six rows of ten are of one song, all at one time.
fn skewed() -> String {
    let song = |n: u64| if n % 10 < 6 { HOT } else { n * 7_919 % KEYS };
    let row = |n| format!("{{\"song_id\":{},\"user_id\":1,\"play_score\":1.0,\"etime\":\"2026-01-01 00:00:05\"}}\n", song(n));
    (0..ROWS).map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_most_of_the_rows_reaches_its_merge_shard_as_one_row_per_commit() {
    let case = Case::new(1, 1);
    std::fs::write(case.input().join("000.json"), skewed()).expect("input");
    let arguments = ["--parallelism", "2", "--commit-interval", "20ms", "--quiet", "--durability", "process"];
    assert_ok(&case.run(&arguments).output().expect("weir starts"));
    let table = SqliteTable::open(&case.path("store/coordination.sqlite"), false).expect("the table opens");
    let (_, job) = jobs::list(&table).await.expect("jobs")[0].clone();
    let shards = |stage| [0, 1].map(|shard| ShardKey::new(job, StageId(stage), ShardId(shard)));
    let lanes = jobs::heads(&table, &shards(0)).await.expect("heads");
    let merges = jobs::heads(&table, &shards(1)).await.expect("heads");
    assert_eq!(lanes.iter().map(|head| head.stats.rows_in).sum::<u64>(), ROWS);
    let entries = lanes.iter().flat_map(|head| &head.recent).filter_map(|entry| entry.segment(SegmentKind::Exchange));
    let sent = entries.map(|segment| segment.rows_for(ShardId(0)) + segment.rows_for(ShardId(1))).max();
    assert!(sent.is_some_and(|sent| (1..=KEYS).contains(&sent)), "a commit sent {sent:?} rows of {KEYS} keys");
    let commits: u64 = lanes.iter().map(|head| head.epoch.0).sum();
    let received = |head: &Head| head.stats.rows_in;
    for head in &merges {
        assert!(received(head) <= commits * KEYS, "{} got {} rows of {commits} commits", head.shard, received(head));
    }
    // The shard of the hot key has no more to do than the other: half of the keys, about.
    let (least, most) = (merges.iter().map(received).min(), merges.iter().map(received).max());
    assert!(most <= least.map(|least| least * 2), "{least:?} and {most:?} rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_a_hot_key_with_its_part_of_the_rows() {
    let sql = "CREATE TABLE drawn (x BIGINT)
           WITH ('connector' = 'datagen', 'rows-per-second' = '20000', 'fields.x.min' = '0', 'fields.x.max' = '99');
         CREATE VIEW plays AS SELECT CASE WHEN x < 60 THEN 17 ELSE x + 1000 END AS song_id FROM drawn;
         CREATE TABLE totals (song_id BIGINT, plays BIGINT, PRIMARY KEY (song_id) NOT ENFORCED)
           WITH ('connector' = 'filesystem', 'path' = '${folder}/totals', 'format' = 'json');
         INSERT INTO totals SELECT song_id, count(*) FROM plays GROUP BY song_id;";
    let job = Watched::new(sql, 2);
    let mut process = job.start(&["--quiet"]);
    let table = job.table().await;
    // Enough rows that six of ten are neither five nor seven.
    table.until("rows", |heads| (heads.iter().map(|head| head.stats.events).sum::<u64>() > 20_000).then_some(())).await;
    process.kill();
    let output = job.weir(&["status"]).output().expect("weir starts");
    assert_ok(&output);
    let said = text(&output.stdout);
    let hot: Vec<&str> = said.lines().filter(|line| line.contains("hot key")).collect();
    let percent = |line: &str| line.split(" has ").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    let [line] = hot.as_slice() else { panic!("one key is hot: {said}") };
    assert!(line.contains("hot key of totals: song_id = 17 has "), "{line}");
    assert!(percent(line).is_some_and(|percent| (50..=70).contains(&percent)), "{line}");
}

//! GROUP BY without a window: the changelog, applied by key, is the batch result, whatever is killed and however it is cut.

use std::path::Path;

use datafusion::prelude::{JsonReadOptions, SessionContext};
use weir_connectors::generate::Plays;

use crate::killing::killed_often;
use crate::support::{Bag, Case, applied, assert_ok, assert_same, bag, lines};

/// Songs of which some fall out again: a condition on a result that changes.
const QUERY: &str =
    "SELECT song_id, count(*) AS plays, sum(play_score) AS score FROM plays GROUP BY song_id HAVING count(*) % 5 <> 0";

/// Nearly each play has a group of its own.
const PAIRS: &str = "SELECT song_id, user_id, count(*) AS plays, sum(play_score) AS score FROM plays GROUP BY song_id, user_id HAVING count(*) <> 2";

/// - `keys`: of the sink, each a BIGINT.
fn with_query(case: &Case, keys: &[&str], query: &str) {
    let columns: String = keys.iter().map(|key| format!("{key} BIGINT, ")).collect();
    let sql = format!(
        "CREATE TABLE plays (song_id BIGINT, user_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3)
         ) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         CREATE TABLE totals ({columns}plays BIGINT, score DOUBLE, PRIMARY KEY ({}) NOT ENFORCED)
           WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         INSERT INTO totals {query};",
        case.input().display(),
        keys.join(", "),
        case.output().display()
    );
    std::fs::write(case.script(), sql).expect("the script can be written");
}

fn found(case: &Case, keys: &[&str]) -> Bag {
    let rows = applied(&lines(&case.output()), keys);
    let mut bag = Bag::new();
    for row in rows {
        let row: serde_json::Value = serde_json::from_str(&row).expect("a row is JSON");
        let keys: String = keys.iter().map(|key| format!("{}|", row[key])).collect();
        let text = format!("{keys}{}|{:?}", row["plays"], row["score"].as_f64().expect("a sum"));
        *bag.entry(text).or_default() += 1;
    }
    bag
}

async fn expected(input: &Path, query: &str) -> Bag {
    let context = SessionContext::new();
    let schema = Plays::schema();
    let options = JsonReadOptions::default().schema(&schema).file_extension("json");
    context.register_json("plays", input.display().to_string(), options).await.expect("input registers");
    bag(&context.sql(query).await.expect("batch plans").collect().await.expect("batch runs"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_results_do_not_depend_on_how_a_job_is_run() {
    for (parallelism, interval, invoke) in
        [("1", "5ms", "thread"), ("2", "50ms", "thread"), ("7", "5ms", "thread"), ("2", "1s", "thread"), ("2", "10ms", "process")]
    {
        let case = Case::new(40_000, 2);
        with_query(&case, &["song_id"], QUERY);
        let arguments = ["--parallelism", parallelism, "--commit-interval", interval, "--invoke", invoke];
        assert_ok(&case.run(&arguments).arg("--durability").arg("process").output().expect("weir starts"));
        assert_same(&format!("{arguments:?}"), &found(&case, &["song_id"]), &expected(&case.input(), QUERY).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_killed_over_and_over_says_each_change_once() {
    let case = Case::new(1_500_000, 1);
    with_query(&case, &["song_id"], QUERY);
    let kills = killed_often(&case, 12, &["--durability", "process"]).await;
    assert!(kills >= 10, "only {kills} kills before the job was done: give it more rows");
    assert_same("after kills", &found(&case, &["song_id"]), &expected(&case.input(), QUERY).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_larger_than_its_memory_gives_the_batch_result() {
    let case = Case::new(400_000, 2);
    let keys = ["song_id", "user_id"];
    with_query(&case, &keys, PAIRS);
    // Four shards' tables of 10 MB each, of which a megabyte has room.
    let arguments = ["--parallelism", "4", "--memory", "8MiB", "--commit-interval", "200ms", "--durability", "process"];
    assert_ok(&case.run(&arguments).output().expect("weir starts"));
    let found = found(&case, &keys);
    assert!(found.len() > 300_000, "only {} groups", found.len());
    assert_same("with little memory", &found, &expected(&case.input(), PAIRS).await);
}

//! Windows that give results before they close and after: the last result of each group is the batch's, each earlier one that of a prefix, and
//! no row is counted twice, whatever is killed.

use std::collections::HashMap;

use serde_json::Value;

use crate::killing::killed_often;
use crate::support::{Bag, Case, applied, assert_ok, assert_same, hot_songs, hot_songs_batch, lines};
use crate::watched::{Watched, until};

/// The example with early results and lateness, as JSON with the reason of each result.
fn early(case: &Case, every: &str) -> String {
    let sql = hot_songs(&case.input(), &case.output())
        .replace("score DOUBLE)", "score DOUBLE, why STRING, PRIMARY KEY (window_start, song_id) NOT ENFORCED)")
        .replace("'format' = 'parquet'", "'format' = 'json'")
        .replacen("'format' = 'json'", "'format' = 'json', 'allowed-lateness' = '10 s'", 1)
        .replace("sum(play_score)\n", "sum(play_score), FIRING()\n")
        .replace("window_end, song_id;", &format!("window_end, song_id EMIT EVERY INTERVAL '{every}' SECOND;"));
    for part in ["why STRING", "allowed-lateness", "FIRING()", "EMIT EVERY"] {
        assert!(sql.contains(part), "{part} is missing in {sql}");
    }
    sql
}

/// What counts in the end, without the reasons; and how often there was which.
fn found(case: &Case) -> (Bag, HashMap<String, usize>) {
    let (mut bag, mut reasons) = (Bag::new(), HashMap::new());
    let mut plays: HashMap<String, u64> = HashMap::new();
    let lines = lines(&case.output());
    for line in &lines {
        let row: Value = serde_json::from_str(line).expect("a row is JSON");
        *reasons.entry(row["why"].as_str().expect("why").to_owned()).or_default() += 1;
        let last = plays.entry(format!("{}|{}", row["window_start"], row["song_id"])).or_default();
        let now = row["plays"].as_u64().expect("plays");
        assert!(now >= *last, "{line}: earlier it had {last} plays already");
        *last = now;
    }
    for row in applied(&lines, &["window_start", "song_id"]) {
        let row: Value = serde_json::from_str(&row).expect("a row is JSON");
        let start = row["window_start"].as_str().expect("a time").replace(' ', "T");
        let text = format!("{start}|{}|{}|{:?}", row["song_id"], row["plays"], row["score"].as_f64().expect("a sum"));
        *bag.entry(text).or_default() += 1;
    }
    (bag, reasons)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_results_are_the_batch_however_the_job_is_run() {
    for (parallelism, interval, invoke, every) in [
        ("1", "5ms", "thread", "0.001"),
        ("3", "20ms", "thread", "0.05"),
        ("2", "10ms", "process", "0.01"),
        ("2", "10ms", "thread", "3600"),
    ] {
        let case = Case::new(100_000, 2);
        std::fs::write(case.script(), early(&case, every)).expect("the script can be written");
        let arguments =
            ["--parallelism", parallelism, "--commit-interval", interval, "--invoke", invoke, "--durability", "process"];
        assert_ok(&case.run(&arguments).output().expect("weir starts"));
        let (bag, reasons) = found(&case);
        assert_same(&format!("{arguments:?}"), &bag, &hot_songs_batch(&case.input()).await);
        assert!(reasons["on-time"] > 0 && !reasons.contains_key("late"), "nothing came later than declared: {reasons:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_killed_over_and_over_gives_early_results_of_prefixes_and_the_batch_in_the_end() {
    let case = Case::new(1_500_000, 1);
    std::fs::write(case.script(), early(&case, "0.01")).expect("the script can be written");
    let kills = killed_often(&case, 12, &["--durability", "process"]).await;
    assert!(kills >= 10, "only {kills} kills before the job was done: give it more rows");
    let (bag, reasons) = found(&case);
    assert!(reasons.get("early").is_some_and(|early| *early > 0), "no early result in {reasons:?}");
    assert_same("after kills", &bag, &hot_songs_batch(&case.input()).await);
}

/// A source that goes on for ever, in a window of an hour: without early results nothing would be seen of it.
#[tokio::test(flavor = "multi_thread")]
async fn results_of_an_open_window_grow_while_it_is_open() {
    let sql = "CREATE TABLE plays (song_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3), WATERMARK FOR etime AS etime)
           WITH ('connector' = 'plays', 'rows-per-second' = '2000', 'disorder-ms' = '0');
         CREATE TABLE hot (window_start TIMESTAMP(3), plays BIGINT, PRIMARY KEY (window_start) NOT ENFORCED)
           WITH ('connector' = 'filesystem', 'path' = '${folder}/out', 'format' = 'json');
         INSERT INTO hot SELECT window_start, count(*) FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '1' HOUR))
         GROUP BY window_start, window_end EMIT EVERY INTERVAL '0.05' SECOND;";
    let job = Watched::new(sql, 1);
    let mut running = job.start(&["--quiet"]);
    let out = job.path("out");
    let seen = until("results grow", || {
        let rows = if out.exists() { lines(&out) } else { Vec::new() };
        (rows.len() >= 5).then_some(rows)
    });
    running.kill();
    let plays: Vec<u64> =
        seen.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["plays"].as_u64().expect("plays")).collect();
    assert!(plays.is_sorted() && plays[0] < plays[plays.len() - 1], "{plays:?}");
}

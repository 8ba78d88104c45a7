//! PostgreSQL as a target: each result is in the table once, whatever is killed on either side.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use datafusion::prelude::{JsonReadOptions, SessionContext};
use tokio::sync::RwLock;
use weir_connectors::generate::Plays;

use crate::background::Background;
use crate::ingest::{HttpCase, read_by_http, sent_under_kills};
use crate::killing::{PUBLISHER, commits_of, killed_often};
use crate::real_parts::variable;
use crate::support::{Bag, Case, assert_ok, assert_same, bag, hot_songs, hot_songs_batch, text, write_plays_of};

/// One test kills the server: no other may need it meanwhile.
static SERVER: RwLock<()> = RwLock::const_new(());

/// What the talk asks: a window that never closes.
const QUERY: &str = "SELECT song_id, sum(play_score) AS qy_play_score FROM plays GROUP BY song_id";

fn psql(sql: &str) -> Output {
    let mut command = Command::new(variable("WEIR_TEST_PSQL"));
    command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--field-separator=|", &variable("WEIR_TEST_POSTGRES")]);
    command.args(["--command", sql]).output().expect("psql starts")
}

/// Rows of a query, counted.
fn rows(sql: &str) -> Bag {
    let output = psql(sql);
    assert_ok(&output);
    let mut bag = Bag::new();
    for line in text(&output.stdout).lines() {
        *bag.entry(line.to_owned()).or_default() += 1;
    }
    bag
}

/// Name of a table that no other test has, and that is not there.
fn table(name: &str) -> String {
    let table = format!("{name}_{}", std::process::id());
    assert_ok(&psql(&format!("DROP TABLE IF EXISTS {table}")));
    table
}

fn url() -> String {
    let url = variable("WEIR_TEST_POSTGRES");
    url.replace("postgresql://weir@", "jdbc:postgresql://")
}

fn with(table: &str) -> String {
    format!("WITH ('connector' = 'jdbc', 'url' = '{}', 'table-name' = '{table}', 'username' = 'weir')", url())
}

fn totals(case: &Case, table: &str) -> String {
    format!(
        "CREATE TABLE plays (song_id BIGINT, user_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3)
         ) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         CREATE TABLE uni_hot_stat (song_id BIGINT, qy_play_score DOUBLE, PRIMARY KEY (song_id) NOT ENFORCED) {};
         INSERT INTO uni_hot_stat {QUERY};",
        case.input().display(),
        with(table)
    )
}

async fn totals_batch(input: &Path) -> Bag {
    let context = SessionContext::new();
    let schema = Plays::schema();
    let options = JsonReadOptions::default().schema(&schema).file_extension("json");
    context.register_json("plays", input.display().to_string(), options).await.expect("input registers");
    bag(&context.sql(QUERY).await.expect("batch plans").collect().await.expect("batch runs"))
}

/// Sums as the batch's are shown.
fn totals_found(table: &str) -> Bag {
    let shown = |row: &String| {
        let (song, score) = row.split_once('|').expect("two columns");
        format!("{song}|{:?}", score.parse::<f64>().expect("a sum"))
    };
    rows(&format!("SELECT song_id, qy_play_score FROM {table}")).iter().map(|(row, count)| (shown(row), *count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_change_are_upserted_once_under_kills() {
    let _there = SERVER.read().await;
    let case = Case::new(3_000_000, 1);
    let table = table("totals");
    std::fs::write(case.script(), totals(&case, &table)).expect("the script can be written");
    let kills = killed_often(&case, 36, &["--durability", "process"]).await;
    assert!(kills >= 30, "only {kills} kills before the job was done: give it more rows");
    assert_same("after kills", &totals_found(&table), &totals_batch(&case.input()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_generated_rows_are_upserted_once_under_kills() {
    const SEED: u64 = 5;
    const ROWS: u64 = 4_000_000;
    let _there = SERVER.read().await;
    let case = Case::new(1, 1);
    let table = table("generated");
    let files = format!("'connector' = 'filesystem', 'path' = '{}', 'format' = 'json'", case.input().display());
    // As many each second as leave time to kill.
    let plays = format!("'connector' = 'plays', 'seed' = '{SEED}', 'number-of-rows' = '{ROWS}', 'rows-per-second' = '250000'");
    let script = totals(&case, &table);
    assert!(script.contains(&files), "the source's options are not where they were");
    std::fs::write(case.script(), script.replace(&files, &plays)).expect("the script can be written");
    let kills = killed_often(&case, 36, &["--durability", "process"]).await;
    assert!(kills >= 30, "only {kills} kills before the job was done: give it more rows");
    let same = case.path("same");
    write_plays_of(SEED, &same, ROWS, 1, 4_000);
    assert_same("after kills", &totals_found(&table), &totals_batch(&same).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_rows_by_http_are_upserted_once_under_kills_of_server_and_job() {
    let _there = SERVER.read().await;
    let http = HttpCase::new(3_000_000, 1);
    let table = table("by_http");
    std::fs::write(http.case.script(), totals(&http.case, &table)).expect("the script can be written");
    read_by_http(&http.case);
    let kills = sent_under_kills(&http, 36, false).await;
    assert!(kills >= 30, "only {kills} kills before all rows were sent: give it more rows");
    assert_same("after kills", &totals_found(&table), &totals_batch(&http.case.input()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_only_grow_are_inserted_once_under_kills() {
    let _there = SERVER.read().await;
    let case = Case::new(1_000_000, 1);
    let table = table("hot");
    let sql = hot_songs(&case.input(), &case.output());
    let files = format!("WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet')", case.output().display());
    assert!(sql.contains(&files), "the sink's options are not where they were");
    std::fs::write(case.script(), sql.replace(&files, &with(&table))).expect("the script can be written");
    let kills = killed_often(&case, 12, &["--durability", "process"]).await;
    assert!(kills >= 6, "only {kills} kills before the job was done: give it more rows");
    let sql = format!("SELECT to_char(window_start, 'YYYY-MM-DD\"T\"HH24:MI:SS'), song_id, plays, score FROM {table}");
    let shown = |row: &String| {
        let (rest, score) = row.rsplit_once('|').expect("columns");
        format!("{rest}|{:?}", score.parse::<f64>().expect("a sum"))
    };
    let found: Bag = rows(&sql).iter().map(|(row, count)| (shown(row), *count)).collect();
    assert_same("after kills", &found, &hot_songs_batch(&case.input()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_when_its_target_was_killed_under_it() {
    let _alone = SERVER.write().await;
    let restart = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/local/restart");
    let case = Case::new(3_000_000, 1);
    let table = table("restarted");
    std::fs::write(case.script(), totals(&case, &table)).expect("the script can be written");
    let arguments = ["--parallelism", "2", "--commit-interval", "10ms", "--quiet", "--durability", "process"];
    let mut child = Background::start(&mut case.run(&arguments));
    for _ in 0..2 {
        let before = commits_of(&case, PUBLISHER).await;
        while commits_of(&case, PUBLISHER).await == before {
            assert!(!child.ended_within(Duration::from_millis(1)).await, "the job was done before its target was killed");
        }
        assert_ok(&Command::new(restart).args(["--kill", "postgres"]).output().expect("the script starts"));
    }
    child.ends("the job", Duration::from_secs(300)).await;
    assert_same("after the target was killed", &totals_found(&table), &totals_batch(&case.input()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_target_is_said() {
    let _there = SERVER.read().await;
    let case = Case::new(100, 1);
    let table = table("narrow");
    assert_ok(&psql(&format!("CREATE TABLE {table} (song_id bigint)")));
    let right = totals(&case, &table);
    let no_database = format!("{}/nowhere", url().trim_end_matches("/weir"));
    for (sql, expected) in [
        (right.clone(), "the table has no column qy_play_score, only song_id".to_owned()),
        (right.replace(&url(), &no_database), "database \"nowhere\" does not exist".to_owned()),
        (right.replace("'username' = 'weir'", "'username' = 'nobody'"), "role \"nobody\" does not exist".to_owned()),
        (right.replace("'username'", "'usernam'"), "did you mean 'username'?".to_owned()),
        (right.replace(", PRIMARY KEY (song_id) NOT ENFORCED", ""), "PRIMARY KEY".to_owned()),
    ] {
        std::fs::write(case.script(), sql).expect("the script can be written");
        drop(std::fs::remove_dir_all(case.path("store")));
        let output = case.run(&["--quiet"]).output().expect("weir starts");
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(&expected), "{expected}: {said}");
    }
    assert_ok(&psql(&format!("ALTER TABLE {table} ADD COLUMN qy_play_score double precision")));
    std::fs::write(case.script(), right).expect("the script can be written");
    drop(std::fs::remove_dir_all(case.path("store")));
    let output = case.run(&["--quiet"]).output().expect("weir starts");
    let said = text(&output.stderr);
    assert!(said.contains("the table needs a PRIMARY KEY or a unique index"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_the_users_own_is_neither_doubled_nor_cut() {
    let _there = SERVER.read().await;
    let case = Case::new(200_000, 1);
    // The song that is played most has no number.
    let input = case.input().join("000.json");
    let plays = std::fs::read_to_string(&input).expect("plays");
    std::fs::write(&input, plays.replace("\"song_id\":0,", "\"song_id\":null,")).expect("plays");
    let table = table("own");
    assert_ok(&psql(&format!("CREATE TABLE {table} (qy_play_score numeric(20, 6), song_id integer UNIQUE)")));
    std::fs::write(case.script(), totals(&case, &table)).expect("the script can be written");
    let arguments = ["--parallelism", "1", "--commit-interval", "5ms", "--quiet", "--durability", "process"];
    assert_ok(&case.run(&arguments).output().expect("weir starts"));
    let of_none = rows(&format!("SELECT count(*) FROM {table} WHERE song_id IS NULL"));
    assert_eq!(of_none.into_iter().collect::<Vec<_>>(), [("1".to_owned(), 1)], "a result of NULL stands once");
    let found: Bag =
        totals_found(&table).into_iter().map(|(row, count)| (row.trim_start_matches('|').to_owned(), count)).collect();
    let expected = totals_batch(&case.input()).await;
    let expected: Bag = expected.into_iter().map(|(row, count)| (row.trim_start_matches('|').to_owned(), count)).collect();
    assert_same("with a song of no number", &found, &expected);

    assert_ok(&psql(&format!("TRUNCATE {table}; ALTER TABLE {table} ALTER qy_play_score TYPE varchar(2)")));
    drop(std::fs::remove_dir_all(case.path("store")));
    let output = case.run(&["--quiet"]).output().expect("weir starts");
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("value too long for type character varying(2)"), "{said}");
}

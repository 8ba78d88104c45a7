//! Snapshots of a changelog in files: with the rest they are the newest of each key, whatever is killed, to any engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use datafusion::prelude::{JsonReadOptions, ParquetReadOptions, SessionContext};
use weir_connectors::generate::Plays;

use crate::foreign::duckdb;
use crate::killing::{PUBLISHER, heads_of, killed_at_work};
use crate::support::{Bag, Case, assert_ok, assert_same, bag, text};

const QUERY: &str =
    "SELECT song_id, count(*) AS plays, sum(play_score) AS score FROM plays GROUP BY song_id HAVING count(*) % 5 <> 0";

fn with_changelog(case: &Case) {
    let sql = format!(
        "CREATE TABLE plays (song_id BIGINT, user_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3)
         ) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         CREATE TABLE totals (song_id BIGINT, plays BIGINT, score DOUBLE, PRIMARY KEY (song_id) NOT ENFORCED)
           WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet',
             'sink.snapshot.min-rows' = '500', 'sink.rolling-policy.file-size' = '64KB');
         INSERT INTO totals {QUERY};",
        case.input().display(),
        case.output().display()
    );
    std::fs::write(case.script(), sql).expect("the script can be written");
}

async fn expected(input: &Path) -> Bag {
    let context = SessionContext::new();
    let schema = Plays::schema();
    let options = JsonReadOptions::default().schema(&schema).file_extension("json");
    context.register_json("plays", input.display().to_string(), options).await.expect("input registers");
    bag(&context.sql(QUERY).await.expect("batch plans").collect().await.expect("batch runs"))
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

/// A manifest as a reader finds it.
struct Manifest {
    number: u64,
    snapshot: Vec<PathBuf>,
    /// Files of the changelog that may have more.
    rest: Vec<PathBuf>,
}

/// The manifest of the only publisher; `None` if there is none yet.
fn manifest(sink: &Path) -> Option<Manifest> {
    let name = files(&sink.join("_latest")).into_iter().find(|name| name.ends_with(".json"))?;
    let bytes = std::fs::read(sink.join("_latest").join(name)).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).expect("it is JSON");
    let text = |field: &str| manifest[field].as_str().expect("a text").to_owned();
    let (pattern, from) = (text("changelog"), text("changelog_from"));
    let prefix = pattern.strip_suffix("*.parquet").expect("a pattern");
    let named = manifest["snapshot"].as_array().expect("files").iter().map(|file| sink.join(file.as_str().expect("a name")));
    Some(Manifest {
        number: manifest["number"].as_u64().expect("a number"),
        snapshot: named.collect(),
        rest: files(sink)
            .into_iter()
            .filter(|name| name.starts_with(prefix) && *name >= from)
            .map(|name| sink.join(name))
            .collect(),
    })
}

/// The newest row of each key in these files.
async fn newest(files: &[PathBuf]) -> Bag {
    let context = SessionContext::new();
    let paths: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let read = context.read_parquet(paths, ParquetReadOptions::default()).await.expect("files are Parquet");
    context.register_table("changes", read.into_view()).expect("they are a table");
    let sql = "SELECT song_id, plays, score FROM (SELECT *, row_number() OVER (PARTITION BY song_id ORDER BY epoch DESC) AS place FROM changes) \
               WHERE place = 1 AND op <> '-D'";
    bag(&context.sql(sql).await.expect("it plans").collect().await.expect("it runs"))
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_and_rest_are_the_newest_of_each_key_wherever_the_job_was_killed() {
    let case = Case::new(1_500_000, 1);
    with_changelog(&case);
    let (mut kills, mut numbers) = (0, Vec::new());
    for attempt in 0u64.. {
        assert!(attempt < 400, "the job makes no progress under kills");
        if killed_at_work(&case, Duration::from_millis(attempt * 13 % 90), &["--durability", "process"]).await {
            break;
        }
        kills += 1;
        let Some(found) = manifest(&case.output()) else { continue };
        numbers.push(found.number);
        let all: Vec<PathBuf> = files(&case.output()).iter().map(|name| case.output().join(name)).collect();
        let both = [found.snapshot, found.rest].concat();
        assert_same(&format!("kill {kills}"), &newest(&both).await, &newest(&all).await);
    }
    assert!(numbers.windows(2).all(|pair| pair[0] <= pair[1]), "{numbers:?}: a snapshot was replaced by an older one");
    let last = manifest(&case.output()).expect("a job that has ended leaves one");
    assert!(kills >= 2 && last.number >= 2, "{kills} kills, {} snapshots: give it more rows", last.number);
    assert!(last.rest.is_empty(), "nothing follows: {:?}", last.rest);
    assert_same("the snapshot alone", &newest(&last.snapshot).await, &expected(&case.input()).await);
    assert_eq!(files(&case.output().join(".weir-staging")), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_reads_the_snapshot_alone_and_with_the_rest_as_the_documents_say() {
    let case = Case::new(60_000, 1);
    with_changelog(&case);
    assert_ok(&case.run(&["--quiet", "--durability", "process", "--commit-interval", "10ms"]).output().expect("weir starts"));
    let totals = case.output().display().to_string();
    let files = format!(
        "SET VARIABLE files = (SELECT list_transform(snapshot, lambda f: '{totals}/' || f) FROM '{totals}/_latest/*.json');"
    );
    let expected = expected(&case.input()).await;
    let rows = format!("[({}, 0)]", expected.len());
    let alone = format!("{files} SELECT count(*), count(*) - count(DISTINCT song_id) FROM read_parquet(getvariable('files'));");
    assert_eq!(duckdb(&alone), rows);
    let rest = format!(
        "{files} SET VARIABLE rest = (SELECT coalesce(list(file), []) FROM glob('{totals}/part-*.parquet'), '{totals}/_latest/*.json'
           WHERE file >= '{totals}/' || changelog_from);
         SELECT count(*), 0 FROM (SELECT song_id FROM read_parquet(list_concat(getvariable('files'), getvariable('rest')))
           GROUP BY song_id HAVING arg_max(op, epoch) <> '-D');"
    );
    assert_eq!(duckdb(&rest), rows);
    let published: u64 = heads_of(&case, PUBLISHER).await.iter().map(|head| head.stats.rows_out).sum();
    let glob = format!("SELECT count(*), count(DISTINCT song_id) >= {} FROM '{totals}/*.parquet'", expected.len());
    assert_eq!(
        duckdb(&glob),
        format!("[({published}, True)]"),
        "a pattern over the changelog has every change and no row of a snapshot"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn weir_query_needs_no_file_that_a_snapshot_covers() {
    let case = Case::new(60_000, 1);
    with_changelog(&case);
    assert_ok(&case.run(&["--quiet", "--durability", "process", "--commit-interval", "10ms"]).output().expect("weir starts"));
    for name in files(&case.output()) {
        std::fs::remove_file(case.output().join(name)).expect("a file of the changelog");
    }
    let rows = case.path("rows.parquet");
    assert_ok(&case.weir(&["query", "SELECT * FROM totals", "--output", &rows.display().to_string()]));
    let context = SessionContext::new();
    let read = context.read_parquet(rows.display().to_string(), ParquetReadOptions::default()).await.expect("it is Parquet");
    assert_same("asked", &bag(&read.collect().await.expect("rows")), &expected(&case.input()).await);
}

#[test]
fn a_snapshot_of_rows_that_are_no_parquet_is_refused_with_the_remedy() {
    let case = Case::new(10, 1);
    with_changelog(&case);
    let sql = std::fs::read_to_string(case.script()).expect("a script").replace("'format' = 'parquet'", "'format' = 'json'");
    std::fs::write(case.script(), sql).expect("a script");
    let output = case.run(&[]).output().expect("weir starts");
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("snapshots are Parquet: write 'format' = 'parquet'"), "{said}");
}

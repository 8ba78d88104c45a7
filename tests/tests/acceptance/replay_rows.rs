//! `weir replay-rows`: what was set aside goes to a stream, each row once, whatever is killed and whatever was fed before.

use std::collections::BTreeSet;

use weir_coordinator::{SqliteTable, jobs, streams};

use crate::background::Background;
use crate::support::{Case, assert_ok, lines, text};

/// Rows of the stream `name`, as its lanes count them.
async fn rows_of_stream(case: &Case, name: &str) -> u64 {
    let table = SqliteTable::open(&case.path("store/coordination.sqlite"), false).expect("the table opens");
    let row = streams::find(&table, name).await.expect("it answers").expect("the stream is there");
    jobs::heads(&table, &row.shards()).await.expect("heads").iter().map(|head| head.stats.rows_in).sum()
}

/// Makes the stream `again` with these columns, read by a job that copies all its rows to the folder `copied`.
fn with_stream(case: &Case, columns: &str) {
    let sql = format!(
        "CREATE TABLE again ({columns}) WITH ('connector' = 'http');
         CREATE TABLE copied ({columns}) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         INSERT INTO copied SELECT * FROM again;",
        case.path("copied").display()
    );
    std::fs::write(case.path("again.sql"), sql).expect("a script");
    assert_ok(&case.weir(&["stream", "create", "again.sql"]));
}

/// Values of `column` in all rows of the stream, each of which must be there once.
fn copied(case: &Case, column: &str) -> BTreeSet<String> {
    assert_ok(&case.weir(&["stream", "close", "again"]));
    assert_ok(&case.weir(&["run", "again.sql", "--quiet", "--durability", "process"]));
    let mut values = BTreeSet::new();
    for line in lines(&case.path("copied")) {
        let row: serde_json::Value = serde_json::from_str(&line).expect("a row is JSON");
        assert!(values.insert(row[column].to_string()), "{line} is there twice");
    }
    values
}

fn replayed(case: &Case, more: &[&str]) -> String {
    let output = case.weir(&[&["replay-rows", "job", "--into", "again"], more].concat());
    assert_ok(&output);
    text(&output.stdout)
}

fn refused(case: &Case, arguments: &[&str]) -> String {
    let output = case.weir(&[&["replay-rows"], arguments].concat());
    assert!(!output.status.success(), "it must fail: {}", text(&output.stdout));
    text(&output.stderr)
}

/// Kills `child` once the stream has more than `before` rows; whether it lived until then.
async fn killed_after_a_commit(case: &Case, child: &mut Background, before: u64) -> bool {
    while rows_of_stream(case, "again").await <= before {
        if child.try_wait().expect("asked").is_some() {
            return false;
        }
        tokio::task::yield_now().await;
    }
    child.kill().expect("SIGKILL");
    !child.wait().expect("it is dead").success()
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_are_fed_once_however_often_the_command_is_killed() {
    const LATE: u64 = 400_000;
    let case = Case::new(100_000, 1);
    let late = |n| format!("{{\"song_id\":1,\"user_id\":{n},\"play_score\":1.0,\"etime\":\"1900-01-01 00:00:00\"}}\n");
    std::fs::write(case.input().join("999.json"), (0..LATE).map(late).collect::<String>()).expect("file");
    let script = std::fs::read_to_string(case.script()).expect("script").replace("sum(play_score)", "sum(play_score + user_id)");
    std::fs::write(case.script(), script).expect("script");
    let arguments = ["--parallelism", "1", "--commit-interval", "1ms", "--durability", "process"];
    let output = case.run(&arguments).output().expect("weir starts");
    assert_ok(&output);
    assert!(text(&output.stdout).contains("400,000 late"), "{}", text(&output.stdout));

    with_stream(&case, "song_id BIGINT, user_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3)");
    let mut kills = 0;
    loop {
        let before = rows_of_stream(&case, "again").await;
        let mut command = std::process::Command::new(crate::support::weir());
        command.args(["replay-rows", "job", "--late", "--into", "again", "--quiet", "--store", "file://store"]);
        let mut child = Background::start(command.current_dir(case.folder.path()));
        if !killed_after_a_commit(&case, &mut child, before).await {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 2, "only {kills} kills before all rows were taken: give it more");
    let said = replayed(&case, &["--late"]);
    assert!(said.contains("took 0 of 400,000") && said.contains("400,000 were taken before"), "{said}");
    assert_eq!(rows_of_stream(&case, "again").await, LATE);
    assert_eq!(copied(&case, "user_id").len() as u64, LATE);
}

/// A job whose input has 2,500 rows with a text for a number, one that is no JSON, and one without a time.
fn with_dead_letters() -> Case {
    let case = Case::new(1_000, 1);
    let wrong = |n| format!("{{\"song_id\":\"s{n}\",\"play_score\":0.5,\"etime\":\"2026-01-01 00:00:00\"}}\n");
    let wrong: String = (0..2_500).map(wrong).collect();
    let others = "nonsense\n{\"song_id\":7,\"play_score\":1.0}\n";
    std::fs::write(case.input().join("999.json"), format!("{wrong}{others}")).expect("file");
    assert_ok(&case.run(&["--parallelism", "1", "--quiet"]).output().expect("weir starts"));
    case
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_decoded_anew_and_each_condition_takes_what_no_other_took() {
    let case = with_dead_letters();
    with_stream(&case, "song_id STRING, play_score DOUBLE, etime TIMESTAMP(3)");
    let dry = ["--dead", "--dry-run", "--where", "raw LIKE '%\"s1%'"];
    let said = replayed(&case, &dry);
    // s1, s10 to s19, s100 to s199, s1000 to s1999.
    assert!(said.contains("would take 1,111 of 2,502 dead letters of hot") && said.contains("| s1 "), "{said}");
    assert_eq!(rows_of_stream(&case, "again").await, 0, "a dry run writes nothing");
    let said = replayed(&case, &["--dead", "--where", "raw LIKE '%\"s1%'"]);
    assert!(said.contains("took 1,111 of 2,502") && said.contains("1,391 are left out by --where"), "{said}");
    let said = replayed(&case, &["--dead", "--where", "raw LIKE '%:\"s%'"]);
    assert!(said.contains("took 1,389 of 2,502") && said.contains("1,111 were taken before"), "{said}");

    // What cannot be read is named, after all others were taken.
    let output = case.weir(&["replay-rows", "job", "--into", "again"]);
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    assert!(!output.status.success() && error.contains("2 rows can still not be read"), "{error}");
    assert!(said.contains("took 0 of 2,502") && said.contains("2,500 were taken before"), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("    ")).count(), 2, "a reason for each: {said}");
    let ids: BTreeSet<String> = (0..2_500).map(|n| format!("\"s{n}\"")).collect();
    assert_eq!(copied(&case, "song_id"), ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_fed_is_told_with_what_to_do() {
    let case = with_dead_letters();
    assert!(refused(&case, &["jop", "--into", "again"]).contains("did you mean \"job\"?"));
    let said = refused(&case, &["job", "--into", "again"]);
    assert!(said.contains("no stream again; there are none yet") && said.contains("weir stream create"), "{said}");
    with_stream(&case, "song_id STRING, play_score DOUBLE, etime TIMESTAMP(3)");
    assert!(refused(&case, &["job", "--into", "agian"]).contains("there are again"));
    assert!(refused(&case, &["job", "--into", "again", "--sink", "hit"]).contains("did you mean hot?"));
    let said = refused(&case, &["job", "--into", "again", "--dead", "--where", "raws = ''"]);
    assert!(said.contains("the columns are source, offset, reason, raw"), "{said}");
    assert!(refused(&case, &["job", "--into", "again", "--where", "raw = ''"]).contains("--late|--dead"));
    assert_ok(&case.weir(&["stream", "close", "again"]));
    assert!(refused(&case, &["job", "--into", "again"]).contains("is closed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_that_are_no_rows_of_the_stream_are_refused_with_each_column() {
    let case = Case::new(100_000, 1);
    let late = "{\"song_id\":1,\"user_id\":1,\"play_score\":1.0,\"etime\":\"1900-01-01 00:00:00\"}\n";
    std::fs::write(case.input().join("999.json"), late).expect("file");
    assert_ok(&case.run(&["--parallelism", "1", "--commit-interval", "1ms", "--quiet"]).output().expect("weir starts"));
    with_stream(&case, "song_id STRING, user_id BIGINT, etime TIMESTAMP(3)");
    let said = refused(&case, &["job", "--into", "again"]);
    for expected in [
        "column song_id is Int64, which cannot be read as the declared Utf8",
        "column user_id is in the stream and not in the rows",
        "column play_score is in the rows and not in the stream",
        "weir query 'SELECT .. FROM late.hot'",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(rows_of_stream(&case, "again").await, 0);
}

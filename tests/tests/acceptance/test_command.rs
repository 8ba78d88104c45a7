//! `weir test`: the examples' cases pass; a wrong case shows what differs; wrong input says where and what to write.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::{assert_ok, text, weir};

const JOB: &str = "CREATE TABLE plays (song_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3),
    WATERMARK FOR etime AS etime - INTERVAL '5' SECOND) WITH ('connector' = 'filesystem', 'path' = 'nowhere', 'format' = 'json');
  CREATE TABLE hot (window_start TIMESTAMP(3), song_id BIGINT, plays BIGINT) WITH ('connector' = 'print');
  CREATE TABLE totals (song_id BIGINT, plays BIGINT, score DOUBLE, PRIMARY KEY (song_id) NOT ENFORCED)
    WITH ('connector' = 'filesystem', 'path' = 'nowhere', 'format' = 'parquet');
  INSERT INTO hot SELECT window_start, song_id, count(*)
    FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, song_id;
  INSERT INTO totals SELECT song_id, count(*), sum(play_score) FROM plays GROUP BY song_id;";

/// Both results of the job, over two steps.
const CASE: &str = r#"# kept
job = "job.sql"

[[step]]
rows.plays = '''
{"song_id": 1, "play_score": 0.5, "etime": "2026-01-01 00:00:01"}
{"song_id": 2, "play_score": 1, "etime": "2026-01-01 00:00:02"}
'''
expect.hot = ''
expect.totals = '''
{"score": 0.5, "song_id": 1, "plays": 1}
{"score": 1, "song_id": 2, "plays": 1}
'''

[[step]]
rows.plays = '''
{"song_id": 1, "play_score": 0.25, "etime": "2026-01-01 00:00:03"}
{"song_id": 3, "play_score": null, "etime": "2026-01-01 00:00:12"}
'''
advance = "2026-01-01 00:00:10"
expect.hot = '''
{"window_start": "2026-01-01 00:00:00", "song_id": 1, "plays": 2}
{"window_start": "2026-01-01 00:00:00", "song_id": 2, "plays": 1}
'''
changes.totals = '''
{"op": "+U", "song_id": 1, "plays": 2, "score": 0.75}
{"op": "+I", "song_id": 3, "plays": 1, "score": null}
'''
"#;

/// A folder with the job and cases of these names and texts.
fn folder(cases: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("job.sql"), JOB).expect("the script can be written");
    for (name, case) in cases {
        std::fs::write(folder.path().join(name), case).expect("the case can be written");
    }
    folder
}

fn run(folder: &Path, more: &[&str]) -> Output {
    Command::new(weir()).args(["test", "."]).args(more).current_dir(folder).output().expect("weir starts")
}

/// What is printed of one case that fails, and the last word.
fn failure(case: &str) -> (String, String) {
    let folder = folder(&[("a.test.toml", case)]);
    let output = run(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1), "it must fail: {}", text(&output.stdout));
    (text(&output.stdout), text(&output.stderr))
}

fn refused(from: &str, to: &str) -> String {
    assert!(CASE.contains(from), "{from}");
    failure(&CASE.replacen(from, to, 1)).0
}

#[test]
fn the_cases_of_every_example_pass() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let output = Command::new(weir()).arg("test").arg(&examples).output().expect("weir starts");
    assert_ok(&output);
    let said = text(&output.stdout);
    for name in ["hot_songs/windows", "nexmark/q0", "nexmark/q1", "nexmark/q15", "nexmark/q16", "nexmark/q17", "nexmark/q2"] {
        assert!(said.contains(&format!("ok    {name} ")), "{name}: {said}");
    }
    let files = std::fs::read_dir(examples.join("nexmark")).expect("examples").flatten();
    let scripts = files.filter(|file| {
        file.file_name().to_string_lossy().starts_with('q') && file.path().extension().is_some_and(|e| e == "sql")
    });
    for script in scripts {
        assert!(script.path().with_extension("test.toml").exists(), "{} has no case", script.path().display());
    }
    println!("{said}");
}

#[test]
fn a_case_is_found_in_folders_below_and_chosen_by_its_name() {
    let folder = folder(&[("good.test.toml", CASE), ("Cargo.toml", "[package]")]);
    std::fs::create_dir_all(folder.path().join("below/deep")).expect("a folder");
    let below = CASE.replace("job.sql", "../../job.sql").replace("\"plays\": 2}", "\"plays\": 3}");
    std::fs::write(folder.path().join("below/deep/bad.test.toml"), below).expect("the case can be written");
    let output = run(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let (said, last) = (text(&output.stdout), text(&output.stderr));
    assert!(said.contains("ok    good ") && said.contains("FAIL  below/deep/bad "), "{said}");
    assert!(last.contains("1 of 2 cases failed"), "{last}");
    assert_ok(&run(folder.path(), &["--filter", "good"]));
    assert_ok(&run(folder.path(), &["--filter", "goo", "--parallelism", "3"]));
    assert!(!folder.path().join("nowhere").exists() && !folder.path().join("weir-data").exists(), "nothing outside is written");
}

#[test]
fn a_difference_shows_the_row_expected_above_the_row_that_came() {
    let (said, last) = failure(&CASE.replacen("\"plays\": 2}", "\"plays\": 12}", 1));
    let shown = "      at parallelism 1\n      step 2, expect.hot\n      \
                 - {\"window_start\":\"2026-01-01T00:00:00\", \"song_id\":1, \"plays\":12}\n      \
                 + {\"window_start\":\"2026-01-01T00:00:00\", \"song_id\":1, \"plays\":2}\n        \
                 and 1 row as expected\n";
    assert!(said.contains(shown), "{said}");
    assert!(last.contains("error: 1 of 1 cases failed"), "{last}");
}

#[test]
fn everything_that_comes_must_be_expected() {
    let without = CASE.split("expect.hot = '''").next().expect("a part").to_owned() + "expect.totals = ''\n";
    let (said, _) = failure(&without);
    assert!(said.contains("after the last step, hot has rows that no step expects"), "{said}");
    assert!(said.contains("step 2, expect.totals") && said.contains("+ {\"song_id\":3, \"plays\":1, \"score\":null}"), "{said}");
    let late = CASE.to_owned()
        + "[[step]]\nclose = true\nrows.plays = '{\"song_id\": 1, \"play_score\": 1, \"etime\": \"2026-01-01 00:00:04\"}'\n\
           expect.hot = '{\"window_start\": \"2026-01-01 00:00:10\", \"song_id\": 3, \"plays\": 1}'";
    let (said, _) = failure(&late);
    assert!(said.contains("1 late row, 0 expected"), "{said}");
    let future = CASE.replace("2026-01-01 00:00:12", "2031-01-01 00:00:12");
    assert!(failure(&future).0.contains("1 dead row, 0 expected"));
}

#[test]
fn update_writes_the_rows_that_came_and_leaves_the_rest() {
    let wrong = CASE.replace("\"plays\": 2}", "\"plays\": 77}").replace("{\"score\": 1, \"song_id\": 2, \"plays\": 1}\n", "");
    let folder = folder(&[("a.test.toml", &wrong)]);
    let output = run(folder.path(), &["--update"]);
    assert_ok(&output);
    assert!(text(&output.stdout).contains("new   a "), "{}", text(&output.stdout));
    let new = std::fs::read_to_string(folder.path().join("a.test.toml")).expect("the case");
    assert!(new.starts_with("# kept\njob = \"job.sql\"\n") && new.contains("expect.hot = ''\n"), "{new}");
    assert!(new.contains("{\"song_id\":2,\"plays\":1,\"score\":1.0}\n'''"), "{new}");
    assert!(new.contains("{\"op\":\"+U\",\"song_id\":1,\"plays\":2,\"score\":0.75}"), "{new}");
    assert!(text(&run(folder.path(), &["--update"]).stdout).contains("ok    a "));
}

#[test]
fn wrong_cases_say_where_and_what_to_write() {
    let said = refused("rows.plays", "rows.playz");
    assert!(said.contains("step 1: rows.playz: the job reads no table playz: did you mean plays?"), "{said}");
    let said = refused("expect.totals", "expect.total");
    assert!(said.contains("expect.total: the job writes no table total: did you mean totals?"), "{said}");
    let said = refused("changes.totals", "changes.hot");
    assert!(said.contains("the results of hot do not change"), "{said}");
    let said = refused("\"song_id\": 2,", "\"song_idd\": 2,");
    assert!(said.contains("rows.plays: row 2: unknown column song_idd: did you mean song_id?"), "{said}");
    let said = refused("\"play_score\": 1, ", "");
    assert!(said.contains("row 2: column play_score is missing: write null if it has no value"), "{said}");
    let said = refused("\"song_id\": 2,", "\"song_id\": \"two\",");
    assert!(said.contains("rows.plays: row 2: ") && said.contains("two"), "{said}");
    let said = refused("{\"song_id\": 2,", "\"song_id\": 2,");
    assert!(said.contains("rows.plays: row 2: not one JSON object"), "{said}");
    let said = refused("advance", "advanced");
    assert!(said.contains("unknown field `advanced`"), "{said}");
    let said = refused("2026-01-01 00:00:10\"\nexpect", "soon\"\nexpect");
    assert!(said.contains("advance = \"soon\" is no instant"), "{said}");
    let said = refused("job.sql", "jib.sql");
    assert!(said.contains("jib.sql"), "{said}");
    let said = refused("expect.hot = ''\n", "expect.hot = ''\nclose = true\n");
    assert!(said.contains("close = true ends the input: no step may follow"), "{said}");
    assert!(failure("job = \"job.sql\"").0.contains("the case has no [[step]]"));
    assert!(failure("job = \"job.sql\"\n[[step]]").0.contains("the case expects nothing"));
}

#[test]
fn a_folder_without_a_case_is_an_error() {
    let nothing = folder(&[]);
    let output = run(nothing.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nothing was tested: . has no case"), "{}", text(&output.stderr));
    let one = folder(&[("a.test.toml", CASE)]);
    let said = text(&run(one.path(), &["--filter", "b"]).stderr);
    assert!(said.contains("none of the 1 cases in . has \"b\" in its name"), "{said}");
    let said = text(&run(&one.path().join("."), &["--parallelism", "0"]).stderr);
    assert!(said.contains("0 is not in 1..=128"), "{said}");
}

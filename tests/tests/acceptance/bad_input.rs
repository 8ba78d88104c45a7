//! Bad input: a clear message that names the place and the remedy, and nothing lost.

use crate::support::{Case, assert_ok, sink_rows, text};

fn error_of(case: &Case, arguments: &[&str]) -> String {
    let output = case.run(arguments).output().expect("weir starts");
    assert!(!output.status.success(), "it must fail: {}", text(&output.stdout));
    text(&output.stderr)
}

/// As [`error_of`], of another command than `run`.
fn error_of_weir(case: &Case, arguments: &[&str]) -> String {
    let output = case.weir(arguments);
    assert!(!output.status.success(), "it must fail: {}", text(&output.stdout));
    text(&output.stderr)
}

fn edit(case: &Case, from: &str, to: &str) {
    let sql = std::fs::read_to_string(case.script()).expect("script");
    assert!(sql.contains(from));
    std::fs::write(case.script(), sql.replace(from, to)).expect("script");
}

/// Rows that `weir late` or `weir dead` prints, and what it says beside them.
fn rows_of(case: &Case, stream: &str) -> (Vec<serde_json::Value>, String) {
    let output = case.weir(&[stream, "job"]);
    assert_ok(&output);
    let rows = text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    (rows, text(&output.stderr))
}

/// Sum of a column of `weir status`.
fn status_sum(case: &Case, column: &str) -> usize {
    let output = case.weir(&["status"]);
    assert_ok(&output);
    let said = text(&output.stdout);
    let header = said.lines().find(|line| line.contains("watermark")).expect("a header");
    let end = header.find(column).expect("the column") + column.len();
    let number = |line: &str| line.get(..end)?.split_whitespace().last()?.parse::<usize>().ok();
    said.lines().skip_while(|line| *line != header).skip(1).filter_map(number).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_rows_go_to_the_dead_letters_and_the_rest_is_counted() {
    let case = Case::new(1_000, 1);
    let bad = "{\"song_id\":\"x\",\"etime\":\"2026-01-01 00:00:00\"}\nnonsense\n\
               {\"song_id\":1,\"etime\":\"9999-12-31 23:59:59\"}\n{\"song_id\":1,\"play_score\":1.0}\n{\"song_id\":1,\"etime\":\"2026";
    std::fs::write(case.input().join("999.json"), bad).expect("file");
    let output = case.run(&["--parallelism", "1"]).output().expect("weir starts");
    assert_ok(&output);
    let said = text(&output.stdout);
    assert!(said.contains("1,005 events read") && said.contains("5 dead"), "{said}");
    let counted: usize = sink_rows(&case.output())
        .await
        .keys()
        .map(|row| row.split('|').nth(2).expect("plays").parse::<usize>().expect("number"))
        .sum();
    assert_eq!(counted, 1_000);

    let (dead, said) = rows_of(&case, "dead");
    assert_eq!((dead.len(), status_sum(&case, "dead")), (5, 5), "{said}");
    let nonsense = dead.iter().find(|row| row["raw"] == "nonsense").expect("the row as it came");
    assert!(nonsense["source"].as_str().is_some_and(|source| source.contains("999.json")), "{nonsense}");
    let first_line = bad.find('\n').expect("lines") as u64 + 1;
    assert_eq!(nonsense["offset"].as_u64(), Some(first_line), "{nonsense}");
    assert!(dead.iter().all(|row| row["reason"].as_str().is_some_and(|reason| !reason.is_empty())), "{dead:?}");
    let decoded = dead.iter().filter(|row| row["offset"].is_null()).count();
    assert_eq!(decoded, 2, "one in the far future, one without a time: {dead:?}");

    let (late, said) = rows_of(&case, "late");
    assert!(late.is_empty() && said.contains("no late rows"), "{said}");
    let said = error_of_weir(&case, &["dead", "jop"]);
    assert!(said.contains("no job \"jop\"") && said.contains("did you mean \"job\"?"), "{said}");
}

#[test]
fn dead_letters_can_be_read_while_the_job_runs_and_after_it_ended() {
    let case = Case::new(1_000_000, 1);
    std::fs::write(case.input().join("000-first.json"), "nonsense\n").expect("file");
    let mut child = case.run(&["--parallelism", "1", "--commit-interval", "20ms", "--quiet"]).spawn().expect("weir starts");
    loop {
        let ended = child.try_wait().expect("asked").is_some();
        let output = case.weir(&["dead", "job"]);
        if output.status.success() && text(&output.stdout).contains("nonsense") {
            break;
        }
        assert!(!ended, "the dead letter was never seen: {}", text(&output.stderr));
    }
    assert!(child.wait().expect("it ends").success());
    assert_eq!(rows_of(&case, "dead").0.len(), 1);
    assert_eq!(status_sum(&case, "dead"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_are_counted_and_kept() {
    let case = Case::new(100_000, 1);
    let late = "{\"song_id\":1,\"user_id\":1,\"play_score\":1.0,\"etime\":\"1900-01-01 00:00:00\"}\n".repeat(3);
    std::fs::write(case.input().join("999.json"), late).expect("file");
    let output = case.run(&["--parallelism", "1", "--commit-interval", "1ms"]).output().expect("weir starts");
    assert_ok(&output);
    let said = text(&output.stdout);
    assert!(said.contains("100,003 events read") && said.contains("3 late"), "{said}");

    let (late, said) = rows_of(&case, "late");
    assert_eq!((late.len(), status_sum(&case, "late")), (3, 3), "{said}");
    for row in &late {
        assert_eq!(row["song_id"].as_i64(), Some(1), "{row}");
        assert!(row["etime"].as_str().is_some_and(|time| time.starts_with("1900-01-01")), "{row}");
    }
    let (dead, said) = rows_of(&case, "dead");
    assert!(dead.is_empty() && said.contains("no dead letters"), "{said}");
}

#[test]
fn a_typo_in_sql_is_shown_with_its_place_and_the_right_name() {
    let case = Case::new(10, 1);
    edit(&case, "SELECT window_start, song_id", "SELECT window_start, song_idd");
    let said = error_of(&case, &[]);
    assert!(said.contains("song_idd") && said.contains("song_id") && said.contains("line"), "{said}");
}

#[test]
fn an_edited_script_under_a_running_name_is_refused_with_the_remedy() {
    let case = Case::new(10, 1);
    assert_ok(&case.run(&[]).output().expect("weir starts"));
    edit(&case, "INTERVAL '10' SECOND", "INTERVAL '20' SECOND");
    let said = error_of(&case, &[]);
    assert!(said.contains("another script") && said.contains("--name"), "{said}");
}

#[test]
fn a_missing_input_a_bad_store_and_an_unknown_option_are_named() {
    let case = Case::new(10, 1);
    let file = case.path("taken");
    std::fs::write(&file, "").expect("file");
    let said = error_of(&case, &["--store", &format!("file://{}", file.display())]);
    assert!(said.contains("taken") && said.contains("--store"), "{said}");
    edit(&case, "'format' = 'json'", "'fromat' = 'json'");
    let said = error_of(&case, &[]);
    assert!(said.contains("fromat") && said.contains("'format'"), "{said}");
    edit(&case, "'fromat' = 'json'", "'format' = 'json'");
    std::fs::remove_dir_all(case.input()).expect("folder");
    let said = error_of(&case, &[]);
    assert!(said.contains("names no file"), "{said}");
}

#[test]
fn an_unknown_format_version_is_refused_by_name() {
    let case = Case::new(10, 1);
    assert_ok(&case.run(&[]).output().expect("weir starts"));
    let plans = case.path("store").join("jobs");
    let job = std::fs::read_dir(&plans).expect("jobs").flatten().next().expect("a job").path();
    let plan = job.join("plan/000001.json");
    let newer = std::fs::read_to_string(&plan).expect("plan").replacen("\"format\":1", "\"format\":99", 1);
    std::fs::write(&plan, newer).expect("plan");
    let said = error_of(&case, &[]);
    assert!(said.contains("99") && said.contains("use the build that wrote it"), "{said}");
}

#[test]
fn a_file_that_changes_under_a_job_stops_it_and_is_named() {
    let case = Case::new(2_000_000, 1);
    let mut child = case
        .run(&["--parallelism", "1", "--commit-interval", "5ms", "--quiet"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("weir starts");
    let store = case.path("store").join("jobs");
    // The job has pinned its input once its folder is there.
    while !store.exists() {
        std::thread::yield_now();
    }
    let file = case.input().join("000.json");
    let longer = std::fs::read_to_string(&file).expect("input") + "{}\n";
    std::fs::write(&file, longer).expect("input");
    let status = child.wait().expect("it ends");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("stderr"), &mut said).expect("text");
    assert!(!status.success() && said.contains("000.json") && said.contains("changed"), "{said}");
}

#[test]
fn null_in_a_column_that_is_not_null_stops_the_job_by_its_name() {
    let case = Case::new(10, 1);
    edit(&case, "score DOUBLE)", "score DOUBLE NOT NULL)");
    edit(&case, "sum(play_score)", "sum(NULLIF(play_score, play_score))");
    let said = error_of(&case, &[]);
    assert!(said.contains("column score of hot is NOT NULL"), "{said}");
}

#[test]
fn a_parallelism_that_no_head_could_hold_is_refused_when_the_job_is_created() {
    let case = Case::new(10, 1);
    let said = error_of(&case, &["--parallelism", "256"]);
    assert!(said.contains("at most 128"), "{said}");
}

#[test]
fn looking_at_a_store_that_is_not_there_says_so_and_makes_none() {
    let case = Case::new(10, 1);
    let output = case.weir(&["status"]);
    assert!(!output.status.success() && text(&output.stderr).contains("there is no store"), "{}", text(&output.stderr));
    assert!(!case.path("store").exists());
}

/// An endless job's script is edited while it runs: who starts it again is told, the one that runs is left alone.
#[test]
fn a_script_edited_while_its_job_runs_is_refused_and_the_running_one_goes_on() {
    let case = Case::new(1, 1);
    let script = format!(
        "CREATE TABLE plays (song_id BIGINT) WITH ('connector' = 'plays', 'rows-per-second' = '20000');
         CREATE TABLE hot (song_id BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv');
         INSERT INTO hot SELECT song_id FROM plays;",
        case.output().display()
    );
    std::fs::write(case.script(), script).expect("script");
    let bytes = || {
        let files = std::fs::read_dir(case.output()).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|meta| meta.len()).sum::<u64>()
    };
    let mut job = case.run(&["--commit-interval", "10ms", "--quiet"]).spawn().expect("weir starts");
    let mut grows = |from: u64| {
        while bytes() <= from {
            assert!(job.try_wait().expect("a child").is_none(), "the running job ended");
            std::thread::yield_now();
        }
    };
    grows(0);
    edit(&case, "SELECT song_id", "SELECT song_id + 1");
    let said = error_of(&case, &[]);
    assert!(said.contains("another script") && said.contains("--name"), "{said}");
    grows(bytes());
    let sent = std::process::Command::new("kill").args(["-INT", &job.id().to_string()]).status().expect("kill starts");
    assert!(sent.success() && job.wait().expect("it ends").success(), "it commits and leaves");
    edit(&case, "SELECT song_id + 1", "SELECT song_id");
    let mut job = case.run(&["--commit-interval", "10ms", "--quiet"]).spawn().expect("weir starts");
    let before = bytes();
    while bytes() <= before {
        assert!(job.try_wait().expect("a child").is_none(), "with its old text it goes on");
        std::thread::yield_now();
    }
    job.kill().expect("SIGKILL");
    job.wait().expect("a child");
}

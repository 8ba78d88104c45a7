//! Any engine reads what we write: DuckDB on the Parquet files of open windows and of the sink.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{Case, assert_ok, text};

fn python() -> PathBuf {
    let home = std::env::var("HOME").unwrap_or_default();
    let cache = std::env::var("WEIR_CACHE").unwrap_or(format!("{home}/.cache/weir"));
    let python = PathBuf::from(cache).join("venv/bin/python");
    assert!(python.exists(), "{} is missing: run ./infra/local/tools, as ./check does", python.display());
    python
}

/// What DuckDB answers to the last statement.
pub(crate) fn duckdb(sql: &str) -> String {
    let program = "import duckdb, sys; print(duckdb.sql(sys.argv[1]).fetchall())";
    let output = Command::new(python()).args(["-c", program, sql]).output().expect("python starts");
    assert_ok(&output);
    text(&output.stdout).trim().to_owned()
}

#[test]
fn duckdb_reads_the_partials_of_open_windows_and_the_sink() {
    let case = Case::new(3_000_000, 1);
    let mut child = case
        .run(&["--parallelism", "1", "--commit-interval", "20ms", "--quiet"])
        .stderr(Stdio::null())
        .spawn()
        .expect("weir starts");
    // A window is open as soon as something was committed and until the last one has fired.
    let mut open = Vec::new();
    while open.is_empty() {
        assert!(child.try_wait().expect("asked").is_none(), "the job ended before a window was seen open");
        let listed = case.weir(&["partials", "job"]);
        open = text(&listed.stdout).lines().map(str::to_owned).collect();
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("it is dead");
    let listed = case.weir(&["partials", "job"]);
    assert_ok(&listed);
    let files: Vec<String> = text(&listed.stdout).lines().map(|file| format!("'{file}'")).collect();
    assert!(!files.is_empty(), "no open window after the kill");
    let sql = format!("SELECT sum(plays__count) > 0, count(DISTINCT song_id) > 0 FROM read_parquet([{}])", files.join(","));
    assert_eq!(duckdb(&sql), "[(True, True)]");

    assert_ok(&case.run(&["--parallelism", "1", "--quiet"]).output().expect("weir starts"));
    let sql = format!("SELECT CAST(sum(plays) AS BIGINT) FROM read_parquet('{}/*.parquet')", case.output().display());
    assert_eq!(duckdb(&sql), "[(3000000,)]");
}

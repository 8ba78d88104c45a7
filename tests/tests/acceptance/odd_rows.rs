//! Rows that are odd but right, in every format: event times at both ends of the calendar, missing fields, columns nobody declared.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};
use weir_connectors::encode;
use weir_connectors::files::Format;

use crate::support::{assert_ok, text, weir};

fn run(folder: &Path, script: &str) -> Output {
    std::fs::write(folder.join("job.sql"), script).expect("a script");
    let mut command = Command::new(weir());
    command.args(["run", "job.sql", "--store", "file://store", "--parallelism", "1"]).current_dir(folder);
    command.output().expect("weir starts")
}

/// Lines of the CSV files of a sink, sorted.
fn lines(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_file());
    let texts = files.map(|file| std::fs::read_to_string(file).expect("a result"));
    let mut lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    lines.sort();
    lines
}

fn dead(folder: &Path) -> Vec<serde_json::Value> {
    let mut command = Command::new(weir());
    let output = command.args(["dead", "job", "--store", "file://store"]).current_dir(folder).output().expect("weir starts");
    assert_ok(&output);
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

/// Milliseconds of 1900-01-01 00:00:00, 2026-01-01 00:00:00 and 9999-12-31 23:59:59.999.
const TIMES: [i64; 3] = [-2_208_988_800_000, 1_767_225_600_000, 253_402_300_799_999];

/// Two rows of each time, in the format.
fn odd_times(format: Format) -> Vec<u8> {
    let times: Vec<i64> = TIMES.iter().flat_map(|time| [*time, *time]).collect();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..6));
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(times));
    let batch = RecordBatch::try_from_iter([("id", ids), ("etime", times)]).expect("rows");
    encode::encode(format, &batch.schema(), &[batch]).expect("rows are encoded").to_vec()
}

#[test]
fn event_times_of_1900_and_9999_are_counted_in_their_windows_once_they_are_allowed() {
    for format in [Format::Json, Format::Csv, Format::Parquet] {
        let folder = tempfile::tempdir().expect("a folder");
        let name = format.extension();
        std::fs::write(folder.path().join(format!("in.{name}")), odd_times(format)).expect("input");
        let script = format!(
            "SET 'event-time.skew-max' = '80000000 h';
             CREATE TABLE t (id BIGINT, etime TIMESTAMP(3), WATERMARK FOR etime AS etime - INTERVAL '5' SECOND)
               WITH ('connector' = 'filesystem', 'path' = 'in.{name}', 'format' = '{name}');
             CREATE TABLE out (window_start TIMESTAMP(3), n BIGINT, ids BIGINT)
               WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
             INSERT INTO out SELECT window_start, count(*), sum(id)
             FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;"
        );
        let output = run(folder.path(), &script);
        assert_ok(&output);
        let expected = ["1900-01-01T00:00:00,2,1", "2026-01-01T00:00:00,2,5", "9999-12-31T23:59:50,2,9"];
        assert_eq!(lines(&folder.path().join("out")), expected, "{name}");
        assert!(text(&output.stdout).contains("0 late") && text(&output.stdout).contains("0 dead"), "{name}: {output:?}");
    }
}

fn copies(extra: &str, format: &str) -> String {
    format!(
        "CREATE TABLE t (id BIGINT, name STRING) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = '{format}'{extra});
         CREATE TABLE out (id BIGINT, name STRING) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
         INSERT INTO out SELECT id, name FROM t;"
    )
}

#[test]
fn a_missing_field_is_null_or_makes_the_row_bad_as_the_option_says() {
    let rows = "{\"id\":1,\"name\":\"a\"}\n{\"id\":2}\n{\"id\":3,\"name\":null}\n{\"name\":\"d\"}\n";
    let with = |extra: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("in"), rows).expect("input");
        assert_ok(&run(folder.path(), &copies(extra, "json")));
        (lines(&folder.path().join("out")), dead(folder.path()))
    };
    let (lenient, none) = with("");
    assert_eq!(lenient, [",d", "1,a", "2,", "3,"]);
    assert!(none.is_empty(), "{none:?}");
    let (strict, bad) = with(", 'json.fail-on-missing-field' = 'true'");
    assert_eq!(strict, ["1,a", "3,"], "a field that is there and null is not missing");
    let raw: Vec<_> = bad.iter().map(|row| row["raw"].as_str().unwrap_or_default()).collect();
    assert_eq!(raw, ["{\"id\":2}", "{\"name\":\"d\"}"]);
    assert!(bad[0]["reason"].as_str().is_some_and(|reason| reason.contains("name")), "{bad:?}");
}

#[test]
fn columns_that_nobody_declared_are_skipped_where_names_tell_and_bad_where_only_order_does() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("in"), "{\"id\":1,\"more\":{\"x\":[1]},\"name\":\"a\"}\n").expect("input");
    assert_ok(&run(folder.path(), &copies("", "json")));
    assert_eq!(lines(&folder.path().join("out")), ["1,a"]);

    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("in"), "1,a\n2,b,more\n3,c\n").expect("input");
    assert_ok(&run(folder.path(), &copies("", "csv")));
    assert_eq!(lines(&folder.path().join("out")), ["1,a", "3,c"]);
    let bad = dead(folder.path());
    assert_eq!((bad.len(), bad[0]["raw"].as_str()), (1, Some("2,b,more")), "{bad:?}");

    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("in"), odd_times(Format::Parquet)).expect("input");
    let output = run(folder.path(), &copies("", "parquet"));
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("no column name") && said.contains("id, etime"), "{said}");
}

#[test]
fn columns_that_the_script_does_not_know_are_named_with_the_nearest() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("in"), "{\"id\":1}\n").expect("input");
    let said = |from: &str, to: &str| {
        let output = run(folder.path(), &copies("", "json").replace(from, to));
        assert!(!output.status.success(), "{}", text(&output.stdout));
        text(&output.stderr)
    };
    let read = said("SELECT id, name", "SELECT id, nmae");
    assert!(read.contains("nmae") && read.contains("did you mean name?") && read.contains("line 3"), "{read}");
    let written = said("INSERT INTO out", "INSERT INTO out (id, nmae)");
    assert!(written.contains("nmae") && written.contains("did you mean name?") && written.contains("line 3"), "{written}");
}

/// A division by zero, a text that is no number, and an event time that is none, each in a place of its own.
fn failing(on_error: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let good: String = (1..=3_000)
        .map(|id| format!("{{\"id\":{id},\"n\":1,\"word\":\"{id}\",\"written\":\"2026-01-01 00:00:00\"}}\n"))
        .collect();
    let zero = "{\"id\":-1,\"n\":0,\"word\":\"1\",\"written\":\"2026-01-01 00:00:00\"}\n";
    let word = "{\"id\":-2,\"n\":1,\"word\":\"one\",\"written\":\"2026-01-01 00:00:00\"}\n";
    let never = "{\"id\":-3,\"n\":1,\"word\":\"1\",\"written\":\"some day\"}\n";
    std::fs::write(folder.path().join("in"), format!("{good}{zero}{good}{word}{never}{good}")).expect("input");
    let script = format!(
        "CREATE TABLE t (id BIGINT, n BIGINT, word STRING, written STRING, etime AS CAST(written AS TIMESTAMP(3)),
             WATERMARK FOR etime AS etime)
           WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json'{on_error});
         CREATE TABLE out (window_start TIMESTAMP(3), n BIGINT, ids BIGINT, whole BIGINT)
           WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
         INSERT INTO out SELECT window_start, count(*), sum(CAST(word AS BIGINT)), sum(id / n)
         FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;"
    );
    (folder, script)
}

#[test]
fn an_expression_that_fails_stops_the_job_and_shows_the_row() {
    let (folder, script) = failing("");
    let output = run(folder.path(), &script);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("on this row of t: {"), "{said}");
    assert!(said.contains("'on-error' = 'dead-letter'") && said.contains("\"id\":-"), "{said}");
    assert!(lines(&folder.path().join("out")).is_empty(), "nothing was published");
}

#[test]
fn rows_on_which_an_expression_fails_are_dead_letters_where_the_table_says_so() {
    let (folder, script) = failing(", 'on-error' = 'dead-letter'");
    let output = run(folder.path(), &script);
    assert_ok(&output);
    let ids = 3 * 3_000 * 3_001 / 2;
    assert_eq!(lines(&folder.path().join("out")), [format!("2026-01-01T00:00:00,9000,{ids},{ids}")]);
    assert!(text(&output.stdout).contains("3 dead"), "{output:?}");
    let mut bad = dead(folder.path());
    bad.sort_by_key(|row| row["raw"].to_string());
    let shown: Vec<(String, bool)> = (bad.iter())
        .map(|row| {
            let raw: serde_json::Value = serde_json::from_str(row["raw"].as_str().unwrap_or_default()).expect("a row is JSON");
            (raw["id"].to_string(), row["reason"].as_str().is_some_and(|reason| !reason.is_empty()))
        })
        .collect();
    assert_eq!(shown, [("-1".to_owned(), true), ("-2".to_owned(), true), ("-3".to_owned(), true)], "{bad:?}");
    assert!(bad[0]["reason"].as_str().is_some_and(|reason| reason.to_lowercase().contains("zero")), "{bad:?}");
}

#[test]
fn an_unknown_way_to_take_errors_is_refused_by_its_name() {
    let (folder, script) = failing(", 'on-error' = 'dead-leter'");
    let output = run(folder.path(), &script);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("'on-error'") && said.contains("did you mean dead-letter?"), "{said}");
}

//! The folder of golden queries: each script's plan and rows, or its refusal, beside it.
//!
//! `tests/sql/*.sql` with `.plan` and `.rows`; `error_*.sql` with the message. `WEIR_UPDATE_GOLDENS=1` writes them anew: read the
//! difference before it is committed, since Flink's meaning is what must stand there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use weir_connectors::Pull;
use weir_engine::fragment::FragmentRunner;
use weir_engine::{LaneOperator, MergeOperator, Moment, StateBudget};
use weir_functions::connect::{Connectors as _, LocalConnectors};
use weir_model::{Offset, Watermark};
use weir_plan::{AggregateStage, Pipeline};
use weir_seams::SystemClock;

use crate::support::{applied, assert_ok, lines, text, weir};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql")
}

fn scripts(errors: bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("the folder of golden queries");
    let mut found: Vec<PathBuf> = (entries.flatten().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .filter(|path| !path.ends_with("tables.sql"))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("error_")) == errors)
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// Compares with the file beside a script, or writes it.
fn assert_golden(path: &Path, found: &str) {
    if std::env::var_os("WEIR_UPDATE_GOLDENS").is_some() {
        std::fs::write(path, found).expect("the golden can be written");
    }
    let golden = std::fs::read_to_string(path).unwrap_or_else(|_| panic!("{} is missing", path.display()));
    assert_eq!(found, golden, "{}", path.display());
}

fn script_of(path: &Path, output: &Path) -> String {
    let read = |path: &Path| std::fs::read_to_string(path).expect("a script");
    let input = folder().join("orders.json");
    (read(&folder().join("tables.sql")) + &read(path))
        .replace("${input}", &input.display().to_string())
        .replace("${output}", &output.display().to_string())
}

/// The rows that a run of `script` leaves in `out` of a folder, sorted; of results that change those that count in the end.
async fn rows_of(script: &str, folder: &Path, parallelism: &str) -> String {
    let output = folder.join("out");
    std::fs::write(folder.join("job.sql"), script).expect("the script can be written");
    let ran = std::process::Command::new(weir())
        .args(["run", "job.sql", "--store", "file://store", "--parallelism", parallelism, "--durability", "process"])
        .current_dir(folder)
        .output()
        .expect("weir starts");
    assert_ok(&ran);
    let plan = weir_plan::compile(script).await.expect("it compiles");
    let sink = &plan.pipelines[0].sink;
    let mut rows = lines(&output);
    if let weir_plan::Changes::Upsert { key } = &sink.changes {
        let names: Vec<&str> = key.iter().map(|&place| sink.schema.field(place).name().as_str()).collect();
        rows = applied(&rows, &names);
    }
    rows.sort();
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_golden_query_has_its_plan_and_its_rows() {
    for path in scripts(false) {
        let plan = weir_plan::compile(&script_of(&path, Path::new("out"))).await;
        let plan = plan.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_golden(&path.with_extension("plan"), &weir_plan::explain(&plan));
        for parallelism in ["1", "3"] {
            let folder = tempfile::tempdir().expect("a folder");
            let script = script_of(&path, &folder.path().join("out"));
            assert_golden(&path.with_extension("rows"), &rows_of(&script, folder.path(), parallelism).await);
        }
    }
}

#[tokio::test]
async fn every_refused_query_says_where_and_what_to_write() {
    for path in scripts(true) {
        let script = script_of(&path, Path::new("out"));
        let refused = weir_plan::compile(&script).await;
        let message = refused.err().unwrap_or_else(|| panic!("{} must be refused", path.display())).to_string();
        assert!(message.contains("line "), "{}: no place in {message}", path.display());
        assert!(message.contains("\nhelp: "), "{}: no remedy in {message}", path.display());
        let shown: Vec<String> = message.lines().map(|line| line.chars().take(200).collect()).collect();
        assert_golden(&path.with_extension("txt"), &(shown.join("\n") + "\n"));
    }
}

#[test]
fn explain_prints_the_message_of_a_refused_script() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("job.sql");
    let path = scripts(true).remove(0);
    std::fs::write(&script, script_of(&path, Path::new("out"))).expect("the script can be written");
    let said = std::process::Command::new(weir()).arg("explain").arg(&script).output().expect("weir starts");
    assert!(!said.status.success());
    let golden = std::fs::read_to_string(path.with_extension("txt")).expect("a golden");
    assert!(text(&said.stderr).contains(golden.lines().next().unwrap_or_default()), "{}", text(&said.stderr));
}

/// Source rows of a pipeline, as its lane reads them.
async fn input_of(pipeline: &Pipeline) -> Vec<RecordBatch> {
    let connectors = LocalConnectors::new(Arc::new(SystemClock::new()), false);
    let pinned = connectors.pin(&pipeline.source).await.expect("the input is there");
    let source = connectors.source(&pipeline.source, &pinned).expect("a source");
    let mut reader = source.open(0, 1, Offset::default(), &pipeline.source.projection).await.expect("it opens");
    let mut rows = Vec::new();
    while let Pull::Rows(read) = reader.next().await.expect("it reads") {
        rows.push(read.batch);
    }
    rows
}

/// What one merge operator fires of the same partials, twice; `None` without a window, where the second time changes the first results.
async fn fired_twice(pipeline: &Pipeline, rows: &[RecordBatch]) -> Option<[Vec<RecordBatch>; 2]> {
    if !pipeline.aggregates.first().is_some_and(AggregateStage::is_window) || pipeline.aggregates.len() > 1 {
        return None;
    }
    let mut merge = MergeOperator::new(pipeline, 0, 720, StateBudget::default()).await.expect("it plans")?;
    let mut lane = LaneOperator::new(pipeline, 720, Watermark::NONE).await.expect("it plans");
    for batch in rows {
        lane.push(batch.clone(), i64::MAX).await.expect("it runs");
    }
    let partials = lane.finish().expect("partials").partials;
    let mut fired = [Vec::new(), Vec::new()];
    for fired in &mut fired {
        for rows in &partials {
            merge.merge(rows).expect("it folds");
        }
        *fired = merge.fire(Moment::END).await.expect("it fires");
    }
    Some(fired)
}

/// A fragment is planned once in a process and run for every batch: no run may leave anything to the next.
#[tokio::test]
async fn every_golden_query_gives_the_same_rows_twice_through_one_plan_instance() {
    let mut windows = 0;
    for path in scripts(false) {
        let what = path.display();
        let plan = weir_plan::compile(&script_of(&path, Path::new("out"))).await.expect("it compiles");
        plan.clock.set(1_767_225_600_000_000);
        for pipeline in &plan.pipelines {
            let rows = input_of(pipeline).await;
            assert!(!rows.is_empty(), "{what}");
            let mut fragment = FragmentRunner::new(&pipeline.input).await.expect("it plans");
            let first = fragment.run(rows.clone()).await.expect("it runs");
            assert_eq!(fragment.run(rows.clone()).await.expect("it runs again"), first, "{what}");
            if let Some([first, again]) = fired_twice(pipeline, &rows).await {
                assert_eq!(again, first, "{what}: its window");
                windows += 1;
            }
        }
    }
    assert!(windows > 2, "only {windows} windows");
}

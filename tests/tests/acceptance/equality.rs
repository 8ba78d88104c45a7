//! The example's result equals the batch engine's, however it is run.

use crate::support::{Case, assert_ok, assert_same, hot_songs_batch, sink_rows};

async fn run_equals_batch(rows: u64, files: u64, arguments: &[&str]) {
    let case = Case::new(rows, files);
    assert_ok(&case.run(arguments).output().expect("weir starts"));
    assert_same(&format!("{arguments:?}"), &sink_rows(&case.output()).await, &hot_songs_batch(&case.input()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_do_not_depend_on_parallelism_or_commit_interval() {
    for parallelism in ["1", "2", "7"] {
        for interval in ["5ms", "50ms", "1s"] {
            let arguments = ["--parallelism", parallelism, "--commit-interval", interval, "--durability", "process"];
            run_equals_batch(60_000, 1, &arguments).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_do_not_depend_on_memory() {
    for memory in ["64KiB", "1MiB"] {
        run_equals_batch(200_000, 2, &["--parallelism", "2", "--commit-interval", "5ms", "--memory", memory]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_do_not_depend_on_where_invocations_run() {
    for invoke in ["thread", "process"] {
        run_equals_batch(40_000, 1, &["--parallelism", "2", "--commit-interval", "10ms", "--invoke", invoke]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_that_is_run_again_changes_nothing() {
    let case = Case::new(20_000, 2);
    assert_ok(&case.run(&["--parallelism", "1"]).output().expect("weir starts"));
    let first = sink_rows(&case.output()).await;
    assert_ok(&case.run(&["--parallelism", "1"]).output().expect("weir starts"));
    assert_same("second run", &sink_rows(&case.output()).await, &first);
    let status = case.weir(&["status"]);
    assert_ok(&status);
    assert!(crate::support::text(&status.stdout).contains("Finished"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_does_not_keep_what_nobody_needs() {
    let case = Case::new(400_000, 1);
    assert_ok(
        &case.run(&["--parallelism", "1", "--commit-interval", "2ms", "--durability", "process"]).output().expect("weir starts"),
    );
    let data = case.path("store").join("jobs");
    let mut kept = 0;
    let mut folders = vec![data];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the store is a folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.path().components().any(|part| part.as_os_str() == "data") {
                kept += 1;
            }
        }
    }
    assert!(kept < 10, "{kept} data objects of a finished job are still there");
}

//! A disk that is full, a sink that vanishes, a reader that goes away: the run ends with a message, and the next one goes on.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Case, assert_ok, assert_same, hot_songs_batch, sink_rows, text, weir};

const DEADLINE: Duration = Duration::from_secs(60);

/// Looks until `holds`, or fails with `what`.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "{what}: not after {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for a run that must end by itself.
fn ended(mut job: Child, what: &str) -> Output {
    let began = Instant::now();
    while job.try_wait().expect("a child").is_none() {
        if began.elapsed() > DEADLINE {
            job.kill().expect("SIGKILL");
            panic!("{what}: still running after {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    job.wait_with_output().expect("a child")
}

fn endless(folder: &Path, sink: &str) -> Command {
    let script = format!(
        "CREATE TABLE plays (song_id BIGINT) WITH ('connector' = 'plays', 'rows-per-second' = '20000');
         CREATE TABLE seen (song_id BIGINT) WITH ({sink});
         INSERT INTO seen SELECT song_id FROM plays;"
    );
    std::fs::write(folder.join("job.sql"), script).expect("a script");
    let mut command = Command::new(weir());
    command.args(["run", "job.sql", "--store", "file://store", "--commit-interval", "10ms", "--parallelism", "2"]);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn has_files(folder: &Path) -> bool {
    let visible = |name: &std::ffi::OsStr| !name.to_string_lossy().starts_with('.');
    std::fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(|entry| visible(&entry.file_name())))
}

#[test]
fn a_sink_folder_that_vanishes_ends_the_run_by_name_and_the_next_one_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let sink = format!("'connector' = 'filesystem', 'path' = '{}', 'format' = 'csv'", out.display());
    let job = endless(folder.path(), &sink).spawn().expect("weir starts");
    wait_until("results", || has_files(&out));
    std::fs::rename(&out, folder.path().join("moved")).expect("the folder moves");
    std::fs::write(&out, "in the way").expect("a file");
    let output = ended(job, "the sink is gone");
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains(&out.display().to_string()), "{said}");
    std::fs::remove_file(&out).expect("the file goes");
    std::fs::rename(folder.path().join("moved"), &out).expect("the folder comes back");
    let before = std::fs::read_dir(&out).expect("the sink").count();
    let mut job = endless(folder.path(), &sink).spawn().expect("weir starts");
    wait_until("more results", || std::fs::read_dir(&out).expect("the sink").count() > before);
    job.kill().expect("SIGKILL");
    job.wait().expect("a child");
}

#[test]
fn a_reader_that_goes_away_ends_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut job = endless(folder.path(), "'connector' = 'print'").spawn().expect("weir starts");
    drop(job.stdout.take());
    let output = ended(job, "nobody reads");
    assert!(!output.status.success() && text(&output.stderr).contains("printing results"), "{}", text(&output.stderr));
}

#[test]
fn a_job_with_more_shards_than_threads_serves_them_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let sink = format!("'connector' = 'filesystem', 'path' = '{}', 'format' = 'csv'", out.display());
    let mut command = endless(folder.path(), &sink);
    let path = folder.path().join("job.sql");
    let script = std::fs::read_to_string(&path).expect("a script");
    std::fs::write(&path, format!("SET 'parallelism.default' = '9';\n{script}")).expect("a script");
    let mut job = command.spawn().expect("weir starts");
    wait_until("results of a job with nine lanes", || has_files(&out));
    job.kill().expect("SIGKILL");
    job.wait().expect("a child");
}

/// Runs a shell script where it may mount disks of its own; exit code 9 says that it could not.
fn with_disks(case: &Case, script: &str) -> Output {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).current_dir(case.folder.path());
    let output = command.output().expect("unshare (util-linux) starts");
    assert_ne!(output.status.code(), Some(9), "mounting a disk: {}", text(&output.stderr));
    output
}

/// Runs the case's job with `disk` mounted by `first`, where it must fail, and again after `then`, where it must end.
///
/// Returns what the first run said. What lies in `hot` at the end is copied to `kept`: the disk goes with its mount.
fn fails_then_ends(case: &Case, disk: &str, options: &str, first: &str, then: &str) -> String {
    std::fs::create_dir_all(case.path(disk)).expect("a folder");
    let run = format!("'{}' run job.sql --parallelism 1 --commit-interval 5ms --durability process {options}", weir().display());
    let script = format!(
        "mount -t tmpfs -o {first} tmpfs {disk} || exit 9
         {run} 2> first.err; echo $? > first.code
         mount -o remount,{then} {disk} || exit 9
         {run} && mkdir kept && cp hot/*.parquet kept"
    );
    let output = with_disks(case, &script);
    let said = std::fs::read_to_string(case.path("first.err")).expect("what the first run said");
    let code = std::fs::read_to_string(case.path("first.code")).expect("how the first run ended");
    assert_ne!(code.trim(), "0", "the first run must fail: {said}");
    assert_ok(&output);
    said
}

async fn assert_nothing_lost(case: &Case, what: &str) {
    assert_same(what, &sink_rows(&case.path("kept")).await, &hot_songs_batch(&case.input()).await);
}

/// The store lies on a disk of its own, which is made larger between two runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_run_with_the_remedy_and_loses_nothing() {
    let case = Case::new(300_000, 1);
    let said = fails_then_ends(&case, "disk", "--store file://disk/store", "size=700k", "size=64m");
    assert!(said.contains("full") || said.contains("space"), "{said}");
    assert_nothing_lost(&case, "after the disk was full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_sink_ends_the_run_with_the_remedy_and_loses_nothing() {
    let case = Case::new(300_000, 1);
    let said = fails_then_ends(&case, "hot", "--store file://store", "size=24k", "size=64m");
    assert!(said.contains(&case.output().display().to_string()) && said.contains("free some space"), "{said}");
    assert_nothing_lost(&case, "after the sink's disk was full").await;
}

/// Windows that are larger than the memory go to a disk of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_spill_folder_ends_the_run_with_the_remedy_and_loses_nothing() {
    let case = Case::new(300_000, 1);
    let options = "--store file://store --memory 64KiB --spill-folder spill";
    let said = fails_then_ends(&case, "spill", options, "size=8k", "size=256m");
    assert!(said.contains("spill") && said.contains("free space there") && said.contains("--memory"), "{said}");
    assert_nothing_lost(&case, "after the spill folder was full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_may_not_be_written_is_named_and_used_once_it_may() {
    let case = Case::new(1_000, 1);
    let said = fails_then_ends(&case, "disk", "--store file://disk/store", "ro", "rw");
    assert!(said.contains("disk/store") && said.contains("--store"), "{said}");
    assert_nothing_lost(&case, "in a store that may be written again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_may_not_be_written_is_named_and_used_once_it_may() {
    let case = Case::new(1_000, 1);
    let said = fails_then_ends(&case, "hot", "--store file://store", "ro", "rw");
    assert!(said.contains(&case.output().display().to_string()) && said.contains("let this user write there"), "{said}");
    assert_nothing_lost(&case, "in a sink that may be written again").await;
}

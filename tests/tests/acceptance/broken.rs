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

/// The store lies on a disk of its own, which is made larger between two runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_run_with_the_remedy_and_loses_nothing() {
    let case = Case::new(300_000, 1);
    std::fs::create_dir(case.path("disk")).expect("a folder");
    let run = format!(
        "'{}' run job.sql --store file://disk/store --parallelism 1 --commit-interval 5ms --durability process",
        weir().display()
    );
    let script = format!(
        "mount -t tmpfs -o size=700k tmpfs disk || exit 9
         {run} 2> first.err; echo $? > first.code
         mount -o remount,size=64m disk || exit 9
         {run}"
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).current_dir(case.folder.path());
    let output = command.output().expect("unshare (util-linux) starts");
    assert_ne!(output.status.code(), Some(9), "mounting a small disk: {}", text(&output.stderr));
    let said = std::fs::read_to_string(case.path("first.err")).expect("what the first run said");
    let code = std::fs::read_to_string(case.path("first.code")).expect("how the first run ended");
    assert_ne!(code.trim(), "0", "the disk was not full: {said}");
    assert!(said.contains("full") || said.contains("space"), "{said}");
    assert_ok(&output);
    assert_same("after the disk was full", &sink_rows(&case.output()).await, &hot_songs_batch(&case.input()).await);
}

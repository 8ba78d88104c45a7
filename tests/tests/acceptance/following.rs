//! A continuous source: files that appear while the job runs, while it is dead, and after it was stopped are each read once.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Bag, assert_same, text, weir};

const DEADLINE: Duration = Duration::from_secs(60);

fn script(folder: &Path) -> String {
    format!(
        "CREATE TABLE plays (song_id BIGINT, etime TIMESTAMP(3), WATERMARK FOR etime AS etime)
           WITH ('connector' = 'filesystem', 'path' = '{0}/in', 'format' = 'json', 'mode' = 'continuous', 'source.monitor-interval' = '20ms');
         CREATE TABLE seen (song_id BIGINT) WITH ('connector' = 'filesystem', 'path' = '{0}/out', 'format' = 'csv');
         INSERT INTO seen SELECT song_id FROM plays;",
        folder.display()
    )
}

fn start(folder: &Path) -> Child {
    Command::new(weir())
        .args(["run", "job.sql", "--store", "file://store", "--commit-interval", "10ms", "--parallelism", "2"])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weir starts")
}

/// Writes songs `range` under another name and moves the file into place.
fn add(folder: &Path, name: &str, range: std::ops::Range<u64>) {
    let lines: String = range.map(|song| format!("{{\"song_id\":{song},\"etime\":\"2026-01-01 00:00:00\"}}\n")).collect();
    std::fs::write(folder.join("new"), lines).expect("a file");
    std::fs::rename(folder.join("new"), folder.join("in").join(name)).expect("a file");
}

fn seen(folder: &Path) -> Bag {
    let mut bag = Bag::new();
    for file in std::fs::read_dir(folder.join("out")).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if file.extension().is_some_and(|extension| extension == "csv") {
            for line in std::fs::read_to_string(file).expect("a result").lines() {
                *bag.entry(line.to_owned()).or_default() += 1;
            }
        }
    }
    bag
}

/// Looks until `count` rows are there; a job that ends before is a failure.
fn await_rows(folder: &Path, job: &mut Child, count: usize) {
    let began = Instant::now();
    while seen(folder).values().sum::<usize>() < count {
        assert!(began.elapsed() < DEADLINE, "{} of {count} rows after {DEADLINE:?}", seen(folder).len());
        assert!(job.try_wait().expect("a child").is_none(), "the job of a continuous source ended");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn interrupt(job: Child) {
    let sent = Command::new("kill").args(["-INT", &job.id().to_string()]).status().expect("kill starts");
    assert!(sent.success());
    let output = job.wait_with_output().expect("a child");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn files_that_appear_later_are_read_once_whatever_happens_to_the_job() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::create_dir(folder.join("in")).expect("a folder");
    std::fs::write(folder.join("job.sql"), script(folder)).expect("a script");
    add(folder, "a.json", 0..1_000);
    let mut job = start(folder);
    await_rows(folder, &mut job, 1_000);
    add(folder, "b.json", 1_000..2_000);
    await_rows(folder, &mut job, 2_000);
    job.kill().expect("SIGKILL");
    job.wait().expect("a child");
    add(folder, "c.json", 2_000..3_000);
    let mut job = start(folder);
    await_rows(folder, &mut job, 3_000);
    interrupt(job);
    add(folder, "d.json", 3_000..4_000);
    let mut job = start(folder);
    await_rows(folder, &mut job, 4_000);
    interrupt(job);
    let expected: Bag = (0..4_000).map(|song: u64| (song.to_string(), 1)).collect();
    assert_same("files", &seen(folder), &expected);
}

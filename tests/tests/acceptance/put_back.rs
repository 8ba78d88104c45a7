//! Input files that change or vanish under a running job: it stops and names them; put back, the job goes on and nothing is lost.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Case, assert_ok, assert_same, hot_songs_batch, sink_rows, text};

/// Rows of the file that is being read while something happens to the other one.
const ROWS_BEFORE: u64 = 1_500_000;

/// A case with a large file, read first, and a small one.
fn case() -> (Case, PathBuf, PathBuf) {
    let case = Case::new(ROWS_BEFORE, 1);
    let (large, small) = (case.input().join("000.json"), case.input().join("999.json"));
    let text = std::fs::read_to_string(&large).expect("input");
    let lines: Vec<&str> = text.lines().rev().take(1_000).collect();
    std::fs::write(&small, lines.join("\n") + "\n").expect("input");
    (case, large, small)
}

fn arguments() -> [&'static str; 5] {
    ["--parallelism", "1", "--commit-interval", "5ms", "--quiet"]
}

/// Runs the job, does `harm` once it has pinned its input and begun, and returns what it says when it ends.
fn said_after(case: &Case, harm: impl FnOnce()) -> String {
    let mut command = case.run(&arguments());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("weir starts");
    // The job has pinned its input once its folder is there.
    while !case.path("store").join("jobs").exists() {
        assert!(child.try_wait().expect("a child").is_none(), "the job ended before it began");
        std::thread::yield_now();
    }
    harm();
    let output = child.wait_with_output().expect("it ends");
    let said = text(&output.stderr);
    assert!(!output.status.success(), "it must stop: {said}");
    said
}

/// Writes `bytes` as an editor or a restored backup does: a new file in the old one's place.
fn put(file: &Path, bytes: &[u8]) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, bytes).expect("a file");
    std::fs::rename(beside, file).expect("a file");
}

async fn assert_goes_on(case: &Case) {
    assert_ok(&case.run(&arguments()).output().expect("weir starts"));
    assert_same("put back", &sink_rows(&case.output()).await, &hot_songs_batch(&case.input()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_once_a_changed_file_has_its_old_bytes_back() {
    let (case, _, small) = case();
    let old = std::fs::read(&small).expect("input");
    let mut other = old.clone();
    other.extend(b"{}\n");
    let said = said_after(&case, || put(&small, &other));
    assert!(said.contains("999.json changed") && said.contains("put its old bytes back"), "{said}");
    let again = case.run(&arguments()).output().expect("weir starts");
    assert!(!again.status.success() && text(&again.stderr).contains("999.json changed"), "it is still another file");
    put(&small, &old);
    assert_goes_on(&case).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_once_a_vanished_file_is_back() {
    let (case, _, small) = case();
    let old = std::fs::read(&small).expect("input");
    let said = said_after(&case, || std::fs::remove_file(&small).expect("input"));
    assert!(said.contains("999.json is gone"), "{said}");
    put(&small, &old);
    assert_goes_on(&case).await;
}

/// Of a large file not every byte is known: whoever wrote it anew has to say that it is the same, in the words the error gives.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_once_somebody_vouches_for_a_large_file() {
    let (case, large, _) = case();
    let old = std::fs::read(&large).expect("input");
    let said = said_after(&case, || put(&large, &old));
    assert!(said.contains("000.json was written anew"), "{said}");
    let remedy = said.split("say so with ").nth(1).and_then(|rest| rest.split(" and run again").next()).expect("a remedy");
    let touched = Command::new("sh").args(["-c", remedy]).status().expect("sh starts");
    assert!(touched.success(), "{remedy}");
    assert_goes_on(&case).await;
}

//! `--invoke process`: what a person sees is what threads do. Ctrl-C commits, errors of the user end the run at once, rows are printed.

use crate::support::{assert_ok, text};
use crate::watched::{Watched, endless_windows, owners, until};

/// Files of processes that have registered and not left.
fn registered(job: &Watched) -> usize {
    std::fs::read_dir(job.path("store/owners")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_a_terminal_lets_every_invocation_commit_and_leave() {
    let out = "'connector' = 'filesystem', 'path' = '${folder}/out', 'format' = 'csv'";
    let job = Watched::new(&endless_windows(10, out), 2);
    let mut process = job.start(&["--quiet", "--invoke", "process"]);
    let table = job.table().await;
    table.until_commits(50).await;
    process.signal_group("-INT");
    until("the end of the run", || (!process.is_running()).then_some(()));
    assert!(process.ended_well(), "{}", job.said());
    assert_eq!(job.said(), "", "nothing had to be tried again");
    let heads = table.heads().await;
    assert!(owners(&heads).is_empty(), "a shard is still held: {heads:#?}");
    assert_eq!(registered(&job), 0, "every process has left");
}

#[tokio::test(flavor = "multi_thread")]
async fn invocations_leave_when_their_caller_is_killed() {
    let job = Watched::new(&endless_windows(10, "'connector' = 'blackhole'"), 2);
    let mut process = job.start(&["--quiet", "--invoke", "process"]);
    let table = job.table().await;
    table.until_commits(50).await;
    process.kill();
    // Its own file stays: it had no time to remove it.
    until("invocations that leave", || (registered(&job) <= 1).then_some(()));
    let free = |heads: &[weir_model::Head]| owners(heads).is_empty().then_some(());
    table.until("free shards", free).await;
}

#[test]
fn an_error_of_the_user_is_told_once_and_not_tried_again() {
    let sql = "CREATE TABLE plays (song_id BIGINT) WITH ('connector' = 'plays', 'number-of-rows' = '100');
         CREATE TABLE out (ratio BIGINT) WITH ('connector' = 'print');
         INSERT INTO out SELECT 100 / (song_id - song_id) FROM plays;";
    let mut said = Vec::new();
    for invoke in ["thread", "process"] {
        let output = Watched::new(sql, 1).run(&["--quiet", "--invoke", invoke]);
        assert!(!output.status.success());
        let told = text(&output.stderr);
        assert!(told.starts_with("error: ") && !told.contains("trying again"), "{told}");
        said.push(told);
    }
    assert_eq!(said[0], said[1], "processes say what threads say");
}

#[test]
fn printed_rows_are_the_same_from_threads_and_processes() {
    let sql = "CREATE TABLE plays (song_id BIGINT, user_id BIGINT) WITH ('connector' = 'plays', 'number-of-rows' = '5000');
         CREATE TABLE out (song_id BIGINT, user_id BIGINT) WITH ('connector' = 'print');
         INSERT INTO out SELECT song_id, user_id FROM plays;";
    let printed = |invoke| {
        let output = Watched::new(sql, 2).run(&["--quiet", "--invoke", invoke]);
        assert_ok(&output);
        let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let threads = printed("thread");
    assert_eq!(threads.len(), 5_000);
    assert_eq!(threads, printed("process"));
}

#[test]
fn a_summary_counts_what_invocations_did() {
    let sql = "CREATE TABLE plays (song_id BIGINT) WITH ('connector' = 'plays', 'number-of-rows' = '5000');
         CREATE TABLE out (song_id BIGINT) WITH ('connector' = 'blackhole');
         INSERT INTO out SELECT song_id FROM plays;";
    let output = Watched::new(sql, 1).run(&["--invoke", "process"]);
    assert_ok(&output);
    assert!(text(&output.stdout).contains("5,000 events read"), "{}", text(&output.stdout));
}

#[test]
fn another_parallelism_than_the_job_has_is_ignored_with_a_warning() {
    let sql = "CREATE TABLE plays (song_id BIGINT) WITH ('connector' = 'plays', 'number-of-rows' = '10');
         CREATE TABLE out (song_id BIGINT) WITH ('connector' = 'blackhole');
         INSERT INTO out SELECT song_id FROM plays;";
    let job = Watched::new(sql, 2);
    assert_eq!(text(&job.run(&["--quiet"]).stderr), "");
    let again = job.run(&["--quiet", "--name", "job"]);
    assert_eq!(text(&again.stderr), "");
    let command = ["run", "job.sql", "--quiet", "--parallelism", "3"];
    let output = job.weir(&command).output().expect("weir starts");
    assert_ok(&output);
    let said = text(&output.stderr);
    assert!(said.contains("job job has parallelism 2") && said.contains("--name job-2") && said.lines().count() == 1, "{said}");
}

//! Real processes under SIGKILL: nothing is lost, nothing is counted twice, and others take over at once.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Case, assert_same, hot_songs_batch, sink_rows};

const KILLS: u32 = 36;

/// Waits until the process ends or the time is over; returns whether it ended.
pub(crate) async fn ended_within(child: &mut Child, time: Duration) -> bool {
    let until = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < until {
        if let Some(status) = child.try_wait().expect("the process can be asked") {
            assert!(status.success(), "a run failed by itself");
            return true;
        }
        tokio::task::yield_now().await;
        std::thread::yield_now();
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_killed_over_and_over_gives_the_batch_result() {
    let case = Case::new(3_000_000, 1);
    let arguments = ["--parallelism", "2", "--commit-interval", "10ms", "--quiet"];
    let mut kills = 0;
    // Later rounds live longer, so that the job ends however slow the machine is.
    for attempt in 0u64.. {
        assert!(attempt < 400, "the job makes no progress under kills");
        let mut child = case.run(&arguments).stderr(Stdio::null()).spawn().expect("weir starts");
        let life = if kills < KILLS { Duration::from_millis(60 + attempt * 7 % 60) } else { Duration::from_secs(120) };
        if ended_within(&mut child, life).await {
            break;
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("it is dead");
        kills += 1;
    }
    assert!(kills >= 30, "only {kills} kills before the job was done: give it more rows");
    assert_same("after kills", &sink_rows(&case.output()).await, &hot_songs_batch(&case.input()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_takes_over_when_the_first_is_killed() {
    let case = Case::new(1_000_000, 1);
    let arguments = ["--parallelism", "2", "--commit-interval", "20ms", "--quiet"];
    let mut first = case.run(&arguments).stderr(Stdio::null()).spawn().expect("weir starts");
    let mut second = case.run(&arguments).stderr(Stdio::null()).spawn().expect("weir starts");
    ended_within(&mut first, Duration::from_millis(400)).await;
    first.kill().expect("SIGKILL");
    first.wait().expect("it is dead");
    let began = Instant::now();
    assert!(ended_within(&mut second, Duration::from_secs(120)).await, "the survivor did not finish");
    println!("the survivor finished {:?} after the kill", began.elapsed());
    assert_same("after take-over", &sink_rows(&case.output()).await, &hot_songs_batch(&case.input()).await);
}

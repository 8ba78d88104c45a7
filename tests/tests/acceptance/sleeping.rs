//! Lanes of a stream that sleep while windows fire: what they bring afterwards is late, row by row, and no window has a second result.

use std::time::Duration;

use reqwest::Client;
use serde_json::Value;

use crate::ingest::{HttpCase, LIFE_MAX, port_to_return_to};
use crate::killing::{LANES, PUBLISHER, heads_of};
use crate::support::{Bag, assert_ok, assert_same, sink_rows, text};

/// Sends a play; returns the lane that took it.
async fn send(port: u16, song: u64, time: &str) -> u64 {
    let row = format!("{{\"song_id\":{song},\"user_id\":1,\"play_score\":1.0,\"etime\":\"2026-01-01 {time}\"}}");
    let url = format!("http://127.0.0.1:{port}/v1/streams/plays/rows");
    let request = Client::new().post(url).header("content-type", "application/x-ndjson").body(row);
    let answer = request.send().await.expect("an answer").text().await.expect("its body");
    let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"));
    answer["lane"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

/// Rows that the case's job has taken.
async fn events_of(case: &HttpCase) -> u64 {
    heads_of(&case.case, LANES).await.iter().map(|head| head.stats.events).sum()
}

/// Results that were published.
async fn published(case: &HttpCase) -> u64 {
    heads_of(&case.case, PUBLISHER).await.iter().map(|head| head.stats.rows_out).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_lane_that_slept_while_its_window_fired_are_late_and_not_a_second_result() {
    let case = HttpCase::new(1, 1);
    assert_ok(&case.weir(&["stream", "create", "job.sql"]).output().expect("weir starts"));
    let other = port_to_return_to();
    let (server, second) = (case.serve(&[]), case.serve_on(other, &[]));
    let mut job = case.run(&["--parallelism", "2"]);
    // A process that is silent for some seconds lets go of its lane, and the other may take it.
    let mut sent = 1;
    while send(case.port, 1, "00:00:01").await == send(other, 2, "00:00:02").await {
        sent += 1;
        assert!(sent < 50, "two processes never had two lanes");
    }
    second.stop();
    // A lane that said nothing yet is not waited for either: its row would be late.
    let taken = async {
        while events_of(&case).await < 2 * sent {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIFE_MAX, taken).await.expect("the job takes what was sent");
    send(case.port, 3, "00:01:00").await;
    let fired = async {
        // Not by its files: one may be replaced while it is read.
        while published(&case).await < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIFE_MAX, fired).await.expect("nobody waits for the lane that sleeps");
    let second = case.serve_on(other, &[]);
    send(other, 1, "00:00:03").await;
    send(other, 4, "00:01:05").await;
    assert_ok(&case.weir(&["stream", "close", "plays"]).output().expect("weir starts"));
    job.ends("the job", LIFE_MAX).await;
    second.stop();
    server.stop();
    let row = |time: &str, song: u64, plays: u64| (format!("2026-01-01T{time}|{song}|{plays}|{plays}.0"), 1);
    let expected = [row("00:00:00", 1, sent), row("00:00:00", 2, sent), row("00:01:00", 3, 1), row("00:01:00", 4, 1)];
    assert_same("after a sleep", &sink_rows(&case.case.output()).await, &Bag::from(expected));
    let late = case.case.weir(&["query", "SELECT song_id, etime FROM late.hot", "--format", "json"]);
    let (said, why) = (text(&late.stdout), text(&late.stderr));
    assert_eq!(said.trim(), "{\"song_id\":1,\"etime\":\"2026-01-01T00:00:03\"}", "{why}");
}

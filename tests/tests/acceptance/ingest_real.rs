//! Rows by HTTP into MinIO and DynamoDB Local: keys that fill a transaction, networks that cut, servers and jobs that are killed.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::background::Background;
use crate::ingest::{HttpCase, IN_ORDER, LIFE_MAX};
use crate::network::Network;
use crate::real_parts::{STACK, variable};
use crate::support::{assert_ok, text};

/// Requests whose keys a commit takes beside its head: 91 items of the hundred that a transaction may have.
const KEYS_MAX: usize = 90;
const KILLS: u32 = 8;

/// Sends each row in a request of its own, all at once, under keys that begin with `run`.
async fn send_each(case: &HttpCase, rows: &[String], run: &str) -> Vec<(StatusCode, Value)> {
    let client = Client::new();
    let url = format!("{}/v1/streams/plays/rows", case.url());
    let send = async |number: usize, row: &String| {
        let request = client.post(&url).header("content-type", "application/x-ndjson").body(row.clone());
        let answer = request.header("idempotency-key", format!("{run}-{number}")).send().await.expect("an answer");
        let status = answer.status();
        let body = answer.text().await.expect("its body");
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}")))
    };
    join_all(rows.iter().enumerate().map(|(number, row)| send(number, row))).await
}

/// Requests by the commit that took them.
fn by_commit(answers: &[(StatusCode, Value)]) -> BTreeMap<(u64, u64), usize> {
    let mut commits = BTreeMap::new();
    for (_, answer) in answers {
        let place = (answer["lane"].as_u64().expect("a lane"), answer["epoch"].as_u64().expect("an epoch"));
        *commits.entry(place).or_default() += 1;
    }
    commits
}

#[tokio::test(flavor = "multi_thread")]
async fn small_requests_with_keys_fill_transactions_of_dynamodb_and_count_once() {
    let _alone = STACK.lock().await;
    let case = HttpCase::on_real_parts(400);
    assert_ok(&case.weir(&["stream", "create", "job.sql"]).output().expect("weir starts"));
    let server = case.serve(&["--fold-interval", "300ms"]);
    let mut job = case.run(&["--parallelism", "2"]);
    let plays = std::fs::read_to_string(case.file(0)).expect("the plays are there");
    let rows: Vec<String> = plays.lines().map(str::to_owned).collect();
    let first = send_each(&case, &rows, "run").await;
    assert!(first.iter().all(|(status, answer)| status.is_success() && answer["repeated"] == false), "{first:?}");
    let commits = by_commit(&first);
    assert_eq!(commits.values().max(), Some(&KEYS_MAX), "{commits:?}");
    let again = send_each(&case, &rows, "run").await;
    assert!(again.iter().all(|(status, answer)| status.is_success() && answer["repeated"] == true), "{again:?}");
    assert_eq!(by_commit(&again), commits, "a repeat gets the first answer");
    let others: Vec<String> = rows.iter().take(5).map(|row| row.replace("song_id\":", "song_id\":1")).collect();
    let refused = send_each(&case, &others, "run").await;
    assert!(refused.iter().all(|(status, _)| *status == StatusCode::UNPROCESSABLE_ENTITY), "{refused:?}");
    assert_ok(&case.weir(&["stream", "close", "plays"]).output().expect("weir starts"));
    job.ends("the job", LIFE_MAX).await;
    server.stop();
    case.assert_equals_batch("of small requests").await;
}

/// A process that is started again whenever it was killed.
struct Restarted<'a>(&'a HttpCase, Background);

impl<'a> Restarted<'a> {
    fn start(case: &'a HttpCase) -> Self {
        Self(case, case.run(&["--parallelism", "2"]))
    }

    fn kill(&mut self) {
        self.1.end();
        self.1 = self.0.run(&["--parallelism", "2"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_sent_over_networks_that_cut_while_server_and_job_are_killed_count_once() {
    let _alone = STACK.lock().await;
    let objects = Network::start(&variable("WEIR_TEST_S3_ENDPOINT"), 11);
    let table = Network::start(&variable("WEIR_TEST_DYNAMODB_ENDPOINT"), 12);
    let mut case = HttpCase::on_real_parts(200_000);
    std::fs::write(case.case.path("weir.toml"), "lease = \"500ms\"\n").expect("settings can be written");
    // A server that comes again cannot know that the one before is dead: it takes another lane, so that rows come out of order.
    let script = std::fs::read_to_string(case.case.script()).expect("the script is there");
    std::fs::write(case.case.script(), script.replace("INTERVAL '5' SECOND", "INTERVAL '10' MINUTE")).expect("it can be written");
    assert_ok(&case.weir(&["stream", "create", "job.sql"]).output().expect("weir starts"));
    let places = [("AWS_ENDPOINT_URL_S3", objects.endpoint.clone()), ("AWS_ENDPOINT_URL_DYNAMODB", table.endpoint.clone())];
    case.environment.extend(places);
    let clients = Network::start(&case.url(), 13);
    let (mut server, mut job) = (case.serve(&[]), Restarted::start(&case));
    let mut ingest = case.weir(&["ingest", "plays"]);
    ingest.arg(case.file(0)).args(IN_ORDER).env("WEIR_SERVER", &clients.endpoint);
    let mut ingest = Background::start(&mut ingest);
    for kill in 0..KILLS {
        let life = Duration::from_millis(700 + u64::from(kill) * 131 % 500);
        assert!(!ingest.ended_within(life).await, "only {kill} kills before all rows were sent: give it more rows");
        server.kill();
        if kill % 2 == 0 {
            job.kill();
        }
        server = case.serve(&[]);
    }
    ingest.ends("the client", LIFE_MAX).await;
    let counts = [objects.counts(), table.counts(), clients.counts()];
    println!("requests and spoilt ones: to the store, the table, the server: {counts:?}");
    assert!(counts.iter().all(|(_, spoilt)| *spoilt >= 3), "too few faults to mean anything: {counts:?}");
    let listed = case.weir(&["stream", "list"]).output().expect("weir starts");
    assert!(text(&listed.stdout).contains("200,000 rows"), "{}{}", text(&listed.stdout), text(&listed.stderr));
    assert_ok(&case.weir(&["stream", "close", "plays"]).output().expect("weir starts"));
    job.1.ends("the job", LIFE_MAX).await;
    server.stop();
    case.assert_equals_batch("over networks that cut").await;
}

//! The functions as the platform runs them: real binaries, started cold, frozen and killed, on MinIO and DynamoDB Local; every call
//! and message doubled, one call in ten lost.

mod instance;
mod platform;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use weir_coordinator::dynamodb::{Feed, Since, connect, describe};
use weir_coordinator::{CoordinationStore, Item, ItemKey, jobs};

use crate::ingest::read_by_http;
use crate::real_parts::RealCase;
use crate::support::{applied, assert_ok, lines, text};
use platform::{Function, Platform};

const ROWS: u64 = 2_000_000;
const ROWS_BY_HTTP: u64 = 200_000;
/// Rows of a request.
const REQUEST_ROWS: usize = 5_000;
/// How often a request is tried that was not answered, or told to come later.
const REQUEST_TRIES: usize = 60;
/// The longest that a run may take.
const PATIENCE: Duration = Duration::from_secs(300);

async fn table_of(name: &str) -> Arc<dyn CoordinationStore> {
    let places = weir_seams::Places {
        store: "memory:".to_owned(),
        coordination: Some(format!("dynamodb://{name}")),
        durability: weir_seams::Durability::Fsync,
    };
    places.open_table().await.expect("the table opens")
}

/// The table's stream, delivered to the dispatcher: each batch twice.
async fn deliver(platform: Platform, name: String) {
    let connection = connect(None).await.expect("a connection");
    let place = connection.place(&name);
    let stream = describe(&connection.table, &place).await.expect("the table").stream;
    let mut feed = Feed::new(connection.streams.clone(), place.clone(), stream, Since::Oldest);
    let table = table_of(&name).await;
    loop {
        let mut records = Vec::new();
        for changed in feed.poll().await.changed {
            records.extend(read(table.as_ref(), &changed.key).await.map(|item| record(&item)));
        }
        if !records.is_empty() {
            let event = json!({ "Records": records });
            platform.enqueue("dispatcher", event.to_string());
            platform.enqueue("dispatcher", event.to_string());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A row that has changed; the stream loses none of them.
async fn read(table: &dyn CoordinationStore, key: &ItemKey) -> Option<Item> {
    loop {
        match table.get(key).await {
            Ok(item) => return item,
            Err(error) => eprintln!("{key} is read again: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// As DynamoDB Streams give it.
fn record(item: &Item) -> Value {
    let body = text(&item.body);
    json!({
        "eventName": "MODIFY", "eventSource": "aws:dynamodb",
        "dynamodb": {
            "Keys": {"pk": {"S": item.key.partition}, "sk": {"S": item.key.sort}},
            "NewImage": {"pk": {"S": item.key.partition}, "sk": {"S": item.key.sort}, "body": {"S": body}},
        },
    })
}

/// Who holds the shards of the table's jobs, and how far they are.
async fn heads_told(name: &str) -> String {
    let table = table_of(name).await;
    let mut told = String::new();
    for (job, id) in jobs::list(table.as_ref()).await.expect("jobs") {
        let routes = jobs::routes(table.as_ref(), id).await.expect("routes").expect("a job has routes");
        for head in jobs::heads(table.as_ref(), &routes.slots.concat()).await.expect("heads") {
            let (shard, epoch, activity, claims) = (head.shard, head.epoch, head.activity, head.claims_since_commit);
            let owner = head.owner.map(|owner| (owner.id, owner.lease_until_micros));
            writeln!(told, "{job} {shard}: epoch {epoch}, {activity:?}, {claims} claims, held by {owner:?}").expect("text");
        }
    }
    told
}

/// A case run by functions.
struct FunctionsCase {
    real: RealCase,
    platform: Platform,
    delivering: tokio::task::JoinHandle<()>,
}

impl FunctionsCase {
    async fn start(real: RealCase, more: Vec<Function>) -> Self {
        std::fs::write(real.case.path("weir.toml"), "lease = \"3s\"\n").expect("settings can be written");
        let store = real.places();
        let settings = [("WEIR_PARALLELISM", "2"), ("WEIR_COMMIT_INTERVAL", "50ms"), ("WEIR_LOG", "info")];
        let worker = Function::new("worker", "weir-worker", 2).with(&store).with(&settings);
        // Little more than a cold start takes on a busy machine: who is called must leave in time, and finish the job in one call.
        let worker = worker.lasting(Duration::from_secs(2)).killed_in_each(3);
        let dispatcher = Function::new("dispatcher", "weir-dispatcher", 1).with(&store);
        let dispatcher = dispatcher.lasting(Duration::from_secs(10)).killed_in_each(40);
        let more = more.into_iter().map(|function| function.with(&store));
        let functions = [worker, dispatcher].into_iter().chain(more).collect();
        let platform = Platform::start(functions, real.case.folder.path()).await;
        let delivering = tokio::spawn(deliver(platform.clone(), real.name.clone()));
        Self { real, platform, delivering }
    }

    fn weir(&self, arguments: &[&str]) -> std::process::Output {
        self.real.weir(arguments).envs(self.real.places()).output().expect("weir starts")
    }

    /// Until the job is finished and its result is the batch's. Returns what the functions went through.
    async fn ends_as_batch(&self, what: &str) -> String {
        let told = self.ends().await;
        self.real.assert_equals_batch(what).await;
        format!("{what}: {told}")
    }

    /// Until the job is finished. Returns what the functions went through.
    async fn ends(&self) -> String {
        let finished = async {
            while !text(&self.weir(&["status"]).stdout).contains("Finished") {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        let finished = tokio::time::timeout(PATIENCE, finished).await.is_ok();
        self.delivering.abort();
        let told = self.platform.told();
        if !finished {
            panic!("the job does not end; {told}\n{}{}", heads_told(&self.real.name).await, self.platform.logs());
        }
        let counts = self.platform.counts("worker");
        assert!(counts.lost > 0 && counts.doubled > 0 && counts.killed > 0 && counts.cold > 2 && counts.warm > 0, "{told}");
        // Idle: nothing is called any more, but for what was on its way.
        self.platform.drained(Duration::from_secs(120)).await;
        told
    }

    /// A request to the ingest function, tried until it is taken.
    async fn send(&self, number: usize, rows: &str) {
        for _ in 0..REQUEST_TRIES {
            let answer = self.platform.ask("ingest", http_event(number, rows)).await;
            let answer: Value = answer.and_then(|answer| serde_json::from_str(&answer).ok()).unwrap_or_default();
            match answer["statusCode"].as_u64() {
                Some(200) => return,
                Some(429 | 503) | None => tokio::time::sleep(Duration::from_millis(250)).await,
                Some(_) => panic!("request {number}: {answer}"),
            }
        }
        panic!("request {number} is never taken; {}\n{}", self.platform.told(), self.platform.logs());
    }
}

/// As a function URL gives it.
fn http_event(number: usize, rows: &str) -> String {
    let path = "/v1/streams/plays/rows";
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": {"content-type": "application/x-ndjson", "idempotency-key": format!("request-{number}"), "host": "localhost"},
        "requestContext": {
            "accountId": "anonymous", "apiId": "weir", "domainName": "localhost", "domainPrefix": "weir",
            "http": {"method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "test"},
            "requestId": number.to_string(), "routeKey": "$default", "stage": "$default",
            "time": "01/Jan/2026:00:00:00 +0000", "timeEpoch": 1_767_225_600_000_i64,
        },
        "body": rows, "isBase64Encoded": false,
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_functions_gives_the_batch_result_though_calls_are_lost_and_doubled() {
    let _alone = crate::real_parts::STACK.lock().await;
    let case = FunctionsCase::start(RealCase::new(ROWS), Vec::new()).await;
    assert_ok(&case.weir(&["submit", "job.sql", "--parallelism", "2"]));
    println!("{}", case.ends_as_batch("by functions").await);
}

/// Three stages that keep or send something, each called by the commits of the one before.
#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_of_an_aggregate_goes_from_function_to_function() {
    let _alone = crate::real_parts::STACK.lock().await;
    let real = RealCase::new(ROWS);
    let script = format!(
        "CREATE TABLE plays (song_id BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         CREATE TABLE hot (plays BIGINT, songs BIGINT, best BIGINT, PRIMARY KEY (plays) NOT ENFORCED)
           WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         INSERT INTO hot SELECT plays, count(*), max(song_id)
         FROM (SELECT song_id, count(*) AS plays FROM plays GROUP BY song_id) GROUP BY plays;",
        real.case.input().display(),
        real.case.output().display()
    );
    std::fs::write(real.case.script(), script).expect("the script can be written");
    let case = FunctionsCase::start(real, Vec::new()).await;
    assert_ok(&case.weir(&["submit", "job.sql", "--parallelism", "2"]));
    let told = case.ends().await;
    let mut found = applied(&lines(&case.real.case.output()), &["plays"]);
    found.sort();
    assert_eq!(found, by_plays(&case.real.case.path("plays/000.json")), "{told}");
    println!("results of results by functions: {told}");
}

/// How many songs were played how often, and the last of them, as the sink writes them.
fn by_plays(input: &Path) -> Vec<String> {
    let mut plays: BTreeMap<i64, i64> = BTreeMap::new();
    for line in std::fs::read_to_string(input).expect("the input is there").lines() {
        let row: Value = serde_json::from_str(line).expect("a row");
        *plays.entry(row["song_id"].as_i64().expect("a song")).or_default() += 1;
    }
    let mut songs: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (song, plays) in plays {
        let (count, best) = songs.entry(plays).or_default();
        (*count, *best) = (*count + 1, song);
    }
    let row = |(plays, (songs, best)): (i64, (i64, i64))| json!({"plays": plays, "songs": songs, "best": best}).to_string();
    let mut rows: Vec<String> = songs.into_iter().map(row).collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_taken_by_a_function_and_read_by_functions_give_the_batch_result() {
    let _alone = crate::real_parts::STACK.lock().await;
    let real = RealCase::new(ROWS_BY_HTTP);
    read_by_http(&real.case);
    let ingest = Function::new("ingest", "weir-ingest", 1).with(&[("WEIR_AUTH", "none")]);
    let ingest = ingest.lasting(Duration::from_secs(10)).killed_in_each(12);
    let case = FunctionsCase::start(real, vec![ingest]).await;
    assert_ok(&case.weir(&["stream", "create", "job.sql"]));
    assert_ok(&case.weir(&["submit", "job.sql", "--parallelism", "2"]));
    let plays = std::fs::read_to_string(case.real.case.path("plays/000.json")).expect("the input is there");
    let lines: Vec<&str> = plays.lines().collect();
    for (number, rows) in lines.chunks(REQUEST_ROWS).enumerate() {
        case.send(number, &(rows.join("\n") + "\n")).await;
    }
    assert!(case.platform.counts("ingest").killed > 0, "{}", case.platform.told());
    assert_ok(&case.weir(&["stream", "close", "plays"]));
    println!("{}", case.ends_as_batch("rows by functions").await);
}

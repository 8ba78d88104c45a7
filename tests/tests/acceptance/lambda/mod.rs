//! The functions as the platform runs them: real binaries, started cold, frozen and killed, on MinIO and DynamoDB Local; every call
//! and message doubled, one call in ten lost.

mod platform;

use std::time::Duration;

use weir_coordinator::Item;
use weir_coordinator::dynamodb::{Feed, Since, connect, describe};

use crate::real_parts::RealCase;
use crate::support::{assert_ok, text};
use platform::{Function, Platform};

const ROWS: u64 = 2_000_000;
/// The longest that a run may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The table's stream, delivered to the dispatcher: each batch twice.
async fn deliver(platform: Platform, table: String) {
    let connection = connect(None).await.expect("a connection");
    let place = connection.place(&table);
    let stream = describe(&connection.table, &place).await.expect("the table").stream;
    let mut feed = Feed::new(connection.streams.clone(), place.clone(), stream, Since::Oldest);
    let rows = weir_seams::Places {
        store: "memory:".to_owned(),
        coordination: Some(format!("dynamodb://{table}")),
        durability: weir_seams::Durability::Fsync,
    };
    let rows = rows.open_table().await.expect("the table opens");
    loop {
        let mut records = Vec::new();
        for changed in feed.poll().await.changed {
            records.extend(rows.get(&changed.key).await.ok().flatten().map(|item| record(&item)));
        }
        if !records.is_empty() {
            let event = serde_json::json!({ "Records": records });
            platform.enqueue("dispatcher", event.to_string());
            platform.enqueue("dispatcher", event.to_string());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// As DynamoDB Streams give it.
fn record(item: &Item) -> serde_json::Value {
    let body = text(&item.body);
    serde_json::json!({
        "eventName": "MODIFY", "eventSource": "aws:dynamodb",
        "dynamodb": {
            "Keys": {"pk": {"S": item.key.partition}, "sk": {"S": item.key.sort}},
            "NewImage": {"pk": {"S": item.key.partition}, "sk": {"S": item.key.sort}, "body": {"S": body}},
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_functions_gives_the_batch_result_though_calls_are_lost_and_doubled() {
    let _alone = crate::real_parts::STACK.lock().await;
    let real = RealCase::new(ROWS);
    std::fs::write(real.case.path("weir.toml"), "lease = \"3s\"\n").expect("settings can be written");
    let store = real.places();
    let worker = [("WEIR_PARALLELISM", "2"), ("WEIR_COMMIT_INTERVAL", "50ms")];
    let platform = Platform::start(
        vec![
            Function::new("worker", "weir-worker", 2)
                .with(&store)
                .with(&worker)
                .lasting(Duration::from_millis(1_200))
                .killed_after(4),
            Function::new("dispatcher", "weir-dispatcher", 1).with(&store).lasting(Duration::from_secs(10)).killed_after(40),
        ],
        real.case.folder.path(),
    )
    .await;
    let delivering = tokio::spawn(deliver(platform.clone(), real.name.clone()));
    let mut submit = real.weir(&["submit", "job.sql", "--parallelism", "2"]);
    assert_ok(&submit.envs(store.clone()).output().expect("weir starts"));
    let done = async {
        loop {
            let status = real.weir(&["status"]).envs(store.clone()).output().expect("weir starts");
            if text(&status.stdout).contains("Finished") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let finished = tokio::time::timeout(PATIENCE, done).await;
    delivering.abort();
    let told = platform.told();
    println!("{told}");
    assert!(finished.is_ok(), "the job does not end; {told}");
    real.assert_equals_batch("by functions").await;
    let counts = platform.counts("worker");
    assert!(counts.lost > 0 && counts.doubled > 0 && counts.cold > 2 && counts.warm > 0, "{told}");
    // Idle: nothing is called any more, but for what was on its way.
    platform.drained(Duration::from_secs(60)).await;
}

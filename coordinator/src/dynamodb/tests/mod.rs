//! Against a real store: DynamoDB Local, or any that `WEIR_TEST_DYNAMODB_ENDPOINT` names. Each test has a table of its own.

mod answers;
mod costs;
mod feeds;
mod network;
mod places;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use weir_model::time::Sleep;

use super::*;
use crate::contract;

/// The machine's clock.
#[derive(Debug)]
struct RealClock;

#[expect(clippy::disallowed_methods, reason = "a real store answers in real time")]
impl Clock for RealClock {
    fn now_micros(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_micros()).unwrap()
    }
    fn monotonic_micros(&self) -> i64 {
        self.now_micros()
    }
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Ids that no other test makes.
#[derive(Debug, Default)]
struct RandomIds(RandomState, AtomicU64);

impl Ids for RandomIds {
    fn next_u128(&self) -> u128 {
        let count = self.1.fetch_add(2, Ordering::Relaxed);
        u128::from(self.0.hash_one(count)) << 64 | u128::from(self.0.hash_one(count + 1))
    }
}

fn endpoint() -> String {
    match std::env::var("WEIR_TEST_DYNAMODB_ENDPOINT") {
        Ok(endpoint) if !endpoint.is_empty() => endpoint,
        _ => panic!("no DynamoDB to test with: run infra/local/up and eval \"$(infra/local/env)\""),
    }
}

async fn fresh() -> (Connection, Place) {
    let connection = connect(Some(&endpoint())).await.unwrap();
    let place = connection.place(&format!("weir-test-{:032x}", RandomIds::default().next_u128()));
    create_table(&connection.table, &place, &RealClock).await.unwrap();
    (connection, place)
}

fn table(connection: &Connection, place: &Place) -> DynamoTable {
    DynamoTable::new(connection.table.clone(), place.clone(), Arc::new(RealClock), Arc::new(RandomIds::default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dynamodb_keeps_the_contract() {
    let (connection, place) = fresh().await;
    contract::run(&table(&connection, &place)).await;
}

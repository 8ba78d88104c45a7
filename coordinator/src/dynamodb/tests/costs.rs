//! Units as the service counts them against ours. Not those of transactions: DynamoDB Local answers 4 for one small write as for
//! three, and 16 for two of which one has 3 KiB; the service's manual says twice the units of each.

use aws_sdk_dynamodb::types::{ConsumedCapacity, ReturnConsumedCapacity};

use super::*;
use crate::dynamodb::item;
use crate::dynamodb::request::{Change, Guard, Order, Request};
use crate::store::Condition;
use crate::units;

fn consumed(capacity: Option<&ConsumedCapacity>) -> Option<f64> {
    capacity.and_then(ConsumedCapacity::capacity_units)
}

async fn charged(connection: &Connection, place: &Place, key: &ItemKey, body: &str) -> Option<f64> {
    let orders = [Order { key: key.clone(), guard: Guard::Absent, change: Change::Put(body.to_owned()) }];
    match Request::new(&connection.table, &place.table, &orders, 1).unwrap() {
        Request::Update(update) => {
            let answer = update.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.unwrap();
            consumed(answer.consumed_capacity())
        }
        other => panic!("one write is no {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_are_what_the_service_charges() {
    let (connection, place) = fresh().await;
    for (bytes, sort) in [(10, "a"), (900, "b"), (1_000, "c"), (5_000, "d"), (60_000, "e")] {
        let (key, body) = (ItemKey::new("p", sort), " ".repeat(bytes));
        let write = Write::Put { key: key.clone(), condition: Condition::Absent, body: body.clone().into() };
        let ours = units::of_transaction(&[write]).write as f64;
        assert_eq!(charged(&connection, &place, &key, &body).await, Some(ours), "{bytes}");
        let get = connection.table.get_item().table_name(&place.table).set_key(Some(item::key(&key))).consistent_read(true);
        let answer = get.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.unwrap();
        let found = table(&connection, &place).get(&key).await.unwrap();
        assert_eq!(consumed(answer.consumed_capacity()), Some(units::of_read(&found).read as f64), "{bytes}");
    }
}

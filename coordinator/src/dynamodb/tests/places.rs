//! Tables made, found, missing and unfit.

use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};

use super::*;
use crate::dynamodb::item;
use crate::store::Condition;
use crate::{keys, self_test};

async fn open(name: &str) -> Result<DynamoTable, StoreError> {
    DynamoTable::open(name, Some(&endpoint()), Arc::new(RealClock), Arc::new(RandomIds::default())).await
}

async fn make(connection: &Connection, place: &Place, keys: &[(&str, KeyType)]) {
    let mut create = connection.table.create_table().table_name(&place.table).billing_mode(BillingMode::PayPerRequest);
    for (name, of) in keys {
        let text = AttributeDefinition::builder().attribute_name(*name).attribute_type(ScalarAttributeType::S).build().unwrap();
        let key = KeySchemaElement::builder().attribute_name(*name).key_type(of.clone()).build().unwrap();
        create = create.attribute_definitions(text).key_schema(key);
    }
    create.send().await.unwrap();
}

async fn nowhere() -> (Connection, Place) {
    let connection = connect(Some(&endpoint())).await.unwrap();
    let place = connection.place(&format!("weir-test-{:032x}", RandomIds::default().next_u128()));
    (connection, place)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_made_once_and_passes_the_self_test() {
    let (connection, place) = fresh().await;
    let again = create_table(&connection.table, &place, &RealClock).await.unwrap();
    assert!(again.on_demand && again.stream.contains(&place.table), "{again:?}");
    self_test::run(&open(&place.table).await.unwrap(), "unique").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_table_is_named_with_the_command_that_makes_it() {
    let (connection, place) = nowhere().await;
    let missing = open(&place.table).await.unwrap_err().to_string();
    assert!(missing.contains(&format!("weir table create {}", place.table)) && missing.contains("AWS_REGION"), "{missing}");
    let later = table(&connection, &place).get(&ItemKey::new("p", "s")).await.unwrap_err();
    assert!(matches!(&later, StoreError::Invalid(text) if text.contains("weir table create")), "{later}");
    let write = Write::Put { key: ItemKey::new("p", "s"), condition: Condition::Absent, body: "{}".into() };
    let later = table(&connection, &place).transact(vec![write]).await.unwrap_err();
    assert!(matches!(&later, StoreError::Invalid(text) if text.contains("weir table create")), "{later}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_a_stream_gets_one_and_one_with_other_keys_is_refused() {
    let (connection, place) = nowhere().await;
    make(&connection, &place, &[("pk", KeyType::Hash), ("sk", KeyType::Range)]).await;
    let without = open(&place.table).await.unwrap_err().to_string();
    assert!(without.contains("stream") && without.contains("weir table create"), "{without}");
    create_table(&connection.table, &place, &RealClock).await.unwrap();
    open(&place.table).await.unwrap();
    let (connection, place) = nowhere().await;
    make(&connection, &place, &[("id", KeyType::Hash)]).await;
    for refused in [open(&place.table).await.map(drop), create_table(&connection.table, &place, &RealClock).await.map(drop)] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("keys") && refused.contains("another name"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_requests_were_told_bears_a_time_to_live() {
    let (connection, place) = fresh().await;
    let store = table(&connection, &place);
    let (request, head) = (keys::request(weir_model::JobId(1), "k"), ItemKey::new("head/1", "head"));
    let put = |key: &ItemKey, condition| Write::Put { key: key.clone(), condition, body: r#"{"expires_at":77}"#.into() };
    // Alone and in a transaction: two forms of request.
    let both = vec![put(&request, Condition::Absent), put(&head, Condition::Absent)];
    assert_eq!(store.transact(both).await.unwrap(), TransactOutcome::Applied);
    assert_eq!(store.transact(vec![put(&request, Condition::Exists)]).await.unwrap(), TransactOutcome::Applied);
    for (key, expires) in [(request, Some("77")), (head, None)] {
        let get = connection.table.get_item().table_name(&place.table).set_key(Some(item::key(&key))).consistent_read(true);
        let item = get.send().await.unwrap().item.unwrap();
        let found = item.get(item::EXPIRES_AT).and_then(|value| value.as_n().ok()).map(String::as_str);
        assert_eq!(found, expires, "{key}");
    }
}

/// The machine's clock, set wrong.
#[derive(Debug)]
struct WrongClock(i64);

impl Clock for WrongClock {
    fn now_micros(&self) -> i64 {
        RealClock.now_micros() + self.0
    }
    fn monotonic_micros(&self) -> i64 {
        RealClock.monotonic_micros()
    }
    fn sleep(&self, duration: Duration) -> weir_model::time::Sleep {
        RealClock.sleep(duration)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_whose_clock_differs_from_the_services_is_refused_with_the_remedy() {
    let (_, place) = fresh().await;
    for (wrong_micros, side) in [(60_000_000, "ahead"), (-60_000_000, "behind")] {
        let (clock, ids) = (Arc::new(WrongClock(wrong_micros)), Arc::new(RandomIds::default()));
        let refused = DynamoTable::open(&place.table, Some(&endpoint()), clock, ids).await.unwrap_err().to_string();
        assert!(refused.contains(side) && refused.contains("set it") && refused.contains(&place.table), "{refused}");
    }
    open(&place.table).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_the_stream_are_counted_while_somebody_listens() {
    let (_, place) = fresh().await;
    let table = open(&place.table).await.unwrap();
    assert_eq!(table.feed_reads(), 0, "nobody listens");
    let mut changes = table.changes();
    let read = async {
        while table.feed_reads() == 0 {
            drop(tokio::time::timeout(Duration::from_millis(100), changes.next()).await);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("somebody listens");
}

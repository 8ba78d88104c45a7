//! Tables made, found, missing and unfit.

use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};

use super::*;
use crate::self_test;
use crate::store::Condition;

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

//! What every coordination store must do; each store's tests run it.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test suite: it panics where a store breaks the contract"
)]

use serde_json::{Value, json};

use crate::store::{Condition, CoordinationStore, ItemKey, StoreError, TRANSACTION_ITEMS_MAX, TransactOutcome, Write};

fn put(sort: &str, condition: Condition, body: &Value) -> Write {
    Write::Put { key: ItemKey::new("contract", sort), condition, body: body.to_string().into() }
}

async fn applied(store: &dyn CoordinationStore, writes: Vec<Write>) -> bool {
    store.transact(writes).await.unwrap() == TransactOutcome::Applied
}

/// Runs the whole suite against an empty store.
pub async fn run(store: &dyn CoordinationStore) {
    conditions(store).await;
    all_or_nothing(store).await;
    limits(store).await;
    feed(store).await;
    race(store, store).await;
}

async fn conditions(store: &dyn CoordinationStore) {
    let key = ItemKey::new("contract", "a");
    assert_eq!(store.get(&key).await.unwrap(), None);
    assert!(!applied(store, vec![put("a", Condition::Exists, &json!({}))]).await);
    assert!(applied(store, vec![put("a", Condition::Absent, &json!({"generation": 1}))]).await);
    assert!(!applied(store, vec![put("a", Condition::Absent, &json!({}))]).await);
    assert_eq!(store.get(&key).await.unwrap().unwrap().version, 1);
    assert!(applied(store, vec![put("a", Condition::VersionIs(1), &json!({"generation": 2}))]).await);
    assert!(!applied(store, vec![put("a", Condition::VersionIs(1), &json!({}))]).await);
    let field = |value: u64| Condition::FieldIs { field: "generation", value: json!(value) };
    assert!(!applied(store, vec![Write::Check { key: key.clone(), condition: field(1) }]).await);
    assert!(applied(store, vec![Write::Check { key: key.clone(), condition: field(2) }]).await);
    let item = store.get(&key).await.unwrap().unwrap();
    assert_eq!(
        (item.version, item.body.as_ref()),
        (2, json!({"generation": 2}).to_string().as_bytes()),
        "a check writes nothing"
    );
    assert!(applied(store, vec![Write::Delete { key: key.clone(), condition: Condition::VersionIs(2) }]).await);
    assert_eq!(store.get(&key).await.unwrap(), None);
}

async fn all_or_nothing(store: &dyn CoordinationStore) {
    let two = vec![put("b", Condition::Absent, &json!(1)), put("c", Condition::Exists, &json!(2))];
    match store.transact(two).await.unwrap() {
        TransactOutcome::Refused(conflicts) => {
            assert_eq!(conflicts.len(), 1);
            assert_eq!((conflicts[0].index, &conflicts[0].found), (1, &None));
        }
        TransactOutcome::Applied => panic!("a condition that did not hold was ignored"),
    }
    assert_eq!(store.get(&ItemKey::new("contract", "b")).await.unwrap(), None, "half a transaction happened");
    assert!(applied(store, vec![put("b", Condition::Absent, &json!(1)), put("c", Condition::Absent, &json!(2))]).await);
    let found: Vec<String> = store.query("contract").await.unwrap().into_iter().map(|item| item.key.sort).collect();
    assert_eq!(found, ["b", "c"]);
    assert!(store.query("contrac").await.unwrap().is_empty());
}

async fn limits(store: &dyn CoordinationStore) {
    let many = (0..=TRANSACTION_ITEMS_MAX).map(|i| put(&format!("m{i}"), Condition::Absent, &json!(0))).collect();
    assert!(matches!(store.transact(many).await, Err(StoreError::Invalid(_))));
    let large = put("large", Condition::Absent, &Value::String("x".repeat(401 << 10)));
    assert!(matches!(store.transact(vec![large]).await, Err(StoreError::Invalid(_))));
}

async fn feed(store: &dyn CoordinationStore) {
    let mut changes = store.changes();
    assert!(applied(store, vec![put("f", Condition::Absent, &json!(0))]).await);
    changes.next().await;
}

/// Increments one item 400 times from each of two handles at once, by compare-and-set: no increment may be lost.
pub async fn race(one: &dyn CoordinationStore, two: &dyn CoordinationStore) {
    let key = ItemKey::new("contract", "counter");
    assert!(applied(one, vec![put("counter", Condition::Absent, &json!(0))]).await);
    tokio::join!(increment(one, &key, 400), increment(two, &key, 400));
    let item = one.get(&key).await.unwrap().unwrap();
    assert_eq!((item.version, item.body.as_ref()), (801, b"800".as_ref()));
}

async fn increment(store: &dyn CoordinationStore, key: &ItemKey, times: usize) {
    for _ in 0..times {
        loop {
            let item = store.get(key).await.unwrap().unwrap();
            let count: u64 = serde_json::from_slice(&item.body).unwrap();
            let write = Write::Put {
                key: key.clone(),
                condition: Condition::VersionIs(item.version),
                body: (count + 1).to_string().into(),
            };
            if applied(store, vec![write]).await {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryTable;

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        run(&MemoryTable::new()).await;
    }
}

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
    fields(store).await;
    all_or_nothing(store).await;
    limits(store).await;
    pages(store).await;
    feed(store).await;
    race(store, store).await;
    race_of_transactions(store).await;
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
    match store.transact(vec![put("a", Condition::VersionIs(1), &json!({}))]).await.unwrap() {
        TransactOutcome::Refused(conflicts) => {
            let found = conflicts[0].found.as_ref().map(|item| (item.version, item.body.as_ref()));
            assert_eq!(found, Some((2, json!({"generation": 2}).to_string().as_bytes())), "a refusal tells what was found");
        }
        TransactOutcome::Applied => panic!("a condition that did not hold was ignored"),
    }
    for (condition, holds) in [(Condition::VersionIs(1), false), (Condition::VersionIs(2), true), (Condition::Exists, true)] {
        assert_eq!(applied(store, vec![Write::Check { key: key.clone(), condition }]).await, holds);
    }
    let item = store.get(&key).await.unwrap().unwrap();
    assert_eq!(
        (item.version, item.body.as_ref()),
        (2, json!({"generation": 2}).to_string().as_bytes()),
        "a check writes nothing"
    );
    assert!(applied(store, vec![put("a", Condition::Exists, &json!({}))]).await);
    assert_eq!(store.get(&key).await.unwrap().unwrap().version, 3, "every write is one version");
    assert!(!applied(store, vec![Write::Delete { key: key.clone(), condition: Condition::VersionIs(2) }]).await);
    assert!(applied(store, vec![Write::Delete { key: key.clone(), condition: Condition::VersionIs(3) }]).await);
    assert!(!applied(store, vec![Write::Delete { key: key.clone(), condition: Condition::Exists }]).await);
    assert_eq!(store.get(&key).await.unwrap(), None);
}

async fn fields(store: &dyn CoordinationStore) {
    let key = ItemKey::new("contract", "anchor");
    let field = |value: u64| Condition::FieldIs { field: "generation", value: json!(value) };
    let check = |value: u64| Write::Check { key: key.clone(), condition: field(value) };
    assert!(!applied(store, vec![check(1)]).await, "no item, no field");
    assert!(applied(store, vec![put("anchor", Condition::Absent, &json!({"generation": 1}))]).await);
    assert!(applied(store, vec![put("anchor", field(1), &json!({"generation": 2}))]).await);
    assert!(!applied(store, vec![check(1)]).await);
    assert!(applied(store, vec![check(2)]).await);
    assert!(!applied(store, vec![put("named", Condition::Absent, &json!(0)), check(1)]).await);
    assert!(applied(store, vec![put("named", Condition::Absent, &json!(0)), check(2)]).await);
    let item = store.get(&key).await.unwrap().unwrap();
    assert_eq!(item.version, 2, "a check writes nothing");
    for sort in ["anchor", "named"] {
        let delete = Write::Delete { key: ItemKey::new("contract", sort), condition: Condition::Exists };
        assert!(applied(store, vec![delete]).await);
    }
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
    let many = |n: usize| (0..n).map(|i| put(&format!("m{i}"), Condition::Absent, &json!(0))).collect();
    assert!(matches!(store.transact(many(TRANSACTION_ITEMS_MAX + 1)).await, Err(StoreError::Invalid(_))));
    assert!(applied(store, many(TRANSACTION_ITEMS_MAX)).await);
    let twice = vec![put("twice", Condition::Absent, &json!(0)), put("twice", Condition::Exists, &json!(1))];
    assert!(matches!(store.transact(twice).await, Err(StoreError::Invalid(_))));
    for sort in ["", &"s".repeat(1025)] {
        assert!(matches!(store.transact(vec![put(sort, Condition::Absent, &json!(0))]).await, Err(StoreError::Invalid(_))));
    }
    assert!(applied(store, Vec::new()).await, "nothing to do is done");
    let large = put("large", Condition::Absent, &Value::String("x".repeat(401 << 10)));
    assert!(matches!(store.transact(vec![large]).await, Err(StoreError::Invalid(_))));
}

/// More than a store gives in one answer, and keys whose order is that of their bytes.
async fn pages(store: &dyn CoordinationStore) {
    let body = Value::String("x".repeat(390 << 10));
    let mut sorts = ["10", "9", "B", "a", "ä", "\u{ffff}", "\u{10000}"];
    for sort in sorts {
        let key = ItemKey::new("contract-pages", sort);
        let write = Write::Put { key, condition: Condition::Absent, body: body.to_string().into() };
        assert!(applied(store, vec![write]).await);
    }
    sorts.sort_unstable();
    let found: Vec<String> = store.query("contract-pages").await.unwrap().into_iter().map(|item| item.key.sort).collect();
    assert_eq!(found, sorts);
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

/// Two writers move two items in step: whoever reads both sees what one transaction left.
async fn race_of_transactions(store: &dyn CoordinationStore) {
    assert!(applied(store, vec![put("left", Condition::Absent, &json!(0)), put("right", Condition::Absent, &json!(0))]).await);
    tokio::join!(step_both(store, 50), step_both(store, 50));
    for sort in ["left", "right"] {
        let item = store.get(&ItemKey::new("contract", sort)).await.unwrap().unwrap();
        assert_eq!((item.version, item.body.as_ref()), (101, b"100".as_ref()), "{sort}");
    }
}

async fn step_both(store: &dyn CoordinationStore, times: usize) {
    for _ in 0..times {
        loop {
            let item = store.get(&ItemKey::new("contract", "left")).await.unwrap().unwrap();
            let next = json!(serde_json::from_slice::<u64>(&item.body).unwrap() + 1);
            let at = || Condition::VersionIs(item.version);
            match store.transact(vec![put("left", at(), &next), put("right", at(), &next)]).await {
                Ok(TransactOutcome::Applied) => break,
                // Rivals in each other's way: nothing happened, try again.
                Ok(TransactOutcome::Refused(_)) | Err(StoreError::Determinate(_)) => {}
                Err(error) => panic!("{error}"),
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

//! The start-up self-test (T2): races two conditional writes and refuses a store that lets both win.

use crate::store::{Condition, CoordinationStore, ItemKey, StoreError, TransactOutcome, Write};

/// Races two writers for one item that does not exist yet; exactly one may win.
///
/// - `unique`: makes the item's name; never re-used.
///
/// # Errors
/// [`StoreError::Invalid`] if the store ignores conditions.
pub async fn run(store: &dyn CoordinationStore, unique: &str) -> Result<(), StoreError> {
    let key = ItemKey::new("self-test", unique);
    let write = |body: &'static str| vec![Write::Put { key: key.clone(), condition: Condition::Absent, body: body.into() }];
    let (one, two) = futures_join(store.transact(write("1")), store.transact(write("2"))).await;
    let won = [one?, two?].into_iter().filter(|outcome| *outcome == TransactOutcome::Applied).count();
    let _ = store.transact(vec![Write::Delete { key: key.clone(), condition: Condition::Exists }]).await?;
    let gone = store.get(&key).await?.is_none();
    if won == 1 && gone {
        return Ok(());
    }
    Err(StoreError::Invalid(format!(
        "the coordination store lets {won} of 2 conditional writes win: Weir needs linearizable conditional writes, use another store"
    )))
}

async fn futures_join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    tokio::join!(a, b)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::*;
    use crate::MemoryTable;
    use crate::store::{Changes, Item};

    #[derive(Debug)]
    struct IgnoresConditions(Arc<MemoryTable>);

    #[async_trait]
    impl CoordinationStore for IgnoresConditions {
        async fn get(&self, key: &ItemKey) -> Result<Option<Item>, StoreError> {
            self.0.get(key).await
        }
        async fn query(&self, partition: &str) -> Result<Vec<Item>, StoreError> {
            self.0.query(partition).await
        }
        async fn transact(&self, writes: Vec<Write>) -> Result<TransactOutcome, StoreError> {
            let _ = self.0.transact(writes).await?;
            Ok(TransactOutcome::Applied)
        }
        fn changes(&self) -> Changes {
            self.0.changes()
        }
    }

    #[tokio::test]
    async fn a_store_that_ignores_conditions_is_refused() {
        assert!(run(&MemoryTable::new(), "a").await.is_ok());
        let error = run(&IgnoresConditions(Arc::default()), "a").await.unwrap_err();
        assert!(error.to_string().contains("2 of 2"), "{error}");
    }
}

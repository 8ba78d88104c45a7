//! The start-up self-test (T2): races conditional writes and refuses a store that lets both win, or half of one.
//!
//! ```text
//! two single writes:   a Absent              | a Absent
//! two transactions:    a VersionIs(1), b new | a VersionIs(1), c new        what commits are made of
//! ```
//! Price: 14 write units and 2 read units, four answers one after the other.

use crate::store::{Condition, CoordinationStore, Item, ItemKey, StoreError, TransactOutcome, Write};

/// Races that are run before a store whose answers are lost is given up. Who lost a race and whose answer was lost too can't be known: over
/// a network that spoils one request of ten, one race of five says nothing.
const ATTEMPTS: usize = 8;

/// Races two writers for one item that does not exist yet, then two transactions for the same version of it; each time exactly one
/// may win, with all of its writes.
///
/// - `unique`: makes the items' names; never re-used.
///
/// # Errors
/// [`StoreError::Invalid`] if the store ignores conditions or tears transactions.
pub async fn run(store: &dyn CoordinationStore, unique: &str) -> Result<(), StoreError> {
    for attempt in 1..ATTEMPTS {
        match once(store, &format!("self-test/{unique}/{attempt}")).await {
            // Nobody knows who won.
            Err(StoreError::Determinate(_) | StoreError::Indeterminate(_)) => {}
            known => return known,
        }
    }
    once(store, &format!("self-test/{unique}/{ATTEMPTS}")).await
}

async fn once(store: &dyn CoordinationStore, partition: &str) -> Result<(), StoreError> {
    let put = |sort: &str, condition| Write::Put { key: ItemKey::new(partition, sort), condition, body: "{}".into() };
    let made = race(store, vec![put("a", Condition::Absent)], vec![put("a", Condition::Absent)]).await?;
    let and = |other| vec![put("a", Condition::VersionIs(1)), put(other, Condition::Absent)];
    let moved = race(store, and("b"), and("c")).await?;
    let left = store.query(partition).await?;
    let delete = |item: &Item| Write::Delete { key: item.key.clone(), condition: Condition::Exists };
    match store.transact(left.iter().map(delete).collect()).await {
        // Whether it was done is looked at.
        Ok(_) | Err(StoreError::Indeterminate(_)) => {}
        Err(error) => return Err(error),
    }
    let gone = store.query(partition).await?.is_empty();
    judge(made, moved, &left, gone)
}

/// How many of two writers at once won.
async fn race(store: &dyn CoordinationStore, one: Vec<Write>, two: Vec<Write>) -> Result<usize, StoreError> {
    let (one, two) = tokio::join!(store.transact(one), store.transact(two));
    Ok([one?, two?].into_iter().filter(|outcome| *outcome == TransactOutcome::Applied).count())
}

fn judge(made: usize, moved: usize, left: &[Item], gone: bool) -> Result<(), StoreError> {
    let versions: Vec<u64> = left.iter().map(|item| item.version).collect();
    let what = if made != 1 {
        format!("lets {made} of 2 conditional writes win")
    } else if moved != 1 {
        format!("lets {moved} of 2 transactions on the same version win")
    } else if versions != [2, 1] {
        format!("applies transactions in part: rows at versions {versions:?} where [2, 1] were written")
    } else if !gone {
        "shows rows that were deleted".to_owned()
    } else {
        return Ok(());
    };
    Err(StoreError::Invalid(format!(
        "the coordination store {what}: Weir needs linearizable conditional transactions, use another store"
    )))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::MemoryTable;
    use crate::store::Changes;

    /// What a store does wrong.
    #[derive(Debug, Clone, Copy)]
    enum Flaw {
        /// It applies everything.
        IgnoresConditions,
        /// In transactions of several it looks only whether items are there.
        IgnoresVersions,
        /// It applies each write of a transaction that it can.
        Tears,
        /// It answers that it has deleted.
        KeepsDeleted,
    }

    #[derive(Debug)]
    struct Flawed(MemoryTable, Flaw);

    impl Flawed {
        async fn blind(&self, writes: Vec<Write>) -> Result<TransactOutcome, StoreError> {
            for write in writes {
                let Write::Put { key, body, .. } = write else { continue };
                let condition = if self.0.get(&key).await?.is_some() { Condition::Exists } else { Condition::Absent };
                let _ = self.0.transact(vec![Write::Put { key, condition, body }]).await?;
            }
            Ok(TransactOutcome::Applied)
        }
    }

    #[async_trait]
    impl CoordinationStore for Flawed {
        async fn get(&self, key: &ItemKey) -> Result<Option<Item>, StoreError> {
            self.0.get(key).await
        }
        async fn query(&self, partition: &str) -> Result<Vec<Item>, StoreError> {
            self.0.query(partition).await
        }
        async fn transact(&self, writes: Vec<Write>) -> Result<TransactOutcome, StoreError> {
            let deletes = matches!(writes.first(), Some(Write::Delete { .. }));
            match self.1 {
                Flaw::IgnoresConditions if !deletes => self.blind(writes).await,
                Flaw::IgnoresVersions if !deletes && writes.len() > 1 => self.blind(writes).await,
                Flaw::Tears if !deletes => {
                    let mut outcome = TransactOutcome::Applied;
                    for write in writes {
                        let one = self.0.transact(vec![write]).await?;
                        outcome = if outcome == TransactOutcome::Applied { one } else { outcome };
                    }
                    Ok(outcome)
                }
                Flaw::KeepsDeleted if deletes => Ok(TransactOutcome::Applied),
                _ => self.0.transact(writes).await,
            }
        }
        fn changes(&self) -> Changes {
            self.0.changes()
        }
    }

    /// A store over a network that loses one answer of each of the first five races.
    #[derive(Debug)]
    struct Lossy(MemoryTable, AtomicUsize);

    #[async_trait]
    impl CoordinationStore for Lossy {
        async fn get(&self, key: &ItemKey) -> Result<Option<Item>, StoreError> {
            self.0.get(key).await
        }
        async fn query(&self, partition: &str) -> Result<Vec<Item>, StoreError> {
            self.0.query(partition).await
        }
        async fn transact(&self, writes: Vec<Write>) -> Result<TransactOutcome, StoreError> {
            let outcome = self.0.transact(writes).await;
            match self.1.fetch_add(1, Ordering::Relaxed) {
                0 | 2 | 4 | 6 | 8 => Err(StoreError::Indeterminate("the answer was lost".to_owned())),
                _ => outcome,
            }
        }
        fn changes(&self) -> Changes {
            self.0.changes()
        }
    }

    #[tokio::test]
    async fn lost_answers_are_no_reason_to_refuse_a_store() {
        run(&Lossy(MemoryTable::new(), AtomicUsize::new(0)), "a").await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_keeps_its_word_is_left_empty() {
        let store = MemoryTable::new();
        run(&store, "a").await.unwrap();
        assert!(store.query("self-test/a/1").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_store_that_ignores_conditions_or_tears_transactions_is_refused() {
        for (flaw, said) in [
            (Flaw::IgnoresConditions, "2 of 2 conditional writes"),
            (Flaw::IgnoresVersions, "2 of 2 transactions"),
            (Flaw::Tears, "in part"),
            (Flaw::KeepsDeleted, "deleted"),
        ] {
            let error = run(&Flawed(MemoryTable::new(), flaw), "a").await.unwrap_err().to_string();
            assert!(error.contains(said), "{flaw:?}: {error}");
        }
    }
}

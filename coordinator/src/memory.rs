//! The table in memory: for tests and simulation. Deterministic, without threads or a clock.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::store::{
    Changes, Conflict, CoordinationStore, Item, ItemKey, StoreError, TransactOutcome, Write, check_limits, holds,
};

/// Items in a map.
#[derive(Debug)]
pub struct MemoryTable {
    items: Mutex<BTreeMap<ItemKey, (u64, Bytes)>>,
    changed: watch::Sender<u64>,
}

impl MemoryTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self { items: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Default for MemoryTable {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl CoordinationStore for MemoryTable {
    async fn get(&self, key: &ItemKey) -> Result<Option<Item>, StoreError> {
        let items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(items.get(key).map(|(version, body)| Item { key: key.clone(), version: *version, body: body.clone() }))
    }

    async fn query(&self, partition: &str) -> Result<Vec<Item>, StoreError> {
        let items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let of_partition = items.iter().filter(|(key, _)| key.partition == partition);
        Ok(of_partition.map(|(key, (version, body))| Item { key: key.clone(), version: *version, body: body.clone() }).collect())
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<TransactOutcome, StoreError> {
        check_limits(&writes)?;
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let mut conflicts = Vec::new();
        for (index, write) in writes.iter().enumerate() {
            let (key, condition) = write.target();
            let found = items.get(key);
            if !holds(condition, found.map(|(version, body)| (*version, body.as_ref()))) {
                let found = found.map(|(version, body)| Item { key: key.clone(), version: *version, body: body.clone() });
                conflicts.push(Conflict { index, found });
            }
        }
        if !conflicts.is_empty() {
            return Ok(TransactOutcome::Refused(conflicts));
        }
        for write in writes {
            match write {
                Write::Put { key, body, .. } => {
                    let version = items.get(&key).map_or(1, |(version, _)| version + 1);
                    items.insert(key, (version, body));
                }
                Write::Delete { key, .. } => drop(items.remove(&key)),
                Write::Check { .. } => {}
            }
        }
        drop(items);
        self.changed.send_modify(|changes| *changes += 1);
        Ok(TransactOutcome::Applied)
    }

    fn changes(&self) -> Changes {
        Changes::new(self.changed.subscribe())
    }
}

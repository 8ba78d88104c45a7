//! Counts requests and injects faults: a decorator over the table's seam.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::store::{Changes, CoordinationStore, Item, ItemKey, StoreError, TransactOutcome, Write};
use crate::units::{self, Units};

/// What a fault does to one transaction: *did it happen* and *did the caller hear* are drawn apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No fault.
    None,
    /// It does not happen, and the caller hears so.
    Refused,
    /// It happens, the caller does not hear.
    AnswerLost,
    /// It does not happen, the caller does not hear.
    RequestLost,
}

/// Decides the fault of each transaction.
pub trait Faults: Send + Sync + std::fmt::Debug {
    /// Fault of the next transaction.
    fn next(&self) -> Fault;

    /// Whether the next read fails.
    fn read_fails(&self) -> bool;
}

/// Requests so far.
#[derive(Debug, Default)]
pub struct TableCounts {
    /// Reads of one item or one partition.
    pub reads: AtomicU64,
    /// Transactions.
    pub transactions: AtomicU64,
    /// Items written by them.
    pub writes: AtomicU64,
    /// What the reads would cost in DynamoDB, see [`units`].
    pub read_units: AtomicU64,
    /// What the transactions would cost, refused ones too.
    pub write_units: AtomicU64,
}

/// A reading of [`TableCounts`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReading {
    /// Reads of one item or one partition.
    pub reads: u64,
    /// Transactions.
    pub transactions: u64,
    /// Items written by them.
    pub writes: u64,
    /// Read units.
    pub read_units: u64,
    /// Write units.
    pub write_units: u64,
}

impl std::ops::Add for TableReading {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            reads: self.reads + other.reads,
            transactions: self.transactions + other.transactions,
            writes: self.writes + other.writes,
            read_units: self.read_units + other.read_units,
            write_units: self.write_units + other.write_units,
        }
    }
}

impl TableCounts {
    /// Reads all counters.
    #[must_use]
    pub fn reading(&self) -> TableReading {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TableReading {
            reads: read(&self.reads),
            transactions: read(&self.transactions),
            writes: read(&self.writes),
            read_units: read(&self.read_units),
            write_units: read(&self.write_units),
        }
    }

    /// Adds those that another process counted.
    pub fn add_reading(&self, reading: &TableReading) {
        let add = |counter: &AtomicU64, n| counter.fetch_add(n, Ordering::Relaxed);
        add(&self.reads, reading.reads);
        add(&self.transactions, reading.transactions);
        add(&self.writes, reading.writes);
        add(&self.read_units, reading.read_units);
        add(&self.write_units, reading.write_units);
    }

    fn add(&self, units: Units) {
        self.read_units.fetch_add(units.read, Ordering::Relaxed);
        self.write_units.fetch_add(units.write, Ordering::Relaxed);
    }
}

/// A table that counts, and perhaps fails.
#[derive(Debug)]
pub struct CountingTable {
    inner: Arc<dyn CoordinationStore>,
    counts: Arc<TableCounts>,
    faults: Option<Arc<dyn Faults>>,
}

impl CountingTable {
    /// Counts what goes to `inner`.
    pub fn new(inner: Arc<dyn CoordinationStore>, counts: Arc<TableCounts>) -> Self {
        Self { inner, counts, faults: None }
    }

    /// Adds faults.
    #[must_use]
    pub fn with_faults(mut self, faults: Arc<dyn Faults>) -> Self {
        self.faults = Some(faults);
        self
    }

    fn read(&self) -> Result<(), StoreError> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        match &self.faults {
            Some(faults) if faults.read_fails() => Err(StoreError::Determinate("injected: read failed".to_owned())),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl CoordinationStore for CountingTable {
    async fn get(&self, key: &ItemKey) -> Result<Option<Item>, StoreError> {
        self.read()?;
        let found = self.inner.get(key).await?;
        self.counts.add(units::of_read(&found));
        Ok(found)
    }

    async fn query(&self, partition: &str) -> Result<Vec<Item>, StoreError> {
        self.read()?;
        let found = self.inner.query(partition).await?;
        self.counts.add(units::of_read(&found));
        Ok(found)
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<TransactOutcome, StoreError> {
        self.counts.transactions.fetch_add(1, Ordering::Relaxed);
        self.counts.writes.fetch_add(writes.len() as u64, Ordering::Relaxed);
        self.counts.add(units::of_transaction(&writes));
        match self.faults.as_ref().map_or(Fault::None, |faults| faults.next()) {
            Fault::None => self.inner.transact(writes).await,
            Fault::Refused => Err(StoreError::Determinate("injected: refused".to_owned())),
            Fault::RequestLost => Err(StoreError::Indeterminate("injected: request lost".to_owned())),
            Fault::AnswerLost => {
                let _ = self.inner.transact(writes).await?;
                Err(StoreError::Indeterminate("injected: answer lost".to_owned()))
            }
        }
    }

    fn changes(&self) -> Changes {
        self.inner.changes()
    }

    fn hears_others(&self) -> bool {
        self.inner.hears_others()
    }

    fn feed_reads(&self) -> u64 {
        self.inner.feed_reads()
    }
}

//! The seam: a table of versioned items with all-or-nothing conditional writes and a change feed.

use std::collections::HashSet;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;

/// Items in one transaction (the strictest store's limit, so that what works embedded works everywhere).
pub const TRANSACTION_ITEMS_MAX: usize = 100;
/// Bytes in one transaction.
pub const TRANSACTION_BYTES_MAX: usize = 4 << 20;
/// Bytes of one item: its body, its key and [`ITEM_OVERHEAD_BYTES`].
pub const ITEM_BYTES_MAX: usize = 400 << 10;
/// Bytes that an item's other attributes and the names of all take at most.
pub const ITEM_OVERHEAD_BYTES: usize = 64;
/// Bytes of a partition key.
pub const PARTITION_BYTES_MAX: usize = 2048;
/// Bytes of a sort key.
pub const SORT_BYTES_MAX: usize = 1024;

/// Name of an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey {
    /// Unit of load: a shard, a stage, a job.
    pub partition: String,
    /// Which row within it.
    pub sort: String,
}

impl ItemKey {
    /// Names an item.
    pub fn new(partition: impl Into<String>, sort: impl Into<String>) -> Self {
        Self { partition: partition.into(), sort: sort.into() }
    }

    /// Size of an item with this key and no body.
    fn bytes(&self) -> usize {
        self.partition.len() + self.sort.len() + ITEM_OVERHEAD_BYTES
    }
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.sort)
    }
}

/// An item as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub key: ItemKey,
    /// 1 when first written; one more with each write.
    pub version: u64,
    /// JSON.
    pub body: Bytes,
}

impl Item {
    /// Its size as stores count it.
    pub(crate) fn bytes(&self) -> usize {
        self.key.bytes() + self.body.len()
    }
}

/// What must hold for a write to apply.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// There is no such item.
    Absent,
    /// The item is there at this version.
    VersionIs(u64),
    /// The item is there.
    Exists,
    /// The item is there and this top-level field of its body has this value.
    FieldIs {
        /// Name of the field.
        field: &'static str,
        /// Value it must have.
        value: Value,
    },
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Writes an item.
    Put {
        /// The item.
        key: ItemKey,
        /// What must hold.
        condition: Condition,
        /// The new body, JSON.
        body: Bytes,
    },
    /// Deletes an item.
    Delete {
        /// The item.
        key: ItemKey,
        /// What must hold.
        condition: Condition,
    },
    /// Only checks.
    Check {
        /// The item.
        key: ItemKey,
        /// What must hold.
        condition: Condition,
    },
}

impl Write {
    /// The item and what must hold of it.
    #[must_use]
    pub fn target(&self) -> (&ItemKey, &Condition) {
        match self {
            Self::Put { key, condition, .. } | Self::Delete { key, condition } | Self::Check { key, condition } => {
                (key, condition)
            }
        }
    }

    /// Size of what it writes; of the key alone if it writes nothing.
    pub(crate) fn bytes(&self) -> usize {
        let (key, _) = self.target();
        let body = match self {
            Self::Put { body, .. } => body.len(),
            Self::Delete { .. } | Self::Check { .. } => 0,
        };
        key.bytes() + body
    }
}

/// A write whose condition did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Its index in the transaction.
    pub index: usize,
    /// What was there.
    pub found: Option<Item>,
}

/// What came of a transaction.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactOutcome {
    /// All of it happened.
    Applied,
    /// None of it happened: these conditions did not hold.
    Refused(Vec<Conflict>),
}

/// An error of the table. Losing a race is none: it is [`TransactOutcome::Refused`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It did not happen.
    #[error("coordination table: {0}")]
    Determinate(String),
    /// It may have happened: look before you go on (T5).
    #[error("coordination table, answer lost: {0}")]
    Indeterminate(String),
    /// A row is not what this build writes.
    #[error("coordination row {key}: {message}")]
    Corrupt {
        /// The row.
        key: String,
        /// What does not fit.
        message: String,
    },
    /// The request itself is wrong: a limit, or an unusable file.
    #[error("{0}")]
    Invalid(String),
}

/// The seam.
#[async_trait]
pub trait CoordinationStore: Send + Sync + fmt::Debug {
    /// Reads one item, strongly consistent (T1).
    ///
    /// # Errors
    /// [`StoreError`].
    async fn get(&self, key: &ItemKey) -> Result<Option<Item>, StoreError>;

    /// Reads all items of a partition, by sort key, strongly consistent.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn query(&self, partition: &str) -> Result<Vec<Item>, StoreError>;

    /// Applies all writes or none.
    ///
    /// # Errors
    /// [`StoreError`]; after [`StoreError::Indeterminate`] the writes may have happened, or may yet.
    async fn transact(&self, writes: Vec<Write>) -> Result<TransactOutcome, StoreError>;

    /// Subscribes to the change feed from now on.
    fn changes(&self) -> Changes;

    /// Whether the change feed also tells of what other processes write, sooner or later.
    fn hears_others(&self) -> bool {
        false
    }

    /// Paid requests made so far to read the change feed.
    fn feed_reads(&self) -> u64 {
        0
    }
}

/// A subscription to the change feed: wakes, coalesced, after any write. A lost or doubled wake-up is harmless.
#[derive(Debug)]
pub struct Changes(tokio::sync::watch::Receiver<u64>);

impl Changes {
    pub(crate) fn new(receiver: tokio::sync::watch::Receiver<u64>) -> Self {
        Self(receiver)
    }

    /// Whether there was a change since it, or [`Self::next`], last said so.
    pub fn heard(&mut self) -> bool {
        let heard = self.0.has_changed().unwrap_or(false);
        if heard {
            self.0.mark_unchanged();
        }
        heard
    }

    /// Completes after the next change since it, or [`Self::heard`], last said so.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The table is gone, so nothing will ever change.
            std::future::pending::<()>().await;
        }
    }
}

/// Refuses what some store could not take, alike for all.
pub(crate) fn check_limits(writes: &[Write]) -> Result<(), StoreError> {
    if writes.len() > TRANSACTION_ITEMS_MAX {
        return Err(StoreError::Invalid(format!("a transaction of {} items: at most {TRANSACTION_ITEMS_MAX}", writes.len())));
    }
    let bytes: usize = writes.iter().map(Write::bytes).sum();
    if bytes > TRANSACTION_BYTES_MAX {
        return Err(StoreError::Invalid(format!("a transaction of {bytes} bytes: at most {TRANSACTION_BYTES_MAX}")));
    }
    let mut seen = HashSet::with_capacity(writes.len());
    for write in writes {
        let (key, _) = write.target();
        check_key(key)?;
        if write.bytes() > ITEM_BYTES_MAX {
            return Err(StoreError::Invalid(format!("row {key} has {} bytes: at most {ITEM_BYTES_MAX}", write.bytes())));
        }
        if !seen.insert(key) {
            return Err(StoreError::Invalid(format!("row {key} is twice in one transaction")));
        }
    }
    Ok(())
}

fn check_key(key: &ItemKey) -> Result<(), StoreError> {
    for (what, text, max) in [("partition", &key.partition, PARTITION_BYTES_MAX), ("sort", &key.sort, SORT_BYTES_MAX)] {
        if text.is_empty() || text.len() > max {
            let start: String = text.chars().take(40).collect();
            return Err(StoreError::Invalid(format!("{what} key {start:?} has {} bytes: 1 to {max}", text.len())));
        }
    }
    Ok(())
}

/// Whether `condition` holds of `found`.
pub(crate) fn holds(condition: &Condition, found: Option<(u64, &[u8])>) -> bool {
    match (condition, found) {
        (Condition::Absent, found) => found.is_none(),
        (_, None) => false,
        (Condition::Exists, Some(_)) => true,
        (Condition::VersionIs(version), Some((at, _))) => *version == at,
        (Condition::FieldIs { field, value }, Some((_, body))) => {
            serde_json::from_slice::<Value>(body).is_ok_and(|body| body.get(field) == Some(value))
        }
    }
}

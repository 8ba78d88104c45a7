//! The table in DynamoDB: one conditional request commits, and the answer to it may be lost (T5).
//!
//! | attribute | type | holds |
//! | --- | --- | --- |
//! | `pk`, `sk` | S | partition and sort key |
//! | `version` | N | 1 when first written; one more with each write |
//! | `body` | S | JSON; a string, so that consoles and readers of the stream can show it |
//! | `write` | B | id of the transaction that wrote it |
//! | `expires_at` | N | seconds UTC; key items only (T2: heads never expire) |
//!
//! A transaction of one write is one conditional `UpdateItem` or `DeleteItem`: just as atomic, half the write units and half the
//! latency of `TransactWriteItems`. A check alone is a strongly consistent read. [`crate::Condition::FieldIs`] is pinned: the item is
//! read, and the request is conditional on the version that had the field.
//!
//! ```text
//! writes --pin--> request --applied------------------------> Applied
//!                    |-----refused, found our own id-------> Applied   (an earlier sending was, and its answer was lost)
//!                    |-----refused--------> sent once? ----> Refused, else Indeterminate
//!                    `-----failed: nothing happened? send again | unclear? send again if the first sending fences the second
//! ```
//!
//! Why our own retries: the SDK's would send a conditional write again after a lost answer and report its refusal as ours.
//! Never: a cached or eventually consistent read (T1); a refusal that is not certain.

mod transact;

mod read;

mod answer;
mod failure;
mod item;
mod request;
mod resend;

mod feed;
mod shards;
mod watch;

mod connect;
mod create;
mod credentials;
mod describe;
mod heard;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use tokio::sync::Notify;
use weir_model::{Clock, Ids};

use crate::store::{Changes, CoordinationStore, Item, ItemKey, StoreError, TransactOutcome, Write};

pub use connect::{Connection, Place, connect, sdk_config};
pub use create::create_table;
pub use credentials::{CredentialChain, Keys};
pub use describe::{Described, describe};
pub use feed::{Batch, Changed, Feed};
pub use shards::Since;

use watch::{Watch, Watching};

/// Items in a DynamoDB table.
#[derive(Debug)]
pub struct DynamoTable {
    client: Client,
    place: Place,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    changed: tokio::sync::watch::Sender<u64>,
    stream: Option<Stream>,
}

/// The table's stream, read while somebody listens.
#[derive(Debug)]
struct Stream {
    client: aws_sdk_dynamodbstreams::Client,
    name: String,
    listening: Arc<Notify>,
    watching: OnceLock<Watching>,
    reads: Arc<AtomicU64>,
}

impl DynamoTable {
    /// Connects as the environment says and looks at the table called `name`.
    ///
    /// - `endpoint`: instead of the environment's.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] with the remedy if there is no such table, it cannot be used, or this machine's clock is not the
    /// service's (W3).
    pub async fn open(name: &str, endpoint: Option<&str>, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Result<Self, StoreError> {
        let connection = connect(endpoint).await?;
        let described = describe::describe_timed(&connection.table, &connection.place(name), &clock).await?;
        Ok(Self::new(connection.table, described.place, clock, ids).with_stream(connection.streams, described.stream))
    }

    /// The table at `place`, not looked at.
    ///
    /// - `client`: should not retry ([`connect`] makes such a one); retries of its own are harmless, but waits multiply.
    /// - `ids`: make the ids of transactions; unique among all processes that use the table.
    pub fn new(client: Client, place: Place, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        Self { client, place, clock, ids, changed: tokio::sync::watch::Sender::new(0), stream: None }
    }

    /// Also notices what other processes write.
    ///
    /// - `stream`: the stream's name (ARN), see [`Described`].
    #[must_use]
    pub fn with_stream(mut self, client: aws_sdk_dynamodbstreams::Client, stream: String) -> Self {
        let listening = Arc::new(Notify::new());
        self.stream = Some(Stream { client, name: stream, listening, watching: OnceLock::new(), reads: Arc::default() });
        self
    }

    /// Reads the stream from now on, if there is one and a runtime to read it on.
    fn listen(&self) {
        let (Some(stream), Ok(runtime)) = (&self.stream, tokio::runtime::Handle::try_current()) else { return };
        stream.watching.get_or_init(|| {
            let (client, place, name) = (stream.client.clone(), self.place.clone(), stream.name.clone());
            let reads = Arc::clone(&stream.reads);
            let feed = move || Feed::new(client.clone(), place.clone(), name.clone(), Since::Now).counting(Arc::clone(&reads));
            let (changed, listening) = (self.changed.clone(), Arc::clone(&stream.listening));
            Watch { changed, listening, clock: Arc::clone(&self.clock) }.start(feed, &runtime)
        });
        stream.listening.notify_one();
    }

    /// Waits before sending again: doubling from 10 ms, with up to half of it again by chance, so that rivals part.
    async fn wait(&self, sent: u32) {
        let base = 10u64 << sent.clamp(1, 6).saturating_sub(1);
        let jitter = u64::try_from(self.ids.next_u128() % u128::from(base / 2 + 1)).unwrap_or(0);
        self.clock.sleep(Duration::from_millis(base + jitter)).await;
    }
}

#[async_trait]
impl CoordinationStore for DynamoTable {
    async fn get(&self, key: &ItemKey) -> Result<Option<Item>, StoreError> {
        self.get_item(key).await
    }

    /// Pages are read one after the other: each item is as it stood at some moment of the query, not all at the same one.
    async fn query(&self, partition: &str) -> Result<Vec<Item>, StoreError> {
        self.query_items(partition).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<TransactOutcome, StoreError> {
        let outcome = self.transact_items(&writes).await;
        if matches!(outcome, Ok(TransactOutcome::Applied)) {
            self.changed.send_modify(|changes| *changes += 1);
        }
        outcome
    }

    fn changes(&self) -> Changes {
        let changes = Changes::new(self.changed.subscribe());
        self.listen();
        changes
    }

    fn hears_others(&self) -> bool {
        self.stream.is_some()
    }

    fn feed_reads(&self) -> u64 {
        self.stream.as_ref().map_or(0, |stream| stream.reads.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;

//! The table's change feed: which items were written, in order for each item.
//!
//! Nothing rests on it (T1): it wakes. The service lets two processes read a shard at a time and refuses more; who reads by
//! triggers, as functions do, does not need it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::operation::get_records::GetRecordsError;
use aws_sdk_dynamodbstreams::operation::get_shard_iterator::GetShardIteratorError;
use aws_sdk_dynamodbstreams::types::{AttributeValue, Record, Shard, ShardIteratorType};

use crate::store::{ItemKey, StoreError};

use super::connect::Place;
use super::failure::judge;
use super::item::{PARTITION, SORT, VERSION};
use super::shards::{Listed, Shards, Since, Start};

/// An item that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The item.
    pub key: ItemKey,
    /// Its version; none if it was deleted.
    pub version: Option<u64>,
}

/// What one look at the feed gave.
#[derive(Debug, Default)]
pub struct Batch {
    /// Items written since the last look.
    pub changed: Vec<Changed>,
    /// There may be others: before the feed was in place, or older than what the service keeps.
    pub gap: bool,
    /// A request that failed; what it would have given comes with a later look.
    pub failed: Option<StoreError>,
}

/// A reader of a table's stream.
#[derive(Debug)]
pub struct Feed {
    client: Client,
    place: Place,
    stream: String,
    shards: Shards,
    /// Requests for records: those that are paid.
    reads: Arc<AtomicU64>,
}

impl Feed {
    /// A reader that has read nothing yet.
    ///
    /// - `stream`: the stream's name (ARN), see [`super::Described`].
    pub fn new(client: Client, place: Place, stream: impl Into<String>, since: Since) -> Self {
        Self { client, place, stream: stream.into(), shards: Shards::new(since), reads: Arc::default() }
    }

    /// Counts its requests for records in `reads`.
    #[must_use]
    pub fn counting(self, reads: Arc<AtomicU64>) -> Self {
        Self { reads, ..self }
    }

    /// Looks once at every shard; one that fails keeps none of the others from being read. Cost: one request a shard; two more for
    /// each shard that is new.
    pub async fn poll(&mut self) -> Batch {
        let mut batch = Batch::default();
        if self.shards.is_stale() {
            match self.list().await {
                Ok(listed) => self.shards.learn(listed),
                Err(error) => batch.failed = Some(error),
            }
        }
        for (shard, start) in self.shards.to_begin() {
            batch.gap |= start == Start::Latest;
            if let Err(error) = self.begin(&shard, start, &mut batch).await {
                batch.failed = Some(error);
            }
        }
        for (shard, iterator) in self.shards.reading() {
            if let Err(error) = self.read(&shard, iterator, &mut batch).await {
                batch.failed = Some(error);
            }
        }
        batch
    }

    async fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let mut listed = Vec::new();
        let mut from = None;
        loop {
            let describe = self.client.describe_stream().stream_arn(&self.stream).set_exclusive_start_shard_id(from);
            let page = describe.send().await.map_err(|error| judge(&error, &self.place).of_a_read())?;
            let Some(stream) = page.stream_description else { return Ok(listed) };
            listed.extend(stream.shards.unwrap_or_default().into_iter().filter_map(as_listed));
            match stream.last_evaluated_shard_id {
                Some(last) => from = Some(last),
                None => return Ok(listed),
            }
        }
    }

    async fn begin(&mut self, shard: &str, start: Start, batch: &mut Batch) -> Result<(), StoreError> {
        let (kind, after) = match start {
            Start::Latest => (ShardIteratorType::Latest, None),
            Start::Oldest => (ShardIteratorType::TrimHorizon, None),
            Start::After(sequence) => (ShardIteratorType::AfterSequenceNumber, Some(sequence)),
        };
        let ask = self.client.get_shard_iterator().stream_arn(&self.stream).shard_id(shard);
        match ask.shard_iterator_type(kind).set_sequence_number(after).send().await {
            Ok(answer) => self.shards.goes_on(shard, answer.shard_iterator, None),
            Err(error) => match error.as_service_error() {
                Some(GetShardIteratorError::TrimmedDataAccessException(_)) => {
                    batch.gap = true;
                    self.shards.trimmed(shard);
                }
                _ => return Err(judge(&error, &self.place).of_a_read()),
            },
        }
        Ok(())
    }

    async fn read(&mut self, shard: &str, iterator: String, batch: &mut Batch) -> Result<(), StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        match self.client.get_records().shard_iterator(iterator).send().await {
            Ok(answer) => {
                let records = answer.records.unwrap_or_default();
                let last = records.last().and_then(|record| record.dynamodb()?.sequence_number()).map(str::to_owned);
                batch.changed.extend(records.iter().filter_map(changed));
                self.shards.goes_on(shard, answer.next_shard_iterator, last);
            }
            Err(error) => match error.as_service_error() {
                Some(GetRecordsError::ExpiredIteratorException(_)) => {
                    batch.gap = true;
                    self.shards.expired(shard);
                }
                Some(GetRecordsError::TrimmedDataAccessException(_)) => {
                    batch.gap = true;
                    self.shards.trimmed(shard);
                }
                _ => return Err(judge(&error, &self.place).of_a_read()),
            },
        }
        Ok(())
    }
}

fn as_listed(shard: Shard) -> Option<Listed> {
    let ended = shard.sequence_number_range().is_some_and(|range| range.ending_sequence_number().is_some());
    Some(Listed { id: shard.shard_id?, parent: shard.parent_shard_id, ended })
}

/// The item that a record is of; none if it is not one of ours.
fn changed(record: &Record) -> Option<Changed> {
    let change = record.dynamodb()?;
    let text = |name: &str| match change.keys()?.get(name)? {
        AttributeValue::S(text) => Some(text.clone()),
        _ => None,
    };
    let version = |image: &HashMap<String, AttributeValue>| match image.get(VERSION)? {
        AttributeValue::N(number) => number.parse().ok(),
        _ => None,
    };
    Some(Changed { key: ItemKey::new(text(PARTITION)?, text(SORT)?), version: change.new_image().and_then(version) })
}

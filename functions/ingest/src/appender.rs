//! Folding: the requests that come together share one segment and one commit, and each has its own answer.
//!
//! ```text
//! append() --queue--> gather: what waits, at most one fold each interval --> lane.append --> answers
//!                                                                             |- a key is remembered: its request is answered
//!                                                                             |  from there, the others go on without it
//!                                                                             `- the lane was lost: the same rows, another lane
//! ```
//! After a quiet time the first request is committed at once; those that come meanwhile form the next fold. So a fold costs one PUT
//! and one transaction however many requests it has, and a lone request does not wait.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use weir_coordinator::streams;
use weir_model::stream::{KeyRow, StreamRow};
use weir_model::{Epoch, ShardId};

use crate::Seams;
use crate::lane::{Appended, Hold, Keyed, Lane, LaneError};

/// Keys in one commit: a transaction of DynamoDB has 100 items, one is the head.
const KEYS_MAX: usize = 90;
/// Requests that wait in the queue of a stream.
const QUEUE_MAX: usize = 4_096;
/// Times the rows of a fold are tried on another lane.
const LANES_TRIED_MAX: usize = 8;

/// How requests are folded.
#[derive(Debug, Clone)]
pub struct FoldSettings {
    /// Least time between two commits.
    pub interval: Duration,
    /// Decoded bytes after which a fold is cut.
    pub bytes_max: usize,
    /// Quiet time after which a lane says that it is idle and is let go of.
    pub idle_after: Duration,
    /// How long others leave the lane of a silent process alone.
    pub lease: Duration,
}

impl Default for FoldSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(10),
            bytes_max: 8 << 20,
            idle_after: Duration::from_secs(5),
            lease: Duration::from_secs(10),
        }
    }
}

/// A client's name for a request, so that it is counted once however often it is sent (X3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// As the client gave it.
    pub key: String,
    /// What tells its body from any other: xxh3-128 of it, hexadecimal, or a text that names the same rows.
    pub body: String,
    /// How long it is remembered.
    pub lasts: Lasts,
}

/// How long a key is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lasts {
    /// Longer than any client tries again.
    #[default]
    Day,
    /// As long as the table: what it names may be sent again in a year.
    Ever,
}

/// Where the rows of a request are, durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Rows.
    pub rows: u64,
    /// Lane that took them; `None` of a request without rows.
    pub place: Option<(ShardId, Epoch)>,
    /// An earlier request under the same key did it.
    pub repeated: bool,
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its key was used with another body.
    #[error("the key was used before with another body: a new request needs a new key")]
    KeyReused,
    /// Too much waits, or other processes hold all lanes.
    #[error("too much is under way: send it again a little later")]
    Busy,
    /// The stream takes nothing any more.
    #[error("the stream is closed")]
    Closed,
    /// Nobody knows whether the rows were taken.
    #[error("the store or the table does not answer: {0}; whether the rows were taken is not known, a repeat with a key is safe")]
    Unavailable(String),
}

/// Rows that are to be appended together.
#[derive(Debug, Default)]
pub struct RowsRequest {
    /// The rows, in the stream's columns.
    pub batches: Vec<RecordBatch>,
    /// The request's name, if it is to be counted once.
    pub key: Option<RequestKey>,
    /// The room its rows take among what waits: kept until they are committed, even if nobody waits for the answer any more.
    pub room: Option<OwnedSemaphorePermit>,
}

/// What waits for its commit.
struct Waiting {
    batches: Vec<RecordBatch>,
    rows: u64,
    bytes: usize,
    key: Option<RequestKey>,
    _room: Option<OwnedSemaphorePermit>,
    answer: oneshot::Sender<Result<Receipt, Refusal>>,
}

/// The way into a stream.
#[derive(Debug)]
pub struct Appender {
    row: StreamRow,
    schema: SchemaRef,
    queue: mpsc::Sender<Waiting>,
    folding: tokio::task::JoinHandle<()>,
}

impl Appender {
    /// Starts folding requests of `row`'s stream, whose columns are `schema`.
    #[must_use]
    pub fn start(seams: &Seams, row: StreamRow, schema: SchemaRef, settings: FoldSettings) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let lane = Lane::new(seams.clone(), row.clone(), Arc::clone(&schema), settings.clone());
        let folder = Folder { seams: seams.clone(), row: row.clone(), settings, lane, waiting, deferred: VecDeque::new() };
        Self { row, schema, queue, folding: tokio::spawn(folder.run()) }
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &StreamRow {
        &self.row
    }

    /// Its columns.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Appends the rows of a request; returns when they are durable.
    ///
    /// # Errors
    /// [`Refusal`]; nothing of the request was taken, but for [`Refusal::Unavailable`].
    pub async fn append(&self, request: RowsRequest) -> Result<Receipt, Refusal> {
        let RowsRequest { batches, key, room } = request;
        let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        if rows == 0 {
            return Ok(Receipt { rows: 0, place: None, repeated: false });
        }
        let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        let (answer, answered) = oneshot::channel();
        let sent = self.queue.try_send(Waiting { batches, rows, bytes, key, _room: room, answer });
        match sent {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Refusal::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Refusal::Unavailable("the server stops".to_owned())),
        }
        answered.await.unwrap_or_else(|_| Err(Refusal::Unavailable("the server stops".to_owned())))
    }

    /// Commits what waits, says that the lane is idle, and lets go of it.
    pub async fn leave(self) {
        drop(self.queue);
        if let Err(error) = self.folding.await {
            tracing::error!(%error, "folding ended badly");
        }
    }
}

/// Takes requests from the queue and commits them.
struct Folder {
    seams: Seams,
    row: StreamRow,
    settings: FoldSettings,
    lane: Lane,
    waiting: mpsc::Receiver<Waiting>,
    /// Requests whose key is in the fold under way: they are its repeats.
    deferred: VecDeque<Waiting>,
}

/// Requests that share a commit.
#[derive(Default)]
struct Fold {
    requests: Vec<Waiting>,
    keys: HashSet<String>,
    bytes: usize,
}

impl Fold {
    fn is_full(&self, settings: &FoldSettings) -> bool {
        self.bytes >= settings.bytes_max || self.keys.len() >= KEYS_MAX
    }

    /// Takes a request, unless its key is in the fold already.
    fn take(&mut self, request: Waiting) -> Option<Waiting> {
        if let Some(key) = &request.key
            && !self.keys.insert(key.key.clone())
        {
            return Some(request);
        }
        self.bytes += request.bytes;
        self.requests.push(request);
        None
    }

    fn refuse(self, refusal: &Refusal) {
        for request in self.requests {
            drop(request.answer.send(Err(refusal.clone())));
        }
    }

    /// Requests with keys, in order, by their places.
    fn keyed(&self) -> (Vec<usize>, Vec<Keyed>) {
        let keyed = self.requests.iter().enumerate();
        let keyed = keyed.filter_map(|(place, request)| Some((place, Keyed { key: request.key.clone()?, rows: request.rows })));
        keyed.unzip()
    }
}

impl Folder {
    async fn run(mut self) {
        let mut next_at = i64::MIN;
        while let Some(first) = self.next().await {
            let fold = self.gather(first, next_at).await;
            let interval = i64::try_from(self.settings.interval.as_micros()).unwrap_or(i64::MAX);
            next_at = self.seams.clock.monotonic_micros().saturating_add(interval);
            self.append(fold).await;
        }
        self.leave_lane().await;
    }

    /// The next request; `None` when there will be none.
    async fn next(&mut self) -> Option<Waiting> {
        if let Some(request) = self.deferred.pop_front() {
            return Some(request);
        }
        if self.lane.is_held() {
            tokio::select! {
                biased;
                request = self.waiting.recv() => return request,
                () = self.seams.clock.sleep(self.settings.idle_after) => self.leave_lane().await,
            }
        }
        self.waiting.recv().await
    }

    async fn leave_lane(&mut self) {
        if let Err(error) = self.lane.leave().await {
            tracing::warn!(stream = %self.row.name, %error, "the lane could not be let go of: its lease ends by itself");
        }
    }

    /// Takes what waits, until the instant `next_at`, and then what waits without waiting for it.
    async fn gather(&mut self, first: Waiting, next_at: i64) -> Fold {
        let mut fold = Fold::default();
        let mut repeats = VecDeque::new();
        repeats.extend(fold.take(first));
        for request in std::mem::take(&mut self.deferred) {
            repeats.extend(fold.take(request));
        }
        while !fold.is_full(&self.settings) {
            let left = next_at.saturating_sub(self.seams.clock.monotonic_micros());
            let request = match u64::try_from(left).ok().filter(|left| *left > 0) {
                None => self.waiting.try_recv().ok(),
                Some(left) => tokio::select! {
                    biased;
                    request = self.waiting.recv() => request,
                    () = self.seams.clock.sleep(Duration::from_micros(left)) => continue,
                },
            };
            let Some(request) = request else { break };
            repeats.extend(fold.take(request));
        }
        self.deferred = repeats;
        fold
    }

    /// Commits a fold and answers its requests.
    async fn append(&mut self, mut fold: Fold) {
        for _ in 0..LANES_TRIED_MAX {
            match self.lane.hold().await {
                Ok(Hold::Held) => {}
                Ok(Hold::Busy) => return fold.refuse(&Refusal::Busy),
                Ok(Hold::Closed) => return self.closed(fold).await,
                Err(error) => return self.unavailable(fold, &error),
            }
            let (places, keys) = fold.keyed();
            let rows = fold.requests.iter().flat_map(|request| request.batches.clone()).collect();
            match self.lane.append(rows, &keys).await {
                Ok(Appended::Committed { lane, epoch }) => return committed(fold, lane, epoch),
                Ok(Appended::Repeated(known)) => {
                    let known: Vec<usize> = known.into_iter().filter_map(|key| places.get(key).copied()).collect();
                    self.answer_repeats(&mut fold, known).await;
                    if fold.requests.is_empty() {
                        return;
                    }
                }
                Ok(Appended::Lost) => {}
                Err(error) => return self.unavailable(fold, &error),
            }
        }
        fold.refuse(&Refusal::Busy);
    }

    /// What was taken before the stream was closed has its answer still.
    async fn closed(&self, fold: Fold) {
        for request in fold.requests {
            let known = match &request.key {
                None => Ok(None),
                Some(key) => self.known(key).await,
            };
            drop(request.answer.send(known.and_then(|receipt| receipt.ok_or(Refusal::Closed))));
        }
    }

    /// What an earlier request under `key` was told.
    async fn known(&self, key: &RequestKey) -> Result<Option<Receipt>, Refusal> {
        match streams::remembered(self.seams.table.as_ref(), self.row.stream, &key.key).await {
            Ok(row) => row.map(|row| remembered(key, &row)).transpose(),
            Err(error) => Err(Refusal::Unavailable(error.to_string())),
        }
    }

    fn unavailable(&self, fold: Fold, error: &LaneError) {
        tracing::warn!(stream = %self.row.name, requests = fold.requests.len(), %error, "a fold was not committed for sure");
        fold.refuse(&Refusal::Unavailable(error.to_string()));
    }

    /// Answers the requests at `places` from what is remembered of their keys.
    async fn answer_repeats(&self, fold: &mut Fold, mut places: Vec<usize>) {
        places.sort_unstable();
        for place in places.into_iter().rev() {
            let request = fold.requests.remove(place);
            let Some(key) = &request.key else { continue };
            // None: forgotten between the commit and the look.
            let answer = self.known(key).await.and_then(|receipt| receipt.ok_or(Refusal::Busy));
            drop(request.answer.send(answer));
        }
    }
}

fn remembered(key: &RequestKey, row: &KeyRow) -> Result<Receipt, Refusal> {
    // Two keys may share a row only if their hashes meet; that is refused like another body.
    if row.key != key.key || row.body != key.body {
        return Err(Refusal::KeyReused);
    }
    Ok(Receipt { rows: row.rows, place: Some((row.lane, row.epoch)), repeated: true })
}

fn committed(fold: Fold, lane: ShardId, epoch: Epoch) {
    for request in fold.requests {
        let receipt = Receipt { rows: request.rows, place: Some((lane, epoch)), repeated: false };
        drop(request.answer.send(Ok(receipt)));
    }
}

#[cfg(test)]
mod tests;

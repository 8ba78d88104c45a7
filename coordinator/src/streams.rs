//! Streams by name, created in one transaction, and the keys of the requests they took.

use weir_model::retention::Retention;
use weir_model::stream::{KEY_FORMAT, KeyRow, STREAM_FORMAT, StreamRow};
use weir_model::{Head, JobId};

use crate::claim::encode;
use crate::jobs::{put_row, read_row};
use crate::keys;
use crate::store::{Condition, CoordinationStore, ItemKey, StoreError, TransactOutcome, Write};

/// Times a lost race is tried again.
const RACES_MAX: usize = 16;

/// What came of creating a stream.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum CreateStream {
    /// It is there.
    Created,
    /// Another stream bears the name.
    NameTaken(Box<StreamRow>),
}

/// Creates a stream: its row, the heads of its lanes and its retention row, in one transaction.
///
/// # Errors
/// [`StoreError`]; nothing was created then, or all of it: ask by name.
pub async fn create(store: &dyn CoordinationStore, row: &StreamRow) -> Result<CreateStream, StoreError> {
    let mut writes = vec![
        put_row(keys::stream(&row.name), Condition::Absent, row)?,
        put_row(keys::retention(row.stream), Condition::Absent, &Retention::new())?,
    ];
    for shard in row.shards() {
        writes.push(Write::Put { key: keys::head(shard), condition: Condition::Absent, body: encode(&Head::new(shard))? });
    }
    match store.transact(writes).await {
        Ok(TransactOutcome::Applied) => return Ok(CreateStream::Created),
        Ok(TransactOutcome::Refused(_)) | Err(StoreError::Indeterminate(_)) => {}
        Err(error) => return Err(error),
    }
    match find(store, &row.name).await? {
        // An answer that was lost.
        Some(found) if found.stream == row.stream => Ok(CreateStream::Created),
        Some(found) => Ok(CreateStream::NameTaken(Box::new(found))),
        None => Err(StoreError::Determinate("the stream's rows changed while it was created".to_owned())),
    }
}

/// The stream that bears `name`.
///
/// # Errors
/// [`StoreError`]; also if another build wrote its row.
pub async fn find(store: &dyn CoordinationStore, name: &str) -> Result<Option<StreamRow>, StoreError> {
    Ok(read_stream(store, name).await?.map(|(row, _)| row))
}

async fn read_stream(store: &dyn CoordinationStore, name: &str) -> Result<Option<(StreamRow, u64)>, StoreError> {
    let key = keys::stream(name);
    let found = read_row::<StreamRow>(store, &key).await?;
    found.map(|(row, version)| known(&key, row.format, STREAM_FORMAT).map(|()| (row, version))).transpose()
}

fn known(key: &ItemKey, found: u16, known: u16) -> Result<(), StoreError> {
    if found == known {
        return Ok(());
    }
    let message = format!("format {found}, this build reads {known}: use the build that wrote it");
    Err(StoreError::Corrupt { key: key.to_string(), message })
}

/// All streams, by name.
///
/// # Errors
/// [`StoreError`]; also if another build wrote one of the rows.
pub async fn list(store: &dyn CoordinationStore) -> Result<Vec<StreamRow>, StoreError> {
    let parse = |item: crate::Item| {
        let corrupt = |message: String| StoreError::Corrupt { key: item.key.to_string(), message };
        let row: StreamRow = serde_json::from_slice(&item.body).map_err(|error| corrupt(error.to_string()))?;
        known(&item.key, row.format, STREAM_FORMAT).map(|()| row)
    };
    store.query(keys::STREAMS).await?.into_iter().map(parse).collect()
}

/// Marks a stream as closed: whoever holds a lane commits its end, and who comes later finds nothing to append to. Returns the row, or
/// `None` if there is no such stream.
///
/// # Errors
/// [`StoreError`].
pub async fn close(store: &dyn CoordinationStore, name: &str) -> Result<Option<StreamRow>, StoreError> {
    for _ in 0..RACES_MAX {
        let Some((mut row, version)) = read_stream(store, name).await? else { return Ok(None) };
        if row.closed {
            return Ok(Some(row));
        }
        row.closed = true;
        let write = put_row(keys::stream(name), Condition::VersionIs(version), &row)?;
        match store.transact(vec![write]).await {
            Ok(TransactOutcome::Applied) => return Ok(Some(row)),
            Ok(TransactOutcome::Refused(_)) | Err(StoreError::Indeterminate(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Determinate("the stream's row changed under every attempt to close it".to_owned()))
}

/// The write that remembers what a request under a key was told; goes into the transaction of the commit that holds its rows (X3).
///
/// # Errors
/// [`StoreError`] if the row cannot be encoded.
pub fn remember(stream: JobId, row: &KeyRow) -> Result<Write, StoreError> {
    put_row(keys::request(stream, &row.key), Condition::Absent, row)
}

/// What the first request under `key` was told, if it is remembered.
///
/// # Errors
/// [`StoreError`].
pub async fn remembered(store: &dyn CoordinationStore, stream: JobId, key: &str) -> Result<Option<KeyRow>, StoreError> {
    let name = keys::request(stream, key);
    let found = read_row::<KeyRow>(store, &name).await?;
    found.map(|(row, _)| known(&name, row.format, KEY_FORMAT).map(|()| row)).transpose()
}

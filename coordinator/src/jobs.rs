//! Jobs by name: created in one transaction, opened by any process.

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use weir_model::job::{DesiredState, JobRow, NameRow};
use weir_model::layout::Layout;
use weir_model::retention::Retention;
use weir_model::routes::{ROUTES_FORMAT, RoutesRow};
use weir_model::{Head, JobId, ShardKey, StageId};

use crate::claim::{encode, read_head};
use crate::keys;
use crate::retention::Hold;
use crate::store::{Condition, CoordinationStore, ItemKey, StoreError, TRANSACTION_ITEMS_MAX, TransactOutcome, Write};

/// What came of creating a job.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    /// It is there.
    Created,
    /// Another job bears the name.
    NameTaken(JobId),
}

fn body<T: Serialize>(key: &ItemKey, value: &T) -> Result<bytes::Bytes, StoreError> {
    let encoded = serde_json::to_vec(value);
    encoded.map(Into::into).map_err(|error| StoreError::Corrupt { key: key.to_string(), message: error.to_string() })
}

fn put<T: Serialize>(key: ItemKey, condition: Condition, value: &T) -> Result<Write, StoreError> {
    Ok(Write::Put { body: body(&key, value)?, key, condition })
}

async fn read<T: DeserializeOwned>(store: &dyn CoordinationStore, key: &ItemKey) -> Result<Option<(T, u64)>, StoreError> {
    let Some(item) = store.get(key).await? else { return Ok(None) };
    let parsed = serde_json::from_slice(&item.body);
    parsed
        .map(|value| Some((value, item.version)))
        .map_err(|error| StoreError::Corrupt { key: key.to_string(), message: error.to_string() })
}

/// A job about to be created.
#[derive(Debug)]
pub struct NewJob<'a> {
    /// Its row.
    pub row: &'a JobRow,
    /// Its stages.
    pub layouts: &'a [(StageId, Layout)],
    /// Who reads from whom.
    pub routes: &'a RoutesRow,
    /// Every shard.
    pub shards: &'a [ShardKey],
    /// Streams that it reads, each once.
    pub holds: &'a [Hold],
}

/// Times creation is tried again when a floor of a stream rose meanwhile.
const RACES_MAX: usize = 16;

/// Creates a job: heads first (nobody finds them without the job row), then name, job row, layouts, retention and the pins on its
/// streams in one transaction. Where another job bears the name the heads are taken back.
///
/// # Errors
/// [`StoreError`]; a job whose name row is missing does not exist, whatever else was written.
pub async fn create(store: &dyn CoordinationStore, new: &NewJob<'_>) -> Result<CreateOutcome, StoreError> {
    create_heads(store, new).await?;
    for _ in 0..RACES_MAX {
        match store.transact(rows(store, new).await?).await? {
            TransactOutcome::Applied => return Ok(CreateOutcome::Created),
            TransactOutcome::Refused(_) => match find(store, &new.row.name).await? {
                // A late answer of ours.
                Some(job) if job == new.row.job => return Ok(CreateOutcome::Created),
                Some(job) => {
                    take_back_heads(store, new.shards).await?;
                    return Ok(CreateOutcome::NameTaken(job));
                }
                None => {}
            },
        }
    }
    Err(StoreError::Determinate("the past of a stream falls faster than it can be pinned".to_owned()))
}

async fn create_heads(store: &dyn CoordinationStore, new: &NewJob<'_>) -> Result<(), StoreError> {
    for chunk in new.shards.chunks(TRANSACTION_ITEMS_MAX) {
        let mut heads = Vec::new();
        for shard in chunk {
            heads.push(Write::Put { key: keys::head(*shard), condition: Condition::Absent, body: encode(&Head::new(*shard))? });
        }
        if store.transact(heads).await? != TransactOutcome::Applied {
            return Err(StoreError::Invalid(format!("job id {} is in use", new.row.job)));
        }
    }
    Ok(())
}

async fn rows(store: &dyn CoordinationStore, new: &NewJob<'_>) -> Result<Vec<Write>, StoreError> {
    let row = new.row;
    let mut writes = vec![
        put(keys::name(&row.name), Condition::Absent, &NameRow { job: row.job })?,
        put(keys::job(row.job), Condition::Absent, row)?,
        put(keys::retention(row.job), Condition::Absent, &Retention::new())?,
        put(keys::routes(row.job), Condition::Absent, new.routes)?,
    ];
    for (stage, layout) in new.layouts {
        writes.push(put(keys::layout(row.job, *stage), Condition::Absent, layout)?);
    }
    for hold in new.holds {
        writes.push(hold.write(store, row.job).await?);
    }
    Ok(writes)
}

/// Heads of a job that never came to be.
async fn take_back_heads(store: &dyn CoordinationStore, shards: &[ShardKey]) -> Result<(), StoreError> {
    for chunk in shards.chunks(TRANSACTION_ITEMS_MAX) {
        let delete = |shard: &ShardKey| Write::Delete { key: keys::head(*shard), condition: Condition::Exists };
        let _ = store.transact(chunk.iter().map(delete).collect()).await?;
    }
    Ok(())
}

/// The job that bears `name`.
///
/// # Errors
/// [`StoreError`].
pub async fn find(store: &dyn CoordinationStore, name: &str) -> Result<Option<JobId>, StoreError> {
    Ok(read::<NameRow>(store, &keys::name(name)).await?.map(|(row, _)| row.job))
}

/// Names of all jobs with their ids.
///
/// # Errors
/// [`StoreError`].
pub async fn list(store: &dyn CoordinationStore) -> Result<Vec<(String, JobId)>, StoreError> {
    let parse = |item: crate::Item| {
        let row: NameRow = serde_json::from_slice(&item.body).ok()?;
        Some((item.key.sort, row.job))
    };
    Ok(store.query("name").await?.into_iter().filter_map(parse).collect())
}

/// A job's row.
///
/// # Errors
/// [`StoreError::Corrupt`] if there is none.
pub async fn row(store: &dyn CoordinationStore, job: JobId) -> Result<JobRow, StoreError> {
    let key = keys::job(job);
    let found = read::<JobRow>(store, &key).await?;
    found
        .map(|(row, _)| row)
        .ok_or_else(|| StoreError::Corrupt { key: key.to_string(), message: "there is no such row".to_owned() })
}

/// Who reads from whom in a job; `None` if there is no such job.
///
/// # Errors
/// [`StoreError`]; also if another build wrote the row.
pub async fn routes(store: &dyn CoordinationStore, job: JobId) -> Result<Option<RoutesRow>, StoreError> {
    let key = keys::routes(job);
    match read::<RoutesRow>(store, &key).await? {
        Some((row, _)) if row.format != ROUTES_FORMAT => {
            let message = format!("format {}, this build reads {ROUTES_FORMAT}: use the build that wrote it", row.format);
            Err(StoreError::Corrupt { key: key.to_string(), message })
        }
        found => Ok(found.map(|(row, _)| row)),
    }
}

/// Marks a job as finished; a second time is harmless.
///
/// # Errors
/// [`StoreError`].
pub async fn finish(store: &dyn CoordinationStore, job: JobId) -> Result<(), StoreError> {
    let key = keys::job(job);
    let Some((mut row, version)) = read::<JobRow>(store, &key).await? else { return Ok(()) };
    if row.desired == DesiredState::Finished {
        return Ok(());
    }
    row.desired = DesiredState::Finished;
    // Whoever changed the row meanwhile finished it too, or wants something else of the job.
    let _ = store.transact(vec![put(key, Condition::VersionIs(version), &row)?]).await?;
    Ok(())
}

/// Heads read at a time.
const READS_MAX: usize = 16;

/// Heads of `shards`, in order, each strongly consistent; a few are read at a time.
///
/// # Errors
/// [`StoreError`].
pub async fn heads(store: &dyn CoordinationStore, shards: &[ShardKey]) -> Result<Vec<Head>, StoreError> {
    let reads = shards.iter().copied().map(|shard| read_head(store, shard));
    stream::iter(reads).buffered(READS_MAX).map_ok(|(head, _)| head).try_collect().await
}

pub(crate) async fn read_row<T: DeserializeOwned>(
    store: &dyn CoordinationStore,
    key: &ItemKey,
) -> Result<Option<(T, u64)>, StoreError> {
    read(store, key).await
}

pub(crate) fn put_row<T: Serialize>(key: ItemKey, condition: Condition, value: &T) -> Result<Write, StoreError> {
    put(key, condition, value)
}

//! Pins and floors by compare-and-set in one row (G2): whoever deletes has raised a floor first, whoever reads the past has pinned it.

use weir_model::decide::{PinDecision, Reader, decide_floors, decide_pin};
use weir_model::retention::{Pin, Retention};
use weir_model::{JobId, OwnerId, ShardKey};

use crate::jobs::{put_row, read_row};
use crate::keys;
use crate::store::{Condition, CoordinationStore, StoreError, TransactOutcome, Write};

/// What the pin of a job that reads a stream begins with, in the stream's row; the job's id follows.
pub const JOB_PIN: &str = "job-";

/// Times a lost race is tried again.
const RACES_MAX: usize = 16;

/// The row.
///
/// # Errors
/// [`StoreError`].
pub async fn read(store: &dyn CoordinationStore, job: JobId) -> Result<Retention, StoreError> {
    let row = read_row::<Retention>(store, &keys::retention(job)).await?;
    Ok(row.map_or_else(Retention::new, |(row, _)| row))
}

/// Raises floors as far as `readers` and pins allow. Returns the row as it stands; only what lies at or below its floors may be
/// deleted.
///
/// # Errors
/// [`StoreError`].
pub async fn raise_floors(store: &dyn CoordinationStore, job: JobId, readers: &[Reader]) -> Result<Retention, StoreError> {
    let key = keys::retention(job);
    for _ in 0..RACES_MAX {
        let Some((row, version)) = read_row::<Retention>(store, &key).await? else { return Ok(Retention::new()) };
        let Some(next) = decide_floors(&row, readers) else { return Ok(row) };
        let write = put_row(key.clone(), Condition::VersionIs(version), &next)?;
        if store.transact(vec![write]).await? == TransactOutcome::Applied {
            return Ok(next);
        }
    }
    read(store, job).await
}

/// Pins the past for `reader`; must be written before heads are read (G2).
///
/// # Errors
/// [`StoreError`].
pub async fn pin(store: &dyn CoordinationStore, job: JobId, reader: &str, pin: &Pin) -> Result<PinDecision, StoreError> {
    let key = keys::retention(job);
    for _ in 0..RACES_MAX {
        let (row, condition) = match read_row::<Retention>(store, &key).await? {
            Some((row, version)) => (row, Condition::VersionIs(version)),
            None => (Retention::new(), Condition::Absent),
        };
        let decision = decide_pin(&row, reader, pin.clone());
        let PinDecision::Write(next) = &decision else { return Ok(decision) };
        if store.transact(vec![put_row(key.clone(), condition, next)?]).await? == TransactOutcome::Applied {
            return Ok(decision);
        }
    }
    Err(StoreError::Determinate("the retention row changed under every attempt to pin".to_owned()))
}

/// The past of a stream that a new job will read, as far as it is still there. Pinned by the transaction that creates the job, so that
/// neither is ever without the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The stream.
    pub stream: JobId,
    /// Its lanes.
    pub lanes: Vec<ShardKey>,
}

impl Hold {
    /// The write that pins for `job`, on condition that no floor has risen since the row was read.
    pub(crate) async fn write(&self, store: &dyn CoordinationStore, job: JobId) -> Result<Write, StoreError> {
        let key = keys::retention(self.stream);
        let (mut row, condition) = match read_row::<Retention>(store, &key).await? {
            Some((row, version)) => (row, Condition::VersionIs(version)),
            None => (Retention::new(), Condition::Absent),
        };
        // What is left is enough for a job that has read nothing.
        let needs = self.lanes.iter().map(|lane| lane.to_string()).map(|lane| (lane.clone(), row.floor(&lane).next())).collect();
        row.pins.insert(job_reader(job), Pin { needs, everything: false });
        put_row(key, condition, &row)
    }
}

/// What the pin of somebody who looks at a job begins with; the owner id of the looking process follows.
const LOOK_PIN: &str = "look-";

/// Name of the pin of a process that looks at a job.
#[must_use]
pub fn look_reader(owner: OwnerId) -> String {
    format!("{LOOK_PIN}{owner}")
}

/// The looking process that a pin belongs to, if it is one's.
#[must_use]
pub fn looker(reader: &str) -> Option<OwnerId> {
    reader.strip_prefix(LOOK_PIN)?.parse().ok()
}

/// Name of a job's pin in the retention row of a stream that it reads.
#[must_use]
pub fn job_reader(job: JobId) -> String {
    format!("{JOB_PIN}{job}")
}

/// Lets go of a pin; harmless if there is none.
///
/// # Errors
/// [`StoreError`].
pub async fn unpin(store: &dyn CoordinationStore, job: JobId, reader: &str) -> Result<(), StoreError> {
    let key = keys::retention(job);
    for _ in 0..RACES_MAX {
        let Some((mut row, version)) = read_row::<Retention>(store, &key).await? else { return Ok(()) };
        if row.pins.remove(reader).is_none() {
            return Ok(());
        }
        if store.transact(vec![put_row(key.clone(), Condition::VersionIs(version), &row)?]).await? == TransactOutcome::Applied {
            return Ok(());
        }
    }
    Err(StoreError::Determinate("the retention row changed under every attempt to unpin".to_owned()))
}

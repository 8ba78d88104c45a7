//! Pins and floors by compare-and-set in one row (G2): whoever deletes has raised a floor first, whoever reads the past has pinned it.

use weir_model::JobId;
use weir_model::decide::{PinDecision, Reader, decide_floors, decide_pin};
use weir_model::retention::{Pin, Retention};

use crate::jobs::{put_row, read_row};
use crate::keys;
use crate::store::{Condition, CoordinationStore, StoreError, TransactOutcome};

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

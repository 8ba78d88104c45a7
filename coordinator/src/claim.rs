//! Claiming and releasing shards: the only way to get a [`Claim`], without which nothing can be committed.

use bytes::Bytes;
use weir_model::decide::{ClaimDecision, Leaving, OwnerLiveness, decide_claim, decide_fence, decide_leave};
use weir_model::head::{HEAD_FORMAT, Owner};
use weir_model::{Head, OwnerId, ShardKey};

use crate::keys;
use crate::store::{Condition, CoordinationStore, Item, StoreError, TransactOutcome, Write};

/// Proof that a shard was ours at this version of its head. Only [`claim`] and a successful commit make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The head at that version.
    pub head: Head,
    pub(crate) version: u64,
}

impl Claim {
    /// The shard.
    #[must_use]
    pub fn shard(&self) -> ShardKey {
        self.head.shard
    }
}

/// What came of a claim. Losing is an outcome.
#[must_use]
#[derive(Debug)]
pub enum ClaimOutcome {
    /// It is ours.
    Claimed(Box<Claim>),
    /// Its holder lives, or its lease runs.
    Held {
        /// The holder.
        by: OwnerId,
        /// When to ask again, microseconds UTC.
        until_micros: i64,
    },
    /// Somebody was faster, or the answer was lost: read again.
    Lost,
}

/// Reads a head.
///
/// # Errors
/// [`StoreError::Corrupt`] if there is none or it is of another format.
pub async fn read_head(store: &dyn CoordinationStore, shard: ShardKey) -> Result<(Head, u64), StoreError> {
    let key = keys::head(shard);
    let item = store
        .get(&key)
        .await?
        .ok_or_else(|| StoreError::Corrupt { key: key.to_string(), message: "there is no such row".to_owned() })?;
    Ok((parse(&item)?, item.version))
}

pub(crate) fn parse(item: &Item) -> Result<Head, StoreError> {
    let corrupt = |message: String| StoreError::Corrupt { key: item.key.to_string(), message };
    let value: serde_json::Value = serde_json::from_slice(&item.body).map_err(|error| corrupt(error.to_string()))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(HEAD_FORMAT) => {}
        found => {
            return Err(corrupt(format!("head format {found:?}, this build reads {HEAD_FORMAT}: use the build that wrote it")));
        }
    }
    serde_json::from_value(value).map_err(|error| corrupt(error.to_string()))
}

pub(crate) fn encode(head: &Head) -> Result<Bytes, StoreError> {
    let encoded = serde_json::to_vec(head);
    encoded
        .map(Bytes::from)
        .map_err(|error| StoreError::Corrupt { key: keys::head(head.shard).to_string(), message: error.to_string() })
}

/// Claims `shard` for `owner`.
///
/// - `liveness`: a hint about its present holder.
///
/// # Errors
/// [`StoreError`] of the read; an unclear answer to the write is [`ClaimOutcome::Lost`], for a second claim is harmless.
pub async fn claim(
    store: &dyn CoordinationStore,
    shard: ShardKey,
    owner: &Owner,
    now_micros: i64,
    liveness: impl Fn(OwnerId) -> OwnerLiveness,
) -> Result<ClaimOutcome, StoreError> {
    let (head, version) = read_head(store, shard).await?;
    write(store, version, decide_claim(&head, owner, now_micros, hint(&head, liveness))).await
}

/// Claims `shard` and lets go of it in one write: no older generation can commit any more, and nobody holds it (G1).
///
/// - `liveness`: a hint about its present holder.
///
/// # Errors
/// As [`claim`].
pub async fn fence(
    store: &dyn CoordinationStore,
    shard: ShardKey,
    now_micros: i64,
    liveness: impl Fn(OwnerId) -> OwnerLiveness,
) -> Result<ClaimOutcome, StoreError> {
    let (head, version) = read_head(store, shard).await?;
    write(store, version, decide_fence(&head, now_micros, hint(&head, liveness))).await
}

fn hint(head: &Head, liveness: impl Fn(OwnerId) -> OwnerLiveness) -> OwnerLiveness {
    head.owner.as_ref().map_or(OwnerLiveness::Unknown, |holder| liveness(holder.id))
}

async fn write(store: &dyn CoordinationStore, version: u64, decision: ClaimDecision) -> Result<ClaimOutcome, StoreError> {
    let next = match decision {
        ClaimDecision::Held { by, until_micros } => return Ok(ClaimOutcome::Held { by, until_micros }),
        ClaimDecision::Take(next) => *next,
    };
    let write = Write::Put { key: keys::head(next.shard), condition: Condition::VersionIs(version), body: encode(&next)? };
    match store.transact(vec![write]).await {
        Ok(TransactOutcome::Applied) => Ok(ClaimOutcome::Claimed(Box::new(Claim { head: next, version: version + 1 }))),
        Ok(TransactOutcome::Refused(_)) | Err(StoreError::Indeterminate(_)) => Ok(ClaimOutcome::Lost),
        Err(error) => Err(error),
    }
}

/// Lets go of shards in one transaction: all there was has been seen through. A shard that was taken over meanwhile needs no release.
///
/// # Errors
/// [`StoreError`] if the table does not answer; leases end all the same.
pub async fn release(store: &dyn CoordinationStore, claims: Vec<Claim>) -> Result<(), StoreError> {
    let_go(store, claims, Leaving::Released).await
}

/// As [`release`], of shards that have more to do: their heads say so by a holder that is nobody, whose lease is over at `at_micros`, and
/// whoever calls workers sees it (C6).
///
/// # Errors
/// As [`release`].
pub async fn hand_on(store: &dyn CoordinationStore, claims: Vec<Claim>, at_micros: i64) -> Result<(), StoreError> {
    let_go(store, claims, Leaving::HandedOn { at_micros }).await
}

async fn let_go(store: &dyn CoordinationStore, claims: Vec<Claim>, leaving: Leaving) -> Result<(), StoreError> {
    let mut writes = Vec::new();
    for claim in claims {
        let head = decide_leave(&claim.head, leaving);
        writes.push(Write::Put {
            key: keys::head(head.shard),
            condition: Condition::VersionIs(claim.version),
            body: encode(&head)?,
        });
    }
    if writes.is_empty() {
        return Ok(());
    }
    let all = writes.clone();
    if store.transact(all).await? == TransactOutcome::Applied {
        return Ok(());
    }
    for write in writes {
        let _ = store.transact(vec![write]).await?;
    }
    Ok(())
}

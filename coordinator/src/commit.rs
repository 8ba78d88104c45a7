//! The fenced commit: all heads of a round advance in one conditional transaction, or none does.
//!
//! Every object a round names is anchored at one of its heads, and every head is written on condition of the version that its claim
//! saw: the anchor's generation is checked in the same transaction (C3).
//!
//! ```text
//! transact --applied--> Committed
//!    |---refused-----> is the commit in the heads already? (a late answer of ours)  yes: Committed, no: Fenced
//!    `---unclear-----> read heads: committed | not yet: send the same again | lost  (T5)
//! ```

use async_trait::async_trait;
use weir_model::decide::{Resolution, decide_resolve};
use weir_model::{Clock, CommitId, Generation, Head, ShardKey};

use crate::claim::{Claim, encode, read_head};
use crate::keys;
use crate::store::{Condition, Conflict, CoordinationStore, StoreError, TransactOutcome, Write};

/// Times an unclear or failed answer is followed up before the invocation gives up; what is committed stays so.
const ATTEMPTS_MAX: u32 = 12;

/// Heads that advanced.
pub type Committed = Vec<Claim>;

/// What came of a commit.
#[must_use]
#[derive(Debug)]
pub enum CommitOutcome {
    /// All heads advanced; these claims continue the old ones.
    Committed(Committed),
    /// Another generation holds a shard: nothing of this round can ever land.
    Fenced {
        /// The shard.
        shard: ShardKey,
        /// Its generation now.
        by: Generation,
        /// The claims as they were: shards that nobody has taken over can be handed on.
        claims: Vec<Claim>,
    },
}

/// What came of a commit that carries keys of requests (X3).
#[must_use]
#[derive(Debug)]
pub enum KeyedOutcome {
    /// As without keys.
    Plain(CommitOutcome),
    /// Nothing was committed: requests under these keys were taken before.
    Repeated {
        /// The claims as they were.
        claims: Vec<Claim>,
        /// Places in the list of keys, ascending.
        keys: Vec<usize>,
    },
}

/// Looks for a commit in the manifests of a shard, when it is no longer among the recent ones.
#[async_trait]
pub trait ManifestLookup: Send + Sync {
    /// Whether the manifests of `head` hold `commit`.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    async fn has(&self, head: &Head, commit: CommitId) -> Result<bool, StoreError>;
}

/// Advances each claim to its next head.
///
/// - `advances`: claims and the heads that [`weir_model::decide::decide_commit`] gave; all hold the commit `id`.
///
/// # Errors
/// [`StoreError`] if the table does not answer clearly after bounded retries: the round may have landed, so the caller must drop its
/// state and load again (C2).
pub async fn commit(
    store: &dyn CoordinationStore,
    clock: &dyn Clock,
    lookup: &dyn ManifestLookup,
    advances: Vec<(Claim, Head)>,
    id: CommitId,
) -> Result<CommitOutcome, StoreError> {
    match commit_keyed(store, clock, lookup, advances, Vec::new(), id).await? {
        KeyedOutcome::Plain(outcome) => Ok(outcome),
        KeyedOutcome::Repeated { .. } => Err(StoreError::Invalid("a commit without keys was refused for one".to_owned())),
    }
}

/// As [`commit`], with the key rows of the requests that it holds, each written only if it is absent.
///
/// # Errors
/// As [`commit`].
pub async fn commit_keyed(
    store: &dyn CoordinationStore,
    clock: &dyn Clock,
    lookup: &dyn ManifestLookup,
    advances: Vec<(Claim, Head)>,
    keys: Vec<Write>,
    id: CommitId,
) -> Result<KeyedOutcome, StoreError> {
    let mut writes = Vec::with_capacity(advances.len() + keys.len());
    for (claim, next) in &advances {
        writes.push(Write::Put {
            key: keys::head(claim.shard()),
            condition: Condition::VersionIs(claim.version),
            body: encode(next)?,
        });
    }
    writes.extend(keys);
    let mut last = None;
    for attempt in 0..ATTEMPTS_MAX {
        let conflicts = match store.transact(writes.clone()).await {
            Ok(TransactOutcome::Applied) => return Ok(KeyedOutcome::Plain(CommitOutcome::Committed(committed(advances)))),
            Ok(TransactOutcome::Refused(conflicts)) => Some(conflicts),
            Err(StoreError::Indeterminate(_)) => Some(Vec::new()),
            Err(StoreError::Determinate(message)) => {
                last = Some(StoreError::Determinate(message));
                None
            }
            Err(error @ (StoreError::Corrupt { .. } | StoreError::Invalid(_))) => return Err(error),
        };
        if let Some(conflicts) = conflicts {
            match resolve(store, lookup, &advances, id).await {
                Ok(Resolution::Committed) => return Ok(KeyedOutcome::Plain(CommitOutcome::Committed(committed(advances)))),
                Ok(Resolution::Lost { by }) => return Ok(KeyedOutcome::Plain(fenced(advances, by))),
                // The heads stand as they were, so the keys are not ours. Another sending of the same write that may still be under
                // way will be refused for them too: a key row is never taken back before it expires.
                Ok(Resolution::Resend | Resolution::LookInManifest) => {
                    let keys = repeated(&conflicts, advances.len());
                    if !keys.is_empty() {
                        let claims = advances.into_iter().map(|(claim, _)| claim).collect();
                        return Ok(KeyedOutcome::Repeated { claims, keys });
                    }
                }
                Err(error) => last = Some(error),
            }
        }
        clock.sleep(backoff(attempt, id)).await;
    }
    Err(last.unwrap_or_else(|| StoreError::Indeterminate("no clear answer to a commit".to_owned())))
}

fn repeated(conflicts: &[Conflict], heads: usize) -> Vec<usize> {
    conflicts.iter().filter_map(|conflict| conflict.index.checked_sub(heads)).collect()
}

fn committed(advances: Vec<(Claim, Head)>) -> Committed {
    advances.into_iter().map(|(claim, head)| Claim { head, version: claim.version + 1 }).collect()
}

fn fenced(advances: Vec<(Claim, Head)>, by: Generation) -> CommitOutcome {
    let claims: Vec<Claim> = advances.into_iter().map(|(claim, _)| claim).collect();
    match claims.iter().find(|claim| claim.head.generation != by).or(claims.first()).map(Claim::shard) {
        Some(shard) => CommitOutcome::Fenced { shard, by, claims },
        None => CommitOutcome::Committed(Vec::new()),
    }
}

/// The transaction is all or nothing, so one head that is decided decides for all; a head that has not moved says nothing yet.
async fn resolve(
    store: &dyn CoordinationStore,
    lookup: &dyn ManifestLookup,
    advances: &[(Claim, Head)],
    id: CommitId,
) -> Result<Resolution, StoreError> {
    for (claim, _) in advances {
        let (head, version) = read_head(store, claim.shard()).await?;
        let mut resolution = decide_resolve(&head, version, claim.version, id, None);
        if resolution == Resolution::LookInManifest {
            let found = lookup.has(&head, id).await?;
            resolution = decide_resolve(&head, version, claim.version, id, Some(found));
        }
        match resolution {
            Resolution::Committed | Resolution::Lost { .. } => return Ok(resolution),
            Resolution::Resend | Resolution::LookInManifest => {}
        }
    }
    Ok(Resolution::Resend)
}

/// Doubles from 2 ms to 1 s, with up to half of it again from the commit's own random bits.
fn backoff(attempt: u32, id: CommitId) -> std::time::Duration {
    let base = 2u64 << attempt.min(9);
    let drawn = id.0 >> (8 * (attempt % 8));
    let jitter = u64::try_from(drawn % u128::from((base / 2).max(1))).unwrap_or(0);
    std::time::Duration::from_millis(base.min(1_000) + jitter)
}

#[cfg(test)]
pub(crate) mod tests;

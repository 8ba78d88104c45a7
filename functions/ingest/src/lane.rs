//! A lane of a stream: held by one process at a time, advanced by one fenced commit for each fold.
//!
//! A lane that says nothing for a while commits that it is idle, so that jobs do not wait for it (W1). One whose holder died without
//! saying so is fenced by another process, which says it in its place: each looks at the others' lanes when it takes its own and once
//! a lease. So whoever's rows move the time moves what would hold it up.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use weir_coordinator::commit::{CommitOutcome, KeyedOutcome, ManifestLookup, commit_keyed};
use weir_coordinator::{Claim, ClaimOutcome, StoreError, claim, streams};
use weir_model::decide::{Advance, OwnerLiveness, decide_commit};
use weir_model::head::Owner;
use weir_model::stream::{KEY_FORMAT, KeyRow, StreamRow};
use weir_model::{
    Activity, CommitEntry, CommitId, Epoch, Head, Inputs, Offset, Recipe, SegmentKind, SegmentRef, ShardId, ShardKey, ShardStats,
};
use weir_state::paths::{self, Folder};
use weir_state::{EncodedSegment, SegmentMeta, StateError, manifest, segment, store};

use crate::Seams;
use crate::appender::{FoldSettings, Lasts, RequestKey};

/// Times a lane is tried again that somebody else was faster to take.
const CLAIM_ATTEMPTS: usize = 8;
/// How long a key of [`Lasts::Day`] is remembered, seconds.
const KEYS_KEPT_SECONDS: i64 = 86_400;
/// When a key of [`Lasts::Ever`] is forgotten, seconds since 1970: the end of the year 9999.
const NEVER_SECONDS: i64 = 253_402_300_799;

/// Something that went wrong between the rows and the commit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneError {
    /// The table.
    #[error(transparent)]
    Table(#[from] StoreError),
    /// The objects, or rows that cannot be stored.
    #[error(transparent)]
    State(#[from] StateError),
    /// A head that would break an invariant: nothing was written.
    #[error("{0}")]
    Refused(#[from] weir_model::decide::CommitRefusal),
    /// Encoding was cut short.
    #[error("encoding was cut short: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Whether there is a lane to append to.
#[derive(Debug)]
pub(crate) enum Hold {
    /// One is held.
    Held,
    /// Others hold all of them.
    Busy,
    /// The stream takes nothing any more.
    Closed,
}

/// What came of appending.
#[derive(Debug)]
pub(crate) enum Appended {
    /// The rows and the keys are committed.
    Committed {
        /// Lane that took them.
        lane: ShardId,
        /// Commit that holds them.
        epoch: Epoch,
    },
    /// Nothing was: these of the keys are remembered from an earlier request.
    Repeated(Vec<usize>),
    /// Nothing was: another process has taken the lane.
    Lost,
}

/// A key that goes into the commit, and the rows of its request.
#[derive(Debug, Clone)]
pub(crate) struct Keyed {
    pub(crate) key: RequestKey,
    pub(crate) rows: u64,
}

/// The lane that this process holds, or none.
#[derive(Debug)]
pub(crate) struct Lane {
    seams: Seams,
    row: StreamRow,
    schema: SchemaRef,
    settings: FoldSettings,
    claim: Option<Claim>,
    /// Earliest instant of the next look at the others' lanes, monotonic.
    look_at: i64,
}

impl Lane {
    pub(crate) fn new(seams: Seams, row: StreamRow, schema: SchemaRef, settings: FoldSettings) -> Self {
        Self { seams, row, schema, settings, claim: None, look_at: i64::MIN }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.claim.is_some()
    }

    /// Takes a lane unless one is held.
    pub(crate) async fn hold(&mut self) -> Result<Hold, LaneError> {
        let hold = self.take_any().await?;
        let now = self.seams.clock.monotonic_micros();
        if matches!(hold, Hold::Held) && now >= self.look_at {
            self.look_at = now.saturating_add(lease_micros(&self.settings));
            self.speak_for_the_dead().await?;
        }
        Ok(hold)
    }

    async fn take_any(&mut self) -> Result<Hold, LaneError> {
        if self.claim.is_some() {
            return Ok(Hold::Held);
        }
        // The lowest first: one process after another appends to the same lane, and so keeps the order of its clients.
        let shards = self.row.shards();
        let hint = |owner| self.seams.liveness.of(owner);
        let mut closed = 0;
        for shard in shards.iter().copied() {
            match take(&self.seams, shard, &self.settings, hint).await? {
                Taking::Closed => closed += 1,
                Taking::Held => {}
                Taking::Taken(claim) => {
                    self.claim = Some(*claim);
                    self.look_at = i64::MIN;
                    return Ok(Hold::Held);
                }
            }
        }
        Ok(if closed == shards.len() { Hold::Closed } else { Hold::Busy })
    }

    /// Lanes whose holders died without saying that they are idle are said to be.
    async fn speak_for_the_dead(&self) -> Result<(), LaneError> {
        let own = self.claim.as_ref().map(Claim::shard);
        for shard in self.row.shards().into_iter().filter(|shard| Some(*shard) != own) {
            let (head, _) = claim::read_head(self.seams.table.as_ref(), shard).await?;
            let Some(owner) = &head.owner else { continue };
            let dead = self.seams.liveness.of(owner.id) == OwnerLiveness::Dead
                || owner.lease_until_micros < self.seams.clock.now_micros() && head.activity == Activity::Active;
            if dead && let Taking::Taken(claim) = take(&self.seams, shard, &self.settings, |_| OwnerLiveness::Dead).await? {
                say(&self.seams, *claim, Activity::Idle).await?;
            }
        }
        Ok(())
    }

    /// Stores `rows` and commits them with `keys`.
    ///
    /// # Errors
    /// [`LaneError`]; the rows may be committed all the same, unless a key says so nobody knows.
    pub(crate) async fn append(&mut self, rows: Vec<RecordBatch>, keys: &[Keyed]) -> Result<Appended, LaneError> {
        let Some(claim) = self.claim.take() else { return Ok(Appended::Lost) };
        let count: u64 = rows.iter().map(|batch| batch.num_rows() as u64).sum();
        let schema = Arc::clone(&self.schema);
        let meta = SegmentMeta { kind: SegmentKind::Events, plan: 0 };
        let encoded = tokio::task::spawn_blocking(move || segment::encode(&schema, meta, &[(ShardId(0), rows)])).await??;
        let step = Step::rows(&self.seams, &claim.head, encoded, count);
        let (lane, epoch) = (claim.shard().shard, claim.head.epoch.next());
        let now_seconds = self.seams.clock.now_micros() / 1_000_000;
        let remember = |keyed: &Keyed| {
            let row = KeyRow {
                format: KEY_FORMAT,
                key: keyed.key.key.clone(),
                body: keyed.key.body.clone(),
                rows: keyed.rows,
                lane,
                epoch,
                expires_at: match keyed.key.lasts {
                    Lasts::Day => now_seconds + KEYS_KEPT_SECONDS,
                    Lasts::Ever => NEVER_SECONDS,
                },
            };
            streams::remember(self.row.stream, &row)
        };
        let writes = keys.iter().map(remember).collect::<Result<Vec<_>, _>>()?;
        let owner = Some(owner(&self.seams, &self.settings));
        match advance(&self.seams, claim, step, owner, writes).await? {
            KeyedOutcome::Plain(CommitOutcome::Committed(claims)) => {
                self.claim = claims.into_iter().next();
                Ok(Appended::Committed { lane, epoch })
            }
            KeyedOutcome::Plain(CommitOutcome::Fenced { .. }) => Ok(Appended::Lost),
            KeyedOutcome::Repeated { claims, keys } => {
                self.claim = claims.into_iter().next();
                Ok(Appended::Repeated(keys))
            }
        }
    }

    /// Says that nothing comes for now and lets go of the lane.
    pub(crate) async fn leave(&mut self) -> Result<(), LaneError> {
        match self.claim.take() {
            Some(claim) => say(&self.seams, claim, Activity::Idle).await,
            None => Ok(()),
        }
    }
}

/// Says for every lane of a closed stream that nothing comes any more; whoever holds one loses it.
///
/// # Errors
/// A sentence for people; closing again goes on where it stopped.
pub async fn close_lanes(seams: &Seams, row: &StreamRow) -> Result<(), String> {
    let settings = FoldSettings::default();
    for shard in row.shards() {
        match take(seams, shard, &settings, |_| OwnerLiveness::Dead).await.map_err(|error| error.to_string())? {
            Taking::Taken(claim) => say(seams, *claim, Activity::Closed).await.map_err(|error| error.to_string())?,
            Taking::Held => return Err(format!("lane {shard} changes hands all the time: close the stream again")),
            Taking::Closed => {}
        }
    }
    Ok(())
}

/// What came of asking for a lane.
enum Taking {
    Taken(Box<Claim>),
    /// Another process holds it.
    Held,
    /// It takes nothing any more.
    Closed,
}

async fn take(
    seams: &Seams,
    shard: ShardKey,
    settings: &FoldSettings,
    hint: impl Fn(weir_model::OwnerId) -> OwnerLiveness,
) -> Result<Taking, LaneError> {
    for _ in 0..CLAIM_ATTEMPTS {
        let (head, _) = claim::read_head(seams.table.as_ref(), shard).await?;
        if head.activity == Activity::Closed {
            return Ok(Taking::Closed);
        }
        let now = seams.clock.now_micros();
        match claim::claim(seams.table.as_ref(), shard, &owner(seams, settings), now, &hint).await? {
            ClaimOutcome::Claimed(claim) if claim.head.activity == Activity::Closed => {
                say(seams, *claim, Activity::Closed).await?;
                return Ok(Taking::Closed);
            }
            ClaimOutcome::Claimed(claim) => return Ok(Taking::Taken(claim)),
            ClaimOutcome::Held { .. } => return Ok(Taking::Held),
            ClaimOutcome::Lost => {}
        }
    }
    Ok(Taking::Held)
}

fn owner(seams: &Seams, settings: &FoldSettings) -> Owner {
    Owner { id: seams.owner, lease_until_micros: seams.clock.now_micros().saturating_add(lease_micros(settings)) }
}

fn lease_micros(settings: &FoldSettings) -> i64 {
    i64::try_from(settings.lease.as_micros()).unwrap_or(i64::MAX)
}

/// Commits the lane's activity and lets go of it. Losing it meanwhile is fine: its new holder speaks for it.
async fn say(seams: &Seams, claim: Claim, activity: Activity) -> Result<(), LaneError> {
    let step = Step { activity, ..Step::nothing(&claim.head) };
    let _ = advance(seams, claim, step, None, Vec::new()).await?;
    Ok(())
}

/// What a commit adds to the lane.
struct Step {
    uploads: Vec<(String, bytes::Bytes)>,
    segments: Vec<SegmentRef>,
    /// Rows of the lane so far, before and after it.
    from: Offset,
    upto: Offset,
    digest: u64,
    activity: Activity,
    stats: ShardStats,
}

impl Step {
    fn nothing(head: &Head) -> Self {
        let stands = head.source.unwrap_or_default();
        Self {
            uploads: Vec::new(),
            segments: Vec::new(),
            from: stands,
            upto: stands,
            digest: 0,
            activity: head.activity,
            stats: ShardStats::default(),
        }
    }

    /// - `rows`: of the whole segment.
    fn rows(seams: &Seams, head: &Head, encoded: EncodedSegment, rows: u64) -> Self {
        let nothing = Self::nothing(head);
        let object = paths::object(Folder::Data, seams.ids.object(), head.shard, head.generation);
        let bytes = encoded.bytes.len() as u64;
        let segment = SegmentRef {
            kind: SegmentKind::Events,
            object: object.clone(),
            bytes,
            footer_bytes: encoded.footer_bytes,
            groups: encoded.groups,
        };
        Self {
            uploads: vec![(object, encoded.bytes)],
            segments: vec![segment],
            upto: Offset { at: nothing.from.at + rows, ..nothing.from },
            digest: encoded.digest,
            activity: Activity::Active,
            stats: ShardStats { rows_in: rows, rows_out: rows, events: rows, bytes_out: bytes, ..ShardStats::default() },
            ..nothing
        }
    }
}

/// Stores what `step` needs and commits it.
async fn advance(
    seams: &Seams,
    claim: Claim,
    step: Step,
    owner: Option<Owner>,
    keys: Vec<weir_coordinator::Write>,
) -> Result<KeyedOutcome, LaneError> {
    let (from, spilled) = manifest::spilled(seams.ids.as_ref(), &claim.head)?;
    let uploads = step.uploads.into_iter().chain(spilled);
    let put = async |object: String, bytes| store::put_again(seams.objects.as_ref(), seams.clock.as_ref(), &object, bytes).await;
    let puts = uploads.map(|(object, bytes)| put(object, bytes));
    futures::future::try_join_all(puts).await?;
    let commit = seams.ids.commit();
    let entry = CommitEntry {
        commit,
        epoch: from.epoch.next(),
        generation: from.generation,
        segments: step.segments,
        watermark: from.watermark,
        activity: step.activity,
        recipe: Recipe {
            inputs: Inputs::Reference { from: step.from, upto: step.upto },
            watermark_before: from.watermark,
            watermark_after: from.watermark,
            now_micros: seams.clock.now_micros().max(from.now_micros),
            early: false,
            as_rows: false,
            plan: 0,
            build: build(),
            digest: step.digest,
        },
    };
    let advance = Advance {
        entry,
        inputs: std::collections::BTreeMap::new(),
        source: Some(step.upto),
        act_at: None,
        checkpoint: None,
        publish: None,
        stats: step.stats,
        owner,
    };
    let next = decide_commit(&from, advance)?;
    let lookup = Manifests(seams);
    Ok(commit_keyed(seams.table.as_ref(), seams.clock.as_ref(), &lookup, vec![(claim, next)], keys, commit).await?)
}

fn build() -> String {
    format!("{}+{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)
}

struct Manifests<'a>(&'a Seams);

#[async_trait::async_trait]
impl ManifestLookup for Manifests<'_> {
    async fn has(&self, head: &Head, commit: CommitId) -> Result<bool, StoreError> {
        let found = manifest::has_commit(self.0.objects.as_ref(), head, commit).await;
        found.map_err(|error| StoreError::Indeterminate(error.to_string()))
    }
}

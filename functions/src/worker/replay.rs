//! Batches of a merge shard again, from their recipes: how a cold load rebuilds the state (R1, RP-1).
//!
//! ```text
//! checkpoint --restore--> operator --fold what the cuts name, fire--> digest: that of the commit, or everything stops
//! ```
//! Never: looks at a clock, a limit of memory or anything else that the recipe does not name.

use std::collections::BTreeMap;

use datafusion::arrow::array::RecordBatch;
use weir_engine::{MergeOperator, Moment};
use weir_model::check_invariant;
use weir_model::decide::Snapshot;
use weir_model::{CommitEntry, Epoch, Head, InputCut, Inputs, Recipe, ShardId, ShardKey, Watermark};
use weir_state::manifest::{Entries, entries_between};

use super::checkpoint::Pending;
use super::learn::Unread;
use super::merge::{EpochInput, Goal, epoch_input, fold, publish};
use super::round::{Maker, Published, Round};
use super::{Builds, WorkerError};
use crate::context::Ctx;
use crate::job::{Loaded, build};

/// Heads of upstream shards, read after the head of the shard that replays.
pub(super) type Upstreams = BTreeMap<ShardKey, Head>;

/// Checkpoint, then every batch since, from its recipe; a batch that gives another result than the one committed stops everything.
/// Returns what was replayed.
pub(super) async fn rebuild(
    ctx: &Ctx,
    loaded: &Loaded,
    head: &Head,
    operator: &mut MergeOperator,
) -> Result<Pending, WorkerError> {
    let newest = head.checkpoint.as_ref();
    let from =
        newest.map(|newest| Snapshot { epoch: newest.epoch, objects: newest.objects.clone(), watermark: newest.watermark });
    let from = from.unwrap_or(Snapshot { epoch: Epoch(0), objects: Vec::new(), watermark: Watermark::NONE });
    let Entries::Found(entries) = entries_between(ctx.objects.as_ref(), head, from.epoch, head.epoch).await? else {
        return Err(WorkerError::Gone { shard: head.shard, after: from.epoch });
    };
    let mut upstream = Upstreams::new();
    for shard in loaded.topology.upstream_of(head.shard) {
        upstream.insert(shard, weir_coordinator::claim::read_head(ctx.table.as_ref(), shard).await?.0);
    }
    let rebuilt = Replay { ctx, loaded, head, upstream: &upstream }.from(&from, &entries, operator).await;
    if let Err(differs @ WorkerError::Replay { .. }) = &rebuilt {
        check_invariant!(Rp1, false, "{differs}");
    }
    rebuilt
}

/// What every replay of a shard looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replay<'a> {
    pub(super) ctx: &'a Ctx,
    pub(super) loaded: &'a Loaded,
    /// Of the shard: whose name and plan the results bear.
    pub(super) head: &'a Head,
    pub(super) upstream: &'a Upstreams,
}

/// What one cut of a recipe names, epoch by epoch.
pub(super) struct CutInput {
    pub(super) from: ShardKey,
    pub(super) epochs: Vec<EpochInput>,
}

impl Replay<'_> {
    /// Takes the state of `snapshot` into an operator without state and replays `entries`, the ones after it.
    ///
    /// # Errors
    /// [`WorkerError::Replay`] for the first batch that gives another result; [`WorkerError::Gone`] if its input is.
    pub(super) async fn from(
        self,
        snapshot: &Snapshot,
        entries: &[CommitEntry],
        operator: &mut MergeOperator,
    ) -> Result<Pending, WorkerError> {
        let clock = self.ctx.clock.as_ref();
        for state in &snapshot.objects {
            for rows in weir_state::checkpoint::read(self.ctx.objects.as_ref(), state, operator.state_schema()).await? {
                operator.restore(&rows)?;
            }
        }
        operator.stand_at(snapshot.watermark);
        let mut pending = Pending::default();
        for entry in entries {
            let began = clock.monotonic_micros();
            let (input, bytes) = self.read(&entry.recipe).await?;
            let late = self.fold(&entry.recipe, &input, operator).await?;
            drop(input);
            let (published, _) = self.fire(&entry.recipe, &late, operator).await?;
            self.compare(entry, &published)?;
            pending.add(bytes, clock.monotonic_micros() - began, entry.recipe.now_micros);
        }
        Ok(pending)
    }

    /// What a batch of the shard read, in the order of its cuts, and the bytes of the segments.
    pub(super) async fn read(self, recipe: &Recipe) -> Result<(Vec<CutInput>, u64), WorkerError> {
        let Inputs::Segments(cuts) = &recipe.inputs else { return Ok((Vec::new(), 0)) };
        let (mut input, mut bytes) = (Vec::new(), 0);
        for cut in cuts {
            let mut epochs = Vec::new();
            for entry in entries_of(self.ctx, cut, self.upstream).await? {
                bytes += entry.segments.iter().map(|segment| segment.bytes).sum::<u64>();
                epochs.push(epoch_input(self.ctx, &Unread::stored(entry), self.receiver()).await?);
            }
            input.push(CutInput { from: cut.from, epochs });
        }
        Ok((input, bytes))
    }

    fn receiver(self) -> ShardId {
        self.head.shard.shard
    }

    /// Folds it; returns the late rows.
    pub(super) async fn fold(
        self,
        recipe: &Recipe,
        input: &[CutInput],
        operator: &mut MergeOperator,
    ) -> Result<Vec<RecordBatch>, WorkerError> {
        self.loaded.plan.clock.set(recipe.now_micros);
        operator.set_now(recipe.now_micros);
        let mut late = Vec::new();
        for cut in input {
            late.extend(fold(operator, &cut.epochs, recipe.watermark_before).await?);
        }
        Ok(late)
    }

    /// Fires, and encodes what would be stored; the objects themselves are not needed again.
    pub(super) async fn fire(
        self,
        recipe: &Recipe,
        late: &[RecordBatch],
        operator: &mut MergeOperator,
    ) -> Result<(Published, Round), WorkerError> {
        let moment = Moment { after: recipe.watermark_after, early: recipe.early };
        let rows = operator.fire(moment).await?;
        let goal = Goal::of(self.loaded, self.head.shard.stage);
        let maker = Maker::new(self.head, self.loaded);
        let mut scratch = Round::new(self.ctx, false);
        let (published, _) = publish(&mut scratch, self.ctx, maker, operator, &rows, late, &goal)?;
        Ok((published, scratch))
    }

    fn compare(self, entry: &CommitEntry, published: &Published) -> Result<(), WorkerError> {
        let found = published.digest();
        if found == entry.recipe.digest { Ok(()) } else { Err(differs(self.head.shard, entry, found)) }
    }
}

/// The error of a replay that differs.
pub(super) fn differs(shard: ShardKey, entry: &CommitEntry, found: u64) -> WorkerError {
    let committed = entry.recipe.digest;
    let builds = Builds { committed: entry.recipe.build.clone(), replayed: build() };
    WorkerError::Replay { shard, epoch: entry.epoch, found, committed, builds }
}

/// The entries that a cut names.
pub(super) async fn entries_of(ctx: &Ctx, cut: &InputCut, upstream: &Upstreams) -> Result<Vec<CommitEntry>, WorkerError> {
    let gone = || WorkerError::Gone { shard: cut.from, after: cut.after };
    let head = upstream.get(&cut.from).ok_or_else(gone)?;
    match entries_between(ctx.objects.as_ref(), head, cut.after, cut.upto).await? {
        Entries::Found(entries) => Ok(entries),
        Entries::Missing => Err(gone()),
    }
}

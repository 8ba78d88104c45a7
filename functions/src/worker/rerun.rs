//! One batch of a shard again, from its recipe, for who only looks: no claim, nothing written.
//!
//! ```text
//! lane:         source or stream at the recipe's first place --> its rows up to the last --> segments, digest
//! merge shard:  newest checkpoint before the batch --replays--> state before it --the batch--> segments, digest, state after it
//! ```
//! What it needs must not be deleted meanwhile: heads are read under a pin (G2).

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::row::{RowConverter, SortField};
use weir_engine::MergeOperator;
use weir_model::decide::snapshots;
use weir_model::head::InputState;
use weir_model::{CommitEntry, Epoch, Head, InputCut, Inputs, SegmentKind, ShardKey};
use weir_state::segment;

use super::WorkerError;
use super::lane::LaneShard;
use super::merge::fresh_operator;
use super::replay::{CutInput, Replay, Upstreams, differs};
use super::round::{Published, Round};
pub(crate) use super::sample::Sample;
use crate::context::Ctx;
use crate::job::Loaded;

/// What a batch read, made and changed when it was run again.
#[derive(Debug)]
pub(crate) struct Rerun {
    /// What it read, in order.
    pub(crate) inputs: Vec<Input>,
    /// What it made, segment by segment.
    pub(crate) outputs: Vec<(SegmentKind, Sample)>,
    /// What it did to the state of a merge shard; a lane has none.
    pub(crate) state: Option<StateChange>,
    /// Digest of what it made.
    pub(crate) digest: u64,
    /// The error of a batch that made something else than what was committed.
    pub(crate) differs: Option<WorkerError>,
}

/// Rows that a batch read.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) from: Origin,
    pub(crate) rows: Sample,
}

/// Where a batch's rows came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Segments of this kind of a shard.
    Shard(ShardKey, SegmentKind),
    /// A lane's source, or the stream that it reads.
    Source,
}

/// What a batch did to the state of a merge shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateChange {
    /// Epoch of the checkpoint that the state was rebuilt from; 0 is the beginning.
    pub(crate) checkpoint: Epoch,
    /// Batches replayed since it.
    pub(crate) replayed: u64,
    /// Starts of windows, microseconds UTC; none where there are no windows.
    pub(crate) windows: Change<Vec<i64>>,
    /// (window, key) pairs or keys, as far as they are in memory.
    pub(crate) groups: Change<usize>,
}

/// What became of windows or groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change<T> {
    pub(crate) opened: T,
    /// There before the batch, and among its partials.
    pub(crate) updated: T,
    pub(crate) closed: T,
    /// What is there after it.
    pub(crate) left: T,
}

/// The past of a shard, as far as it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past<'a> {
    pub(crate) head: &'a Head,
    /// Oldest first, without gaps up to the head's epoch.
    pub(crate) entries: &'a [CommitEntry],
    /// Heads of the shards that it reads, read after `head`.
    pub(crate) upstream: &'a Upstreams,
}

impl<'a> Past<'a> {
    /// The entry of `epoch`, if it is there.
    pub(crate) fn entry(&self, epoch: Epoch) -> Option<&'a CommitEntry> {
        self.entries.iter().find(|entry| entry.epoch == epoch)
    }

    fn gone(&self, after: Epoch) -> WorkerError {
        WorkerError::Gone { shard: self.head.shard, after }
    }
}

/// Runs a lane's batch again.
///
/// - `rows`: how many to show of each input and output.
///
/// # Errors
/// [`WorkerError`]; [`WorkerError::Gone`] if what it read is.
pub(crate) async fn lane(
    ctx: &Ctx,
    loaded: &Loaded,
    past: Past<'_>,
    entry: &CommitEntry,
    rows: usize,
) -> Result<Rerun, WorkerError> {
    let mut lane = LaneShard::load(ctx, loaded, head_before(past.head, entry)).await?;
    let mut sample = Sample::new(rows);
    let (published, round) = lane.run_again(ctx, loaded, &entry.recipe, past.upstream, &mut sample).await?;
    let inputs = vec![Input { from: Origin::Source, rows: sample }];
    Rerun::new(past, entry, inputs, None, (&published, &round), rows)
}

/// The head of a lane as far as a batch looks at it, before the batch.
fn head_before(head: &Head, entry: &CommitEntry) -> Head {
    let mut before = head.clone();
    before.epoch = Epoch(entry.epoch.0.saturating_sub(1));
    before.generation = entry.generation;
    before.watermark = entry.recipe.watermark_before;
    match &entry.recipe.inputs {
        Inputs::Reference { from, .. } => before.source = Some(*from),
        Inputs::Segments(cuts) => {
            let state = |cut: &InputCut| InputState { epoch: cut.after, ..InputState::default() };
            before.inputs = cuts.iter().map(|cut| (cut.from.to_string(), state(cut))).collect();
        }
    }
    before
}

/// Runs a merge shard's batch again.
///
/// - `rows`: as for [`lane`].
///
/// # Errors
/// [`WorkerError`]; [`WorkerError::Gone`] if what it read is, or the state before it; [`WorkerError::Replay`] if one of the batches
/// that lead to that state gives another result.
pub(crate) async fn merge(
    ctx: &Ctx,
    loaded: &Loaded,
    past: Past<'_>,
    entry: &CommitEntry,
    rows: usize,
) -> Result<Rerun, WorkerError> {
    let before = Epoch(entry.epoch.0.saturating_sub(1));
    let known = snapshots(past.head, past.entries).into_iter().rev().find(|snapshot| snapshot.epoch <= before);
    let snapshot = known.ok_or_else(|| past.gone(before))?;
    let since: Vec<CommitEntry> =
        past.entries.iter().filter(|entry| entry.epoch > snapshot.epoch && entry.epoch <= before).cloned().collect();
    if since.len() as u64 != before.0 - snapshot.epoch.0 {
        return Err(past.gone(snapshot.epoch));
    }
    let replay = Replay { ctx, loaded, head: past.head, upstream: past.upstream };
    let mut operator = fresh_operator(ctx, loaded, past.head.shard).await?;
    replay.from(&snapshot, &since, &mut operator).await?;

    let (input, _) = replay.read(&entry.recipe).await?;
    let at_first = Standing::of(&operator);
    let late = replay.fold(&entry.recipe, &input, &mut operator).await?;
    let folded = Standing::of(&operator);
    let (published, round) = replay.fire(&entry.recipe, &late, &mut operator).await?;
    let stands = [at_first, folded, Standing::of(&operator)];
    let (windows, groups) = changes(&operator, &input, stands)?;
    let state = StateChange { checkpoint: snapshot.epoch, replayed: since.len() as u64, windows, groups };
    Rerun::new(past, entry, sampled(&input, rows), Some(state), (&published, &round), rows)
}

impl Rerun {
    fn new(
        past: Past<'_>,
        entry: &CommitEntry,
        inputs: Vec<Input>,
        state: Option<StateChange>,
        (published, round): (&Published, &Round),
        rows: usize,
    ) -> Result<Self, WorkerError> {
        let digest = published.digest();
        let is_same = digest == entry.recipe.digest;
        let differs = (!is_same).then(|| differs(past.head.shard, entry, digest));
        Ok(Self { inputs, outputs: outputs(published, round, rows)?, state, digest, differs })
    }
}

fn sampled(input: &[CutInput], rows: usize) -> Vec<Input> {
    let sample = |batches: &mut dyn Iterator<Item = &RecordBatch>| {
        let mut sample = Sample::new(rows);
        batches.for_each(|batch| sample.add(batch));
        sample
    };
    let mut inputs = Vec::new();
    for cut in input {
        let partials = sample(&mut cut.epochs.iter().flat_map(|epoch| &epoch.partials));
        let behind = sample(&mut cut.epochs.iter().flat_map(|epoch| &epoch.behind));
        inputs.push(Input { from: Origin::Shard(cut.from, SegmentKind::Exchange), rows: partials });
        if behind.rows > 0 {
            inputs.push(Input { from: Origin::Shard(cut.from, SegmentKind::Behind), rows: behind });
        }
    }
    inputs
}

/// Rows of the segments that would be stored.
fn outputs(published: &Published, round: &Round, rows: usize) -> Result<Vec<(SegmentKind, Sample)>, WorkerError> {
    let mut outputs = Vec::new();
    for made in published.segments.iter().filter(|segment| segment.kind != SegmentKind::Ledger) {
        let Some((_, bytes)) = round.uploads.iter().find(|(object, _)| *object == made.object) else { continue };
        let groups: Vec<u16> = made.groups.iter().map(|group| group.index).collect();
        let mut sample = Sample::new(rows);
        segment::decode(&made.object, bytes.clone(), &groups)?.iter().for_each(|batch| sample.add(batch));
        outputs.push((made.kind, sample));
    }
    Ok(outputs)
}

/// What a merge shard holds.
struct Standing {
    windows: BTreeSet<i64>,
    groups: usize,
}

impl Standing {
    fn of(operator: &MergeOperator) -> Self {
        Self { windows: operator.open_windows().into_iter().collect(), groups: operator.groups() }
    }
}

/// - `stands`: before the batch, when it was folded, and after it.
fn changes(
    operator: &MergeOperator,
    input: &[CutInput],
    stands: [Standing; 3],
) -> Result<(Change<Vec<i64>>, Change<usize>), WorkerError> {
    let [before, folded, after] = stands;
    let (mut windows, mut groups) = (BTreeSet::new(), BTreeSet::new());
    let row_key = operator.row_key();
    for partials in input.iter().flat_map(|cut| &cut.epochs).flat_map(|epoch| &epoch.partials) {
        windows.extend(operator.windows_of(partials)?);
        let columns: Vec<ArrayRef> = row_key.iter().map(|&column| Arc::clone(partials.column(column))).collect();
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
        groups.extend(rows.iter().map(|row| row.owned()));
    }
    let windows = Change {
        opened: folded.windows.difference(&before.windows).copied().collect(),
        updated: windows.intersection(&before.windows).copied().collect(),
        closed: folded.windows.difference(&after.windows).copied().collect(),
        left: after.windows.into_iter().collect(),
    };
    // A table by key folds when it gives its changes.
    let most = folded.groups.max(after.groups);
    let opened = most.saturating_sub(before.groups);
    let updated = groups.len().saturating_sub(opened);
    let groups = Change { opened, updated, closed: most - after.groups, left: after.groups };
    Ok((windows, groups))
}

#[cfg(test)]
mod tests;

//! A source that can replay, as a lane reads it: until the commit interval or a budget is reached.

use std::collections::BTreeMap;

use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use weir_connectors::{BadRow, Pull, SourceReader};
use weir_engine::LaneOperator;
use weir_model::head::InputState;
use weir_model::{Activity, Epoch, Head, Inputs, Offset, SegmentRef};
use weir_plan::SourceTable;

use super::WorkerError;
use super::sample::Sample;
use crate::connect::Pinned;
use crate::context::{Ctx, Tuning};
use crate::trace::Step;

/// What a lane's epoch read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) bad: Vec<BadRow>,
    /// For the recipe.
    pub(super) inputs: Inputs,
    /// Positions in stream lanes that moved.
    pub(super) positions: BTreeMap<String, InputState>,
    pub(super) activity: Activity,
}

impl Read {
    pub(super) fn nothing(inputs: Inputs) -> Self {
        Self { rows: 0, bytes: 0, bad: Vec::new(), inputs, positions: BTreeMap::new(), activity: Activity::Active }
    }

    /// The place in the source after it; `None` of a stream.
    pub(super) fn upto(&self) -> Option<Offset> {
        match &self.inputs {
            Inputs::Reference { upto, .. } => Some(*upto),
            Inputs::Segments(_) => None,
        }
    }

    /// Whether the epoch must be cut.
    pub(super) fn is_full(&self, tuning: &Tuning, operator: &LaneOperator) -> bool {
        self.rows >= tuning.epoch_rows_max
            || self.bad.len() + operator.failed_rows() >= tuning.bad_rows_max
            || operator.gathered_rows() >= tuning.gathered_rows_max
            || operator.gathered_bytes() >= tuning.gathered_bytes_max
    }
}

/// Opens a lane at its head's place.
pub(super) async fn open(
    ctx: &Ctx,
    table: &SourceTable,
    pinned: &Pinned,
    head: &Head,
    lanes: usize,
) -> Result<Box<dyn SourceReader>, WorkerError> {
    let source = ctx.connectors.source(table, pinned)?;
    let mut ledger = Vec::with_capacity(head.ledger.len());
    for part in &head.ledger {
        ledger.push(read_ledger(ctx, part).await?);
    }
    let lanes = u32::try_from(lanes).unwrap_or(u32::MAX);
    let from = head.source.unwrap_or_default();
    Ok(source.open_with_ledger(head.shard.shard.0, lanes, from, &ledger, &table.projection).await?)
}

/// Reads what another reader did: from the place where the lane was opened up to `upto`.
///
/// # Errors
/// [`WorkerError::Source`]; [`WorkerError::OtherRows`] if the source no longer gives what it gave.
pub(super) async fn read_again(
    reader: &mut dyn SourceReader,
    operator: &mut LaneOperator,
    (from, upto): (Offset, Offset),
    latest_micros: i64,
    sample: &mut Sample,
) -> Result<Read, WorkerError> {
    let mut read = Read::nothing(Inputs::Reference { from, upto });
    reader.end_at(upto);
    let mut at = from;
    while at < upto {
        match reader.next().await? {
            Pull::Rows(batch) => {
                sample.add(&batch.batch);
                read.rows += batch.batch.num_rows() as u64;
                at = batch.upto;
                read.bad.extend(batch.bad);
                operator.push(batch.batch, latest_micros).await?;
            }
            Pull::Advanced { to, upto: place } => {
                operator.advance(to);
                at = place;
            }
            Pull::Later | Pull::End => return Err(WorkerError::OtherRows { at, upto }),
        }
    }
    if at == upto { Ok(read) } else { Err(WorkerError::OtherRows { at, upto }) }
}

async fn read_ledger(ctx: &Ctx, ledger: &SegmentRef) -> Result<Bytes, WorkerError> {
    let failed = |source| weir_state::StateError::Store { object: ledger.object.clone(), source };
    let result = ctx.objects.get(&Path::from(ledger.object.as_str())).await.map_err(failed)?;
    Ok(result.bytes().await.map_err(failed)?)
}

/// How long a lane's source has had nothing, by the clock of commits: whoever holds the lane next goes on counting.
#[derive(Debug)]
pub(super) struct Quiet {
    since_micros: Option<i64>,
    idle_after_micros: Option<i64>,
}

impl Quiet {
    /// - `idle_after_micros`: as the table's declaration says; without it a lane is never idle.
    pub(super) fn new(idle_after_micros: Option<i64>, head: &Head) -> Self {
        let since_micros = (head.epoch > Epoch(0)).then_some(head.now_micros);
        Self { since_micros, idle_after_micros }
    }

    /// Nothing has come; whether that has been so for long enough.
    fn is_idle(&mut self, now_micros: i64) -> bool {
        let since = *self.since_micros.get_or_insert(now_micros);
        self.idle_after_micros.is_some_and(|after| now_micros.saturating_sub(since) >= after)
    }
}

/// Reads until the interval, a budget, the source's end or a stop; `None` if there was nothing and nothing is to be said of that (W1).
pub(super) async fn read(
    reader: &mut dyn SourceReader,
    quiet: &mut Quiet,
    ctx: &Ctx,
    head: &Head,
    operator: &mut LaneOperator,
    latest_micros: i64,
) -> Result<Option<Read>, WorkerError> {
    let tuning = &ctx.tuning;
    let interval = i64::try_from(tuning.commit_interval.as_micros()).unwrap_or(i64::MAX);
    let deadline = ctx.clock.monotonic_micros().saturating_add(interval).min(tuning.leave_at_micros);
    let (shard, from) = (head.shard, head.source.unwrap_or_default());
    let mut upto = from;
    let mut read = Read::nothing(Inputs::Segments(Vec::new()));
    loop {
        let began = ctx.clock.monotonic_micros();
        match reader.next().await? {
            Pull::Rows(batch) => {
                let decoded = ctx.clock.monotonic_micros();
                ctx.progress.decode_micros.add_between(began, decoded);
                ctx.progress.events.add(batch.batch.num_rows() as u64);
                ctx.progress.source_bytes.add(batch.bytes);
                read.rows += batch.batch.num_rows() as u64;
                read.bytes += batch.bytes;
                upto = batch.upto;
                quiet.since_micros = None;
                ctx.progress.trace.note(ctx.clock.as_ref(), || Step::Read { shard, upto });
                read.bad.extend(batch.bad);
                operator.push(batch.batch, latest_micros).await?;
                ctx.progress.execute_micros.add_between(decoded, ctx.clock.monotonic_micros());
            }
            Pull::Advanced { to, upto: place } => {
                operator.advance(to);
                upto = place;
            }
            Pull::Later if read.rows == 0 && read.bad.is_empty() && upto == from => {
                if !quiet.is_idle(ctx.clock.now_micros()) || !head.activity.counts() {
                    return Ok(None);
                }
                let inputs = Inputs::Reference { from, upto };
                return Ok(Some(Read { activity: Activity::Idle, ..Read::nothing(inputs) }));
            }
            Pull::Later => ctx.clock.sleep(tuning.ask_again).await,
            Pull::End => read.activity = Activity::Closed,
        }
        let ended = read.activity == Activity::Closed || ctx.stop.requested() || ctx.clock.monotonic_micros() >= deadline;
        if ended || read.is_full(tuning, operator) {
            read.inputs = Inputs::Reference { from, upto };
            let is_nothing = read.rows == 0 && read.bad.is_empty() && upto == from && read.activity == Activity::Active;
            return Ok((!is_nothing).then_some(read));
        }
    }
}

//! A lane in a worker: reads its source until the interval or a budget is reached, and ends an epoch.
//!
//! A lane keeps no state but its place in the source, so loading it is opening the reader at the head's offset.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use weir_connectors::{BadRow, Pull, SourceReader};
use weir_engine::{LaneEpoch, LaneOperator};
use weir_model::layout::Layout;
use weir_model::{Activity, Head, Inputs, Offset, SegmentKind, SegmentRef, ShardId, ShardStats, Watermark};
use weir_state::key_sort::sorted_by_key_group;
use weir_state::split_by_receiver;

use super::WorkerError;
use super::edge::Edge;
use super::learn::{Fed, Handed};
use super::round::{Batch, Maker, Published, Round};
use crate::context::{Ctx, Tuning};
use crate::dead_letter;
use crate::job::Loaded;
use crate::topology::keeps_results;
use crate::trace::Step;

/// Parts of a ledger after which it is written anew as one.
const LEDGER_PARTS_MAX: usize = 16;

/// A claimed lane.
pub(super) struct LaneShard {
    /// The head as it will stand when the rounds under way are committed.
    head: Head,
    operator: LaneOperator,
    reader: Box<dyn SourceReader>,
    keeps_results: bool,
    /// Owners of key groups in the stage that reads the partials.
    receivers: Option<Layout>,
    edge: Edge,
}

/// What a lane's epoch read.
#[derive(Debug, Default)]
struct Read {
    rows: u64,
    bytes: u64,
    bad: Vec<BadRow>,
    from: Offset,
    upto: Offset,
    ended: bool,
}

impl Read {
    fn is_nothing(&self) -> bool {
        self.rows == 0 && self.bad.is_empty() && !self.ended && self.upto == self.from
    }
}

impl LaneShard {
    /// Opens the lane at its head's place.
    pub(super) async fn load(ctx: &Ctx, loaded: &Loaded, head: Head) -> Result<Self, WorkerError> {
        let stage = loaded.topology.stage(head.shard.stage);
        let pipeline = &loaded.plan.pipelines[stage.pipeline];
        let operator = LaneOperator::new(pipeline, loaded.key_groups, head.watermark).await?;
        let source = ctx.connectors.source(&pipeline.source, &loaded.pinned[stage.pipeline])?;
        let lanes = u32::try_from(stage.layout.shards.len()).unwrap_or(u32::MAX);
        let from = head.source.unwrap_or_default();
        let mut ledger = Vec::with_capacity(head.ledger.len());
        for part in &head.ledger {
            ledger.push(read_ledger(ctx, part).await?);
        }
        let reader = source.open_with_ledger(head.shard.shard.0, lanes, from, &ledger, &pipeline.source.projection).await?;
        let receivers =
            stage.downstream.filter(|_| pipeline.window.is_some()).map(|stage| loaded.topology.stage(stage).layout.clone());
        let edge = Edge::new(loaded, &head, ctx.tuning.edge_bytes_max, ctx.tuning.unread_bytes_max);
        Ok(Self { head, operator, reader, keeps_results: keeps_results(pipeline), receivers, edge })
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Runs one epoch and adds its commit to the round, if there is something to say (C4). Returns what merge shards of the same
    /// worker may read from memory.
    pub(super) async fn run_epoch(&mut self, ctx: &Ctx, loaded: &Loaded, round: &mut Round) -> Result<Option<Fed>, WorkerError> {
        if self.head.activity == Activity::Closed || self.edge.is_full(ctx).await? {
            return Ok(None);
        }
        let now_micros = loaded.begin_batch(ctx.clock.now_micros(), self.head.now_micros);
        let read = self.read(ctx, loaded, now_micros).await?;
        if read.is_nothing() {
            return Ok(None);
        }
        let (shard, epoch, upto) = (self.head.shard, self.head.epoch.next(), read.upto);
        ctx.progress.trace.note(ctx.clock.as_ref(), || Step::Cut { shard, epoch, upto });
        let started = ctx.clock.monotonic_micros();
        let epoch = self.operator.finish()?;
        let (published, handed) = self.publish(ctx, loaded, round, &epoch, &read)?;
        let entry = self.advance(ctx, loaded, round, published, &epoch, read, now_micros)?;
        self.edge.sent(&entry);
        ctx.progress.encode_micros.add_between(started, ctx.clock.monotonic_micros());
        Ok(Some(Fed { from: self.head.shard, entry, rows: Arc::new(handed) }))
    }

    /// Reads until the interval, a budget, the source's end or a stop.
    async fn read(&mut self, ctx: &Ctx, loaded: &Loaded, now_micros: i64) -> Result<Read, WorkerError> {
        let tuning = &ctx.tuning;
        let skew = i64::try_from(loaded.skew_max.as_micros()).unwrap_or(i64::MAX);
        let interval = i64::try_from(tuning.commit_interval.as_micros()).unwrap_or(i64::MAX);
        let deadline = ctx.clock.monotonic_micros().saturating_add(interval);
        let (shard, from) = (self.head.shard, self.head.source.unwrap_or_default());
        let mut read = Read { from, upto: from, ..Read::default() };
        loop {
            let began = ctx.clock.monotonic_micros();
            match self.reader.next().await? {
                Pull::Rows(batch) => {
                    let decoded = ctx.clock.monotonic_micros();
                    ctx.progress.decode_micros.add_between(began, decoded);
                    ctx.progress.events.add(batch.batch.num_rows() as u64);
                    ctx.progress.source_bytes.add(batch.bytes);
                    read.rows += batch.batch.num_rows() as u64;
                    read.bytes += batch.bytes;
                    read.upto = batch.upto;
                    ctx.progress.trace.note(ctx.clock.as_ref(), || Step::Read { shard, upto: batch.upto });
                    read.bad.extend(batch.bad);
                    self.operator.push(batch.batch, now_micros.saturating_add(skew)).await?;
                    ctx.progress.execute_micros.add_between(decoded, ctx.clock.monotonic_micros());
                }
                Pull::Later if read.is_nothing() => return Ok(read),
                Pull::Later => ctx.clock.sleep(tuning.ask_again).await,
                Pull::End => {
                    read.ended = true;
                    return Ok(read);
                }
            }
            if self.is_full(tuning, &read) || ctx.stop.requested() || ctx.clock.monotonic_micros() >= deadline {
                return Ok(read);
            }
        }
    }

    fn is_full(&self, tuning: &Tuning, read: &Read) -> bool {
        read.rows >= tuning.epoch_rows_max
            || read.bad.len() >= tuning.bad_rows_max
            || self.operator.gathered_rows() >= tuning.gathered_rows_max
            || self.operator.gathered_bytes() >= tuning.gathered_bytes_max
    }

    /// Encodes what the epoch made.
    fn publish(
        &mut self,
        ctx: &Ctx,
        loaded: &Loaded,
        round: &mut Round,
        epoch: &LaneEpoch,
        read: &Read,
    ) -> Result<(Published, Handed), WorkerError> {
        let maker = Maker::new(&self.head, loaded);
        let mut published = Published::default();
        let mut handed = Handed::default();
        if let (Some(shape), Some(receivers)) = (self.operator.shape(), &self.receivers) {
            handed.exchange = by_receiver(&epoch.partials, receivers)?;
            published.add(round, ctx, maker, SegmentKind::Exchange, &shape.partial_schema, &handed.exchange)?;
            if let Some(behind) = &epoch.behind {
                let sorted = sorted_by_key_group(behind, 0, loaded.key_groups)?;
                handed.behind = by_receiver(&[sorted], receivers)?;
                published.add(round, ctx, maker, SegmentKind::Behind, self.operator.behind_schema(), &handed.behind)?;
            }
        } else if self.keeps_results && !epoch.rows.is_empty() {
            let rows = [(ShardId(0), epoch.rows.clone())];
            published.add(round, ctx, maker, SegmentKind::Output, self.operator.output_schema(), &rows)?;
        }
        let whole = self.head.ledger.len() >= LEDGER_PARTS_MAX;
        if let Some(part) = self.reader.ledger(whole) {
            if whole {
                published.replaced.append(&mut self.head.ledger);
            }
            self.head.ledger.push(published.add_ledger(round, ctx, maker, part));
        }
        if let Some(dead) = dead_letter::rows(&epoch.misfits, &read.bad, self.head.shard)? {
            published.add(round, ctx, maker, SegmentKind::Dead, &dead_letter::schema(), &[(ShardId(0), vec![dead])])?;
        }
        Ok((published, handed))
    }

    #[expect(clippy::too_many_arguments, reason = "one commit names all of it")]
    fn advance(
        &mut self,
        ctx: &Ctx,
        loaded: &Loaded,
        round: &mut Round,
        published: Published,
        epoch: &LaneEpoch,
        read: Read,
        now_micros: i64,
    ) -> Result<weir_model::CommitEntry, WorkerError> {
        let count = |rows: &[RecordBatch]| rows.iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
        let misfits: u64 = epoch.misfits.iter().map(|(_, rows)| rows.num_rows() as u64).sum();
        let dead = misfits + read.bad.len() as u64;
        let results = count(&epoch.rows);
        let dropped = if self.keeps_results { 0 } else { results };
        ctx.progress.dead.add(dead);
        ctx.progress.results.add(results);
        let stats = ShardStats {
            rows_in: read.rows + read.bad.len() as u64,
            rows_out: count(&epoch.partials) + results - dropped,
            bytes_in: read.bytes,
            bytes_out: published.bytes(),
            rows_late: 0,
            rows_dead: dead,
            rows_dropped: epoch.filtered + dropped,
            events: epoch.events,
        };
        // A lane that is closed counts in no minimum any more; its watermark stays where its rows left it (W2).
        let watermark =
            if self.operator.shape().is_some() { self.operator.watermark() } else { Watermark::NONE.max(self.head.watermark) };
        let batch = Batch {
            published,
            inputs_read: Inputs::Reference { from: read.from, upto: read.upto },
            inputs: BTreeMap::new(),
            source: Some(read.upto),
            watermark,
            activity: if read.ended { Activity::Closed } else { Activity::Active },
            now_micros,
            act_at: None,
            checkpoint: None,
            publish: None,
            stats,
        };
        round.advance(ctx, loaded, &mut self.head, batch)
    }
}

async fn read_ledger(ctx: &Ctx, ledger: &SegmentRef) -> Result<Bytes, WorkerError> {
    let failed = |source| weir_state::StateError::Store { object: ledger.object.clone(), source };
    let result = ctx.objects.get(&Path::from(ledger.object.as_str())).await.map_err(failed)?;
    Ok(result.bytes().await.map_err(failed)?)
}

/// Row groups by receiver, ascending; within one, batches in the order given.
fn by_receiver(batches: &[RecordBatch], layout: &Layout) -> Result<Vec<(ShardId, Vec<RecordBatch>)>, WorkerError> {
    let mut groups: BTreeMap<ShardId, Vec<RecordBatch>> = BTreeMap::new();
    for batch in batches {
        for (receiver, rows) in split_by_receiver(batch, 0, layout)? {
            groups.entry(receiver).or_default().push(rows);
        }
    }
    Ok(groups.into_iter().collect())
}

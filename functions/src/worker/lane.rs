//! A lane in a worker: reads its source until the interval or a budget is reached, and ends an epoch.
//!
//! A lane keeps no state but its place in the source, so loading it is opening the reader at the head's offset.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use weir_connectors::{BadRow, Pull, SourceReader};
use weir_engine::rowtime::Misfit;
use weir_engine::{LaneEpoch, LaneOperator};
use weir_model::decide::Advance;
use weir_model::{Activity, Head, Inputs, Offset, Recipe, SegmentKind, SegmentRef, ShardKey, ShardStats};
use weir_plan::Pipeline;

use super::segments::{self, Published};
use super::{Loaded, RoundWork, WorkerError};
use crate::context::Ctx;
use crate::dead_letter;
use crate::topology::keeps_results;

/// How often a lane asks a source that has nothing now.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// A claimed lane.
#[derive(Debug)]
pub(super) struct LaneShard {
    pub(super) key: ShardKey,
    /// The head as it will stand when the rounds under way are committed.
    pub(super) head: Head,
    pub(super) operator: LaneOperator,
    reader: Box<dyn SourceReader>,
    keeps_results: bool,
}

/// What a lane's epoch read.
#[derive(Debug, Default)]
struct Read {
    rows: u64,
    bytes: u64,
    bad: Vec<BadRow>,
    upto: Offset,
    ended: bool,
}

impl LaneShard {
    /// Opens the lane at its head's place.
    pub(super) async fn load(ctx: &Ctx, loaded: &Loaded, key: ShardKey, head: Head) -> Result<Self, WorkerError> {
        let stage = loaded.topology.stage(key.stage);
        let pipeline: &Pipeline = &loaded.plan.pipelines[stage.pipeline];
        let operator = LaneOperator::new(pipeline, loaded.key_groups, head.watermark).await?;
        let source = ctx.connectors.source(&pipeline.source, loaded.pinned.get(stage.pipeline))?;
        let lanes = u32::try_from(stage.layout.shards.len()).unwrap_or(u32::MAX);
        let projection = crate::connect::projection(&pipeline.source);
        let reader = source.open(key.shard.0, lanes, head.source.unwrap_or_default(), &projection)?;
        Ok(Self { key, head, operator, reader, keeps_results: keeps_results(pipeline) })
    }

    pub(super) fn closed(&self) -> bool {
        self.head.activity == Activity::Closed
    }

    /// Runs one epoch and adds its commit to the round. Returns whether there was something to say (C4).
    pub(super) async fn run_epoch(&mut self, ctx: &Ctx, loaded: &Loaded, round: &mut RoundWork) -> Result<bool, WorkerError> {
        if self.closed() {
            return Ok(false);
        }
        let now_micros = loaded.begin_batch(ctx, &self.head);
        let from = self.head.source.unwrap_or_default();
        let read = self.read(ctx, loaded, now_micros, from).await?;
        if read.rows == 0 && read.bad.is_empty() && !read.ended && read.upto == from {
            return Ok(false);
        }
        let started = ctx.clock.monotonic_micros();
        let epoch = self.operator.finish()?;
        let published = self.publish(ctx, loaded, round, &epoch, &read)?;
        ctx.progress.encode_micros.add_between(started, ctx.clock.monotonic_micros());
        self.advance(ctx, loaded, round, published, &epoch, &read, now_micros)?;
        Ok(true)
    }

    /// Reads until the interval, a budget, the source's end or a stop.
    async fn read(&mut self, ctx: &Ctx, loaded: &Loaded, now_micros: i64, from: Offset) -> Result<Read, WorkerError> {
        let tuning = &ctx.tuning;
        let latest_micros = now_micros.saturating_add(i64::try_from(loaded.skew_max.as_micros()).unwrap_or(i64::MAX));
        let deadline = ctx.clock.monotonic_micros() + i64::try_from(tuning.commit_interval.as_micros()).unwrap_or(i64::MAX);
        let mut read = Read { upto: from, ..Read::default() };
        loop {
            let began = ctx.clock.monotonic_micros();
            let pull = self.reader.next().await?;
            let decoded = ctx.clock.monotonic_micros();
            ctx.progress.decode_micros.add_between(began, decoded);
            match pull {
                Pull::Rows(batch) => {
                    read.rows += batch.batch.num_rows() as u64;
                    read.bytes += batch.bytes;
                    read.upto = batch.upto;
                    read.bad.extend(batch.bad);
                    ctx.progress.events.add(batch.batch.num_rows() as u64);
                    ctx.progress.source_bytes.add(batch.bytes);
                    self.operator.push(batch.batch, latest_micros).await?;
                    ctx.progress.execute_micros.add_between(decoded, ctx.clock.monotonic_micros());
                }
                Pull::Later if read.rows == 0 && read.bad.is_empty() => break,
                Pull::Later => ctx.clock.sleep(ASK_AGAIN).await,
                Pull::End => {
                    read.ended = true;
                    break;
                }
            }
            let full = read.rows >= tuning.epoch_rows_max || self.operator.gathered_rows() >= tuning.gathered_rows_max;
            if full || ctx.stop.requested() || ctx.clock.monotonic_micros() >= deadline {
                break;
            }
        }
        Ok(read)
    }

    /// Encodes what the epoch made; hands partials to the round's own merge shards.
    fn publish(
        &self,
        ctx: &Ctx,
        loaded: &Loaded,
        round: &mut RoundWork,
        epoch: &LaneEpoch,
        read: &Read,
    ) -> Result<Published, WorkerError> {
        let mut published = Published::default();
        let anchor = (self.key, self.head.generation);
        if let Some(shape) = self.operator.shape() {
            let layout = loaded.downstream_layout(self.key);
            let groups = segments::by_receiver(&epoch.partials, &shape.partial_schema, &layout)?;
            published.add(ctx, round, anchor, SegmentKind::Exchange, groups)?;
            if let Some(behind) = &epoch.behind {
                let groups = segments::by_receiver(&segments::sorted(behind)?, behind.schema_ref(), &layout)?;
                published.add(ctx, round, anchor, SegmentKind::Behind, groups)?;
            }
        } else if self.keeps_results {
            published.add(ctx, round, anchor, SegmentKind::Output, segments::for_publisher(&epoch.rows)?)?;
        }
        let dead = dead_letter::rows(&epoch.misfits, &read.bad, self.key)?;
        published.add(ctx, round, anchor, SegmentKind::Dead, dead.into_iter().map(|rows| (weir_model::ShardId(0), rows)).collect())?;
        Ok(published)
    }

    #[expect(clippy::too_many_arguments, reason = "one commit names all of it")]
    fn advance(
        &mut self,
        ctx: &Ctx,
        loaded: &Loaded,
        round: &mut RoundWork,
        published: Published,
        epoch: &LaneEpoch,
        read: &Read,
        now_micros: i64,
    ) -> Result<(), WorkerError> {
        let dead = epoch.misfits.iter().map(|(_, rows)| rows.num_rows() as u64).sum::<u64>() + read.bad.len() as u64;
        let results: u64 = epoch.rows.iter().map(|rows| rows.num_rows() as u64).sum();
        Ok(())
    }
}

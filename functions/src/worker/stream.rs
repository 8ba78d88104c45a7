//! The lanes of a stream as one lane of a job reads them: as a receiver, with positions in its own head.
//!
//! An epoch of the job's lane takes what is known when it begins, in the order (stream lane, epoch, row): its recipe names exactly
//! that (R2). Never: waits for a stream lane that has nothing; a lane all of whose stream lanes are idle says so (W1).

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;
use weir_engine::LaneOperator;
use weir_model::head::InputState;
use weir_model::{Activity, Epoch, Head, InputCut, Inputs, SegmentKind, ShardId};

use super::WorkerError;
use super::learn::{Unread, Upstream, rows_of};
use super::replay::{Upstreams, entries_of};
use super::sample::Sample;
use super::source::Read;
use crate::context::Ctx;
use crate::stream::Attached;

/// Stream lanes of one lane of a job.
#[derive(Debug)]
pub(super) struct StreamInput {
    upstream: Vec<Upstream>,
    /// Places of the job's columns in the stream's, and their schema.
    columns: Vec<usize>,
    schema: SchemaRef,
    /// Earliest instant of the next epoch: the commit interval is what an epoch waits for more.
    next_at: i64,
}

impl StreamInput {
    /// Lane `n` of `lanes` reads every stream lane whose number leaves the remainder `n`.
    ///
    /// - `schema`: columns that the job's lane reads.
    pub(super) fn new(stream: &Attached, head: &Head, lanes: usize, schema: SchemaRef) -> Self {
        let own = head.shard.shard.0 as usize;
        let shards = stream.row.shards().into_iter().enumerate().filter(|(number, _)| number % lanes.max(1) == own);
        let upstream = shards.map(|(_, shard)| Upstream::new(shard, head.input(shard))).collect();
        Self { upstream, columns: stream.columns.clone(), schema, next_at: i64::MIN }
    }

    /// Takes what the stream lanes have committed; `None` if there is nothing to say yet.
    pub(super) async fn read(
        &mut self,
        ctx: &Ctx,
        head: &Head,
        operator: &mut LaneOperator,
        latest_micros: i64,
        looks: bool,
    ) -> Result<Option<Read>, WorkerError> {
        for upstream in self.upstream.iter_mut().filter(|_| looks) {
            upstream.learn(ctx).await?;
        }
        let now = ctx.clock.monotonic_micros();
        if self.waits(ctx, head, now) {
            return Ok(None);
        }
        let interval = i64::try_from(ctx.tuning.commit_interval.as_micros()).unwrap_or(i64::MAX);
        self.next_at = now.saturating_add(interval);
        let mut read = Read::nothing(Inputs::Segments(Vec::new()));
        let mut cuts = Vec::new();
        for number in 0..self.upstream.len() {
            let before = self.upstream[number].consumed;
            self.take(number, ctx, operator, latest_micros, &mut read).await?;
            let (shard, after) = (self.upstream[number].shard, self.upstream[number].consumed);
            if after.epoch > before.epoch {
                cuts.push(InputCut { from: shard, after: before.epoch, upto: after.epoch, watermark: after.watermark });
                read.positions.insert(shard.to_string(), after);
            }
        }
        read.inputs = Inputs::Segments(cuts);
        read.activity = self.activity();
        Ok(Some(read))
    }

    /// Nothing is unread and nothing changes, or more may come before the interval is over.
    fn waits(&self, ctx: &Ctx, head: &Head, now: i64) -> bool {
        let unread_bytes: u64 = self.upstream.iter().map(|upstream| upstream.view(ShardId(0)).unread_bytes).sum();
        if self.upstream.iter().all(|upstream| upstream.unread.is_empty()) {
            let said = if head.activity == Activity::Joining { Activity::Active } else { head.activity };
            return self.activity() == said;
        }
        let leaves = ctx.stop.requested() || now >= ctx.tuning.leave_at_micros;
        now < self.next_at && unread_bytes < ctx.tuning.gathered_bytes_max as u64 && !leaves
    }

    /// Whether stream lanes have committed what was not taken.
    pub(super) fn has_unread(&self) -> bool {
        self.upstream.iter().any(|upstream| !upstream.unread.is_empty())
    }

    /// Takes unread epochs of one stream lane, as far as the epoch goes.
    async fn take(
        &mut self,
        number: usize,
        ctx: &Ctx,
        operator: &mut LaneOperator,
        latest_micros: i64,
        read: &mut Read,
    ) -> Result<(), WorkerError> {
        while !read.is_full(&ctx.tuning, operator)
            && let Some(unread) = self.upstream[number].unread.pop_front()
        {
            let began = ctx.clock.monotonic_micros();
            let batches = self.rows_of(ctx, &unread).await?;
            let decoded = ctx.clock.monotonic_micros();
            ctx.progress.decode_micros.add_between(began, decoded);
            for batch in batches {
                read.rows += batch.num_rows() as u64;
                ctx.progress.events.add(batch.num_rows() as u64);
                operator.push(batch, latest_micros).await?;
            }
            let entry = &unread.entry;
            read.bytes += entry.segments.iter().map(|segment| segment.bytes).sum::<u64>();
            ctx.progress.execute_micros.add_between(decoded, ctx.clock.monotonic_micros());
            self.upstream[number].consumed =
                InputState { epoch: entry.epoch, watermark: entry.watermark, activity: entry.activity };
        }
        Ok(())
    }

    /// Reads what another reader did: the epochs that `cuts` name.
    pub(super) async fn read_again(
        &self,
        ctx: &Ctx,
        cuts: &[InputCut],
        upstream: &Upstreams,
        operator: &mut LaneOperator,
        latest_micros: i64,
        sample: &mut Sample,
    ) -> Result<Read, WorkerError> {
        let mut read = Read::nothing(Inputs::Segments(cuts.to_vec()));
        for cut in cuts {
            for entry in entries_of(ctx, cut, upstream).await? {
                for batch in self.rows_of(ctx, &Unread::stored(entry)).await? {
                    sample.add(&batch);
                    read.rows += batch.num_rows() as u64;
                    operator.push(batch, latest_micros).await?;
                }
            }
        }
        Ok(read)
    }

    /// Rows of an epoch in the columns of the job's lane.
    async fn rows_of(&self, ctx: &Ctx, unread: &Unread) -> Result<Vec<RecordBatch>, WorkerError> {
        let batches = rows_of(ctx, unread, SegmentKind::Events, ShardId(0)).await?;
        batches.iter().map(|batch| self.conform(batch)).collect()
    }

    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch, WorkerError> {
        let columns = self.columns.iter().map(|column| Arc::clone(batch.column(*column))).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// What the stream lanes have said together; one that never said a thing is not waited for.
    fn activity(&self) -> Activity {
        let mut said = self.upstream.iter().map(|upstream| upstream.consumed);
        if said.clone().all(|said| said.activity == Activity::Closed) {
            return Activity::Closed;
        }
        let speaks = said.any(|said| said.epoch > Epoch(0) && said.activity == Activity::Active);
        if speaks { Activity::Active } else { Activity::Idle }
    }
}

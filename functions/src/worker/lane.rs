//! A lane in a worker: reads its source until the interval or a budget is reached, and ends an epoch.
//!
//! A lane keeps no state but its place in the source, so loading it is opening the reader at the head's offset.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use weir_connectors::SourceReader;
use weir_engine::{LaneEpoch, LaneOperator};
use weir_model::decide::{decide_join, travels_as_rows};
use weir_model::layout::Layout;
use weir_model::{Activity, Epoch, Head, Inputs, Recipe, SegmentKind, ShardId, ShardStats, Watermark};
use weir_state::key_sort::sorted_by_key_group;
use weir_state::split_by_receiver;

use super::WorkerError;
use super::edge::Edge;
use super::learn::{Fed, Handed};
use super::replay::Upstreams;
use super::round::{Batch, Maker, Published, Round};
use super::sample::Sample;
use super::source::{self, Quiet, Read};
use super::stream::StreamInput;
use crate::connect::Pinned;
use crate::context::Ctx;
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
    input: LaneInput,
    keeps_results: bool,
    /// Owners of key groups in the stage that reads the partials.
    receivers: Option<Layout>,
    edge: Edge,
    /// An epoch from which on it has been joining; `None` if it is not.
    joining_since: Option<Epoch>,
    /// Whether it did not read because its receivers must catch up first.
    blocked: bool,
}

/// Where a lane's rows come from.
enum LaneInput {
    /// A source that can replay.
    Source(Box<dyn SourceReader>, Quiet),
    /// Lanes of a stream.
    Stream(StreamInput),
}

impl LaneInput {
    /// What the places in a source mean, if that has changed; positions in a stream mean the same for ever.
    fn ledger(&mut self, whole: bool) -> Option<Bytes> {
        match self {
            Self::Source(reader, _) => reader.ledger(whole),
            Self::Stream(_) => None,
        }
    }
}

impl LaneShard {
    /// Opens the lane at its head's place.
    pub(super) async fn load(ctx: &Ctx, loaded: &Loaded, head: Head) -> Result<Self, WorkerError> {
        let stage = loaded.topology.stage(head.shard.stage);
        let pipeline = &loaded.plan.pipelines[stage.pipeline];
        let operator = LaneOperator::new(pipeline, loaded.key_groups, head.watermark).await?;
        let lanes = stage.layout.shards.len();
        let input = match &loaded.pinned[stage.pipeline] {
            Pinned::Stream(stream) => {
                LaneInput::Stream(StreamInput::new(stream, &head, lanes, Arc::clone(operator.source_schema())))
            }
            pinned => {
                let reader = source::open(ctx, &pipeline.source, pinned, &head, lanes).await?;
                LaneInput::Source(reader, Quiet::new(pipeline.source.idle_after_micros, &head))
            }
        };
        let receivers = loaded.topology.merged_by(stage.id).cloned();
        let edge = Edge::new(loaded, &head, ctx.tuning.edge_bytes_max, ctx.tuning.unread_bytes_max);
        let keeps_results = keeps_results(pipeline);
        let joining = head.recent.iter().rev().take_while(|entry| entry.activity == Activity::Joining);
        let first = joining.last().map_or(head.epoch, |entry| entry.epoch);
        let joining_since = (head.activity == Activity::Joining).then_some(first);
        Ok(Self { head, operator, input, keeps_results, receivers, edge, joining_since, blocked: false })
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Runs one epoch and adds its commit to the round, if there is something to say (C4). Returns what merge shards of the same
    /// worker may read from memory.
    pub(super) async fn run_epoch(&mut self, ctx: &Ctx, loaded: &Loaded, round: &mut Round) -> Result<Option<Fed>, WorkerError> {
        self.blocked = self.head.activity != Activity::Closed && self.edge.is_full(ctx).await?;
        if self.head.activity == Activity::Closed || self.blocked {
            return Ok(None);
        }
        let now_micros = loaded.begin_batch(ctx.clock.now_micros(), self.head.now_micros);
        let as_rows = self.operator.folds_by_time() && travels_as_rows(self.head.activity);
        self.operator.send_as_rows(as_rows);
        let Some(mut read) = self.read(ctx, loaded, now_micros, round.looks).await? else { return Ok(None) };
        read.activity = self.join(ctx, read.activity).await?;
        let (shard, epoch, upto) = (self.head.shard, self.head.epoch.next(), read.upto().unwrap_or_default());
        ctx.progress.trace.note(ctx.clock.as_ref(), || Step::Cut { shard, epoch, upto });
        let started = ctx.clock.monotonic_micros();
        let epoch = self.operator.finish()?;
        let (published, handed) = self.publish(ctx, loaded, round, &epoch, &read)?;
        let entry = self.advance(ctx, loaded, round, published, &epoch, read, (now_micros, as_rows))?;
        self.edge.sent(&entry);
        self.joining_since = (entry.activity == Activity::Joining).then(|| self.joining_since.unwrap_or(entry.epoch));
        ctx.progress.encode_micros.add_between(started, ctx.clock.monotonic_micros());
        Ok(Some(Fed { from: self.head.shard, entry, rows: Arc::new(handed) }))
    }

    /// What the lane says of itself with this epoch, its source having said `now`; moves its watermark to the one that it finds (W2).
    async fn join(&mut self, ctx: &Ctx, now: Activity) -> Result<Activity, WorkerError> {
        if !self.operator.folds_by_time() {
            return Ok(now);
        }
        let found = match self.joining_since {
            Some(since) if now == Activity::Active => self.edge.found_by_joining(ctx, since).await?,
            _ => None,
        };
        let (activity, watermark) = decide_join(self.head.activity, now, self.operator.watermark(), found);
        self.operator.advance(watermark);
        Ok(activity)
    }

    /// Runs the batch of `recipe` again, the lane having been loaded at the head before it; nothing is stored.
    ///
    /// - `upstream`: heads of the lanes of a stream that it reads. - `sample`: takes what it reads.
    pub(super) async fn run_again(
        &mut self,
        ctx: &Ctx,
        loaded: &Loaded,
        recipe: &Recipe,
        upstream: &Upstreams,
        sample: &mut Sample,
    ) -> Result<(Published, Round), WorkerError> {
        loaded.plan.clock.set(recipe.now_micros);
        let latest = latest_micros(loaded, recipe.now_micros);
        let operator = &mut self.operator;
        operator.send_as_rows(recipe.as_rows);
        let read = match (&mut self.input, &recipe.inputs) {
            (LaneInput::Source(reader, _), Inputs::Reference { from, upto }) => {
                source::read_again(reader.as_mut(), operator, (*from, *upto), latest, sample).await?
            }
            (LaneInput::Stream(stream), Inputs::Segments(cuts)) => {
                stream.read_again(ctx, cuts, upstream, operator, latest, sample).await?
            }
            (LaneInput::Source(..), Inputs::Segments(_)) | (LaneInput::Stream(_), Inputs::Reference { .. }) => {
                return Err(WorkerError::Task(format!("shard {}: its recipe is of another source", self.head.shard)));
            }
        };
        let epoch = self.operator.finish()?;
        let mut scratch = Round::new(ctx, false);
        let (published, _) = self.publish(ctx, loaded, &mut scratch, &epoch, &read)?;
        Ok((published, scratch))
    }

    /// Whether it has to be asked again and again for what nobody announces.
    pub(super) fn polls(&self) -> bool {
        self.head.activity != Activity::Closed && matches!(self.input, LaneInput::Source(..))
    }

    /// Whether rows are known to have come that it has not taken.
    pub(super) fn gathers(&self) -> bool {
        match &self.input {
            LaneInput::Source(..) => false,
            LaneInput::Stream(stream) => !self.blocked && stream.has_unread(),
        }
    }

    /// Whether its receivers must catch up first; that they have is told to nobody.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    async fn read(&mut self, ctx: &Ctx, loaded: &Loaded, now_micros: i64, looks: bool) -> Result<Option<Read>, WorkerError> {
        let latest_micros = latest_micros(loaded, now_micros);
        match &mut self.input {
            LaneInput::Source(reader, quiet) => {
                source::read(reader.as_mut(), quiet, ctx, &self.head, &mut self.operator, latest_micros).await
            }
            LaneInput::Stream(stream) => stream.read(ctx, &self.head, &mut self.operator, latest_micros, looks).await,
        }
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
        if let Some(part) = self.input.ledger(whole) {
            if whole {
                published.replaced.append(&mut self.head.ledger);
            }
            self.head.ledger.push(published.add_ledger(round, ctx, maker, part));
        }
        if let Some(dead) = dead_letter::rows(epoch, &read.bad, self.head.shard)? {
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
        (now_micros, as_rows): (i64, bool),
    ) -> Result<weir_model::CommitEntry, WorkerError> {
        let count = |rows: &[RecordBatch]| rows.iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
        let misfits: u64 = epoch.misfits.iter().map(|(_, rows)| rows.num_rows() as u64).sum();
        let dead = misfits + (epoch.failed.len() + read.bad.len()) as u64;
        let results = count(&epoch.rows);
        let dropped = if self.keeps_results { 0 } else { results };
        ctx.progress.dead.add(dead);
        ctx.progress.results.add(results);
        let stats = ShardStats {
            rows_in: read.rows + read.bad.len() as u64,
            rows_out: count(&epoch.partials) + count(epoch.behind.as_slice()) + results - dropped,
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
            source: read.upto(),
            inputs_read: read.inputs,
            inputs: read.positions,
            watermark,
            activity: read.activity,
            now_micros,
            early: false,
            as_rows,
            act_at: None,
            checkpoint: None,
            publish: None,
            stats,
        };
        round.advance(ctx, loaded, &mut self.head, batch)
    }
}

/// Latest event time that is not quarantined in a batch at `now_micros` (W3).
fn latest_micros(loaded: &Loaded, now_micros: i64) -> i64 {
    now_micros.saturating_add(i64::try_from(loaded.skew_max.as_micros()).unwrap_or(i64::MAX))
}

/// Row groups by receiver, ascending; within one, batches in the order given.
pub(super) fn by_receiver(batches: &[RecordBatch], layout: &Layout) -> Result<Vec<(ShardId, Vec<RecordBatch>)>, WorkerError> {
    let mut groups: BTreeMap<ShardId, Vec<RecordBatch>> = BTreeMap::new();
    for batch in batches {
        for (receiver, rows) in split_by_receiver(batch, 0, layout)? {
            groups.entry(receiver).or_default().push(rows);
        }
    }
    Ok(groups.into_iter().collect())
}

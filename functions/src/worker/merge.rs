//! A merge shard in a worker: learns what its upstream committed, runs when it has something to say, and is rebuilt from its
//! checkpoint and the recipes since (`replay.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use weir_engine::{MergeOperator, Moment, StateBudget, slice_bytes};
use weir_model::check_invariant;
use weir_model::decide::{Run, activity_after, cache_is_valid, combined, decide_run};
use weir_model::head::InputState;
use weir_model::layout::Layout;
use weir_model::{Activity, Head, InputCut, Inputs, SegmentKind, ShardId, ShardKey, ShardStats, StageId, Watermark};

use super::checkpoint::{Pending, Reached};
use super::edge::Edge;
use super::lane::by_receiver;
use super::learn::{Fed, Handed, Unread, Upstream, rows_of};
use super::replay::rebuild;
use super::round::{Batch, Maker, Published, Round};
use super::{Warm, WorkerError};
use crate::context::Ctx;
use crate::job::Loaded;
use crate::topology::{Role, keeps_results};

/// A claimed merge shard.
pub(super) struct MergeShard {
    pub(super) head: Head,
    pub(super) operator: MergeOperator,
    upstream: Vec<Upstream>,
    goal: Goal,
    /// What it has sent to another aggregate.
    edge: Edge,
    /// Whether it did not run because its receivers must catch up first.
    blocked: bool,
    /// What a load would replay now (C5).
    pub(super) pending: Pending,
    early: EarlyClock,
}

/// Where what a merge shard gives goes.
#[derive(Debug)]
pub(super) enum Goal {
    /// To the shards of another aggregate, which own these key groups.
    Aggregate(Layout),
    /// To the publisher.
    Sink,
    /// Counted and dropped.
    Nowhere,
}

impl Goal {
    pub(super) fn of(loaded: &Loaded, stage: StageId) -> Self {
        match loaded.topology.merged_by(stage) {
            Some(layout) => Self::Aggregate(layout.clone()),
            None if keeps_results(&loaded.plan.pipelines[loaded.topology.stage(stage).pipeline]) => Self::Sink,
            None => Self::Nowhere,
        }
    }
}

/// When early results are due: what it decides is recorded in the recipe.
#[derive(Debug, Default)]
struct EarlyClock {
    /// When they were given last, on the monotonic clock.
    given_at: Option<i64>,
    /// Whether the worker leaves after the next ones, so that nothing is gained by waiting.
    hurries: bool,
}

impl EarlyClock {
    fn is_due(&self, now_micros: i64, every_micros: i64) -> bool {
        self.hurries || self.given_at.is_none_or(|at| now_micros.saturating_sub(at) >= every_micros)
    }
}

/// Rows of one epoch of one upstream shard, in the order in which they are folded (R2).
pub(super) struct EpochInput {
    pub(super) partials: Vec<RecordBatch>,
    pub(super) behind: Vec<RecordBatch>,
}

impl EpochInput {
    /// Memory that its rows take; what several share each counts its part.
    fn bytes(&self) -> usize {
        self.partials.iter().chain(&self.behind).map(slice_bytes).sum()
    }
}

impl MergeShard {
    /// Takes the warm operator if it is still that of the head (C2), else rebuilds it.
    pub(super) async fn load(ctx: &Ctx, loaded: &Loaded, head: Head) -> Result<Self, WorkerError> {
        let warm = ctx.warm.take(head.shard).filter(|warm| cache_is_valid(&head, warm.left_at));
        let mut operator = fresh_operator(ctx, loaded, head.shard).await?;
        let mut head = head;
        let pending = match warm {
            Some(warm) => {
                operator.adopt(warm.operator);
                warm.pending
            }
            None => {
                let replayed = rebuild(ctx, loaded, &head, &mut operator).await?;
                head.replayed_bytes += replayed.bytes();
                replayed
            }
        };
        let mut upstream: Vec<Upstream> =
            loaded.topology.upstream_of(head.shard).into_iter().map(|shard| Upstream::new(shard, head.input(shard))).collect();
        for input in &mut upstream {
            input.learn(ctx).await?;
        }
        ctx.progress.open_panes.set(head.shard, operator.open_panes() as u64);
        let goal = Goal::of(loaded, head.shard.stage);
        let edge = Edge::new(loaded, &head, ctx.tuning.edge_bytes_max, ctx.tuning.unread_bytes_max);
        let early = EarlyClock::default();
        Ok(Self { head, operator, upstream, goal, edge, blocked: false, pending, early })
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// The operator and the commit it is at.
    pub(super) fn into_warm(self) -> (ShardKey, Warm) {
        (self.head.shard, Warm { left_at: self.head.last_commit, operator: self.operator, pending: self.pending })
    }

    /// Whether its receivers must catch up first; that they have is told to nobody.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Takes an epoch of a shard that it reads from in the same worker.
    pub(super) fn hand_over(&mut self, fed: &Fed) {
        if let Some(upstream) = self.upstream.iter_mut().find(|upstream| upstream.shard == fed.from) {
            upstream.hand_over(fed);
        }
    }

    /// Runs a batch if there is something to say (C4), and adds its commit to the round. Returns what merge shards of the same worker may
    /// read from memory.
    pub(super) async fn run_if_needed(
        &mut self,
        ctx: &Ctx,
        loaded: &Loaded,
        round: &mut Round,
    ) -> Result<Option<Fed>, WorkerError> {
        let sends = matches!(self.goal, Goal::Aggregate(_)) && self.head.activity != Activity::Closed;
        self.blocked = sends && self.edge.is_full(ctx).await?;
        if self.blocked {
            return Ok(None);
        }
        for upstream in self.upstream.iter_mut().filter(|_| round.looks) {
            upstream.learn(ctx).await?;
        }
        let receiver = self.head.shard.shard;
        let views: Vec<_> = self.upstream.iter().map(|upstream| upstream.view(receiver)).collect();
        let known = combined(self.head.watermark, views.iter().map(|view| (view.watermark, view.activity)));
        let crosses = self.operator.acts_on_rows(self.head.watermark, known.watermark);
        let closed = self.head.activity == Activity::Closed;
        let run = decide_run(self.head.watermark, &views, self.operator.act_at(), crosses, ctx.tuning.unread_bytes_max, closed);
        let early = !closed && self.early_is_due(ctx) && self.has_early();
        if run == Run::Wait && !early {
            return Ok(None);
        }
        self.run(ctx, loaded, round, early).await
    }

    /// Whether open windows have, or may get from rows that are not read yet, results to give early.
    fn has_early(&self) -> bool {
        let receiver = self.head.shard.shard;
        let unread = |upstream: &Upstream| upstream.view(receiver).unread_rows > 0;
        self.operator.early_every().is_some() && (self.operator.has_news() || self.upstream.iter().any(unread))
    }

    fn early_is_due(&self, ctx: &Ctx) -> bool {
        let now = ctx.clock.monotonic_micros();
        self.operator.owes_early() || self.operator.early_every().is_some_and(|every| self.early.is_due(now, every))
    }

    /// The worker leaves for want of work: gives early results with the next round without waiting for their time. Returns whether there are
    /// any; nobody need come for them later then.
    pub(super) fn hurry(&mut self) -> bool {
        self.early.hurries = self.head.activity != Activity::Closed && self.has_early();
        self.early.hurries
    }

    async fn run(&mut self, ctx: &Ctx, loaded: &Loaded, round: &mut Round, early: bool) -> Result<Option<Fed>, WorkerError> {
        let began = ctx.clock.monotonic_micros();
        let now_micros = loaded.begin_batch(ctx.clock.now_micros(), self.head.now_micros);
        self.operator.set_now(now_micros);
        let (input, cuts, inputs, rows_in, bytes_in) = self.take_unread(ctx).await?;
        let states: Vec<InputState> = self.upstream.iter().map(|upstream| upstream.consumed).collect();
        let after = combined(self.head.watermark, states.iter().map(|state| (state.watermark, state.activity)));
        let late = fold(&mut self.operator, &input, self.head.watermark).await?;
        drop(input);
        let rows = self.operator.fire(Moment { after: after.watermark, early }).await?;
        let executed = ctx.clock.monotonic_micros();
        if early {
            self.early = EarlyClock { given_at: Some(executed), hurries: false };
        }
        ctx.progress.execute_micros.add_between(began, executed);

        let maker = Maker::new(&self.head, loaded);
        let (mut published, handed) = publish(round, ctx, maker, &self.operator, &rows, &late, &self.goal)?;
        let given: u64 = rows.iter().map(|rows| rows.num_rows() as u64).sum();
        let late_rows: u64 = late.iter().map(|rows| rows.num_rows() as u64).sum();
        ctx.progress.results.add(if self.operator.feeds_another() { 0 } else { given });
        ctx.progress.late.add(late_rows);
        ctx.progress.open_panes.set(self.head.shard, self.operator.open_panes() as u64);
        self.pending.add(bytes_in, executed - began, now_micros);
        let reached = Reached { watermark: after.watermark, now_micros, inputs: &inputs };
        let checkpoint = self.checkpoint_if_due(ctx, loaded, round, &mut published, &reached).await?;
        let stats = ShardStats {
            rows_in,
            rows_out: if matches!(self.goal, Goal::Nowhere) { 0 } else { given },
            bytes_in,
            bytes_out: published.bytes(),
            rows_late: late_rows,
            rows_dead: 0,
            rows_dropped: if matches!(self.goal, Goal::Nowhere) { given } else { 0 },
            events: 0,
        };
        let batch = Batch {
            published,
            inputs_read: Inputs::Segments(cuts),
            inputs,
            source: None,
            watermark: after.watermark,
            activity: activity_after(after.activity, self.operator.is_due(after.watermark)),
            now_micros,
            early,
            as_rows: false,
            act_at: self.operator.act_at(),
            checkpoint,
            publish: None,
            stats,
        };
        let entry = round.advance(ctx, loaded, &mut self.head, batch)?;
        ctx.progress.encode_micros.add_between(executed, ctx.clock.monotonic_micros());
        if !self.operator.feeds_another() {
            return Ok(None);
        }
        self.edge.sent(&entry);
        Ok(Some(Fed { from: self.head.shard, entry, rows: Arc::new(handed) }))
    }

    /// Everything known and not consumed, upstream by upstream, epoch by epoch (R2), up to the memory for a batch; the rest comes with the
    /// next one: the cuts say which (R1).
    async fn take_unread(
        &mut self,
        ctx: &Ctx,
    ) -> Result<(Vec<EpochInput>, Vec<InputCut>, BTreeMap<String, InputState>, u64, u64), WorkerError> {
        let receiver = self.head.shard.shard;
        let (mut input, mut cuts, mut inputs) = (Vec::new(), Vec::new(), BTreeMap::new());
        let (mut rows, mut bytes) = (0, 0);
        let (mut room, mut waiting) = (ctx.tuning.merge_bytes_max, self.upstream.len());
        for upstream in &mut self.upstream {
            // What one leaves of its share the others have.
            let share = (room / waiting.max(1)).max(1);
            let (view, before) = (upstream.view(receiver), upstream.consumed);
            let mut taken = 0;
            while taken < share
                && let Some(unread) = upstream.unread.pop_front()
            {
                check_invariant!(Cc1, unread.entry.epoch == upstream.consumed.epoch.next(), "{} skips an epoch", upstream.shard);
                let epoch = epoch_input(ctx, &unread, receiver).await?;
                taken += epoch.bytes();
                input.push(epoch);
                let entry = &unread.entry;
                upstream.consumed = InputState { epoch: entry.epoch, watermark: entry.watermark, activity: entry.activity };
            }
            (room, waiting) = (room.saturating_sub(taken), waiting - 1);
            let rest = upstream.view(receiver);
            rows += view.unread_rows - rest.unread_rows;
            bytes += view.unread_bytes.saturating_sub(rest.unread_bytes);
            if upstream.consumed.epoch > before.epoch {
                let consumed = upstream.consumed;
                cuts.push(InputCut {
                    from: upstream.shard,
                    after: before.epoch,
                    upto: consumed.epoch,
                    watermark: consumed.watermark,
                });
                inputs.insert(upstream.shard.to_string(), consumed);
            }
        }
        Ok((input, cuts, inputs, rows, bytes))
    }
}

/// The operator of a merge shard, without state.
pub(super) async fn fresh_operator(ctx: &Ctx, loaded: &Loaded, shard: ShardKey) -> Result<MergeOperator, WorkerError> {
    let stage = loaded.topology.stage(shard.stage);
    let pipeline = &loaded.plan.pipelines[stage.pipeline];
    let key_groups = stage.layout.shards.iter().find(|found| found.shard == shard.shard).map(|found| found.range);
    // A worker has a shard of each merge stage.
    let stages = loaded.topology.stages.iter().filter(|stage| stage.role == Role::Merge).count().max(1);
    let budget = StateBudget { key_groups, bytes_max: ctx.tuning.state.bytes_max / stages, ..ctx.tuning.state.clone() };
    let operator = MergeOperator::new(pipeline, stage.aggregate, loaded.key_groups, budget).await?;
    let operator = operator.ok_or_else(|| WorkerError::Task(format!("stage {} has no aggregate", shard.stage)))?;
    Ok(operator.with_fired_rows_max(ctx.tuning.fired_rows_max))
}

pub(super) async fn epoch_input(ctx: &Ctx, unread: &Unread, receiver: ShardId) -> Result<EpochInput, WorkerError> {
    Ok(EpochInput {
        partials: rows_of(ctx, unread, SegmentKind::Exchange, receiver).await?,
        behind: rows_of(ctx, unread, SegmentKind::Behind, receiver).await?,
    })
}

/// Folds epochs in order; returns the rows whose window took none any more before the batch (R3).
pub(super) async fn fold(
    operator: &mut MergeOperator,
    input: &[EpochInput],
    before: Watermark,
) -> Result<Vec<RecordBatch>, WorkerError> {
    let mut late = Vec::new();
    for epoch in input {
        for rows in &epoch.partials {
            operator.merge(rows)?;
        }
        for rows in &epoch.behind {
            late.extend(operator.merge_behind(rows, before).await?);
        }
    }
    Ok(late)
}

/// Encodes what a batch gave. Returns with it what goes to another aggregate.
pub(super) fn publish(
    round: &mut Round,
    ctx: &Ctx,
    maker: Maker,
    operator: &MergeOperator,
    rows: &[RecordBatch],
    late: &[RecordBatch],
    goal: &Goal,
) -> Result<(Published, Handed), WorkerError> {
    let mut published = Published::default();
    let mut handed = Handed::default();
    match goal {
        Goal::Aggregate(layout) => {
            handed.exchange = by_receiver(rows, layout)?;
            published.add(round, ctx, maker, SegmentKind::Exchange, operator.output_schema(), &handed.exchange)?;
        }
        Goal::Sink if rows.iter().any(|rows| rows.num_rows() > 0) => {
            published.add(round, ctx, maker, SegmentKind::Output, operator.output_schema(), &[(ShardId(0), rows.to_vec())])?;
        }
        Goal::Sink | Goal::Nowhere => {}
    }
    if let Some(schema) = operator.late_schema().filter(|_| !late.is_empty()) {
        published.add(round, ctx, maker, SegmentKind::Late, schema, &[(ShardId(0), late.to_vec())])?;
    }
    Ok((published, handed))
}

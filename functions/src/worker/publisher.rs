//! A publisher: one more receiver, whose head says what its target has acknowledged (X5).
//!
//! ```text
//! commit: "I will append these epochs to that file"  -->  do it  -->  commit: "done", and the next step
//! ```
//! After a crash the step named last is carried out again by whoever comes; the target makes that harmless.

use std::collections::BTreeMap;
use std::io::Write;

use datafusion::arrow::array::RecordBatch;
use weir_connectors::encode;
use weir_connectors::files::Format;
use weir_connectors::sink::{Snapshots, Step, StepOutcome};
use weir_coordinator::ClaimOutcome;
use weir_model::head::{InputState, Owner, PendingPublish, PublishState};
use weir_model::{Activity, Head, InputCut, Inputs, SegmentKind, ShardId, ShardKey, ShardStats, Watermark};
use weir_plan::SinkTable;
use weir_state::manifest::{Entries, entries_between};

use super::WorkerError;
use super::claiming::{Claiming, hand_on, is_held_now};
use super::learn::{Unread, Upstream, rows_of};
use super::round::{Batch, Published, Round};
use super::snapshots;
use crate::changelog;
use crate::connect::Target;
use crate::context::Ctx;
use crate::job::Loaded;
use crate::trace::Step as Traced;

/// Epochs without rows after which a publisher says that it has seen them, so that they can be deleted.
const QUIET_EPOCHS: usize = 16;

/// A claimed publisher.
pub(super) struct PublisherShard {
    head: Head,
    target: Target,
    /// Of a changelog in files.
    snapshots: Option<Snapshots>,
    upstream: Vec<Upstream>,
    /// Rows of the step named by the head, if this process read them.
    rows: Option<Vec<RecordBatch>>,
}

fn sink_of(loaded: &Loaded, shard: ShardKey) -> &SinkTable {
    &loaded.plan.pipelines[loaded.topology.stage(shard.stage).pipeline].sink
}

fn open(ctx: &Ctx, loaded: &Loaded, shard: ShardKey) -> Result<Target, WorkerError> {
    Ok(match ctx.connectors.target(sink_of(loaded, shard), shard)? {
        Target::Files(target) => Target::Files(target.owned_by(ctx.owner)),
        other @ (Target::Postgres(_) | Target::Print) => other,
    })
}

/// Claims a publisher. The staging folder of its generation is made before: a zombie never makes one (see the file sink); and only if the
/// shard is free as far as `head` knows, so that whoever waits for a living holder makes none.
pub(super) async fn claim(ctx: &Ctx, loaded: &Loaded, head: &Head, claimant: &Owner) -> Result<Claiming, WorkerError> {
    if is_held_now(ctx, head, claimant) {
        return Ok(Claiming::NotNow);
    }
    let hint = |id| ctx.liveness.of(id);
    let generation = head.generation.next();
    let target = open(ctx, loaded, head.shard)?;
    if let Target::Files(target) = &target {
        target.prepare(generation)?;
    }
    match weir_coordinator::claim(ctx.table.as_ref(), head.shard, claimant, ctx.clock.now_micros(), hint).await? {
        ClaimOutcome::Claimed(claim) if claim.head.generation == generation => return Ok(Claiming::Claimed(claim)),
        // Another claim came between: this generation has no staging folder, and must not make one any more.
        ClaimOutcome::Claimed(claim) => hand_on(ctx, vec![*claim]).await?,
        ClaimOutcome::Held { .. } | ClaimOutcome::Lost => {}
    }
    // The folder bears this owner's name: no other claimant loses it.
    if let Target::Files(target) = &target {
        target.leave(generation);
    }
    Ok(Claiming::NotNow)
}

impl PublisherShard {
    /// Fences older generations off the target, before anything else.
    pub(super) fn load(ctx: &Ctx, loaded: &Loaded, head: Head) -> Result<Self, WorkerError> {
        let target = open(ctx, loaded, head.shard)?;
        let mut snapshots = None;
        if let Target::Files(target) = &target {
            target.fence_older(head.generation)?;
            snapshots = target.snapshots();
        }
        let pending = head.publish.as_ref().and_then(|publish| publish.pending.as_ref());
        let upstream = (loaded.topology.upstream_of(head.shard).into_iter())
            .map(|shard| {
                // What a named step takes is no longer unread.
                let named = pending.and_then(|pending| pending.upto.get(&shard.to_string()).copied());
                Upstream::new(shard, named.unwrap_or_else(|| head.input(shard)))
            })
            .collect();
        Ok(Self { head, target, snapshots, upstream, rows: None })
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Leaves the target tidy.
    pub(super) fn leave(self) {
        if let Target::Files(target) = self.target {
            target.leave(self.head.generation);
        }
    }

    /// Carries out the step that the last commit named, and adds the next to the round. Called only when that commit was heard.
    pub(super) async fn step(&mut self, ctx: &Ctx, loaded: &Loaded, round: &mut Round) -> Result<(), WorkerError> {
        if self.head.activity == Activity::Closed && !self.has_pending() {
            return Ok(());
        }
        let sink = sink_of(loaded, self.head.shard);
        let mut state = self.head.publish.clone().unwrap_or_default();
        let mut acknowledged = None;
        if let Some(pending) = state.pending.take() {
            match self.carry_out(ctx, sink, &pending).await? {
                Some(StepOutcome::Done { bytes_after }) => {
                    // The next step's rows are read with these out of memory.
                    let rows = self.rows.take().unwrap_or_default();
                    ctx.progress.trace.note(ctx.clock.as_ref(), || Traced::Visible { rows });
                    ctx.progress.published.add(pending.rows);
                    state = PublishState {
                        file_number: pending.number,
                        file_bytes: bytes_after,
                        file_rows: pending.rows_before + pending.rows,
                        pending: None,
                    };
                    acknowledged = Some(pending);
                }
                Some(StepOutcome::TargetChanged) => return self.rename_step(ctx, loaded, round, state, pending),
                Some(StepOutcome::Fenced) | None => return Ok(()),
            }
        }
        let next = self.next(ctx, sink, round.looks).await?;
        let closed = self.upstream.iter().all(|upstream| upstream.consumed.activity == Activity::Closed);
        let finished = closed && next.is_empty();
        if let (Target::Files(target), Some(snapshots)) = (&self.target, &mut self.snapshots) {
            snapshots::keep(snapshots, target, &self.head, (&state, acknowledged.as_ref()), finished);
        }
        let says_something = acknowledged.is_some() || !next.is_empty() || finished || self.quiet_epochs() >= QUIET_EPOCHS;
        if !says_something {
            return Ok(());
        }
        self.commit(ctx, loaded, round, state, acknowledged, next, finished)
    }

    fn has_pending(&self) -> bool {
        self.head.publish.as_ref().is_some_and(|publish| publish.pending.is_some())
    }

    /// Epochs consumed beyond those the head knows of.
    fn quiet_epochs(&self) -> usize {
        let behind = |upstream: &Upstream| upstream.consumed.epoch.0.saturating_sub(self.head.input(upstream.shard).epoch.0);
        usize::try_from(self.upstream.iter().map(behind).sum::<u64>()).unwrap_or(usize::MAX)
    }

    /// Rows of unread epochs, up to the limits of a step.
    async fn next(&mut self, ctx: &Ctx, sink: &SinkTable, looks: bool) -> Result<Vec<RecordBatch>, WorkerError> {
        let mut rows = Vec::new();
        let (mut count, mut bytes) = (0, 0);
        for upstream in &mut self.upstream {
            if looks {
                upstream.learn(ctx).await?;
            }
            while count < ctx.tuning.publish_rows_max
                && bytes < ctx.tuning.publish_bytes_max
                && let Some(unread) = upstream.unread.pop_front()
            {
                for batch in rows_of(ctx, &unread, SegmentKind::Output, ShardId(0)).await? {
                    let batch = changelog::shown(sink, batch, unread.entry.epoch)?;
                    count += batch.num_rows() as u64;
                    bytes += batch.get_array_memory_size();
                    rows.push(batch);
                }
                let entry = &unread.entry;
                upstream.consumed = InputState { epoch: entry.epoch, watermark: entry.watermark, activity: entry.activity };
            }
        }
        Ok(rows)
    }

    async fn carry_out(
        &mut self,
        ctx: &Ctx,
        sink: &SinkTable,
        pending: &PendingPublish,
    ) -> Result<Option<StepOutcome>, WorkerError> {
        let rows = match self.rows.take() {
            Some(rows) => rows,
            None => self.read_again(ctx, sink, pending).await?,
        };
        let outcome = match &self.target {
            Target::Files(target) => {
                let step = Step {
                    number: pending.number,
                    file: pending.file.clone(),
                    bytes_before: pending.bytes_before,
                    rows_before: pending.rows_before,
                };
                target.carry_out(&step, &rows, self.head.generation)?
            }
            Target::Postgres(target) => {
                target.carry_out(pending.number, &rows).await?;
                StepOutcome::Done { bytes_after: 0 }
            }
            Target::Print => {
                print(&rows)?;
                StepOutcome::Done { bytes_after: 0 }
            }
        };
        self.rows = Some(rows);
        Ok(Some(outcome))
    }

    /// Rows of a step that another process named.
    async fn read_again(&self, ctx: &Ctx, sink: &SinkTable, pending: &PendingPublish) -> Result<Vec<RecordBatch>, WorkerError> {
        let mut rows = Vec::new();
        for upstream in &self.upstream {
            let Some(upto) = pending.upto.get(&upstream.shard.to_string()) else { continue };
            let after = self.head.input(upstream.shard).epoch;
            let (head, _) = weir_coordinator::claim::read_head(ctx.table.as_ref(), upstream.shard).await?;
            let Entries::Found(entries) = entries_between(ctx.objects.as_ref(), &head, after, upto.epoch).await? else {
                return Err(WorkerError::Gone { shard: upstream.shard, after });
            };
            for entry in entries {
                let epoch = entry.epoch;
                for batch in rows_of(ctx, &Unread::stored(entry), SegmentKind::Output, ShardId(0)).await? {
                    rows.push(changelog::shown(sink, batch, epoch)?);
                }
            }
        }
        Ok(rows)
    }

    /// Somebody else changed the file: name a new one for the same rows.
    fn rename_step(
        &mut self,
        ctx: &Ctx,
        loaded: &Loaded,
        round: &mut Round,
        mut state: PublishState,
        pending: PendingPublish,
    ) -> Result<(), WorkerError> {
        tracing::warn!(file = pending.file, "the file was changed by somebody else: its next rows go to a new file");
        if let Target::Files(target) = &self.target {
            let step = target.plan_new(pending.number);
            state.pending = Some(PendingPublish {
                number: step.number,
                file: step.file,
                bytes_before: step.bytes_before,
                rows_before: step.rows_before,
                ..pending
            });
        }
        let inputs = BTreeMap::new();
        self.advance(ctx, loaded, round, state, inputs, self.head.activity, ShardStats::default())
    }

    #[expect(clippy::too_many_arguments, reason = "one commit acknowledges a step and names the next")]
    fn commit(
        &mut self,
        ctx: &Ctx,
        loaded: &Loaded,
        round: &mut Round,
        mut state: PublishState,
        acknowledged: Option<PendingPublish>,
        next: Vec<RecordBatch>,
        finished: bool,
    ) -> Result<(), WorkerError> {
        let mut stats = ShardStats::default();
        let mut inputs = BTreeMap::new();
        if let Some(pending) = acknowledged {
            stats.rows_out = pending.rows;
            inputs.extend(pending.upto);
        }
        let reached = self.upstream.iter().map(|upstream| (upstream.shard.to_string(), upstream.consumed)).collect();
        if next.is_empty() {
            inputs.extend::<BTreeMap<_, _>>(reached);
        } else {
            let rows = next.iter().map(|rows| rows.num_rows() as u64).sum();
            let bytes = next.iter().map(|rows| rows.get_array_memory_size() as u64).sum();
            stats.rows_in = rows;
            stats.bytes_in = bytes;
            let step = match &self.target {
                Target::Files(target) => target.plan(&state, rows, bytes),
                // A step of a table is known by its number alone.
                Target::Postgres(target) => {
                    let file = target.place().to_owned();
                    Step { number: state.file_number + 1, file, bytes_before: 0, rows_before: 0 }
                }
                Target::Print => Step { number: 0, file: String::new(), bytes_before: 0, rows_before: 0 },
            };
            let Step { number, file, bytes_before, rows_before } = step;
            let named = PendingPublish { number, file, bytes_before, rows_before, upto: reached, rows };
            state.pending = Some(named);
            self.rows = Some(next);
        }
        let activity = if finished { Activity::Closed } else { Activity::Active };
        self.advance(ctx, loaded, round, state, inputs, activity, stats)
    }

    #[expect(clippy::too_many_arguments, reason = "one commit names all of it")]
    fn advance(
        &mut self,
        ctx: &Ctx,
        loaded: &Loaded,
        round: &mut Round,
        state: PublishState,
        inputs: BTreeMap<String, InputState>,
        activity: Activity,
        stats: ShardStats,
    ) -> Result<(), WorkerError> {
        let now_micros = loaded.begin_batch(ctx.clock.now_micros(), self.head.now_micros);
        let cut = |upstream: &Upstream| {
            let state = inputs.get(&upstream.shard.to_string())?;
            Some(InputCut {
                from: upstream.shard,
                after: self.head.input(upstream.shard).epoch,
                upto: state.epoch,
                watermark: state.watermark,
            })
        };
        let cuts = self.upstream.iter().filter_map(cut).collect();
        let batch = Batch {
            published: Published::default(),
            inputs_read: Inputs::Segments(cuts),
            inputs,
            source: None,
            watermark: Watermark::NONE.max(self.head.watermark),
            activity,
            now_micros,
            early: false,
            as_rows: false,
            act_at: None,
            checkpoint: None,
            publish: Some(state),
            stats,
        };
        round.advance(ctx, loaded, &mut self.head, batch).map(drop)
    }
}

fn print(rows: &[RecordBatch]) -> Result<(), WorkerError> {
    let Some(first) = rows.first() else { return Ok(()) };
    let lines = encode::encode(Format::Json, first.schema_ref(), rows)?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&lines).and_then(|()| stdout.flush()).map_err(WorkerError::Print)
}

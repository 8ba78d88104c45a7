//! Checkpoints of a merge shard: written with a commit when they cost less than the replay they save (C5).
//!
//! A large state is stored part by part while it is folded, so that it never lies in memory as a whole; what was stored before the
//! commit names it is an orphan like any other (C3).

use std::collections::BTreeMap;
use std::time::Duration;

use weir_engine::Extent;
use weir_model::decide::{CheckpointDecision, ReplayCost, decide_checkpoint};
use weir_model::head::{CheckpointRef, InputState};
use weir_model::{SegmentKind, SegmentRef, Watermark};
use weir_state::checkpoint::PartWriter;
use weir_state::paths::{self, Folder};

use super::WorkerError;
use super::committer::put;
use super::merge::MergeShard;
use super::round::{Published, Round};
use crate::context::Ctx;
use crate::job::Loaded;

/// What a load would replay: the batches since the last checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pending {
    /// Segment bytes they read.
    bytes: u64,
    /// Time their folding and firing took here, or their replay where they were loaded.
    time: Duration,
    /// The oldest one's instant.
    since_micros: Option<i64>,
}

impl Pending {
    /// One more batch.
    pub(super) fn add(&mut self, bytes: u64, micros: i64, now_micros: i64) {
        self.bytes += bytes;
        self.time += Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        self.since_micros.get_or_insert(now_micros);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn age(&self, now_micros: i64) -> Duration {
        let micros = self.since_micros.map_or(0, |since| now_micros.saturating_sub(since));
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

/// Where a shard stands after a batch.
#[derive(Debug)]
pub(super) struct Reached<'a> {
    pub(super) watermark: Watermark,
    pub(super) now_micros: i64,
    /// Inputs that the batch moved.
    pub(super) inputs: &'a BTreeMap<String, InputState>,
}

/// Small objects of a checkpoint past which the next has all of the state: a load reads each, and the head names each.
const OBJECTS_MAX: usize = 16;

impl MergeShard {
    /// A checkpoint where a load would replay too much, or where there is no state to store; none while a pane fires in parts.
    pub(super) async fn checkpoint_if_due(
        &mut self,
        ctx: &Ctx,
        loaded: &Loaded,
        round: &mut Round,
        published: &mut Published,
        reached: &Reached<'_>,
    ) -> Result<Option<CheckpointRef>, WorkerError> {
        let epoch = self.head.epoch.next();
        if self.operator.is_firing() {
            return Ok(None);
        }
        if !self.operator.is_empty()
            && decide_checkpoint(&self.replay_cost(reached.now_micros), &ctx.tuning.checkpoints) == CheckpointDecision::Wait
        {
            return Ok(None);
        }
        let extent = self.extent();
        let stored = self.store_state(ctx, loaded, round, extent).await?;
        self.pending = Pending::default();
        let earlier = self.head.checkpoint.as_ref().map(|last| last.objects.clone()).unwrap_or_default();
        // Named by its entry too, so that the collector finds it once a newer one has taken its place.
        published.segments.extend(stored.iter().cloned());
        let objects = match extent {
            Extent::Changed => [earlier, stored].concat(),
            Extent::Whole => {
                published.replaced.extend(earlier);
                stored
            }
        };
        let mut inputs = self.head.inputs.clone();
        inputs.extend(reached.inputs.iter().map(|(name, state)| (name.clone(), *state)));
        Ok(Some(CheckpointRef { epoch, objects, inputs, watermark: reached.watermark }))
    }

    /// All of the state once what has changed since has made the objects too many, or their rows twice as many as the keys.
    fn extent(&self) -> Extent {
        let Some((changed, last)) = self.operator.changed().zip(self.head.checkpoint.as_ref()) else { return Extent::Whole };
        let rows = last.objects.iter().map(SegmentRef::rows).sum::<u64>() + changed as u64;
        // A large state has many objects itself; those that came since are smaller, or their rows too many.
        let largest = last.objects.iter().map(|object| object.bytes).max().unwrap_or_default();
        let small = last.objects.iter().filter(|object| 2 * object.bytes < largest).count();
        let is_long = small >= OBJECTS_MAX || rows > 2 * self.operator.groups() as u64;
        if last.objects.is_empty() || is_long { Extent::Whole } else { Extent::Changed }
    }

    /// Bytes of the next checkpoint, row by row as large as the last.
    fn next_bytes(&self) -> u64 {
        let Some(last) = &self.head.checkpoint else { return 0 };
        let bytes = last.objects.iter().map(|object| object.bytes).sum::<u64>();
        let rows = last.objects.iter().map(SegmentRef::rows).sum::<u64>();
        match (self.extent(), self.operator.changed()) {
            (Extent::Changed, Some(changed)) => (bytes * changed as u64).checked_div(rows).unwrap_or(0),
            _ => bytes,
        }
    }

    fn replay_cost(&self, now_micros: i64) -> ReplayCost {
        let last = self.head.checkpoint.as_ref();
        let bytes = self.next_bytes();
        let epoch = last.map(|last| last.epoch).unwrap_or_default();
        ReplayCost {
            replayed_bytes: self.head.replayed_bytes,
            pending_bytes: self.pending.bytes,
            pending_epochs: self.head.epoch.next().0 - epoch.0,
            pending_time: self.pending.time,
            since_last: self.pending.age(now_micros),
            checkpoint_bytes: bytes,
        }
    }

    /// Stores all parts but the last, which goes with the round.
    async fn store_state(
        &mut self,
        ctx: &Ctx,
        loaded: &Loaded,
        round: &mut Round,
        extent: Extent,
    ) -> Result<Vec<SegmentRef>, WorkerError> {
        let mut pass = self.operator.begin_checkpoint(extent);
        let mut objects = Vec::new();
        let mut part = self.new_part(loaded);
        while let Some(rows) = self.operator.checkpoint(&mut pass)? {
            part.push(rows)?;
            if part.is_full() {
                let full = std::mem::replace(&mut part, self.new_part(loaded));
                if let Some((object, encoded)) = self.encoded(ctx, full)? {
                    put(ctx, object.object.clone(), encoded).await?;
                    objects.push(object);
                }
            }
        }
        if let Some((object, encoded)) = self.encoded(ctx, part)? {
            round.uploads.push((object.object.clone(), encoded));
            objects.push(object);
        }
        Ok(objects)
    }

    fn new_part(&self, loaded: &Loaded) -> PartWriter {
        PartWriter::new(self.operator.state_schema(), loaded.plan_version, self.head.shard.shard)
    }

    fn encoded(&self, ctx: &Ctx, part: PartWriter) -> Result<Option<(SegmentRef, bytes::Bytes)>, WorkerError> {
        let Some(encoded) = part.finish()? else { return Ok(None) };
        let name = paths::object(Folder::State, ctx.ids.object(), self.head.shard, self.head.generation);
        Ok(Some((encoded.reference(SegmentKind::Checkpoint, name), encoded.bytes)))
    }
}

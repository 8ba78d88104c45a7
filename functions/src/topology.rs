//! Which shards a job has, who reads from whom, and which of them one worker takes together.
//!
//! ```text
//! pipeline p, aggregate:  lanes --exchange--> merge shards --output--> publisher
//! .. of an aggregate:     lanes --exchange--> merge shards --exchange--> merge shards --output--> publisher
//! pipeline p, stateless:  lanes --output----------------------------> publisher
//! ```
//! A sink that keeps nothing (blackhole) has no publisher. Everything here follows from the plan and the parallelism, which are
//! fixed at the job's creation, so a cold process derives the same shards.

use weir_model::layout::Layout;
use weir_model::routes::{ROUTES_FORMAT, Route, RoutesRow, Spread};
use weir_model::stream::STREAM_STAGE;
use weir_model::{JobId, SegmentKind, ShardId, ShardKey, StageId};
use weir_plan::{JobPlan, Pipeline};

use crate::connect::Pinned;

/// What a stage's shards do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads a source.
    Lane,
    /// Folds partials and gives results.
    Merge,
    /// Carries results to the sink.
    Publish,
}

/// One stage of one pipeline.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Number within the job.
    pub id: StageId,
    /// Index of its pipeline in the plan.
    pub pipeline: usize,
    /// What it does.
    pub role: Role,
    /// Which of its pipeline's aggregates a merge stage runs.
    pub aggregate: usize,
    /// Its shards.
    pub layout: Layout,
    /// Stage it reads from.
    pub upstream: Option<StageId>,
    /// Stage that reads from it.
    pub downstream: Option<StageId>,
}

/// All stages of a job.
#[derive(Debug, Clone)]
pub struct Topology {
    /// The job.
    pub job: JobId,
    /// Stages by number.
    pub stages: Vec<Stage>,
    /// Shards of every lane and merge stage.
    pub parallelism: u16,
}

impl Topology {
    /// Derives the stages of `plan`, whose sources were pinned to `pinned`.
    #[must_use]
    pub fn new(job: JobId, plan: &JobPlan, pinned: &[Pinned], parallelism: u16, key_groups: u16) -> Self {
        let mut stages = Vec::new();
        for (index, pipeline) in plan.pipelines.iter().enumerate() {
            let roles = roles(pipeline);
            let first = stages.len();
            for (step, &role) in roles.iter().enumerate() {
                let id = |at: usize| StageId(u16::try_from(first + at).unwrap_or(u16::MAX));
                let layout = match role {
                    Role::Lane => Layout::unkeyed(key_groups, lanes(pipeline, pinned.get(index), parallelism)),
                    Role::Merge => Layout::keyed(key_groups, parallelism),
                    Role::Publish => Layout::unkeyed(key_groups, 1),
                };
                let upstream = step.checked_sub(1).map(id);
                let downstream = (step + 1 < roles.len()).then(|| id(step + 1));
                let aggregate = step.saturating_sub(1);
                stages.push(Stage { id: id(step), pipeline: index, role, aggregate, layout, upstream, downstream });
            }
        }
        Self { job, stages, parallelism }
    }

    /// The stage numbered `id`.
    #[must_use]
    pub fn stage(&self, id: StageId) -> &Stage {
        &self.stages[usize::from(id.0)]
    }

    /// The layout of the merge stage that reads from `stage`, if one does.
    #[must_use]
    pub fn merged_by(&self, stage: StageId) -> Option<&Layout> {
        let downstream = self.stage(self.stage(stage).downstream?);
        (downstream.role == Role::Merge).then_some(&downstream.layout)
    }

    /// Shards of `stage`, in order.
    #[must_use]
    pub fn shards(&self, stage: StageId) -> Vec<ShardKey> {
        self.stage(stage).layout.shards.iter().map(|shard| ShardKey::new(self.job, stage, shard.shard)).collect()
    }

    /// Every shard of the job, sources first.
    #[must_use]
    pub fn all_shards(&self) -> Vec<ShardKey> {
        self.stages.iter().flat_map(|stage| self.shards(stage.id)).collect()
    }

    /// Shards that `shard` reads from, in the order of their names: the order of rows (R2).
    #[must_use]
    pub fn upstream_of(&self, shard: ShardKey) -> Vec<ShardKey> {
        self.stage(shard.stage).upstream.map(|stage| self.shards(stage)).unwrap_or_default()
    }

    /// Kind of segment that `shard` reads from its upstream.
    #[must_use]
    pub fn input_kind(&self, shard: ShardKey) -> SegmentKind {
        match self.stage(shard.stage).role {
            Role::Merge => SegmentKind::Exchange,
            Role::Lane | Role::Publish => SegmentKind::Output,
        }
    }

    /// Who reads from whom, for those who call workers without knowing the plan.
    #[must_use]
    pub fn routes(&self, pinned: &[Pinned]) -> RoutesRow {
        let count = |layout: &Layout| u16::try_from(layout.shards.len()).unwrap_or(u16::MAX);
        let mut routes = Vec::new();
        for stage in &self.stages {
            let to = (stage.id, count(&stage.layout));
            let route = |from, from_stage, from_shards, spread| Route {
                from,
                from_stage,
                from_shards,
                to_stage: to.0,
                to_shards: to.1,
                spread,
            };
            if let Some(upstream) = stage.upstream.map(|upstream| self.stage(upstream)) {
                routes.push(route(self.job, upstream.id, count(&upstream.layout), Spread::All));
            } else if let Some(stream) = pinned.get(stage.pipeline).and_then(Pinned::stream) {
                routes.push(route(stream.row.stream, STREAM_STAGE, stream.row.lanes, Spread::Modulo));
            }
        }
        RoutesRow { format: ROUTES_FORMAT, job: self.job, slots: self.slots(), routes }
    }

    /// Groups of shards that one worker takes together: lane `i` and merge shard `i` of every pipeline, so that an invocation can
    /// follow its data; each publisher by itself.
    #[must_use]
    pub fn slots(&self) -> Vec<Vec<ShardKey>> {
        let mut slots: Vec<Vec<ShardKey>> = Vec::new();
        for index in 0..u32::from(self.parallelism) {
            let at_index = |stage: &Stage| {
                let exists = stage.role != Role::Publish && (index as usize) < stage.layout.shards.len();
                exists.then(|| ShardKey::new(self.job, stage.id, ShardId(index)))
            };
            slots.push(self.stages.iter().filter_map(at_index).collect());
        }
        let publishers = self.stages.iter().filter(|stage| stage.role == Role::Publish);
        slots.extend(publishers.map(|stage| self.shards(stage.id)));
        slots.retain(|slot| !slot.is_empty());
        slots
    }
}

fn roles(pipeline: &Pipeline) -> Vec<Role> {
    let mut roles = vec![Role::Lane];
    roles.extend(pipeline.aggregates.iter().map(|_| Role::Merge));
    if keeps_results(pipeline) {
        roles.push(Role::Publish);
    }
    roles
}

/// Whether the pipeline's sink takes rows; a blackhole counts and drops them where they are made.
#[must_use]
pub fn keeps_results(pipeline: &Pipeline) -> bool {
    pipeline.sink.options.get("connector").map(String::as_str) != Some("blackhole")
}

/// A continuous source has one lane: what appears later has one order. A stream is not read by more lanes than it has.
fn lanes(pipeline: &Pipeline, pinned: Option<&Pinned>, parallelism: u16) -> u16 {
    if let Some(stream) = pinned.and_then(Pinned::stream) {
        return parallelism.min(stream.row.lanes);
    }
    let continuous = pipeline.source.options.get("mode").map(String::as_str) == Some("continuous");
    if continuous { 1 } else { parallelism }
}

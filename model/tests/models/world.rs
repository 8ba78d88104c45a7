//! What the models share: a table of versioned heads, writes that travel, batches that say little, and the checker.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use stateright::{Checker, CheckerBuilder, Expectation, HasDiscoveries, Model};
use weir_model::decide::Advance;
use weir_model::head::Owner;
use weir_model::{
    CommitEntry, CommitId, Head, Inputs, JobId, OwnerId, Recipe, SegmentKind, SegmentRef, ShardId, ShardKey, ShardStats, StageId,
};

/// One head in the table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) head: Arc<Head>,
    pub(crate) version: u64,
}

impl Row {
    pub(crate) fn new(head: Head) -> Self {
        Self { head: Arc::new(head), version: 1 }
    }

    /// One compare-and-set. Returns whether it was applied.
    pub(crate) fn put(&mut self, version: u64, head: &Arc<Head>) -> bool {
        let applies = self.version == version;
        if applies {
            *self = Self { head: Arc::clone(head), version: version + 1 };
        }
        applies
    }
}

/// What becomes of a write: whether it happens and whether the caller hears are drawn apart (T5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    /// It happens, the caller hears.
    Heard,
    /// It happens, the caller hears, and a copy of it travels on.
    Doubled,
    /// It happens, the caller hears nothing.
    AnswerLost,
    /// The caller gives up waiting; it travels on and may happen later, or never.
    Late,
}

pub(crate) const FATES: [Fate; 4] = [Fate::Heard, Fate::Doubled, Fate::AnswerLost, Fate::Late];

pub(crate) fn key(stage: u16, shard: u32) -> ShardKey {
    ShardKey::new(JobId(1), StageId(stage), ShardId(shard))
}

pub(crate) fn owner(process: usize) -> Owner {
    Owner { id: OwnerId(process as u128 + 1), lease_until_micros: 100 }
}

/// The next batch of `head`: reads `inputs`, says nothing, moves no watermark.
pub(crate) fn advance(head: &Head, commit: u64, inputs: Inputs) -> Advance {
    let recipe = Recipe {
        inputs,
        watermark_before: head.watermark,
        watermark_after: head.watermark,
        now_micros: 0,
        early: false,
        as_rows: false,
        plan: 1,
        build: String::new(),
        digest: 0,
    };
    let entry = CommitEntry {
        commit: CommitId(u128::from(commit)),
        epoch: head.epoch.next(),
        generation: head.generation,
        segments: Vec::new(),
        watermark: head.watermark,
        activity: head.activity,
        recipe,
    };
    Advance {
        entry,
        inputs: BTreeMap::new(),
        source: None,
        act_at: None,
        checkpoint: None,
        publish: None,
        stats: ShardStats::default(),
        owner: head.owner.clone(),
    }
}

/// A segment whose rows are nobody's concern.
pub(crate) fn segment(object: &str) -> SegmentRef {
    SegmentRef { kind: SegmentKind::Exchange, object: object.to_owned(), bytes: 1, footer_bytes: 1, groups: Vec::new() }
}

/// Explores `model` to the end: no counterexample, every situation met, at least `states_min` states.
pub(crate) fn explore<M>(name: &str, model: M, states_min: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    check(name, model.checker(), states_min);
}

/// As [`explore`], of all ways of at most `steps_max` steps: for models too large to be explored to the end.
pub(crate) fn explore_ways_of<M>(name: &str, model: M, states_min: usize, steps_max: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    check(name, model.checker().target_max_depth(steps_max), states_min);
}

fn check<M>(name: &str, checker: CheckerBuilder<M>, states_min: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = checker.spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{name}: {states} states, {} steps, {} deep, no counterexample", checker.state_count(), checker.max_depth());
    let mut discoveries = checker.discoveries();
    for property in checker.model().properties() {
        match (property.expectation, discoveries.remove(property.name)) {
            (Expectation::Sometimes, None) => panic!("{name}: never met: {}", property.name),
            (Expectation::Always | Expectation::Eventually, Some(path)) => {
                panic!("{name}: violated: {}\n{:#?}", property.name, path.into_actions())
            }
            (Expectation::Sometimes, Some(_)) | (Expectation::Always | Expectation::Eventually, None) => {}
        }
    }
    assert!(states >= states_min, "{name}: {states} states are too few to mean anything");
}

/// Demands that the checker refutes a flawed `model` by violating `property`.
pub(crate) fn catch<M>(flaw: impl Debug, model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = model.checker().finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    match checker.discovery(property) {
        Some(path) => println!(
            "{flaw:?}: violates \"{property}\" after {} steps: {:?}",
            path.clone().into_actions().len(),
            path.into_actions()
        ),
        None => panic!("{flaw:?}: not caught in {} states", checker.unique_state_count()),
    }
}

//! The routes row of a job: who reads from whom, and which shards one worker takes together.
//!
//! It follows from the plan and never changes. Why it is stored: whoever turns commits into invocations has no SQL compiler.

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, ShardId, ShardKey, StageId};

/// Version of the routes row's encoding; a reader refuses any other.
pub const ROUTES_FORMAT: u16 = 1;

/// Which shards of the upstream a receiver reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// All of them.
    All,
    /// Those whose number leaves the receiver's as the remainder by the number of receivers.
    Modulo,
}

/// A stage that reads from another one, or from a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Job or stream that is read from.
    pub from: JobId,
    /// Its stage.
    pub from_stage: StageId,
    /// Shards of that stage.
    pub from_shards: u16,
    /// Stage that reads.
    pub to_stage: StageId,
    /// Its shards.
    pub to_shards: u16,
    /// Which of them reads which.
    pub spread: Spread,
}

/// All routes of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesRow {
    /// [`ROUTES_FORMAT`].
    pub format: u16,
    /// The job.
    pub job: JobId,
    /// Shards that one worker takes together.
    pub slots: Vec<Vec<ShardKey>>,
    /// Who reads from whom.
    pub routes: Vec<Route>,
}

impl Route {
    fn reads(&self, upstream: ShardKey, receiver: ShardKey) -> bool {
        let (from, to) = (upstream.shard.0, receiver.shard.0);
        self.from == upstream.job
            && self.from_stage == upstream.stage
            && self.to_stage == receiver.stage
            && match self.spread {
                Spread::All => true,
                Spread::Modulo => from % u32::from(self.to_shards.max(1)) == to,
            }
    }
}

impl RoutesRow {
    /// Whether `receiver`, a shard of the job, reads from `upstream`.
    #[must_use]
    pub fn reads(&self, upstream: ShardKey, receiver: ShardKey) -> bool {
        self.routes.iter().any(|route| route.reads(upstream, receiver))
    }

    /// Places in [`Self::slots`] that hold a receiver of `upstream`.
    #[must_use]
    pub fn slots_reading(&self, upstream: ShardKey) -> Vec<usize> {
        let reads = |slot: &[ShardKey]| slot.iter().any(|receiver| self.reads(upstream, *receiver));
        self.slots.iter().enumerate().filter(|(_, slot)| reads(slot)).map(|(place, _)| place).collect()
    }

    /// Place of the slot that holds `shard`.
    #[must_use]
    pub fn slot_of(&self, shard: ShardKey) -> Option<usize> {
        self.slots.iter().position(|slot| slot.contains(&shard))
    }

    /// Every shard that the slot at `place` reads from.
    #[must_use]
    pub fn upstream_of(&self, place: usize) -> Vec<ShardKey> {
        let Some(slot) = self.slots.get(place) else { return Vec::new() };
        let all = self.routes.iter().flat_map(|route| {
            (0..u32::from(route.from_shards)).map(|shard| ShardKey::new(route.from, route.from_stage, ShardId(shard)))
        });
        let mut found: Vec<ShardKey> =
            all.filter(|upstream| slot.iter().any(|receiver| self.reads(*upstream, *receiver))).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId(1);
    const STREAM: JobId = JobId(9);

    fn key(job: JobId, stage: u16, shard: u32) -> ShardKey {
        ShardKey::new(job, StageId(stage), ShardId(shard))
    }

    /// A stream of 3 lanes, 2 lanes that read it, 2 merge shards, a publisher.
    fn routes() -> RoutesRow {
        let route = |from, from_stage, from_shards, to_stage, to_shards, spread| Route {
            from,
            from_stage: StageId(from_stage),
            from_shards,
            to_stage: StageId(to_stage),
            to_shards,
            spread,
        };
        RoutesRow {
            format: ROUTES_FORMAT,
            job: JOB,
            slots: vec![vec![key(JOB, 0, 0), key(JOB, 1, 0)], vec![key(JOB, 0, 1), key(JOB, 1, 1)], vec![key(JOB, 2, 0)]],
            routes: vec![
                route(STREAM, 0, 3, 0, 2, Spread::Modulo),
                route(JOB, 0, 2, 1, 2, Spread::All),
                route(JOB, 1, 2, 2, 1, Spread::All),
            ],
        }
    }

    #[test]
    fn a_commit_finds_the_slots_that_read_it() {
        let routes = routes();
        assert_eq!([0, 1, 2].map(|lane| routes.slots_reading(key(STREAM, 0, lane))), [vec![0], vec![1], vec![0]]);
        assert_eq!(routes.slots_reading(key(JOB, 0, 1)), [0, 1]);
        assert_eq!(routes.slots_reading(key(JOB, 1, 1)), [2]);
        assert!(routes.slots_reading(key(JOB, 2, 0)).is_empty());
        assert_eq!(routes.slot_of(key(JOB, 1, 1)), Some(1));
    }

    #[test]
    fn a_slot_knows_all_that_it_reads() {
        let routes = routes();
        let lanes = [key(JOB, 0, 0), key(JOB, 0, 1)];
        assert_eq!(routes.upstream_of(0), [lanes.as_slice(), &[key(STREAM, 0, 0), key(STREAM, 0, 2)]].concat());
        assert_eq!(routes.upstream_of(2), [key(JOB, 1, 0), key(JOB, 1, 1)]);
    }
}

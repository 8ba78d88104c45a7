//! From a run's steps to the latency of its rows: when each row was due, and when each step was done with it.
//!
//! Never: runs anything or looks at a clock.

use std::collections::{BTreeMap, HashMap};

use datafusion::arrow::array::RecordBatch;
use weir_connectors::generate::PACED_BLOCK_ROWS;
use weir_model::{Epoch, Offset, ShardKey};

use crate::trace::{Noted, Reached, Step};

/// Names of a latency's parts, in order; what they mean stands in `latency.rs`.
pub(super) const PARTS: [&str; 6] = ["wait", "gather", "encode", "put", "commit", "publish"];

/// A latency in microseconds, as its parts.
pub(super) type Parts = [i64; PARTS.len()];

/// A paced generator, read by lanes that take turns in blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// When the time of the first row begins, microseconds on the wall clock.
    pub(super) start_micros: i64,
    /// Rows a second.
    pub(super) rate: u64,
    /// Number of lanes, at least 1.
    pub(super) lanes: u64,
}

impl Pace {
    /// When row `number` is due, microseconds on the wall clock: the reader gives it from then on.
    pub(super) fn arrival_micros(self, number: u64) -> i64 {
        let after = ((u128::from(number) + 1) * 1_000_000).div_ceil(u128::from(self.rate));
        self.start_micros.saturating_add(i64::try_from(after).unwrap_or(i64::MAX))
    }

    fn lane_of(self, number: u64) -> u64 {
        number / PACED_BLOCK_ROWS % self.lanes
    }

    /// Where a lane's offset is just before row `number`.
    fn place_of(number: u64) -> Offset {
        Offset { split: number / PACED_BLOCK_ROWS, at: number % PACED_BLOCK_ROWS }
    }

    /// The first row from `number` on that `lane` reads.
    fn first_of(self, lane: u64, number: u64) -> u64 {
        let block = number / PACED_BLOCK_ROWS;
        match (lane + self.lanes - block % self.lanes) % self.lanes {
            0 => number,
            ahead => (block + ahead) * PACED_BLOCK_ROWS,
        }
    }

    /// The row at which every lane has a row from `number` on: it moves the least watermark to the event time of row `number`.
    pub(super) fn passing(self, number: u64) -> u64 {
        (0..self.lanes).map(|lane| self.first_of(lane, number)).max().unwrap_or(number)
    }
}

/// What one lane did, in order.
#[derive(Debug, Default)]
struct Lane {
    reads: Vec<(Offset, i64)>,
    cuts: Vec<(Offset, i64, ShardKey, Epoch)>,
}

/// A run's steps, by where rows find them.
#[derive(Debug, Default)]
pub(super) struct Journal {
    lanes: BTreeMap<u64, Lane>,
    rounds: HashMap<(Reached, ShardKey, Epoch), i64>,
    /// Rows that became visible, and when.
    pub(super) visible: Vec<(i64, Vec<RecordBatch>)>,
}

impl Journal {
    /// Steps of a job with one pipeline.
    pub(super) fn new(notes: Vec<Noted>) -> Self {
        let mut journal = Self::default();
        for Noted { at_micros, step } in notes {
            match step {
                Step::Read { shard, upto } => journal.lane(shard).reads.push((upto, at_micros)),
                Step::Cut { shard, epoch, upto } => journal.lane(shard).cuts.push((upto, at_micros, shard, epoch)),
                Step::Round { reached, heads } => {
                    journal.rounds.extend(heads.into_iter().map(|(shard, epoch)| ((reached, shard, epoch), at_micros)));
                }
                Step::Visible { rows } => journal.visible.push((at_micros, rows)),
            }
        }
        journal
    }

    fn lane(&mut self, shard: ShardKey) -> &mut Lane {
        self.lanes.entry(u64::from(shard.shard.0)).or_default()
    }

    /// Number of lane epochs.
    pub(super) fn epochs(&self) -> usize {
        self.lanes.values().map(|lane| lane.cuts.len()).sum()
    }

    /// The latency of what row `number` brought about and what was visible at `visible_micros`; `None` if its steps were not kept.
    pub(super) fn parts(&self, pace: Pace, number: u64, visible_micros: i64) -> Option<Parts> {
        let lane = self.lanes.get(&pace.lane_of(number))?;
        let place = Pace::place_of(number);
        let (_, read) = *lane.reads.get(lane.reads.partition_point(|(upto, _)| *upto <= place))?;
        let (_, cut, shard, epoch) = *lane.cuts.get(lane.cuts.partition_point(|(upto, ..)| *upto <= place))?;
        let reached = |reached| self.rounds.get(&(reached, shard, epoch)).copied();
        let (encoded, stored) = (reached(Reached::Encoded)?, reached(Reached::Stored)?);
        let committed = reached(Reached::Committed)?;
        let instants = [pace.arrival_micros(number), read, cut, encoded, stored, committed, visible_micros];
        Some(std::array::from_fn(|part| instants[part + 1] - instants[part]))
    }
}

#[cfg(test)]
mod tests {
    use weir_model::{JobId, ShardId, StageId};

    use super::*;

    const PACE: Pace = Pace { start_micros: 1_000_000, rate: 10_000, lanes: 2 };

    #[test]
    fn a_window_ends_with_the_row_that_the_last_lane_waited_for() {
        assert_eq!((PACE.lane_of(63), PACE.lane_of(64), PACE.lane_of(128)), (0, 1, 0));
        // Row 10 is lane 0's; lane 1 has nothing at or after it before its next block.
        assert_eq!(PACE.passing(10), 64);
        assert_eq!(PACE.passing(70), 128);
        assert_eq!(Pace { lanes: 1, ..PACE }.passing(70), 70);
    }

    #[test]
    fn the_parts_of_a_latency_add_up_to_it() {
        let shard = ShardKey::new(JobId(1), StageId(0), ShardId(1));
        let (epoch, upto) = (Epoch(1), Offset { split: 3, at: 0 });
        let round = |reached| Step::Round { reached, heads: vec![(shard, epoch)] };
        let steps = [
            Step::Read { shard, upto: Offset { split: 1, at: 2 } },
            Step::Read { shard, upto },
            Step::Cut { shard, epoch, upto },
            round(Reached::Encoded),
            round(Reached::Stored),
            round(Reached::Committed),
        ];
        let noted = |(index, step): (i64, Step)| Noted { at_micros: 1_100_000 + 1_000 * index, step };
        let journal = Journal::new((0..).zip(steps).map(noted).collect());
        // Row 66 is the third of block 1, the first of lane 1: the second reading gave it.
        let parts = journal.parts(PACE, 66, 1_200_000).expect("its steps were kept");
        assert_eq!(parts.iter().sum::<i64>(), 1_200_000 - PACE.arrival_micros(66));
        assert_eq!(parts[1..], [1_000, 1_000, 1_000, 1_000, 95_000]);
        assert_eq!(journal.parts(PACE, 0, 0), None);
    }
}

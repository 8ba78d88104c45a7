//! Checkpoint: when a snapshot costs less than the replay it saves (C5).

use std::time::Duration;

/// Bounds on what a load may have to replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointLimits {
    /// Segment bytes a load may re-read.
    pub replay_bytes_max: u64,
    /// Epochs a load may replay; bounds its requests.
    pub replay_epochs_max: u64,
    /// Time a load may take to replay.
    pub replay_time_max: Duration,
    /// Longest time between two checkpoints of a shard that commits; `None` leaves it to need.
    pub interval: Option<Duration>,
}

impl Default for CheckpointLimits {
    fn default() -> Self {
        Self {
            replay_bytes_max: 64 * 1024 * 1024,
            replay_epochs_max: 1024,
            replay_time_max: Duration::from_secs(1),
            interval: Some(Duration::from_secs(600)),
        }
    }
}

/// What is known of a shard's replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplayCost {
    /// Segment bytes that loads re-read since the last checkpoint: [`crate::Head::replayed_bytes`].
    pub replayed_bytes: u64,
    /// Segment bytes that a load now would re-read.
    pub pending_bytes: u64,
    /// Epochs that a load now would replay.
    pub pending_epochs: u64,
    /// Time a load now would take to replay: what the same batches took when they were run.
    pub pending_time: Duration,
    /// Age of the oldest batch that a load would replay, by the recipes' instants.
    pub since_last: Duration,
    /// Bytes that writing a checkpoint now would cost, estimated.
    pub checkpoint_bytes: u64,
}

/// Whether to write a checkpoint with the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointDecision {
    /// Write one.
    Write,
    /// Replay is still cheaper.
    Wait,
}

/// Decides on a checkpoint. A shard that has consumed nothing since the last one never writes another.
#[must_use]
pub fn decide_checkpoint(cost: &ReplayCost, limits: &CheckpointLimits) -> CheckpointDecision {
    let paid_already = cost.replayed_bytes > 0 && cost.replayed_bytes >= cost.checkpoint_bytes;
    // A state larger than the limit is written at most once for as many bytes of input.
    let too_slow = cost.pending_bytes > limits.replay_bytes_max.max(cost.checkpoint_bytes)
        || cost.pending_epochs > limits.replay_epochs_max
        || cost.pending_time > limits.replay_time_max;
    let due = limits.interval.is_some_and(|interval| cost.since_last >= interval);
    let write = cost.pending_epochs > 0 && (paid_already || too_slow || due);
    if write { CheckpointDecision::Write } else { CheckpointDecision::Wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(change: fn(&mut ReplayCost)) -> CheckpointDecision {
        let mut cost = ReplayCost { pending_epochs: 1, checkpoint_bytes: 1000, ..ReplayCost::default() };
        change(&mut cost);
        decide_checkpoint(&cost, &CheckpointLimits::default())
    }

    #[test]
    fn a_checkpoint_is_written_once_loads_have_paid_for_it() {
        assert_eq!(decide(|cost| cost.replayed_bytes = 999), CheckpointDecision::Wait);
        assert_eq!(decide(|cost| cost.replayed_bytes = 1000), CheckpointDecision::Write);
    }

    #[test]
    fn a_checkpoint_is_written_when_replay_would_pass_a_limit() {
        assert_eq!(decide(|cost| cost.pending_bytes = 64 << 20), CheckpointDecision::Wait);
        assert_eq!(decide(|cost| cost.pending_bytes = (64 << 20) + 1), CheckpointDecision::Write);
        assert_eq!(decide(|cost| cost.pending_epochs = 1025), CheckpointDecision::Write);
        assert_eq!(decide(|cost| cost.pending_time = Duration::from_millis(1001)), CheckpointDecision::Write);
        assert_eq!(decide(|cost| cost.since_last = Duration::from_secs(600)), CheckpointDecision::Write);
    }

    #[test]
    fn a_shard_that_read_nothing_since_writes_no_second_checkpoint() {
        let idle =
            |cost: &mut ReplayCost| *cost = ReplayCost { replayed_bytes: 9, since_last: Duration::MAX, ..ReplayCost::default() };
        assert_eq!(decide(idle), CheckpointDecision::Wait);
    }
}

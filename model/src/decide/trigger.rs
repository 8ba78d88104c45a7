//! Trigger: what a hint that an upstream shard has committed means for a receiver (C6).
//!
//! ```text
//! feed: "upstream stands at epoch e" --> positions include e?  yes: acknowledge
//!                                          no, a lease runs:   come back when it is over
//!                                          no, nobody holds:   claim and run
//! ```

use super::claim::OwnerLiveness;
use crate::head::Head;
use crate::ids::{Epoch, OwnerId, ShardKey};

/// What to do about a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerDecision {
    /// The receiver's positions include the epoch: forget the trigger.
    Acknowledge,
    /// Another worker holds the receiver and may or may not have seen the epoch: keep the trigger and look again then.
    ComeBack {
        /// When the lease is over, microseconds UTC.
        at_micros: i64,
    },
    /// Claim the receiver and run it.
    Run,
}

/// Decides on the trigger "`upstream` has committed `epoch`" for the receiver whose head was just read.
///
/// - `liveness`: a hint about the holder's process.
#[must_use]
pub fn decide_trigger(
    receiver: &Head,
    upstream: ShardKey,
    epoch: Epoch,
    me: OwnerId,
    now_micros: i64,
    liveness: OwnerLiveness,
) -> TriggerDecision {
    if receiver.input(upstream).epoch >= epoch {
        return TriggerDecision::Acknowledge;
    }
    match &receiver.owner {
        Some(holder) if holder.id != me && liveness != OwnerLiveness::Dead && holder.lease_until_micros > now_micros => {
            TriggerDecision::ComeBack { at_micros: holder.lease_until_micros }
        }
        _ => TriggerDecision::Run,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::head::{InputState, Owner};
    use crate::ids::{JobId, ShardId, StageId};

    #[test]
    fn only_positions_settle_a_trigger() {
        let key = |stage| ShardKey::new(JobId(1), StageId(stage), ShardId(0));
        let owner = Some(Owner { id: OwnerId(1), lease_until_micros: 100 });
        let inputs = BTreeMap::from([(key(0).to_string(), InputState { epoch: Epoch(2), ..InputState::default() })]);
        let head = Head { owner, inputs, ..Head::new(key(1)) };
        let decide = |epoch, me, now, liveness| decide_trigger(&head, key(0), Epoch(epoch), OwnerId(me), now, liveness);
        assert_eq!(decide(2, 2, 0, OwnerLiveness::Alive), TriggerDecision::Acknowledge);
        assert_eq!(decide(3, 2, 0, OwnerLiveness::Unknown), TriggerDecision::ComeBack { at_micros: 100 });
        assert_eq!(decide(3, 2, 100, OwnerLiveness::Alive), TriggerDecision::Run);
        assert_eq!(decide(3, 2, 0, OwnerLiveness::Dead), TriggerDecision::Run);
        assert_eq!(decide(3, 1, 0, OwnerLiveness::Alive), TriggerDecision::Run, "its holder goes on with it");
    }
}

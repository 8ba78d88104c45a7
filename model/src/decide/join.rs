//! How a lane that slept comes back: it joins at the watermark it finds (W2).
//!
//! While nobody waited for it, windows have fired that its rows may belong to. Until the lane knows how far its receivers are, its rows travel as
//! rows, which a receiver can call late; folded into a partial result they would make a second result of a window that has had its own
//! (EO-1).
//!
//! ```text
//! idle --rows come--> joining: its watermark counts again, so receivers stay where they are once they have taken a joining epoch
//!                        `--every receiver has--> active, not below the watermark of any of them
//! ```

use crate::entry::Activity;
use crate::ids::Epoch;
use crate::time::Watermark;

/// A receiver as its head stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// Last epoch of the lane that it has taken.
    pub taken: Epoch,
    /// Its watermark.
    pub watermark: Watermark,
}

/// Whether all rows of a lane's epoch travel as rows.
///
/// - `before`: what the lane said with its last epoch.
#[must_use]
pub fn travels_as_rows(before: Activity) -> bool {
    matches!(before, Activity::Idle | Activity::Joining)
}

/// The watermark that a joining lane finds: the greatest of its receivers', once each has taken an epoch that counts; until then they may
/// move on without it.
///
/// - `since`: an epoch of the lane from which on it has been joining.
#[must_use]
pub fn found_by_joining(since: Epoch, receivers: impl IntoIterator<Item = Joined>) -> Option<Watermark> {
    receivers
        .into_iter()
        .try_fold(Watermark::NONE, |greatest, receiver| (receiver.taken >= since).then_some(greatest.max(receiver.watermark)))
}

/// What a lane's epoch says and its watermark after it.
///
/// - `before`: what it said with its last epoch. - `now`: what its source says. - `watermark`: where its rows are. - `found`: see
///   [`found_by_joining`]; only of a lane that is joining.
#[must_use]
pub fn decide_join(before: Activity, now: Activity, watermark: Watermark, found: Option<Watermark>) -> (Activity, Watermark) {
    match (before, now, found) {
        (Activity::Idle, Activity::Active, _) | (Activity::Joining, Activity::Active, None) => (Activity::Joining, watermark),
        (Activity::Joining, Activity::Active, Some(found)) => (Activity::Active, watermark.max(found)),
        _ => (now, watermark),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Activity::{Active, Closed, Idle, Joining};

    #[test]
    fn a_lane_joins_at_the_greatest_watermark_once_every_receiver_waits_for_it() {
        let receiver = |taken, watermark| Joined { taken: Epoch(taken), watermark: Watermark(watermark) };
        assert_eq!(found_by_joining(Epoch(3), [receiver(3, 10), receiver(5, 30)]), Some(Watermark(30)));
        assert_eq!(found_by_joining(Epoch(3), [receiver(3, 10), receiver(2, 30)]), None, "one may fire more without it");
    }

    #[test]
    fn what_a_lane_says() {
        let says = |before, now, found: Option<i64>| {
            let (activity, watermark) = decide_join(before, now, Watermark(7), found.map(Watermark));
            (activity, watermark.0)
        };
        assert_eq!(says(Idle, Active, None), (Joining, 7));
        assert_eq!(says(Joining, Active, None), (Joining, 7));
        assert_eq!([says(Joining, Active, Some(9)), says(Joining, Active, Some(5))], [(Active, 9), (Active, 7)]);
        assert_eq!([says(Active, Active, None), says(Active, Idle, None)], [(Active, 7), (Idle, 7)]);
        assert_eq!(
            [says(Joining, Idle, None), says(Idle, Idle, None), says(Joining, Closed, None)],
            [(Idle, 7), (Idle, 7), (Closed, 7)]
        );
        assert_eq!([Active, Idle, Joining].map(travels_as_rows), [false, true, true]);
    }
}

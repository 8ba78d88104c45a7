//! What wakes a merge shard (C4, wake by need) and what its watermark is (W1, W2).

use crate::entry::Activity;
use crate::time::Watermark;

/// What is known of one input, consumed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputView {
    /// Watermark of its last known epoch.
    pub watermark: Watermark,
    /// Activity of its last known epoch.
    pub activity: Activity,
    /// Bytes of it that are known and not consumed.
    pub unread_bytes: u64,
    /// Rows of it that are known and not consumed.
    pub unread_rows: u64,
    /// Epochs of it that are known and not consumed.
    pub unread_epochs: u64,
}

/// Epochs without a row for it after which a shard says that it has seen them: until then they count as unread for back-pressure and
/// cannot be deleted.
pub const QUIET_EPOCHS_MAX: u64 = 64;

/// Watermark and activity that inputs give their receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Combined {
    /// Never below the watermark before.
    pub watermark: Watermark,
    /// Closed once every input is.
    pub activity: Activity,
}

/// The least watermark of the active inputs; without one it stays, and only a stream that is closed as a whole ends time (W1, W2).
#[must_use]
pub fn combined(before: Watermark, inputs: impl IntoIterator<Item = (Watermark, Activity)>) -> Combined {
    let inputs: Vec<_> = inputs.into_iter().collect();
    if !inputs.is_empty() && inputs.iter().all(|(_, activity)| *activity == Activity::Closed) {
        return Combined { watermark: Watermark::INFINITY, activity: Activity::Closed };
    }
    let active = inputs.iter().filter(|(_, activity)| activity.counts()).map(|(watermark, _)| *watermark);
    match Watermark::least(active) {
        Some(least) => Combined { watermark: least.max(before), activity: Activity::Active },
        None => Combined { watermark: before, activity: Activity::Idle },
    }
}

/// Activity of a shard after a batch: it is not closed while it has results to give, whatever its inputs say.
#[must_use]
pub fn activity_after(inputs: Activity, fires_more: bool) -> Activity {
    if fires_more && inputs == Activity::Closed { Activity::Active } else { inputs }
}

/// Whether a merge shard runs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// It has something to say, or too much to read.
    Now,
    /// Its head need not be written.
    Wait,
}

/// Decides whether a merge shard runs.
///
/// - `act_at`: where its first open pane fires or goes. - `crosses_pane`: whether the inputs' watermark passed a pane end since the shard's last
///   batch: unread rows may belong to a pane that fires now. - `closed`: the shard has said its last word.
#[must_use]
pub fn decide_run(
    before: Watermark,
    inputs: &[InputView],
    act_at: Option<Watermark>,
    crosses_pane: bool,
    unread_bytes_max: u64,
    closed: bool,
) -> Run {
    if closed {
        return Run::Wait;
    }
    let known = combined(before, inputs.iter().map(|input| (input.watermark, input.activity)));
    let unread_rows: u64 = inputs.iter().map(|input| input.unread_rows).sum();
    let unread_bytes: u64 = inputs.iter().map(|input| input.unread_bytes).sum();
    let fires = act_at.is_some_and(|at| at <= known.watermark) || (unread_rows > 0 && crosses_pane);
    let quiet = inputs.iter().any(|input| input.unread_epochs >= QUIET_EPOCHS_MAX);
    // A lane that joins waits for its receivers to take what it said.
    let joins = inputs.iter().any(|input| input.activity == Activity::Joining && input.unread_epochs > 0);
    let full = unread_bytes > unread_bytes_max;
    if fires || quiet || joins || full || known.activity == Activity::Closed { Run::Now } else { Run::Wait }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Activity::{Active, Closed, Idle, Joining};

    fn view(watermark: i64, activity: Activity, unread: u64) -> InputView {
        InputView { watermark: Watermark(watermark), activity, unread_bytes: unread, unread_rows: unread, unread_epochs: 1 }
    }

    fn mixed(inputs: &[(i64, Activity)]) -> (i64, Activity) {
        let combined = combined(Watermark(7), inputs.iter().map(|(watermark, activity)| (Watermark(*watermark), *activity)));
        (combined.watermark.0, combined.activity)
    }

    #[test]
    fn the_least_active_input_counts() {
        assert_eq!(mixed(&[(30, Active), (20, Active), (10, Idle), (9, Closed)]), (20, Active));
        assert_eq!(mixed(&[(30, Active), (20, Joining), (10, Idle)]), (20, Active));
        assert_eq!(
            mixed(&[(30, Active), (i64::MIN, Active)]),
            (7, Active),
            "a lane that has said nothing yet counts, and nothing moves back"
        );
    }

    #[test]
    fn without_active_input_the_watermark_stays_until_the_stream_is_closed() {
        assert_eq!(mixed(&[(30, Idle), (20, Closed)]), (7, Idle));
        assert_eq!(mixed(&[(30, Closed), (20, Closed)]), (i64::MAX, Closed));
        assert_eq!(mixed(&[]), (7, Idle));
    }

    #[test]
    fn a_shard_that_fires_in_parts_closes_with_the_last() {
        assert_eq!(activity_after(Closed, true), Active);
        assert_eq!([activity_after(Closed, false), activity_after(Idle, true)], [Closed, Idle]);
    }

    #[test]
    fn a_shard_wakes_when_it_has_something_to_say() {
        let run = |inputs: &[InputView], act_at: Option<i64>, crosses, closed| {
            decide_run(Watermark(7), inputs, act_at.map(Watermark), crosses, 100, closed)
        };
        let inputs = [view(20, Active, 5), view(30, Active, 5)];
        assert_eq!(run(&inputs, Some(21), false, false), Run::Wait);
        assert_eq!(run(&inputs, Some(20), false, false), Run::Now);
        assert_eq!(run(&inputs, None, true, false), Run::Now);
        assert_eq!(run(&[view(20, Active, 101)], None, false, false), Run::Now);
        let quiet = InputView { unread_epochs: QUIET_EPOCHS_MAX, ..view(20, Active, 0) };
        assert_eq!(run(&[quiet], None, false, false), Run::Now, "a shard that never gets a row must not hold floors and lanes");
        assert_eq!(run(&[view(20, Joining, 0)], None, false, false), Run::Now, "it waits to be waited for");
        assert_eq!(run(&[view(20, Closed, 0)], None, false, false), Run::Now);
        assert_eq!(run(&[view(20, Closed, 0)], None, false, true), Run::Wait);
    }
}

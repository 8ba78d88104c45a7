//! Publishing in two commits (X5): one names the step, then the step is carried out on the target, then the next commit acknowledges
//! it. Whoever comes after a crash finds the named step and finishes it; the step has the same effect however often it is tried.

use crate::head::PendingPublish;

/// What to do about a step that was named and perhaps carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishRecovery {
    /// The target is as it was before the step: carry it out.
    CarryOut,
    /// The target has the step already: acknowledge it.
    AlreadyDone,
    /// Somebody else changed the file: do not touch it, write the step's rows to a new file.
    TargetChanged,
}

/// Decides from the target file's size now (`None` = no such file) and the size it has once the step is done.
///
/// Sizes tell the two apart because a step only ever adds rows, and its bytes follow from its rows alone.
#[must_use]
pub fn decide_recovery(pending: &PendingPublish, bytes_now: Option<u64>, bytes_after: u64) -> PublishRecovery {
    match bytes_now {
        Some(now) if now == bytes_after => PublishRecovery::AlreadyDone,
        Some(now) if now == pending.bytes_before && now > 0 => PublishRecovery::CarryOut,
        None if pending.bytes_before == 0 => PublishRecovery::CarryOut,
        _ => PublishRecovery::TargetChanged,
    }
}

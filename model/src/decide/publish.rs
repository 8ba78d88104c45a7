//! Publishing in two commits (X5): one names the step, then the step is carried out on the target, then the next commit acknowledges
//! it. Whoever comes after a crash finds the named step and finishes it; the step has the same effect however often it is tried.
//!
//! ```text
//! claim --> make staging folder of my generation --> remove those of older generations --> look at the target --+
//!    +-- name a step (commit) --> stage the file --> rename it over the target --> acknowledge (commit) <-------+
//! ```
//! A target that is a folder of files cannot compare generations, so a zombie is stopped by taking its staging folder away: its
//! write or rename then fails. For that the folder is made once, after the claim and before the first step is named, never again.

/// What to do about a step that was named and perhaps carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishRecovery {
    /// The target is as it was before the step: carry it out.
    CarryOut,
    /// The target has the step already: acknowledge it.
    AlreadyDone,
    /// Somebody else changed the file: do not touch it, write the step's rows to a new file.
    TargetChanged,
}

/// Decides from the target file's size before the step (0: it must not exist), its size now (`None`: it does not), and whether its
/// present end is the step's rows.
#[must_use]
pub fn decide_recovery(bytes_before: u64, bytes_now: Option<u64>, ends_with_step: bool) -> PublishRecovery {
    match bytes_now {
        None if bytes_before == 0 => PublishRecovery::CarryOut,
        Some(now) if now == bytes_before && now > 0 => PublishRecovery::CarryOut,
        Some(now) if now > bytes_before && ends_with_step => PublishRecovery::AlreadyDone,
        _ => PublishRecovery::TargetChanged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_was_not_carried_out_is() {
        assert_eq!(decide_recovery(0, None, false), PublishRecovery::CarryOut);
        assert_eq!(decide_recovery(10, Some(10), false), PublishRecovery::CarryOut);
    }

    #[test]
    fn a_step_that_was_carried_out_is_acknowledged() {
        assert_eq!(decide_recovery(0, Some(10), true), PublishRecovery::AlreadyDone);
        assert_eq!(decide_recovery(10, Some(20), true), PublishRecovery::AlreadyDone);
    }

    #[test]
    fn a_file_that_is_neither_before_nor_after_the_step_is_left_alone() {
        assert_eq!(decide_recovery(0, Some(0), false), PublishRecovery::TargetChanged);
        assert_eq!(decide_recovery(10, None, false), PublishRecovery::TargetChanged);
        assert_eq!(decide_recovery(10, Some(20), false), PublishRecovery::TargetChanged);
    }
}

//! When a transaction is sent again, and what its answers add up to (T5). Pure: no store, no clock.
//!
//! Only the first sending's answer can say *refused*: a later one may have been refused because an earlier one, whose answer was lost,
//! was applied. The write's own id in what was found proves that it was.

use crate::store::{Conflict, StoreError, TransactOutcome};

use super::failure::{Failure, Verdict};
use super::request::{Change, Guard, Order};

/// Sendings of one transaction. Callers retry with longer waits; this bridges a lost answer or a conflict of milliseconds.
pub(super) const SENDINGS_MAX: u32 = 5;

/// What came back of one sending.
#[derive(Debug)]
pub(super) enum Answer {
    /// Applied.
    Applied,
    /// Refused.
    Refused {
        /// What did not hold.
        conflicts: Vec<Conflict>,
        /// An item found was written by this very transaction.
        ours: bool,
    },
    /// Neither.
    Failed(Failure),
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Wait, then send the same again.
    Again,
    /// Wait, then send the same with another request token.
    AgainWithFreshToken,
    /// That is it.
    Done(Result<TransactOutcome, StoreError>),
}

/// The sendings of one transaction so far.
#[derive(Debug)]
pub(super) struct Sendings {
    /// Whether one sending that is applied keeps all others from being applied: all or nothing, so one such write is enough.
    fences_itself: bool,
    sent: u32,
    unclear: Option<String>,
}

impl Sendings {
    /// None yet.
    pub(super) fn new(orders: &[Order]) -> Self {
        Self { fences_itself: orders.iter().any(fences_itself), sent: 0, unclear: None }
    }

    /// Sendings so far.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Takes in an answer and decides what to do.
    pub(super) fn hear(&mut self, answer: Answer) -> Next {
        self.sent += 1;
        let failure = match answer {
            Answer::Applied | Answer::Refused { ours: true, .. } => return Next::Done(Ok(TransactOutcome::Applied)),
            Answer::Refused { conflicts, .. } => return Next::Done(self.refused(conflicts)),
            Answer::Failed(failure) => failure,
        };
        match failure.verdict {
            Verdict::Invalid => Next::Done(Err(self.failed(failure.text, StoreError::Invalid))),
            Verdict::NotDone if self.sent < SENDINGS_MAX => Next::Again,
            Verdict::NotDone => Next::Done(Err(self.failed(failure.text, StoreError::Determinate))),
            Verdict::Unclear | Verdict::TokenTaken => {
                let fresh = failure.verdict == Verdict::TokenTaken;
                self.unclear = Some(failure.text.clone());
                match self.sent < SENDINGS_MAX && self.fences_itself {
                    true if fresh => Next::AgainWithFreshToken,
                    true => Next::Again,
                    false => Next::Done(Err(StoreError::Indeterminate(failure.text))),
                }
            }
        }
    }

    fn refused(&self, conflicts: Vec<Conflict>) -> Result<TransactOutcome, StoreError> {
        match &self.unclear {
            None => Ok(TransactOutcome::Refused(conflicts)),
            Some(text) => Err(StoreError::Indeterminate(format!("{text}; sent again, it was refused"))),
        }
    }

    fn failed(&self, text: String, as_error: impl FnOnce(String) -> StoreError) -> StoreError {
        match &self.unclear {
            None => as_error(text),
            Some(unclear) => StoreError::Indeterminate(format!("{unclear}; sent again: {text}")),
        }
    }
}

/// Whether applying the write ends its own condition.
fn fences_itself(order: &Order) -> bool {
    match order.change {
        Change::Put(_) => matches!(order.guard, Guard::Absent | Guard::VersionIs(_)),
        Change::Delete => true,
        Change::Nothing => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ItemKey;

    fn put(guard: Guard) -> Vec<Order> {
        vec![Order { key: ItemKey::new("p", "s"), guard, change: Change::Put("{}".to_owned()) }]
    }

    fn failed(verdict: Verdict) -> Answer {
        Answer::Failed(Failure { verdict, text: "why".to_owned() })
    }

    fn refused(ours: bool) -> Answer {
        Answer::Refused { conflicts: vec![Conflict { index: 0, found: None }], ours }
    }

    #[test]
    fn a_refusal_counts_only_when_nothing_before_it_was_unclear() {
        let mut first = Sendings::new(&put(Guard::Absent));
        assert!(matches!(first.hear(failed(Verdict::NotDone)), Next::Again));
        assert!(matches!(first.hear(refused(false)), Next::Done(Ok(TransactOutcome::Refused(_)))));
        let mut second = Sendings::new(&put(Guard::Absent));
        assert!(matches!(second.hear(failed(Verdict::Unclear)), Next::Again));
        assert!(matches!(second.hear(refused(false)), Next::Done(Err(StoreError::Indeterminate(_)))));
    }

    #[test]
    fn a_refusal_that_finds_our_own_write_is_a_success() {
        let mut sendings = Sendings::new(&put(Guard::VersionIs(3)));
        assert!(matches!(sendings.hear(failed(Verdict::TokenTaken)), Next::AgainWithFreshToken));
        assert!(matches!(sendings.hear(refused(true)), Next::Done(Ok(TransactOutcome::Applied))));
    }

    #[test]
    fn what_could_be_applied_twice_is_not_sent_again() {
        let mut blind = Sendings::new(&put(Guard::Exists));
        assert!(matches!(blind.hear(failed(Verdict::NotDone)), Next::Again));
        assert!(matches!(blind.hear(failed(Verdict::Unclear)), Next::Done(Err(StoreError::Indeterminate(_)))));
    }

    #[test]
    fn an_unclear_sending_is_never_forgotten() {
        for last in [Verdict::NotDone, Verdict::Invalid] {
            let mut sendings = Sendings::new(&put(Guard::Absent));
            let mut next = sendings.hear(failed(Verdict::Unclear));
            for _ in 1..SENDINGS_MAX {
                assert!(!matches!(next, Next::Done(Ok(_))));
                next = sendings.hear(failed(last));
            }
            assert!(matches!(next, Next::Done(Err(StoreError::Indeterminate(_)))), "{last:?}");
        }
    }

    #[test]
    fn throttling_ends_as_determinate_after_bounded_sendings() {
        let mut sendings = Sendings::new(&put(Guard::Absent));
        for _ in 1..SENDINGS_MAX {
            assert!(matches!(sendings.hear(failed(Verdict::NotDone)), Next::Again));
        }
        assert!(matches!(sendings.hear(failed(Verdict::NotDone)), Next::Done(Err(StoreError::Determinate(_)))));
    }
}

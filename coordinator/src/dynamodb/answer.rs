//! Sends a request once and says what came back.

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::CancellationReason;

use crate::store::Conflict;

use super::connect::Place;
use super::failure::{Failure, Verdict, explain, judge, judge_reason};
use super::item::{self, Attributes};
use super::request::Request;
use super::resend::Answer;

impl Request {
    /// Sends it once.
    ///
    /// - `token`: makes a transaction idempotent for ten minutes, in stores that look at it. - `write`: the id it writes.
    pub(super) async fn send(&self, token: u128, write: u128, place: &Place) -> Answer {
        match self.clone() {
            Self::Update(update) => match update.send().await {
                Ok(_) => Answer::Applied,
                Err(error) => match error.as_service_error() {
                    Some(UpdateItemError::ConditionalCheckFailedException(refused)) => one_refused(refused.item(), write, place),
                    _ => Answer::Failed(judge(&error, place)),
                },
            },
            Self::Delete(delete) => match delete.send().await {
                Ok(_) => Answer::Applied,
                Err(error) => match error.as_service_error() {
                    Some(DeleteItemError::ConditionalCheckFailedException(refused)) => one_refused(refused.item(), write, place),
                    _ => Answer::Failed(judge(&error, place)),
                },
            },
            Self::Transact(transact) => match transact.client_request_token(format!("{token:032x}")).send().await {
                Ok(_) => Answer::Applied,
                Err(error) => match error.as_service_error() {
                    Some(TransactWriteItemsError::TransactionCanceledException(canceled)) => {
                        canceled_because(canceled.cancellation_reasons(), write, place)
                    }
                    _ => Answer::Failed(judge(&error, place)),
                },
            },
        }
    }
}

fn one_refused(found: Option<&Attributes>, write: u128, place: &Place) -> Answer {
    refused(std::iter::once((0, found)), write, place)
}

/// A transaction that was cancelled did not happen; whether it was refused, its reasons say, one for each write.
fn canceled_because(reasons: &[CancellationReason], write: u128, place: &Place) -> Answer {
    let failed =
        |(index, reason): (usize, &'_ CancellationReason)| (reason.code() == Some("ConditionalCheckFailed")).then_some(index);
    let indices: Vec<usize> = reasons.iter().enumerate().filter_map(failed).collect();
    if !indices.is_empty() {
        return refused(indices.into_iter().map(|index| (index, reasons[index].item())), write, place);
    }
    let others = reasons.iter().filter_map(|reason| Some((reason.code()?, reason.message().unwrap_or_default())));
    let others: Vec<(&str, &str)> = others.filter(|(code, _)| *code != "None").collect();
    let verdict = others.iter().map(|(code, _)| judge_reason(code)).find(|verdict| *verdict == Verdict::Invalid);
    let (code, message) = others.first().copied().unwrap_or(("TransactionCanceledException", "no reason given"));
    Answer::Failed(Failure { verdict: verdict.unwrap_or(Verdict::NotDone), text: explain(code, message, place) })
}

fn refused<'a>(found: impl Iterator<Item = (usize, Option<&'a Attributes>)>, write: u128, place: &Place) -> Answer {
    let mut conflicts = Vec::new();
    let mut ours = false;
    for (index, attributes) in found {
        // A store that sends an empty item where there is none means none.
        let attributes = attributes.filter(|attributes| !attributes.is_empty());
        ours |= attributes.is_some_and(|attributes| item::written_by(attributes, write));
        match attributes.cloned().map(item::decode).transpose() {
            Ok(found) => conflicts.push(Conflict { index, found }),
            Err(error) => {
                let failure = Failure { verdict: Verdict::Invalid, text: format!("{place}: {error}") };
                return Answer::Failed(failure);
            }
        }
    }
    Answer::Refused { conflicts, ours }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { table: "t".into(), region: "r".into(), endpoint: None }
    }

    fn reason(code: &str) -> CancellationReason {
        CancellationReason::builder().code(code).message("m").build()
    }

    #[test]
    fn a_cancelled_transaction_is_refused_only_where_a_condition_failed() {
        let mixed = [reason("None"), reason("TransactionConflict"), reason("ConditionalCheckFailed")];
        match canceled_because(&mixed, 1, &place()) {
            Answer::Refused { conflicts, ours } => {
                assert_eq!((conflicts, ours), (vec![Conflict { index: 2, found: None }], false));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn throttled_and_conflicting_transactions_did_not_happen_and_are_not_refused() {
        for code in ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "NobodyKnows"] {
            match canceled_because(&[reason("None"), reason(code)], 1, &place()) {
                Answer::Failed(failure) => assert_eq!(failure.verdict, Verdict::NotDone, "{code}"),
                other => panic!("{other:?}"),
            }
        }
        for code in ["ValidationError", "ItemCollectionSizeLimitExceeded"] {
            match canceled_because(&[reason(code), reason("TransactionConflict")], 1, &place()) {
                Answer::Failed(failure) => assert_eq!(failure.verdict, Verdict::Invalid, "{code}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

//! What a failed request says of itself (T5): nothing happened, or something may have. Never that a writer is fenced.
//!
//! | the service says | verdict |
//! | --- | --- |
//! | throttled, over a limit, in conflict with a transaction under way | [`Verdict::NotDone`] |
//! | another refusal (4xx) that we know no remedy for | [`Verdict::NotDone`] |
//! | no such table, no permission, bad signature, malformed request | [`Verdict::Invalid`] |
//! | an error of its own (5xx), time-out, this transaction is under way already | [`Verdict::Unclear`] |
//! | the request token was used | [`Verdict::TokenTaken`] |
//! | nothing: no connection stood | [`Verdict::NotDone`] |
//! | nothing: a time-out or a broken connection or answer | [`Verdict::Unclear`] |

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::store::StoreError;

use super::connect::Place;

/// What is known of a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It did not happen; the same request may succeed later.
    NotDone,
    /// It did not happen and will not: the user must change something.
    Invalid,
    /// It may have happened, or may yet.
    Unclear,
    /// The store has seen its token: it may have happened, and only another token gets a fresh answer.
    TokenTaken,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// What is known.
    pub(super) verdict: Verdict,
    /// For people, with the remedy where there is one.
    pub(super) text: String,
}

impl Failure {
    /// As the error of a request that changes no row.
    pub(super) fn of_a_read(self) -> StoreError {
        match self.verdict {
            Verdict::Invalid => StoreError::Invalid(self.text),
            Verdict::NotDone | Verdict::Unclear | Verdict::TokenTaken => StoreError::Determinate(self.text),
        }
    }
}

/// Judges an answer by the service's code and HTTP status.
pub(super) fn judge_code(code: &str, status: u16) -> Verdict {
    match code {
        "IdempotentParameterMismatchException" => Verdict::TokenTaken,
        "TransactionInProgressException" => Verdict::Unclear,
        "ResourceNotFoundException"
        | "ValidationException"
        | "SerializationException"
        | "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "RequestTimeTooSkewed"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => Verdict::Invalid,
        _ if status == 408 || status >= 500 => Verdict::Unclear,
        _ if (400..500).contains(&status) => Verdict::NotDone,
        _ => Verdict::Unclear,
    }
}

/// Judges the reason why a transaction was cancelled, but for a failed condition. It did not happen.
pub(super) fn judge_reason(code: &str) -> Verdict {
    match code {
        "ValidationError" | "ItemCollectionSizeLimitExceeded" | "AccessDenied" => Verdict::Invalid,
        _ => Verdict::NotDone,
    }
}

/// Judges a failed request.
pub(super) fn judge<E>(error: &SdkError<E, HttpResponse>, place: &Place) -> Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let away = never_connected(error);
    let verdict = match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let code = answer.err().code().map_or_else(|| format!("HTTP status {status}"), str::to_owned);
            let text = explain(&code, answer.err().message().unwrap_or("no reason given"), place);
            return Failure { verdict: judge_code(&code, status), text };
        }
        SdkError::ConstructionFailure(_) => Verdict::NotDone,
        SdkError::DispatchFailure(_) if away => Verdict::NotDone,
        _ => Verdict::Unclear,
    };
    let remedy = if away { "; nothing answers there: check AWS_REGION and AWS_ENDPOINT_URL_DYNAMODB" } else { "" };
    Failure { verdict, text: format!("{place}: {}{remedy}", causes(error)) }
}

/// An error and what caused it, without the SDK's internals.
pub(super) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Whether the connection was never made, so that nothing of the request can have been sent.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(hyper_util::client::legacy::Error::is_connect) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The service's answer with the remedy.
pub(super) fn explain(code: &str, message: &str, place: &Place) -> String {
    let skewed = code == "RequestTimeTooSkewed" || message.contains("Signature expired") || message.contains("not yet current");
    let remedy = match code {
        _ if skewed => "this machine's clock is wrong: set it (chrony or NTP)",
        "ResourceNotFoundException" => "make it with weir table create, or choose its region with AWS_REGION",
        "AccessDeniedException" => "let the role or user do this to the table",
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => "the credentials are not known here: check AWS_ACCESS_KEY_ID and AWS_REGION",
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "IncompleteSignatureException" => {
            "the secret key does not fit the access key: check AWS_SECRET_ACCESS_KEY"
        }
        "ExpiredTokenException" | "ExpiredToken" => "the credentials have expired: get new ones",
        _ => "",
    };
    let separator = if remedy.is_empty() { "" } else { "; " };
    format!("{place}: {code}: {message}{separator}{remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttling_and_conflicts_did_not_happen_and_server_errors_may_have() {
        for code in [
            "ThrottlingException",
            "ProvisionedThroughputExceededException",
            "RequestLimitExceeded",
            "TransactionConflictException",
            "ReplicatedWriteConflictException",
            "ExpiredTokenException",
            "NobodyKnows",
        ] {
            assert_eq!(judge_code(code, 400), Verdict::NotDone, "{code}");
        }
        for (code, status) in [
            ("InternalServerError", 500),
            ("ServiceUnavailable", 503),
            ("", 502),
            ("", 408),
            ("", 200),
            ("TransactionInProgressException", 400),
        ] {
            assert_eq!(judge_code(code, status), Verdict::Unclear, "{code} {status}");
        }
        for code in ["ResourceNotFoundException", "AccessDeniedException", "ValidationException", "InvalidSignatureException"] {
            assert_eq!(judge_code(code, 400), Verdict::Invalid, "{code}");
        }
        assert_eq!(judge_code("IdempotentParameterMismatchException", 400), Verdict::TokenTaken);
    }

    #[test]
    fn a_wrong_clock_is_told_apart_from_a_wrong_key() {
        let place = Place { table: "weir".into(), region: "eu-west-1".into(), endpoint: None };
        let clock = explain("InvalidSignatureException", "Signature expired: 20261123T1 is now earlier than", &place);
        assert!(clock.contains("clock") && !clock.contains("SECRET") && clock.contains("weir in eu-west-1"), "{clock}");
        let key = explain("InvalidSignatureException", "The request signature we calculated does not match", &place);
        assert!(key.contains("AWS_SECRET_ACCESS_KEY") && !key.contains("clock"), "{key}");
    }
}

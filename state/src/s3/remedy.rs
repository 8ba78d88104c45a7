//! What a store's refusal means, and what to do about it. Stores say it in the answer's body.

use object_store::Error;

/// A sign in what the store says, and the remedy.
const KNOWN: [(&str, &str); 11] = [
    ("NoSuchBucket", "there is no such bucket: make it, or name another with --store s3://BUCKET"),
    ("InvalidAccessKeyId", "the access key is not known there: check AWS_ACCESS_KEY_ID and the endpoint"),
    ("SignatureDoesNotMatch", "the secret does not fit the access key: check AWS_SECRET_ACCESS_KEY"),
    ("RequestTimeTooSkewed", "this machine's clock differs too much from the store's: set it (NTP), then run again"),
    ("AccessDenied", "access is denied: the key needs s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket on it"),
    ("PermanentRedirect", "the bucket is in another region: set AWS_REGION"),
    ("incorrectly configured region", "the bucket is in another region: set AWS_REGION"),
    ("AuthorizationHeaderMalformed", "the bucket is in another region: set AWS_REGION"),
    ("StorageFull", "the store is full: free some space and run again; nothing committed is lost"),
    ("QuotaExceeded", "the bucket's quota is used up: raise it or free some space, and run again; nothing committed is lost"),
    ("error sending request", "it does not answer: check AWS_ENDPOINT_URL_S3 and the network"),
];

/// A refusal whose remedy is known.
#[derive(Debug, thiserror::Error)]
#[error("bucket {bucket}: {remedy}")]
struct Refusal {
    bucket: String,
    remedy: &'static str,
    source: Error,
}

/// The remedy; what the store said where none is known.
pub(super) fn remedy(error: &Error) -> String {
    let said = chain(error);
    known(&said).map_or_else(|| said.clone(), str::to_owned)
}

/// Puts the remedy before an error that callers do not tell apart from others.
pub(super) fn with_remedy(bucket: &str, error: Error) -> Error {
    let remedy = match &error {
        Error::Generic { .. } => known(&chain(&error)),
        // Callers act on what the others are.
        _ => None,
    };
    match remedy {
        Some(remedy) => {
            let refusal = Refusal { bucket: bucket.to_owned(), remedy, source: error };
            Error::Generic { store: "S3", source: Box::new(refusal) }
        }
        None => error,
    }
}

fn known(said: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(sign, _)| said.contains(sign)).map(|(_, remedy)| *remedy)
}

/// An error with all that it stems from.
fn chain(error: &Error) -> String {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = error.source();
    }
    said
}

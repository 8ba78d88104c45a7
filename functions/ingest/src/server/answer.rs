//! Answers: JSON, with a status that says what to do.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use weir_connectors::body::{BadBodyRow, BodyFormat};

use crate::StreamError;
use crate::appender::{Receipt, Refusal};

/// Bad rows that an answer names.
const BAD_ROWS_SHOWN: usize = 20;
/// When a client that was refused for the load should come back.
const RETRY_AFTER_SECONDS: &str = "1";

/// A request that was not taken.
#[derive(Debug)]
pub(super) enum Problem {
    /// The header or the body cannot be read at all.
    Malformed(String),
    /// No token, or another.
    Unauthorised,
    /// There is no such stream.
    NoStream(String),
    /// The body is too long.
    TooLarge { bytes_max: usize },
    /// The body took too long.
    TooSlow { seconds: u64 },
    /// Unknown format or encoding.
    Unsupported(String),
    /// Some of its rows cannot be read: none was taken.
    BadRows { count: usize, first: Vec<BadBodyRow> },
    /// As the appender said.
    Refused(Refusal),
    /// The stream's row or columns cannot be read.
    Stream(StreamError),
}

/// Body of an answer that says no.
#[derive(Debug, Serialize)]
struct Said {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bad_rows: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bad: Vec<BadRow>,
}

#[derive(Debug, Serialize)]
struct BadRow {
    row: usize,
    reason: String,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorised => StatusCode::UNAUTHORIZED,
            Self::NoStream(_) => StatusCode::NOT_FOUND,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BadRows { .. } | Self::Refused(Refusal::KeyReused) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Refused(Refusal::Busy) => StatusCode::TOO_MANY_REQUESTS,
            Self::Refused(Refusal::Closed) => StatusCode::GONE,
            Self::Refused(Refusal::Unavailable(_)) | Self::Stream(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Malformed(text) | Self::Unsupported(text) => text.clone(),
            Self::Unauthorised => "send the server's token: Authorization: Bearer TOKEN".to_owned(),
            Self::NoStream(text) => text.clone(),
            Self::TooLarge { bytes_max } => format!("the body is longer than {bytes_max} bytes: send it in several requests"),
            Self::TooSlow { seconds } => format!("the body did not come within {seconds} s: send it in several requests"),
            Self::BadRows { count, .. } => format!("{count} rows cannot be read; none of the request was taken"),
            Self::Refused(refusal) => refusal.to_string(),
            Self::Stream(error) => error.to_string(),
        }
    }

    pub(super) fn unsupported_format(found: Option<&str>) -> Self {
        let found = found.map_or_else(|| "the request has no Content-Type".to_owned(), |found| format!("{found} is not read"));
        Self::Unsupported(format!("{found}: send Content-Type: {}", BodyFormat::MEDIA_TYPES.join(", or ")))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let error = self.text();
        let (bad_rows, bad) = match self {
            Self::BadRows { count, first } => {
                let shown = first.into_iter().take(BAD_ROWS_SHOWN);
                (Some(count), shown.map(|bad| BadRow { row: bad.row, reason: bad.reason }).collect())
            }
            _ => (None, Vec::new()),
        };
        let mut response = (status, Json(Said { error, bad_rows, bad })).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Body of an answer that says yes.
#[derive(Debug, Serialize)]
pub(super) struct Taken {
    stream: String,
    rows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lane: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    repeated: bool,
}

impl Taken {
    pub(super) fn new(stream: &str, receipt: Receipt) -> Self {
        let (lane, epoch) = receipt.place.unzip();
        Self {
            stream: stream.to_owned(),
            rows: receipt.rows,
            lane: lane.map(|lane| lane.0),
            epoch: epoch.map(|epoch| epoch.0),
            repeated: receipt.repeated,
        }
    }
}

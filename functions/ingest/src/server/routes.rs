//! What each route does.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use weir_connectors::body::{self as rows, BodyFormat};
use weir_coordinator::streams;
use weir_model::stream::StreamRow;

use super::answer::{Problem, Taken};
use super::body::{self, Bounds, Encoding};
use super::{OPENAPI, Server};
use crate::appender::{Appender, Lasts, RequestKey, RowsRequest};
use crate::{StreamError, read_schema};

/// Longest idempotency key.
const KEY_CHARS_MAX: usize = 255;
/// Header of the idempotency key.
const KEY_HEADER: &str = "idempotency-key";
/// Media type of the Prometheus text format that carries units.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Shared = State<Arc<Server>>;

pub(super) async fn health() -> &'static str {
    "ok\n"
}

pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

pub(super) async fn metrics(State(server): Shared) -> Response {
    let waiting = server.settings.waiting_bytes_max.saturating_sub(server.waiting.available_permits());
    match server.metrics.encode(waiting) {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

pub(super) async fn unknown(uri: Uri) -> Response {
    let known = "the routes are POST /v1/streams/STREAM/rows, GET /v1/streams, /healthz, /metrics, /openapi.json";
    Problem::NoStream(format!("there is nothing at {}: {known}", uri.path())).into_response()
}

/// Lets requests pass that bear the token, if there is one.
pub(super) async fn authorised(State(server): Shared, request: Request, next: Next) -> Response {
    match &server.settings.token {
        Some(token) if !token.is_borne_by(request.headers()) => Problem::Unauthorised.into_response(),
        Some(_) | None => next.run(request).await,
    }
}

/// A stream as the API shows it.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    name: String,
    id: String,
    lanes: u16,
    closed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    columns: Vec<Column>,
}

#[derive(Debug, Serialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    data_type: String,
}

impl Shown {
    fn new(row: StreamRow) -> Self {
        Self { name: row.name, id: row.stream.to_string(), lanes: row.lanes, closed: row.closed, columns: Vec::new() }
    }
}

pub(super) async fn list(State(server): Shared) -> Result<Json<Vec<Shown>>, Problem> {
    let rows = streams::list(server.seams.table.as_ref()).await.map_err(|error| Problem::Stream(error.into()))?;
    Ok(Json(rows.into_iter().map(Shown::new).collect()))
}

pub(super) async fn describe(State(server): Shared, Path(name): Path<String>) -> Result<Json<Shown>, Problem> {
    let row = streams::find(server.seams.table.as_ref(), &name).await.map_err(|error| Problem::Stream(error.into()))?;
    let Some(row) = row else { return Err(no_stream(&server, &name).await) };
    let schema = read_schema(&server.seams, &row).await.map_err(Problem::Stream)?;
    let column =
        |field: &Arc<arrow::datatypes::Field>| Column { name: field.name().clone(), data_type: field.data_type().to_string() };
    Ok(Json(Shown { columns: schema.fields().iter().map(column).collect(), ..Shown::new(row) }))
}

/// Names those that are there.
async fn no_stream(server: &Server, name: &str) -> Problem {
    match streams::list(server.seams.table.as_ref()).await {
        Err(error) => Problem::Stream(error.into()),
        Ok(rows) if rows.is_empty() => Problem::NoStream(format!(
            "there is no stream {name}, nor any other: weir stream create JOB.sql, or start the job that reads it"
        )),
        Ok(rows) => {
            let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
            Problem::NoStream(format!("there is no stream {name}; there are {}", names.join(", ")))
        }
    }
}

/// Appends a request's rows. Counts and times every answer.
pub(super) async fn append(State(server): Shared, Path(name): Path<String>, headers: HeaderMap, body: Body) -> Response {
    let began = server.seams.clock.monotonic_micros();
    let appender = server.appender(&name).await;
    let (known, answer) = match appender {
        Ok(Some(appender)) => (name.as_str(), append_to(&server, &appender, &headers, body).await),
        Ok(None) => ("", Err(no_stream(&server, &name).await)),
        Err(error) => ("", Err(Problem::Stream(error))),
    };
    let response = answer.map_or_else(IntoResponse::into_response, IntoResponse::into_response);
    #[expect(clippy::cast_precision_loss, reason = "a time for people")]
    let seconds = (server.seams.clock.monotonic_micros() - began) as f64 / 1e6;
    server.metrics.answered(known, response.status().as_u16(), seconds);
    response
}

async fn append_to(server: &Server, appender: &Arc<Appender>, headers: &HeaderMap, body: Body) -> Result<Json<Taken>, Problem> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let format = media_type.and_then(BodyFormat::of_media_type).ok_or_else(|| Problem::unsupported_format(media_type))?;
    let key = key(headers)?;
    let settings = &server.settings;
    let bounds = Bounds { bytes_max: settings.body_bytes_max, patience: settings.patience };
    let mut received = body::read(headers, body, bounds, &server.waiting).await?;
    let taken = received.bytes.len();
    let decoded = decode(server, appender, format, received.encoding, received.bytes).await?;
    if decoded.rows.bad_rows > 0 {
        return Err(Problem::BadRows { count: decoded.rows.bad_rows, first: decoded.rows.bad });
    }
    let more = decoded.rows.bytes().saturating_sub(taken);
    received.room.merge(body::room(&server.waiting, more)?);
    let key = key.map(|key| RequestKey { key, body: decoded.digest, lasts: Lasts::Day });
    let request = RowsRequest { batches: decoded.rows.batches, key, room: Some(received.room) };
    let receipt = appender.append(request).await.map_err(Problem::Refused)?;
    let stream = &appender.stream().name;
    server.metrics.taken(stream, receipt.rows, decoded.bytes, receipt.repeated);
    Ok(Json(Taken::new(stream, receipt)))
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(KEY_HEADER) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= KEY_CHARS_MAX);
    let wrong = || Problem::Malformed(format!("Idempotency-Key must be 1 to {KEY_CHARS_MAX} visible ASCII characters"));
    key.map(|key| Some(key.to_owned())).ok_or_else(wrong)
}

fn digest(body: &Bytes) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(body))
}

/// What a body stands for.
struct Decoded {
    rows: rows::Body,
    /// Of the body, decompressed.
    bytes: u64,
    digest: String,
}

/// Off the threads that answer: it takes the time of its bytes.
async fn decode(
    server: &Server,
    appender: &Appender,
    format: BodyFormat,
    encoding: Encoding,
    sent: Bytes,
) -> Result<Decoded, Problem> {
    let stopped = |error: &dyn std::fmt::Display| {
        Problem::Stream(StreamError::Columns { name: appender.stream().name.clone(), message: error.to_string() })
    };
    let _turn = server.decoding.acquire().await.map_err(|error| stopped(&error))?;
    let schema = Arc::clone(appender.schema());
    let bytes_max = server.settings.body_bytes_max;
    let decoded = tokio::task::spawn_blocking(move || {
        let bytes = encoding.decompress(sent, bytes_max)?;
        let rows = rows::decode(format, &schema, &bytes).map_err(Problem::Malformed)?;
        Ok(Decoded { rows, bytes: bytes.len() as u64, digest: digest(&bytes) })
    });
    decoded.await.map_err(|error| stopped(&error))?
}

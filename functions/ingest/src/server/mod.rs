//! The HTTP server: requests in, answers after the commit. Never: TLS (a proxy or a function URL has that).
//!
//! | route | does |
//! | --- | --- |
//! | `POST /v1/streams/{stream}/rows` | appends the rows of the body |
//! | `GET /v1/streams`, `GET /v1/streams/{stream}` | streams and their columns |
//! | `GET /healthz`, `GET /metrics`, `GET /openapi.json` | for machines, without token |

mod answer;
pub mod auth;
mod body;
mod connections;
mod metrics;
mod routes;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use weir_coordinator::streams;

use crate::appender::{Appender, FoldSettings};
use crate::{Seams, StreamError, read_schema};
pub use auth::Token;
pub use connections::serve;
use metrics::Metrics;

/// The API's description, OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("openapi.json");

/// How a server behaves.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Required of every request that reads or appends, if set.
    pub token: Option<Token>,
    /// Longest body, as sent and as decompressed.
    pub body_bytes_max: usize,
    /// Bodies and rows that may wait at a time.
    pub waiting_bytes_max: usize,
    /// Longest time for a request's headers, and for its body.
    pub patience: Duration,
    /// Connections at a time.
    pub connections_max: usize,
    /// How requests are folded.
    pub fold: FoldSettings,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            token: None,
            body_bytes_max: 32 << 20,
            waiting_bytes_max: 256 << 20,
            patience: Duration::from_secs(30),
            connections_max: 4_096,
            fold: FoldSettings::default(),
        }
    }
}

/// What a server has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Requests.
    pub requests: u64,
    /// Rows committed.
    pub rows: u64,
}

/// An address that must not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{address} can be reached from other machines: set a token (WEIR_TOKEN or --token-file), or listen on 127.0.0.1")]
pub struct Exposed {
    /// The address.
    pub address: SocketAddr,
}

/// Refuses to be reached from elsewhere without a token.
///
/// # Errors
/// [`Exposed`].
pub fn check_exposure(address: SocketAddr, settings: &ServerSettings) -> Result<(), Exposed> {
    if address.ip().is_loopback() || settings.token.is_some() { Ok(()) } else { Err(Exposed { address }) }
}

/// What all requests share.
#[derive(Debug)]
pub struct Server {
    seams: Seams,
    settings: ServerSettings,
    /// By the stream's name.
    appenders: Mutex<HashMap<String, Arc<Appender>>>,
    /// Bytes that may still come.
    waiting: Arc<Semaphore>,
    /// Bodies decoded at a time: as many as there are cores.
    decoding: Semaphore,
    metrics: Metrics,
}

impl Server {
    /// A server that appends by `seams`.
    #[must_use]
    pub fn new(seams: Seams, settings: ServerSettings) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            waiting: Arc::new(Semaphore::new(settings.waiting_bytes_max.min(Semaphore::MAX_PERMITS))),
            decoding: Semaphore::new(cores),
            appenders: Mutex::new(HashMap::new()),
            metrics: Metrics::new(),
            seams,
            settings,
        })
    }

    /// Its routes.
    pub fn router(self: &Arc<Self>) -> Router {
        let guarded = Router::new()
            .route("/v1/streams", get(routes::list))
            .route("/v1/streams/{stream}", get(routes::describe))
            .route("/v1/streams/{stream}/rows", post(routes::append))
            .layer(middleware::from_fn_with_state(Arc::clone(self), routes::authorised));
        Router::new()
            .route("/healthz", get(routes::health))
            .route("/metrics", get(routes::metrics))
            .route("/openapi.json", get(routes::openapi))
            .merge(guarded)
            .fallback(routes::unknown)
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(self))
    }

    /// The way into the stream `name`; `None` if there is no such stream.
    async fn appender(&self, name: &str) -> Result<Option<Arc<Appender>>, StreamError> {
        let mut appenders = self.appenders.lock().await;
        if let Some(appender) = appenders.get(name) {
            return Ok(Some(Arc::clone(appender)));
        }
        let Some(row) = streams::find(self.seams.table.as_ref(), name).await? else { return Ok(None) };
        let schema = read_schema(&self.seams, &row).await?;
        let appender = Arc::new(Appender::start(&self.seams, row, schema, self.settings.fold.clone()));
        appenders.insert(name.to_owned(), Arc::clone(&appender));
        Ok(Some(appender))
    }

    /// What it answered so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.metrics.totals()
    }

    /// Commits what waits and lets go of all lanes. Requests must have ended.
    pub async fn leave(&self) {
        let appenders = std::mem::take(&mut *self.appenders.lock().await);
        for appender in appenders.into_values() {
            match Arc::try_unwrap(appender) {
                Ok(appender) => appender.leave().await,
                Err(shared) => {
                    tracing::warn!(stream = %shared.stream().name, "a request has not ended: its lane's lease ends by itself")
                }
            }
        }
    }
}

/// Listens on `address`.
///
/// # Errors
/// A sentence that names the address and the remedy.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("{address}: {error}: choose another with --listen ADDRESS:PORT"))
}

#[cfg(test)]
mod tests;

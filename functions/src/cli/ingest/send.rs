//! One request, sent until it is answered for good.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use weir_ingest::server::Token;
use weir_model::Clock as _;
use weir_seams::SystemClock;

use super::chunks::Chunk;

/// How long a sender waits for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// A connection.
    pub(super) connect: Duration,
    /// An answer, from the first byte sent to the last one heard; longer than a server takes over a body.
    pub(super) answer: Duration,
    /// Before the second try; doubles with each.
    pub(super) wait: Duration,
    /// Between two tries at most.
    pub(super) wait_max: Duration,
    /// A chunk in all, however often it is sent.
    pub(super) all: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(5),
            answer: seconds(60),
            wait: Duration::from_millis(100),
            wait_max: seconds(5),
            all: seconds(300),
        }
    }
}

/// Bad rows that a message names.
const BAD_ROWS_SHOWN: usize = 5;

/// Sends chunks to one stream.
pub(super) struct Sender {
    client: Client,
    clock: SystemClock,
    patience: Patience,
    url: Url,
    token: Option<Token>,
    run: String,
}

/// A chunk that is durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) repeated: bool,
}

#[derive(Debug, Deserialize)]
struct Taken {
    rows: u64,
    repeated: bool,
}

#[derive(Debug, Deserialize)]
struct Said {
    error: String,
    #[serde(default)]
    bad: Vec<BadRow>,
}

#[derive(Debug, Deserialize)]
struct BadRow {
    row: u64,
    reason: String,
}

impl Sender {
    /// - `run`: what the keys of all requests begin with.
    pub(super) fn new(server: &str, stream: &str, token: Option<Token>, run: &str, patience: Patience) -> anyhow::Result<Self> {
        let mut url = Url::parse(server).with_context(|| format!("--server {server}: write http://HOST:PORT"))?;
        ensure!(matches!(url.scheme(), "http" | "https"), "--server {server}: write http://HOST:PORT");
        match url.path_segments_mut() {
            Ok(mut path) => drop(path.pop_if_empty().extend(["v1", "streams", stream, "rows"])),
            Err(()) => bail!("--server {server}: write http://HOST:PORT"),
        }
        let client = Client::builder().connect_timeout(patience.connect).timeout(patience.answer).build();
        let client = client.context("the HTTP client")?;
        Ok(Self { client, clock: SystemClock::new(), patience, url, token, run: run.to_owned() })
    }

    /// Sends the chunk `number`; again under the same key for as long as nobody knows what came of it.
    pub(super) async fn send(&self, number: u64, chunk: Chunk) -> anyhow::Result<Sent> {
        let (began, mut wait) = (self.clock.monotonic_micros(), self.patience.wait);
        let until = began.saturating_add(i64::try_from(self.patience.all.as_micros()).unwrap_or(i64::MAX));
        loop {
            let unclear = match self.attempt(number, &chunk).await {
                Ok(Answer { status: StatusCode::OK, text }) => return taken(&text, &chunk),
                Ok(answer) if passes(answer.status) => format!("{} ({})", said(&answer.text).error, answer.status.as_u16()),
                Ok(answer) => return Err(refused(answer.status, said(&answer.text), &chunk)),
                Err(error) => causes(&error),
            };
            let over = self.clock.monotonic_micros() > until;
            ensure!(!over, "{}: no clear answer for {} s: {unclear}", self.url, self.patience.all.as_secs());
            self.clock.sleep(wait).await;
            wait = (wait * 2).min(self.patience.wait_max);
        }
    }

    async fn attempt(&self, number: u64, chunk: &Chunk) -> reqwest::Result<Answer> {
        let request = self.client.post(self.url.clone()).header("content-type", chunk.content_type);
        let mut request = request.header("idempotency-key", format!("{}-{number}", self.run)).body(chunk.body.clone());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        let response = request.send().await?;
        Ok(Answer { status: response.status(), text: response.text().await? })
    }
}

/// An answer that was heard to its end.
struct Answer {
    status: StatusCode,
    text: String,
}

/// Whether sending again may help: the request may have been taken or not, which its key settles.
const fn passes(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// An error with what it stems from: the client's own sentence alone does not say why.
fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn taken(text: &str, chunk: &Chunk) -> anyhow::Result<Sent> {
    let taken: Taken = serde_json::from_str(text).context("the server's answer")?;
    Ok(Sent { rows: taken.rows, bytes: chunk.file_bytes, repeated: taken.repeated })
}

fn said(text: &str) -> Said {
    serde_json::from_str(text).unwrap_or_else(|_| Said { error: text.to_owned(), bad: Vec::new() })
}

/// Names bad rows by their place in the file.
fn refused(status: StatusCode, said: Said, chunk: &Chunk) -> anyhow::Error {
    let row = |bad: &BadRow| format!("row {}: {}", chunk.rows_before + bad.row, bad.reason);
    let bad: Vec<_> = said.bad.iter().take(BAD_ROWS_SHOWN).map(row).collect();
    let rows = if bad.is_empty() { String::new() } else { format!("\n  {}", bad.join("\n  ")) };
    anyhow::anyhow!("{} ({}){rows}", said.error, status.as_u16())
}

#[cfg(test)]
mod tests;

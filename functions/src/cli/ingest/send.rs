//! One request, sent until it is answered for good.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;

use weir_model::Clock as _;
use weir_seams::SystemClock;

use super::chunks::Chunk;

/// Longest time that a request is tried for.
const PATIENCE: Duration = Duration::from_secs(300);
/// Waiting times between two tries: the first, and the longest.
const WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Bad rows that a message names.
const BAD_ROWS_SHOWN: usize = 5;

/// Sends chunks to one stream.
pub(super) struct Sender {
    client: Client,
    clock: SystemClock,
    url: Url,
    token: Option<String>,
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
    pub(super) fn new(server: &str, stream: &str, token: Option<String>, run: &str) -> anyhow::Result<Self> {
        let mut url = Url::parse(server).with_context(|| format!("--server {server}: write http://HOST:PORT"))?;
        ensure!(matches!(url.scheme(), "http" | "https"), "--server {server}: write http://HOST:PORT");
        match url.path_segments_mut() {
            Ok(mut path) => drop(path.pop_if_empty().extend(["v1", "streams", stream, "rows"])),
            Err(()) => bail!("--server {server}: write http://HOST:PORT"),
        }
        let client = Client::builder().build().context("the HTTP client")?;
        Ok(Self { client, clock: SystemClock::new(), url, token, run: run.to_owned() })
    }

    /// Sends the chunk `number`; again under the same key for as long as nobody knows what came of it.
    pub(super) async fn send(&self, number: u64, chunk: Chunk) -> anyhow::Result<Sent> {
        let (mut wait, mut waited) = (WAIT.0, Duration::ZERO);
        loop {
            let unclear = match self.attempt(number, &chunk).await {
                Ok(response) => match response.status() {
                    StatusCode::OK => return taken(response, &chunk).await,
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => said(response).await.error,
                    status => return Err(refused(status, said(response).await, &chunk)),
                },
                Err(error) => error.to_string(),
            };
            ensure!(waited < PATIENCE, "{}: no clear answer for {} s: {unclear}", self.url, PATIENCE.as_secs());
            self.clock.sleep(wait).await;
            waited += wait;
            wait = (wait * 2).min(WAIT.1);
        }
    }

    async fn attempt(&self, number: u64, chunk: &Chunk) -> reqwest::Result<Response> {
        let request = self.client.post(self.url.clone()).header("content-type", chunk.content_type);
        let request = request.header("idempotency-key", format!("{}-{number}", self.run)).body(chunk.body.clone());
        match &self.token {
            Some(token) => request.bearer_auth(token).send().await,
            None => request.send().await,
        }
    }
}

async fn taken(response: Response, chunk: &Chunk) -> anyhow::Result<Sent> {
    let text = response.bytes().await?;
    let taken: Taken = serde_json::from_slice(&text).context("the server's answer")?;
    Ok(Sent { rows: taken.rows, bytes: chunk.file_bytes, repeated: taken.repeated })
}

async fn said(response: Response) -> Said {
    let text = response.text().await.unwrap_or_default();
    serde_json::from_str(&text).unwrap_or(Said { error: text, bad: Vec::new() })
}

/// Names bad rows by their place in the file.
fn refused(status: StatusCode, said: Said, chunk: &Chunk) -> anyhow::Error {
    let row = |bad: &BadRow| format!("row {}: {}", chunk.rows_before + bad.row, bad.reason);
    let bad: Vec<_> = said.bad.iter().take(BAD_ROWS_SHOWN).map(row).collect();
    let rows = if bad.is_empty() { String::new() } else { format!("\n  {}", bad.join("\n  ")) };
    anyhow::anyhow!("{} ({}){rows}", said.error, status.as_u16())
}

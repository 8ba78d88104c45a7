//! HTTP ingest: a server and its clients in this process, over loopback, each row durable before its request is answered.
//!
//! - `batches`: NDJSON bodies of many rows, from a few connections.
//! - `requests`: bodies of one row, from many connections.
//!
//! Clients take their part of the same processors. Requests of clients are not counted among those to store and table.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::sync::oneshot;
use weir_connectors::encode;
use weir_connectors::files::Format;
use weir_connectors::generate::{Generator, Plays};
use weir_ingest::server::{self, Server, ServerSettings};

use super::{BenchArgs, Placed, millis, percentile};
use crate::cli::live::count;
use crate::config::Config;
use crate::open::{self, Opened};
use crate::stream::ingest_seams;

/// Lanes of the stream: a process appends to one at a time.
const LANES: u16 = 4;
/// Different bodies that a client sends in turn.
const BODIES: u64 = 16;
/// The stream.
const STREAM: &str = "plays";

/// A way of sending.
struct Load {
    name: &'static str,
    rows_per_request: u64,
    connections: usize,
}

const LOADS: [Load; 2] = [
    Load { name: "batches", rows_per_request: 5_000, connections: 8 },
    Load { name: "requests", rows_per_request: 1, connections: 64 },
];

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
pub(super) async fn ingest(args: &BenchArgs, folder: &Path) -> anyhow::Result<()> {
    let mut config = Config::default();
    args.running.apply(&mut config);
    println!("{} s of each, durability {:?}; milliseconds from sending to the answer", args.seconds, config.durability);
    println!(
        "{:<10} {:>12} {:>12} {:>8} {:>8} {:>8} {:>8}  {:>8} {:>8} {:>8}",
        "load", "rows/s", "requests/s", "MB/s", "p50", "p99", "max", "puts/M", "wu/M", "ru/M"
    );
    for load in LOADS.iter().filter(|load| args.only.as_ref().is_none_or(|only| load.name.contains(only.as_str()))) {
        println!("{}", row(args, folder, &config, load).await?);
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
async fn row(args: &BenchArgs, folder: &Path, config: &Config, load: &Load) -> anyhow::Result<String> {
    let placed = Placed::new(args, &folder.join("ingest"), config.clone());
    let opened = open::open(&placed.config).await?;
    let seams = ingest_seams(&opened.ctx);
    let stream = format!("{STREAM}-{}", placed.unique);
    weir_ingest::open_or_create(&seams, &stream, &Plays::schema(), LANES).await?;
    let server = Server::new(seams, ServerSettings::default());
    let listener = server::listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.map_err(anyhow::Error::msg)?;
    let url = format!("http://{}/v1/streams/{stream}/rows", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server::serve(&server, listener, async { drop(stopped.await) }).await })
    };
    let bodies = bodies(load.rows_per_request)?;
    let began = Instant::now();
    let until = began + Duration::from_secs(args.seconds);
    let clients = (0..load.connections).map(|_| client(&url, &bodies, until));
    let mut micros: Vec<i64> = try_join_all(clients).await?.into_iter().flatten().collect();
    let elapsed = began.elapsed();
    let _ended = stop.send(());
    serving.await?;
    micros.sort_unstable();
    let bytes: usize = bodies.iter().map(Bytes::len).sum::<usize>() / bodies.len().max(1);
    Ok(line(load, &micros, elapsed, bytes, &opened))
}

/// Sends one body after another until the instant `until`; returns how long each took, microseconds.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
async fn client(url: &str, bodies: &[Bytes], until: Instant) -> anyhow::Result<Vec<i64>> {
    let client = reqwest::Client::builder().build()?;
    let mut micros = Vec::new();
    for body in bodies.iter().cycle() {
        let began = Instant::now();
        if began >= until {
            break;
        }
        let answer = client.post(url).header("content-type", "application/x-ndjson").body(body.clone()).send().await?;
        anyhow::ensure!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await.unwrap_or_default());
        micros.push(i64::try_from(began.elapsed().as_micros())?);
    }
    Ok(micros)
}

fn bodies(rows: u64) -> anyhow::Result<Vec<Bytes>> {
    let (plays, schema) = (Plays::new(0, 4_000), Plays::schema());
    let body = |number: u64| {
        let batch = plays.rows(number * rows..(number + 1) * rows, &[], &schema)?;
        Ok(Bytes::from(encode::encode(Format::Json, &schema, &[batch])?))
    };
    (0..BODIES).map(body).collect()
}

fn line(load: &Load, micros: &[i64], elapsed: Duration, body_bytes: usize, opened: &Opened) -> String {
    let requests = micros.len() as f64;
    let rows = requests * load.rows_per_request as f64;
    let seconds = elapsed.as_secs_f64();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
    let per_second = |number: f64| count((number / seconds) as u64);
    let millions = rows / 1e6;
    let per_million = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64 / millions;
    let [p50, p99, max] = [50, 99, 100].map(|percent| millis(percentile(micros, percent)));
    format!(
        "{:<10} {:>12} {:>12} {:>8.1} {p50:>8.1} {p99:>8.1} {max:>8.1}  {:>8.1} {:>8.1} {:>8.1}",
        load.name,
        per_second(rows),
        per_second(requests),
        requests * body_bytes as f64 / 1e6 / seconds,
        opened.objects.counts().puts as f64 / millions,
        per_million(&opened.table.write_units),
        per_million(&opened.table.read_units),
    )
}

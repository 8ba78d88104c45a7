//! HTTP ingest: a server and its clients in this process, over loopback, each row durable before its request is answered.
//!
//! - `batches`: NDJSON bodies of many rows, from a few connections.
//! - `requests`: bodies of one row, from many connections.
//!
//! Clients take their part of the same processors. Requests of clients are not counted among those to store and table.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::sync::oneshot;
use weir_connectors::encode;
use weir_connectors::files::Format;
use weir_connectors::generate::{Generator, Plays};
use weir_ingest::server::{self, Server, ServerSettings};

use super::counted::Counts;
use super::{BenchArgs, Placed, Row, millis, percentile, show, title};
use crate::cli::live::count;
use crate::config::Config;
use crate::cost::Measured;
use crate::open;
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

pub(super) async fn ingest(args: &BenchArgs, folder: &Path) -> anyhow::Result<()> {
    let mut config = Config::default();
    args.running.apply(&mut config);
    let about = "milliseconds from sending to the answer";
    title(args, &format!("{} s of each, durability {:?}; {about}", args.seconds, config.durability));
    title(
        args,
        &format!(
            "{:<10} {:>12} {:>12} {:>8} {:>8} {:>8} {:>8}  {:>8} {:>8} {:>8}",
            "load", "rows/s", "requests/s", "MB/s", "p50", "p99", "max", "puts/M", "wu/M", "ru/M"
        ),
    );
    for load in LOADS.iter().filter(|load| args.only.as_ref().is_none_or(|only| load.name.contains(only.as_str()))) {
        show(args, &row(args, folder, &config, load).await?)?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
async fn row(args: &BenchArgs, folder: &Path, config: &Config, load: &Load) -> anyhow::Result<Row> {
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
    Ok(told(load, &micros, elapsed.as_secs_f64(), bytes, Counts::of(&opened)))
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

fn told(load: &Load, micros: &[i64], seconds: f64, body_bytes: usize, counts: Counts) -> Row {
    let requests = micros.len() as f64;
    let rows = requests * load.rows_per_request as f64;
    let (rows_per_second, requests_per_second) = (rows / seconds, requests / seconds);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
    let whole = |number: f64| count(number as u64);
    let [p50, p99, max] = [50, 99, 100].map(|percent| millis(percentile(micros, percent)));
    let of_million = counts.times(1e6 / rows.max(1.0));
    let line = format!(
        "{:<10} {:>12} {:>12} {:>8.1} {p50:>8.1} {p99:>8.1} {max:>8.1}  {:>8.1} {:>8.1} {:>8.1}",
        load.name,
        whole(rows_per_second),
        whole(requests_per_second),
        requests_per_second * body_bytes as f64 / 1e6,
        of_million.puts,
        of_million.write_units,
        of_million.read_units,
    );
    let mut figures = vec![("rows-per-second", rows_per_second), ("requests-per-second", requests_per_second)];
    figures.extend([("p50-ms", p50), ("p99-ms", p99), ("max-ms", max)]);
    figures.extend(counts.figures());
    Row { line, measured: Measured::new(format!("ingest, {}", load.name), counts.usage(rows), &figures) }
}

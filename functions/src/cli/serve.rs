//! `weir serve` and `weir run --listen`: streams fed by HTTP.

use std::io::{IsTerminal, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use weir_coordinator::streams;
use weir_ingest::FoldSettings;
use weir_ingest::server::{self, Server, ServerSettings};
use weir_seams::text::{parse_bytes, parse_duration};

use super::Common;
use super::live::count;
use super::token::token;
use crate::config::Config;
use crate::context::{Ctx, Stop};
use crate::open;
use crate::stream::ingest_seams;

/// Where `weir serve` listens if it is not told.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Address to listen on; anything but loopback needs a token
    ///
    /// [default: 127.0.0.1:8080]
    #[arg(long, env = "WEIR_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Print nothing but errors
    #[arg(long, short, env = "WEIR_QUIET", value_parser = FalseyValueParser::new())]
    quiet: bool,
    #[command(flatten)]
    serving: Serving,
    #[command(flatten)]
    common: Common,
}

/// How requests are taken.
#[derive(Debug, Clone, Args)]
pub(super) struct Serving {
    /// File with the token that requests must bear; or the token itself in WEIR_TOKEN
    #[arg(long, env = "WEIR_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Least time between two commits of a stream: requests that come meanwhile share one [default: 10ms]
    #[arg(long, env = "WEIR_FOLD_INTERVAL", value_name = "TIME", value_parser = parse_duration)]
    fold_interval: Option<Duration>,
    /// Longest body of a request [default: 32MiB]
    #[arg(long, env = "WEIR_BODY_MAX", value_name = "SIZE", value_parser = parse_bytes)]
    body_max: Option<u64>,
}

impl Serving {
    pub(super) fn apply(&self, config: &mut Config) {
        config.token_file = self.token_file.clone().or_else(|| config.token_file.take());
        config.fold_interval = self.fold_interval.unwrap_or(config.fold_interval);
        config.body_max = self.body_max.unwrap_or(config.body_max);
    }
}

fn settings(config: &Config) -> anyhow::Result<ServerSettings> {
    let fold = FoldSettings { interval: config.fold_interval, lease: config.lease, ..FoldSettings::default() };
    let body_bytes_max = usize::try_from(config.body_max)?;
    Ok(ServerSettings { token: token(config.token_file.as_deref())?, body_bytes_max, fold, ..ServerSettings::default() })
}

/// A server that runs beside something else.
pub(super) struct Beside {
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Beside {
    /// Starts to serve `ctx`'s streams on `listen`.
    pub(super) async fn start(ctx: &Ctx, listen: SocketAddr, config: &Config) -> anyhow::Result<Self> {
        let (server, listener) = bind(ctx, listen, config).await?;
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            let stopped = async move { drop(stopped.await) };
            server::serve(&server, listener, stopped).await;
        });
        Ok(Self { stop, running })
    }

    /// Ends it; requests under way are answered first.
    pub(super) async fn end(self) {
        let _ended = self.stop.send(());
        drop(self.running.await);
    }
}

async fn bind(ctx: &Ctx, listen: SocketAddr, config: &Config) -> anyhow::Result<(Arc<Server>, tokio::net::TcpListener)> {
    let settings = settings(config)?;
    server::check_exposure(listen, &settings)?;
    let listener = server::listen(listen).await.map_err(anyhow::Error::msg)?;
    Ok((Server::new(ingest_seams(ctx), settings), listener))
}

/// A server goes on although nobody listens to it any more.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

pub(super) async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let mut config = args.common.config()?;
    args.serving.apply(&mut config);
    let (listen, quiet) = (args.listen.or(config.listen).unwrap_or(LISTEN_DEFAULT), args.quiet || config.quiet);
    anyhow::ensure!(
        config.places().coordination() != "memory:" && config.store != "memory:",
        "a job in another process cannot see memory: name a store with --store, or use weir run --listen"
    );
    let opened = open::open(&config).await?;
    let ctx = &opened.ctx;
    let (server, listener) = bind(ctx, listen, &config).await?;
    if !quiet {
        say(&format!("listening on http://{}", listener.local_addr()?));
        let streams = streams::list(ctx.table.as_ref()).await?;
        let names: Vec<_> = streams.iter().map(|row| row.name.as_str()).collect();
        match names.as_slice() {
            [] => say("no streams yet: weir stream create JOB.sql, or start the job that reads one"),
            names => say(&format!("streams: {}", names.join(", "))),
        }
    }
    let stop = ctx.stop.clone();
    tokio::spawn(super::run::leave_when_asked(stop.clone()));
    let shown = (!quiet && std::io::stderr().is_terminal()).then(|| tokio::spawn(show(Arc::clone(&server))));
    server::serve(&server, listener, asked(ctx, stop)).await;
    if let Some(shown) = shown {
        shown.abort();
    }
    if !quiet {
        let totals = server.totals();
        say(&format!("{} requests, {} rows", count(totals.requests), count(totals.rows)));
    }
    Ok(())
}

async fn asked(ctx: &Ctx, stop: Stop) {
    while !stop.requested() {
        ctx.clock.sleep(Duration::from_millis(50)).await;
    }
}

/// One line that is written over each second.
async fn show(server: Arc<Server>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut before = server.totals();
    loop {
        tick.tick().await;
        let now = server.totals();
        let (requests, rows) = (now.requests - before.requests, now.rows - before.rows);
        before = now;
        let text = format!("{} rows  {}/s  {} requests/s", count(now.rows), count(rows), count(requests));
        drop(write!(std::io::stderr(), "\r\x1b[2K{text}"));
    }
}

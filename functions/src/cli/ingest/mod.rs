//! `weir ingest`: sends a file or standard input to a stream by HTTP, each row once however often a request is sent.
//!
//! ```text
//! file --chunks of whole rows--> requests with keys ID-0, ID-1, .. --a few at a time--> server
//! ```
//! The same file with the same ID makes the same requests, so a run that was cut goes on with `--resume ID`.

mod chunks;
mod send;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use futures::StreamExt;
use weir_connectors::body::BodyFormat;
use weir_model::Ids as _;
use weir_seams::RandomIds;
use weir_seams::text::parse_bytes;

use super::live::count;
use super::ticker::Ticker;
use super::token::token;
use chunks::Chunks;
use send::{Patience, Sender, Sent};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object per line.
    Json,
    /// Comma-separated values.
    Csv,
    /// A Parquet file.
    Parquet,
    /// Arrow IPC, as a stream or a file.
    Arrow,
}

#[derive(Debug, Args)]
pub(super) struct IngestArgs {
    /// The stream.
    stream: String,
    /// File to send [default: standard input]
    file: Option<PathBuf>,
    /// Format [default: by the file's extension, else json]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// The first line of a CSV file names its columns.
    #[arg(long)]
    csv_header: bool,
    /// The server.
    #[arg(long, env = "WEIR_SERVER", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// File with the server's token; or the token itself in WEIR_TOKEN
    #[arg(long, env = "WEIR_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Bytes of a request.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value = "1MiB")]
    chunk: u64,
    /// Requests under way.
    #[arg(long, value_name = "N", default_value_t = 4)]
    parallel: usize,
    /// Goes on with a run that was cut, by the ID that it printed: the same file and options, each row once
    #[arg(long, value_name = "ID")]
    resume: Option<String>,
    /// Print nothing but errors.
    #[arg(long, short)]
    quiet: bool,
}

impl IngestArgs {
    fn format(&self) -> BodyFormat {
        let extension = self.file.as_ref().and_then(|file| file.extension()?.to_str());
        let format = self.format.unwrap_or(match extension {
            Some("csv") => Format::Csv,
            Some("parquet") => Format::Parquet,
            Some("arrow" | "arrows" | "ipc") => Format::Arrow,
            _ => Format::Json,
        });
        match format {
            Format::Json => BodyFormat::NdJson,
            Format::Csv => BodyFormat::Csv { header: self.csv_header },
            Format::Parquet => BodyFormat::Parquet,
            Format::Arrow => BodyFormat::Arrow,
        }
    }
}

/// What was sent so far.
#[derive(Debug, Default)]
struct Totals {
    rows: u64,
    bytes: u64,
    requests: u64,
    repeated: u64,
}

impl Totals {
    fn add(&mut self, sent: &Sent) {
        self.rows += sent.rows;
        self.bytes += sent.bytes;
        self.requests += 1;
        self.repeated += u64::from(sent.repeated);
    }
}

#[expect(clippy::disallowed_methods, reason = "a command measures its own time for a person")]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the command line speaks on standard output and standard error")]
pub(super) async fn ingest(args: &IngestArgs) -> anyhow::Result<()> {
    let run = args.resume.clone().unwrap_or_else(|| RandomIds::new().object().to_string());
    let sender = Sender::new(&args.server, &args.stream, token(args.token_file.as_deref())?, &run, Patience::default())?;
    let chunks = Chunks::open(args.file.as_deref(), args.format(), usize::try_from(args.chunk)?)?;
    let began = Instant::now();
    let mut totals = Totals::default();
    let bytes = chunks.bytes();
    let mut ticker = Ticker::new(!args.quiet && std::io::stderr().is_terminal());
    let numbered = (0_u64..).zip(chunks);
    let requests = numbered.map(|(number, chunk)| {
        let sender = &sender;
        async move { sender.send(number, chunk?).await }
    });
    let mut answers = futures::stream::iter(requests).buffer_unordered(args.parallel.max(1));
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(sent) => totals.add(&sent),
            Err(error) => {
                ticker.end();
                eprintln!("{} rows were taken; to go on: weir ingest with the same file and --resume {run}", count(totals.rows));
                return Err(error);
            }
        }
        ticker.show(began.elapsed(), || progress(&totals, began.elapsed(), bytes));
    }
    ticker.end();
    if !args.quiet {
        println!("{}", told(&args.stream, &totals, began.elapsed()));
    }
    Ok(())
}

fn told(stream: &str, totals: &Totals, elapsed: Duration) -> String {
    let rate = rate(totals.rows, elapsed);
    let repeated = match totals.repeated {
        0 => String::new(),
        repeated => format!(", {} of them taken before", count(repeated)),
    };
    let (rows, requests) = (count(totals.rows), count(totals.requests));
    format!("{stream}: {rows} rows in {:.1} s ({rate}/s), {requests} requests{repeated}", elapsed.as_secs_f64())
}

fn rate(rows: u64, elapsed: Duration) -> String {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    count(rows.saturating_mul(1_000) / millis)
}

fn progress(totals: &Totals, elapsed: Duration, bytes: Option<u64>) -> String {
    let part = bytes.filter(|bytes| *bytes > 0).map(|bytes| format!("  {} %", totals.bytes * 100 / bytes));
    let (rows, rate) = (count(totals.rows), rate(totals.rows, elapsed));
    format!("{rows} rows  {rate}/s  {} MB{}", totals.bytes / 1_000_000, part.unwrap_or_default())
}

//! `weir query`: an answer as a table, NDJSON, CSV or Parquet; again whenever the job has moved on, if asked.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::csv::WriterBuilder;
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::DataFrame;
use futures::StreamExt;
use tokio::net::TcpListener;
use weir_connectors::encode;
use weir_connectors::files::Format as FileFormat;

use super::Common;
use crate::open::{self, Opened};
use crate::query::{Questions, protocol, until_interrupted};

/// Shortest time between two answers of `--follow`.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct QueryArgs {
    /// The question, one SELECT; without it, the tables are listed
    sql: Option<String>,
    /// Job whose tables need not be qualified; not needed where the store has one job
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// How the answer is shown [default: a table on a terminal, else NDJSON]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Write the answer to this file, in the format of its ending unless --format says another
    #[arg(long, short, value_name = "FILE", conflicts_with = "follow")]
    output: Option<PathBuf>,
    /// Answer again whenever something was committed and the answer has changed, until stopped
    #[arg(long, short, requires = "sql")]
    follow: bool,
    /// Answer clients of PostgreSQL (psql, Grafana) at this address of this machine until stopped [default: 127.0.0.1:5433]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:5433", conflicts_with_all = ["sql", "follow", "output", "format"])]
    serve: Option<SocketAddr>,
    #[command(flatten)]
    common: Common,
}

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns
    Table,
    /// One JSON object a line
    Json,
    /// With a header
    Csv,
    /// A Parquet file
    Parquet,
}

pub(super) async fn query(args: &QueryArgs) -> anyhow::Result<()> {
    let opened = open::open_to_pin(&args.common.config()?).await?;
    if let Some(address) = args.serve {
        return serve(args, opened, address).await;
    }
    let mut changes = opened.ctx.table.changes();
    let clock = Arc::clone(&opened.ctx.clock);
    let questions = Questions::open(opened, args.job.as_deref()).await?;
    let Some(sql) = &args.sql else { return list(&questions) };
    let format = format(args)?;
    if !args.follow {
        let answer = questions.ask(sql).await?;
        return match &args.output {
            Some(path) => {
                let file = File::create(path).with_context(|| format!("file {}", path.display()))?;
                until_interrupted(write(answer, format, file)).await.with_context(|| format!("file {}", path.display()))
            }
            None => heard(until_interrupted(write(answer, format, std::io::stdout())).await),
        };
    }
    let (mut before, mut seen) = (Vec::new(), None);
    loop {
        // Asking writes a pin, of which the feed tells: only what was committed is worth another question.
        let epochs = questions.epochs().await?;
        if seen.as_ref() != Some(&epochs) {
            let mut answer = Vec::new();
            until_interrupted(write(questions.ask(sql).await?, format, &mut answer)).await?;
            if answer != before && reader_left(std::io::stdout().write_all(&answer))? {
                return Ok(());
            }
            (before, seen) = (answer, Some(epochs));
        }
        let next = async {
            clock.sleep(FOLLOW_EVERY).await;
            changes.next().await;
        };
        tokio::select! {
            () = next => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

async fn serve(args: &QueryArgs, opened: Opened, address: SocketAddr) -> anyhow::Result<()> {
    anyhow::ensure!(
        protocol::is_local(address),
        "{address} is not of this machine alone: connections are neither encrypted nor asked for a password; use 127.0.0.1 and a tunnel (ssh -L)"
    );
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    let address = listener.local_addr()?;
    eprintln!("weir: answers at postgresql://weir@{address}/weir; try psql -h {} -p {} weir weir", address.ip(), address.port());
    tokio::select! {
        never = protocol::serve(listener, opened, args.job.clone()) => match never {},
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// The format asked for, that of the file's ending, or what suits who reads.
fn format(args: &QueryArgs) -> anyhow::Result<Format> {
    let ending = args.output.as_ref().and_then(|path| path.extension()?.to_str());
    let format = match (args.format, ending) {
        (Some(format), _) => format,
        (None, Some("json" | "ndjson" | "jsonl")) => Format::Json,
        (None, Some("csv")) => Format::Csv,
        (None, Some("parquet")) => Format::Parquet,
        (None, _) if args.output.is_none() && std::io::stdout().is_terminal() => Format::Table,
        (None, _) => Format::Json,
    };
    let binary = format == Format::Parquet && args.output.is_none();
    anyhow::ensure!(!binary || !std::io::stdout().is_terminal(), "Parquet is not for a terminal: add --output FILE");
    anyhow::ensure!(!binary || !args.follow, "--follow cannot write Parquet: choose json or csv");
    Ok(format)
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
fn list(questions: &Questions) -> anyhow::Result<()> {
    let mut any = false;
    for (job, tables) in questions.tables() {
        any = true;
        for table in tables {
            let catalog = if questions.is_default(job) { String::new() } else { format!("\"{job}\".") };
            let columns: Vec<String> = table.columns.fields().iter().map(|field| described(field)).collect();
            println!("{catalog}{}.{}({})", table.schema.name(), table.name, columns.join(", "));
        }
    }
    anyhow::ensure!(any, "the store has no jobs, so there is nothing to ask: weir run JOB.sql makes one");
    Ok(())
}

fn described(field: &Field) -> String {
    let kind = match field.data_type() {
        DataType::Utf8 | DataType::Utf8View => "STRING".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Timestamp(_, None) => "TIMESTAMP".to_owned(),
        other => other.to_string(),
    };
    format!("{} {kind}", field.name())
}

/// Writes the answer batch by batch; a table needs all of it for its widths.
async fn write(answer: DataFrame, format: Format, mut to: impl Write + Send) -> anyhow::Result<()> {
    let columns = SchemaRef::new(answer.schema().as_arrow().clone());
    if matches!(format, Format::Table | Format::Parquet) {
        let batches = answer.collect().await?;
        let bytes = match format {
            Format::Table => table(&columns, &batches)?,
            _ => encode::encode(FileFormat::Parquet, &columns, &batches)?,
        };
        return Ok(to.write_all(&bytes)?);
    }
    let mut batches = answer.execute_stream().await?;
    let mut header = format == Format::Csv;
    if header && columns.fields().is_empty() {
        return Ok(());
    }
    while let Some(batch) = batches.next().await.transpose()? {
        if format == Format::Csv {
            to.write_all(&csv(&batch, header)?)?;
            header = false;
        } else {
            to.write_all(&encode::encode(FileFormat::Json, &columns, &[batch])?)?;
        }
    }
    if header {
        to.write_all(&csv(&RecordBatch::new_empty(columns), true)?)?;
    }
    Ok(to.flush()?)
}

fn csv(batch: &RecordBatch, header: bool) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    WriterBuilder::new().with_header(header).build(&mut bytes).write(batch)?;
    Ok(bytes)
}

fn table(columns: &SchemaRef, batches: &[RecordBatch]) -> anyhow::Result<Vec<u8>> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let shown = if rows == 0 {
        pretty_format_batches(&[RecordBatch::new_empty(SchemaRef::clone(columns))])?
    } else {
        pretty_format_batches(batches)?
    };
    Ok(format!("{shown}\n{rows} {}\n", if rows == 1 { "row" } else { "rows" }).into_bytes())
}

/// A reader that has seen enough, as `head` does, is no failure.
fn heard(written: anyhow::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(is_gone) => Ok(()),
        written => written,
    }
}

fn reader_left(written: std::io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Ok(()) => Ok(false),
        Err(error) if is_gone(&error) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}

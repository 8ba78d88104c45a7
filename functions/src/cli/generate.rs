//! `weir generate`: input files for the example and the benchmarks.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use weir_connectors::encode;
use weir_connectors::files::Format;
use weir_connectors::generate::{Bids, Generator, Plays};

use super::live::count;

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum What {
    /// Plays of songs: song_id, user_id, play_score, etime.
    Plays,
    /// Nexmark bids: auction, bidder, price, channel, url, dateTime, extra.
    Bids,
}

/// Format of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FileFormat {
    /// NDJSON.
    Json,
    /// CSV without a header.
    Csv,
    /// Parquet.
    Parquet,
}

impl FileFormat {
    pub(super) const fn format(self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Csv => Format::Csv,
            Self::Parquet => Format::Parquet,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// What to make.
    what: What,
    /// Folder to write into; made if missing.
    #[arg(long)]
    out: PathBuf,
    /// Rows in all.
    #[arg(long, default_value_t = 100_000)]
    rows: u64,
    /// Format of the files.
    #[arg(long, value_enum, default_value_t = FileFormat::Json)]
    format: FileFormat,
    /// Number of files.
    #[arg(long, default_value_t = 1)]
    files: u64,
    /// Same seed, same rows.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Plays: how far event times are out of order, in milliseconds.
    #[arg(long, default_value_t = 4_000)]
    disorder_ms: u64,
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
pub(super) fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.out).map_err(|error| anyhow::anyhow!("folder {}: {error}", args.out.display()))?;
    let (generator, schema): (Arc<dyn Generator>, SchemaRef) = match args.what {
        What::Plays => (Arc::new(Plays::new(args.seed, args.disorder_ms)), Plays::schema()),
        What::Bids => (Arc::new(Bids::new(args.seed)), bid_schema()),
    };
    let files = args.files.max(1);
    let mut bytes = 0;
    for file in 0..files {
        let range = args.rows * file / files..args.rows * (file + 1) / files;
        let mut batches = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + 65_536);
            batches.push(generator.rows(at..end, &[], &schema)?);
            at = end;
        }
        let encoded = encode::encode(args.format.format(), &schema, &batches)?;
        bytes += encoded.len() as u64;
        let path = args.out.join(format!("{file:04}.{}", args.format.name()));
        std::fs::write(&path, encoded).map_err(|error| anyhow::anyhow!("file {}: {error}", path.display()))?;
    }
    println!("{} rows, {} bytes in {files} file(s) under {}", count(args.rows), count(bytes), args.out.display());
    Ok(())
}

/// Columns of a bid.
pub(super) fn bid_schema() -> SchemaRef {
    let number = |name| Field::new(name, DataType::Int64, true);
    let text = |name| Field::new(name, DataType::Utf8, true);
    let time = Field::new("dateTime", DataType::Timestamp(TimeUnit::Millisecond, None), true);
    Arc::new(Schema::new(vec![
        number("auction"),
        number("bidder"),
        number("price"),
        text("channel"),
        text("url"),
        time,
        text("extra"),
    ]))
}

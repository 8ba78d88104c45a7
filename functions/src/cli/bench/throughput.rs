//! Throughput per CPU-second and requests per million events, beside the same SQL as one plain DataFusion batch.
//!
//! Each row runs in this process, one after the other: Weir first (exactly once, fsync, one commit a second unless said), then the
//! batch engine over the same files. CPU time is the operating system's account of the process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionConfig, SessionContext};
use weir_connectors::encode;
use weir_connectors::generate::{Bids, Generator, Plays};

use super::counted::Counts;
use super::{BenchArgs, Placed, Row, show, title};
use crate::cli::generate::{FileFormat, bid_schema};
use crate::cli::live::count;
use crate::config::Config;
use crate::cost::{GIGABYTES_PER_CPU, Measured};
use crate::host;
use crate::job;
use crate::open;

/// One query, for Weir and for a batch engine over the table `events`.
struct Query {
    name: &'static str,
    plays: bool,
    sink: &'static str,
    weir: &'static str,
    batch: &'static str,
}

const QUERIES: [Query; 7] = [
    Query {
        name: "q0",
        plays: false,
        sink: "auction BIGINT, bidder BIGINT, price BIGINT, `dateTime` TIMESTAMP(3), extra STRING",
        weir: "SELECT auction, bidder, price, `dateTime`, extra FROM events",
        batch: "SELECT auction, bidder, price, \"dateTime\", extra FROM events",
    },
    Query {
        name: "q1",
        plays: false,
        sink: "auction BIGINT, bidder BIGINT, price DOUBLE, `dateTime` TIMESTAMP(3), extra STRING",
        weir: "SELECT auction, bidder, CAST(0.908 * price AS DOUBLE), `dateTime`, extra FROM events",
        batch: "SELECT auction, bidder, CAST(0.908 * price AS DOUBLE), \"dateTime\", extra FROM events",
    },
    Query {
        name: "q2",
        plays: false,
        sink: "auction BIGINT, price BIGINT",
        weir: "SELECT auction, price FROM events WHERE MOD(auction, 123) = 0",
        batch: "SELECT auction, price FROM events WHERE auction % 123 = 0",
    },
    Query {
        name: "count-per-bidder-10s",
        plays: false,
        sink: "window_start TIMESTAMP(3), bidder BIGINT, bids BIGINT",
        weir: "SELECT window_start, bidder, count(*) FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) \
               GROUP BY window_start, window_end, bidder",
        batch: "SELECT date_bin(INTERVAL '10' SECOND, \"dateTime\") AS w, bidder, count(*) FROM events GROUP BY 1, 2",
    },
    Query {
        name: "max-price-10s",
        plays: false,
        sink: "window_start TIMESTAMP(3), price BIGINT",
        weir: "SELECT window_start, max(price) FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) \
               GROUP BY window_start, window_end",
        batch: "SELECT date_bin(INTERVAL '10' SECOND, \"dateTime\") AS w, max(price) FROM events GROUP BY 1",
    },
    Query {
        name: "distinct-bidders",
        plays: false,
        sink: "channel STRING, bidders BIGINT, rich BIGINT",
        weir: "SELECT channel, count(DISTINCT bidder), count(DISTINCT bidder) FILTER (WHERE price >= 1000000) FROM events \
               GROUP BY channel",
        batch: "SELECT channel, count(DISTINCT bidder), count(DISTINCT bidder) FILTER (WHERE price >= 1000000) FROM events GROUP BY 1",
    },
    Query {
        name: "hot-songs",
        plays: true,
        sink: "window_start TIMESTAMP(3), song_id BIGINT, plays BIGINT, score DOUBLE",
        weir: "SELECT window_start, song_id, count(*), sum(play_score) \
               FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, song_id",
        batch: "SELECT date_bin(INTERVAL '10' SECOND, etime) AS w, song_id, count(*), sum(play_score) FROM events GROUP BY 1, 2",
    },
];

/// Where a row's events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Generator,
    Files(FileFormat),
}

const INPUTS: [Input; 4] =
    [Input::Generator, Input::Files(FileFormat::Parquet), Input::Files(FileFormat::Csv), Input::Files(FileFormat::Json)];

impl Input {
    const fn name(self) -> &'static str {
        match self {
            Self::Generator => "generator",
            Self::Files(format) => format.name(),
        }
    }
}

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) cpu_seconds: f64,
    pub(super) wall_seconds: f64,
}

const HEADER: &str = "query                  input       Mev/cpu    Mev/s     batch   ratio   puts/M   gets/M\
    \x20 lists/M  dels/M  reads/M  table/M    wu/M    ru/M   MB put/M   peak MB";

pub(super) async fn throughput(args: &BenchArgs, folder: &Path) -> anyhow::Result<()> {
    let about = "million events per CPU-second; requests and the table's reads, transactions, write and read units (as of DynamoDB) per \
                 million events; peak memory of the process in this row, Weir and batch alike";
    title(args, &format!("{} rows; {about}", count(args.rows)));
    title(args, HEADER);
    let mut is_warm = false;
    for query in &QUERIES {
        for input in INPUTS {
            let name = format!("{} {}", query.name, input.name());
            if args.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
                continue;
            }
            if !is_warm {
                // The first run of a process takes its memory from the kernel page by page; all later ones, batches too, find it there.
                drop(row(args, folder, query, input).await?);
                is_warm = true;
            }
            show(args, &row(args, folder, query, input).await?)?;
        }
    }
    Ok(())
}

async fn row(args: &BenchArgs, folder: &Path, query: &Query, input: Input) -> anyhow::Result<Row> {
    forget_peak();
    let path = match input {
        Input::Generator => None,
        Input::Files(format) => Some(input_file(folder, query.plays, format, args.rows)?),
    };
    let Placed { mut config, unique } = Placed::new(args, &folder.join("state"), Config::default());
    if args.in_memory {
        config.store = "memory:".to_owned();
        config.coordination = Some("memory:".to_owned());
    }
    args.running.apply(&mut config);
    let sql = script(query, input, path.as_deref(), args.rows);
    let opened = open::open(&config).await?;
    let weir = measure(async {
        let loaded =
            job::open_or_create(&opened.ctx, &format!("bench-{unique}"), &sql, config.parallelism(), config.key_groups).await?;
        host::run(&opened.ctx, &Arc::new(loaded), &config).await?;
        anyhow::Ok(())
    })
    .await?;
    let events = opened.ctx.progress.events.get();
    let batch = match (&path, input) {
        (Some(path), Input::Files(format)) => Some(measure(batch(query, path, format)).await?),
        _ => None,
    };
    Ok(told(query, input, events as f64 / 1e6, weir, batch, Counts::of(&opened)))
}

fn told(query: &Query, input: Input, millions: f64, weir: Taken, batch: Option<Taken>, counts: Counts) -> Row {
    let peak = peak_megabytes();
    let (per_cpu, per_second) = (millions / weir.cpu_seconds, millions / weir.wall_seconds);
    let compared = batch.map(|batch| (millions / batch.cpu_seconds, batch.cpu_seconds / weir.cpu_seconds));
    let mut usage = counts.usage(millions * 1e6);
    usage.function_gigabyte_seconds = weir.cpu_seconds * GIGABYTES_PER_CPU;
    let mut figures =
        vec![("million-events-per-cpu-second", per_cpu), ("million-events-per-second", per_second), ("peak-megabytes", peak)];
    figures.extend(counts.figures());
    figures
        .extend(compared.iter().flat_map(|(batch, ratio)| [("batch-million-events-per-cpu-second", *batch), ("ratio", *ratio)]));
    let compared =
        compared.map_or_else(|| format!(" {:>9} {:>7}", "-", "-"), |(batch, ratio)| format!(" {batch:>9.2} {ratio:>7.2}"));
    let line = format!(
        "{:<22} {:<10} {per_cpu:>8.2} {per_second:>8.2}{compared}{} {peak:>9.0}",
        query.name,
        input.name(),
        requests(counts.times(1.0 / millions))
    );
    Row { line, measured: Measured::new(format!("{} {}", query.name, input.name()), usage, &figures) }
}

/// Columns of requests per million events.
fn requests(counts: Counts) -> String {
    format!(
        " {:>8.2} {:>8.2} {:>8.2} {:>7.1} {:>8.1} {:>8.1} {:>7.1} {:>7.1} {:>10.3}",
        counts.puts,
        counts.gets,
        counts.lists,
        counts.deletes,
        counts.table_reads,
        counts.transactions,
        counts.write_units,
        counts.read_units,
        counts.bytes_put / 1e6,
    )
}

fn script(query: &Query, input: Input, path: Option<&Path>, rows: u64) -> String {
    let columns = if query.plays {
        "song_id BIGINT, user_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3), WATERMARK FOR etime AS etime - INTERVAL '5' SECOND"
    } else {
        "auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING, \
         WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND"
    };
    let with = match (input, path) {
        (Input::Files(format), Some(path)) => {
            let newlines = if format == FileFormat::Csv { ", 'csv.newlines-in-values' = 'false'" } else { "" };
            format!("'connector' = 'filesystem', 'path' = '{}', 'format' = '{}'{newlines}", path.display(), format.name())
        }
        _ if query.plays => format!("'connector' = 'plays', 'number-of-rows' = '{rows}'"),
        _ => format!("'connector' = 'nexmark', 'nexmark.table' = 'bid', 'events.num' = '{}'", rows / 46 * 50),
    };
    format!(
        "CREATE TABLE events ({columns}) WITH ({with});\nCREATE TABLE sink ({}) WITH ('connector' = 'blackhole');\nINSERT INTO sink {};\n",
        query.sink, query.weir
    )
}

/// The input file, made once for each kind, format and size.
fn input_file(folder: &Path, plays: bool, format: FileFormat, rows: u64) -> anyhow::Result<PathBuf> {
    let kind = if plays { "plays" } else { "bids" };
    let path = folder.join(format!("{kind}-{rows}.{}", format.name()));
    if path.exists() {
        return Ok(path);
    }
    let (generator, schema): (Box<dyn Generator>, _) =
        if plays { (Box::new(Plays::new(0, 4_000)), Plays::schema()) } else { (Box::new(Bids::new(0)), bid_schema()) };
    let mut batches = Vec::new();
    let mut at = 0;
    while at < rows {
        let end = rows.min(at + 65_536);
        batches.push(generator.rows(at..end, &[], &schema)?);
        at = end;
    }
    let encoded = encode::encode(format.format(), &schema, &batches)?;
    std::fs::write(&path, encoded).with_context(|| format!("file {}", path.display()))?;
    Ok(path)
}

/// The same SQL as one plain batch on one partition.
async fn batch(query: &Query, path: &Path, format: FileFormat) -> anyhow::Result<()> {
    let mut config = SessionConfig::new().with_target_partitions(1);
    // As in Flink and here, 0.908 is a decimal: another meaning would be another query.
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    let context = SessionContext::new_with_config(config);
    let schema = if query.plays { Plays::schema() } else { bid_schema() };
    let shown = path.display().to_string();
    match format {
        FileFormat::Json => {
            let options = JsonReadOptions::default().schema(&schema).file_extension("json");
            context.register_json("events", &shown, options).await?;
        }
        FileFormat::Csv => {
            context.register_csv("events", &shown, CsvReadOptions::new().has_header(false).schema(&schema)).await?
        }
        FileFormat::Parquet => context.register_parquet("events", &shown, ParquetReadOptions::default()).await?,
    }
    let mut rows = context.sql(query.batch).await?.execute_stream().await?;
    while let Some(batch) = futures::StreamExt::next(&mut rows).await {
        std::hint::black_box(batch?);
    }
    Ok(())
}

pub(super) async fn measure(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Taken> {
    let clock = weir_seams::SystemClock::new();
    let (cpu, wall) = (cpu_seconds()?, weir_model::Clock::monotonic_micros(&clock));
    work.await?;
    let wall_micros = weir_model::Clock::monotonic_micros(&clock) - wall;
    Ok(Taken { cpu_seconds: (cpu_seconds()? - cpu).max(1e-6), wall_seconds: (wall_micros as f64 / 1e6).max(1e-6) })
}

/// User and system time of this process, from the kernel's account in ticks of 1/100 s.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")
        .context("the CPU time of this process is read from /proc, which needs Linux")?;
    let fields: Vec<&str> = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / 100.0)
}

/// Begins to look for the peak anew; what the allocator keeps of earlier rows stays in it.
pub(super) fn forget_peak() {
    // A kernel that does not know this leaves the peak of the process so far.
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}

pub(super) fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1_024.0
}

//! `weir bench --updates`: what results that change cost, with a commit each second and no sink.
//!
//! ```text
//! keys, keys-on-disk   GROUP BY of random keys, all of them held; with a table that is many times its memory
//! results-of-results   how many keys have so many rows: an aggregate of the first one's results, which takes them back
//! window, early        1,000,000 open groups without and with early results each second, ten times the rows: the ratio is the price
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::counted::Counts;
use super::throughput::{Taken, forget_peak, measure, peak_megabytes};
use super::{BenchArgs, Placed, Row, show, title};
use crate::cli::live::count;
use crate::config::Config;
use crate::cost::{GIGABYTES_PER_CPU, Measured};
use crate::host;
use crate::job;
use crate::open;

/// Groups of the windows.
const OPEN_GROUPS: u64 = 1_000_000;
/// Memory that everything fits in.
const LARGE: u64 = 8 << 30;
/// Memory that the table does not fit in.
const SMALL: u64 = 512 << 20;

/// One query.
struct Query {
    name: &'static str,
    /// Its keys; those that the caller asks for if it is `None`.
    keys: Option<u64>,
    memory: u64,
    sink: &'static str,
    query: &'static str,
    /// Times the rows that the caller asks for: windows take rows so fast that seconds are over before anything is given early.
    times: u64,
    /// Whether it is compared with the row before.
    compared: bool,
}

const TOTALS: &str = "SELECT k, count(*), sum(v) FROM events GROUP BY k";
const TOTALS_SINK: &str = "k BIGINT, n BIGINT, total DOUBLE, PRIMARY KEY (k) NOT ENFORCED";
const WINDOW: &str = "SELECT window_start, k, count(*), sum(v) FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(t), INTERVAL '1' DAY)) \
                      GROUP BY window_start, window_end, k";
const WINDOW_SINK: &str = "w TIMESTAMP(3), k BIGINT, n BIGINT, total DOUBLE, PRIMARY KEY (w, k) NOT ENFORCED";

const QUERIES: [Query; 5] = [
    Query { name: "keys", keys: None, memory: LARGE, sink: TOTALS_SINK, query: TOTALS, times: 1, compared: false },
    Query { name: "keys-on-disk", keys: None, memory: SMALL, sink: TOTALS_SINK, query: TOTALS, times: 1, compared: true },
    Query {
        name: "results-of-results",
        keys: None,
        memory: LARGE,
        sink: "n BIGINT, keys BIGINT, best DOUBLE, PRIMARY KEY (n) NOT ENFORCED",
        query: "SELECT n, count(*), max(total) FROM (SELECT k, count(*) AS n, sum(v) AS total FROM events GROUP BY k) GROUP BY n",
        times: 1,
        compared: false,
    },
    Query {
        name: "window",
        keys: Some(OPEN_GROUPS),
        memory: LARGE,
        sink: WINDOW_SINK,
        query: WINDOW,
        times: 10,
        compared: false,
    },
    Query {
        name: "early",
        keys: Some(OPEN_GROUPS),
        memory: LARGE,
        sink: WINDOW_SINK,
        query: "SELECT window_start, k, count(*), sum(v) FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(t), INTERVAL '1' DAY)) \
                GROUP BY window_start, window_end, k EMIT EVERY INTERVAL '1' SECOND",
        times: 10,
        compared: true,
    },
];

pub(super) async fn updates(args: &BenchArgs, folder: &Path) -> anyhow::Result<()> {
    let about = "million rows per CPU-second, generator included, commits each second; how fast it is beside the row before; requests per \
                 million rows; peak memory of the process";
    title(args, &format!("{} rows, {} keys; {about}", count(args.rows), count(args.keys)));
    title(args, "query                    Mrow/cpu   Mrow/s   ratio   puts/M   gets/M  table/M   MB put/M   peak MB");
    let mut before = None;
    for query in &QUERIES {
        if args.only.as_ref().is_some_and(|only| !query.name.contains(only.as_str())) {
            continue;
        }
        let per_cpu = row(args, folder, query, before.filter(|_| query.compared)).await?;
        before = Some(per_cpu);
    }
    Ok(())
}

/// Runs a query and shows it; returns million rows per CPU-second.
async fn row(args: &BenchArgs, folder: &Path, query: &Query, before: Option<f64>) -> anyhow::Result<f64> {
    forget_peak();
    let Placed { mut config, unique } = Placed::new(args, &folder.join("state"), Config::default());
    config.commit_interval = Duration::from_secs(1);
    config.memory = query.memory;
    args.running.apply(&mut config);
    let sql = script(query, args.rows * query.times, query.keys.unwrap_or(args.keys));
    let opened = open::open(&config).await?;
    let taken = measure(async {
        let name = format!("bench-{unique}");
        let loaded = job::open_or_create(&opened.ctx, &name, &sql, config.parallelism(), config.key_groups).await?;
        host::run(&opened.ctx, &Arc::new(loaded), &config).await?;
        anyhow::Ok(())
    })
    .await?;
    let millions = opened.ctx.progress.events.get() as f64 / 1e6;
    show(args, &told(query, millions, taken, before, Counts::of(&opened)))?;
    Ok(millions / taken.cpu_seconds)
}

fn told(query: &Query, millions: f64, taken: Taken, before: Option<f64>, counts: Counts) -> Row {
    let (per_cpu, per_second, peak) = (millions / taken.cpu_seconds, millions / taken.wall_seconds, peak_megabytes());
    let ratio = before.map(|before| per_cpu / before);
    let mut usage = counts.usage(millions * 1e6);
    usage.function_gigabyte_seconds = taken.cpu_seconds * GIGABYTES_PER_CPU;
    let mut figures =
        vec![("million-rows-per-cpu-second", per_cpu), ("million-rows-per-second", per_second), ("peak-megabytes", peak)];
    figures.extend(ratio.map(|ratio| ("ratio", ratio)));
    figures.extend(counts.figures());
    let each = counts.times(1.0 / millions);
    let line = format!(
        "{:<22} {per_cpu:>10.2} {per_second:>8.2} {:>7} {:>8.2} {:>8.2} {:>8.1} {:>10.3} {peak:>9.0}",
        query.name,
        ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        each.puts,
        each.gets,
        each.transactions,
        each.bytes_put / 1e6,
    );
    Row { line, measured: Measured::new(query.name.to_owned(), usage, &figures) }
}

fn script(query: &Query, rows: u64, keys: u64) -> String {
    format!(
        "CREATE TABLE events (k BIGINT, v DOUBLE, t TIMESTAMP(3), WATERMARK FOR t AS t) WITH ('connector' = 'datagen',
           'number-of-rows' = '{rows}', 'fields.k.min' = '1', 'fields.k.max' = '{keys}');
         CREATE TABLE sink ({}) WITH ('connector' = 'blackhole');
         INSERT INTO sink {};",
        query.sink, query.query
    )
}

//! What an hour takes in which nothing comes: requests of a process that runs a job and waits, counted for `--seconds`.
//!
//! - `files`: the job follows a folder in which no file appears.
//! - `stream`: the job reads an HTTP stream to which nobody sends.
//!
//! Both count songs in windows and publish files. What the first seconds take is left out: shards are claimed then, and lanes say that
//! they are idle. This is `weir run`, which stays awake; functions that nobody calls make no request at all.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::counted::Counts;
use super::{BenchArgs, Placed, Row, show, title};
use crate::config::Config;
use crate::cost::{IDLE_SECONDS, Measured};
use crate::open;
use crate::{host, job};

/// From the start until the job has nothing to say any more.
const SETTLES_IN: Duration = Duration::from_secs(7);
const SECONDS_PER_HOUR: f64 = 3_600.0;

/// What the job waits for.
#[derive(Debug, Clone, Copy)]
enum Waits {
    Files,
    Stream,
}

impl Waits {
    const fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Stream => "stream",
        }
    }

    /// The script; it reads and writes below `folder`.
    fn script(self, folder: &Path, unique: &str) -> String {
        let with = match self {
            Self::Files => {
                let path = folder.join("in");
                format!("'connector' = 'filesystem', 'path' = '{}', 'format' = 'json', 'mode' = 'continuous'", path.display())
            }
            Self::Stream => format!("'connector' = 'http', 'stream' = 'idle-{unique}'"),
        };
        format!(
            "CREATE TABLE plays (song_id BIGINT, etime TIMESTAMP(3), WATERMARK FOR etime AS etime - INTERVAL '5' SECOND) WITH ({with});\n\
             CREATE TABLE hot (window_start TIMESTAMP(3), song_id BIGINT, plays BIGINT)\n\
             WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');\n\
             INSERT INTO hot SELECT window_start, song_id, count(*)\n\
             FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, song_id;\n",
            folder.join("out").display()
        )
    }
}

pub(super) async fn idle(args: &BenchArgs, folder: &Path) -> anyhow::Result<()> {
    let mut config = Config::default();
    args.running.apply(&mut config);
    title(args, &format!("counted for {} s, told for an hour; parallelism {}", args.seconds, config.parallelism()));
    title(
        args,
        &format!(
            "{:<10} {:>8} {:>8} {:>8} {:>8} {:>12} {:>8} {:>8} {:>13}",
            "waits for", "puts/h", "gets/h", "lists/h", "dels/h", "table reads/h", "wu/h", "ru/h", "stream reads/h"
        ),
    );
    for waits in [Waits::Files, Waits::Stream] {
        if args.only.as_ref().is_none_or(|only| waits.name().contains(only.as_str())) {
            show(args, &row(args, folder, &config, waits).await?)?;
        }
    }
    Ok(())
}

async fn row(args: &BenchArgs, folder: &Path, config: &Config, waits: Waits) -> anyhow::Result<Row> {
    let folder = folder.join("idle");
    let Placed { config, unique } = Placed::new(args, &folder.join("store"), config.clone());
    std::fs::create_dir_all(folder.join("in"))?;
    let opened = open::open(&config).await?;
    let (sql, name) = (waits.script(&folder, &unique), format!("idle-{}-{unique}", waits.name()));
    let loaded = job::open_or_create(&opened.ctx, &name, &sql, config.parallelism(), config.key_groups).await?;
    let loaded = Arc::new(loaded);
    let counting = async {
        opened.ctx.clock.sleep(SETTLES_IN).await;
        let before = Counts::of(&opened);
        opened.ctx.clock.sleep(Duration::from_secs(args.seconds)).await;
        let counted = Counts::of(&opened).since(before);
        opened.ctx.stop.request();
        counted
    };
    let (ran, counted) = tokio::join!(host::run(&opened.ctx, &loaded, &config), counting);
    ran?;
    Ok(told(waits, counted, args.seconds as f64))
}

fn told(waits: Waits, counted: Counts, seconds: f64) -> Row {
    let hour = counted.times(SECONDS_PER_HOUR / seconds);
    let line = format!(
        "{:<10} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>12.0} {:>8.0} {:>8.0} {:>13.0}",
        waits.name(),
        hour.puts,
        hour.gets,
        hour.lists,
        hour.deletes,
        hour.table_reads,
        hour.write_units,
        hour.read_units,
        hour.stream_reads
    );
    let figures = [(IDLE_SECONDS, seconds), ("deletes", hour.deletes), ("table-reads", hour.table_reads)];
    Row { line, measured: Measured::new(format!("idle hour, waits for {}", waits.name()), hour.usage(0.0), &figures) }
}

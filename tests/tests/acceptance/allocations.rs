//! What an event costs in allocations: a hot path that allocates by the row shows here, not in a profile.
//!
//! Counts do not depend on the allocator or on the machine's speed, so they can be asserted. Each job is counted in a process of its
//! own, since every thread of a process counts. Bytes allocated bound the bytes copied: a copy needs a place.
//!
//! `cargo test --release --workspace allocations -- --nocapture` prints the table.

use std::alloc::System;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};
use weir_connectors::encode;
use weir_connectors::files::Format;
use weir_connectors::generate::{Generator, Plays};
use weir_functions::config::Config;
use weir_functions::{host, job, open};

use super::support::{assert_ok, text};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const EVENTS: u64 = 500_000;

/// Name of the job to count in this process.
const JOB: &str = "WEIR_COUNT_ALLOCATIONS_OF";

const PLAYS: &str = "song_id BIGINT, user_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3), \
                     WATERMARK FOR etime AS etime - INTERVAL '5' SECOND";

/// A job, its input, and the most an event may cost: allocations per thousand events, bytes per event.
struct Counted {
    name: &'static str,
    format: Option<Format>,
    windowed: bool,
    allocations_max: f64,
    bytes_max: f64,
}

const COUNTED: [Counted; 5] = [
    Counted { name: "rows from the generator", format: None, windowed: false, allocations_max: 10.0, bytes_max: 60.0 },
    Counted { name: "windows from the generator", format: None, windowed: true, allocations_max: 70.0, bytes_max: 800.0 },
    Counted {
        name: "windows from Parquet",
        format: Some(Format::Parquet),
        windowed: true,
        allocations_max: 70.0,
        bytes_max: 800.0,
    },
    Counted { name: "windows from CSV", format: Some(Format::Csv), windowed: true, allocations_max: 70.0, bytes_max: 800.0 },
    Counted { name: "windows from NDJSON", format: Some(Format::Json), windowed: true, allocations_max: 70.0, bytes_max: 800.0 },
];

impl Counted {
    fn script(&self, folder: &Path, events: u64) -> String {
        let with = match self.format {
            None => format!("'connector' = 'plays', 'number-of-rows' = '{events}'"),
            Some(format) => {
                let path = folder.join(format!("plays.{}", format.extension()));
                let plays = Plays::new(0, 4_000).rows(0..events, &[], &Plays::schema()).expect("plays are made");
                let bytes = encode::encode(format, &Plays::schema(), &[plays]).expect("plays are encoded");
                std::fs::write(&path, bytes).expect("the file can be written");
                format!("'connector' = 'filesystem', 'path' = '{}', 'format' = '{}'", path.display(), format.extension())
            }
        };
        let (sink, query) = if self.windowed {
            (
                "window_start TIMESTAMP(3), song_id BIGINT, plays BIGINT, score DOUBLE",
                "SELECT window_start, song_id, count(*), sum(play_score) \
                 FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND)) \
                 GROUP BY window_start, window_end, song_id",
            )
        } else {
            ("song_id BIGINT, score DOUBLE", "SELECT song_id, play_score * 2 FROM plays")
        };
        format!(
            "CREATE TABLE plays ({PLAYS}) WITH ({with}); CREATE TABLE sink ({sink}) WITH ('connector' = 'blackhole'); \
             INSERT INTO sink {query};"
        )
    }

    /// Allocations per thousand events and bytes per event: what more events cost more, so that planning does not count.
    fn count(&self) -> (f64, f64) {
        let (few, many) = (self.stats(EVENTS), self.stats(3 * EVENTS));
        let more = (2 * EVENTS) as f64;
        let allocations = |stats: Stats| stats.allocations + stats.reallocations;
        let bytes = many.bytes_allocated - few.bytes_allocated;
        ((allocations(many) - allocations(few)) as f64 * 1e3 / more, bytes as f64 / more)
    }

    /// The whole job, from its first claim to its last commit.
    fn stats(&self, events: u64) -> Stats {
        let folder = tempfile::tempdir().expect("a folder for the store");
        let sql = self.script(folder.path(), events);
        let config = Config { store: format!("file://{}", folder.path().join("store").display()), ..Config::default() };
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let opened = open::open(&config).await.expect("the store opens");
            let loaded = job::open_or_create(&opened.ctx, "counted", &sql, config.parallelism(), config.key_groups);
            let loaded = Arc::new(loaded.await.expect("the job compiles"));
            let region = Region::new(ALLOCATOR);
            host::run(&opened.ctx, &loaded, &config).await.expect("the job runs");
            assert_eq!(opened.ctx.progress.events.get(), events);
            region.change()
        })
    }
}

#[test]
fn an_event_costs_few_allocations() {
    if let Ok(name) = std::env::var(JOB) {
        let job = COUNTED.iter().find(|job| job.name == name).expect("a job of this name");
        let (allocations, bytes) = job.count();
        eprintln!("counted {allocations} {bytes}");
        return;
    }
    let mut table = format!("{:<28} {:>24} {:>18}\n", "job", "allocations per 1,000", "bytes per event");
    let mut over = Vec::new();
    for job in &COUNTED {
        let mut child = Command::new(std::env::current_exe().expect("this test has a path"));
        let child = child.args(["allocations::an_event_costs_few_allocations", "--exact", "--nocapture"]);
        let output = child.env(JOB, job.name).output().expect("this test starts");
        assert_ok(&output);
        let shown = text(&output.stderr);
        let counted = shown.lines().find_map(|line| line.strip_prefix("counted ")).expect("a line with the counts");
        let figures: Vec<f64> = counted.split(' ').map(|figure| figure.parse().expect("a figure")).collect();
        writeln!(table, "{:<28} {:>24.2} {:>18.1}", job.name, figures[0], figures[1]).expect("a string takes text");
        if figures[0] > job.allocations_max || figures[1] > job.bytes_max {
            over.push(job.name);
        }
    }
    eprint!("{table}");
    assert!(over.is_empty(), "more than they may: {over:?}\n{table}");
}

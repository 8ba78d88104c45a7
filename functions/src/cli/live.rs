//! How a run goes: a block that renews itself on a terminal, a line now and then elsewhere; a summary at the end.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use weir_coordinator::jobs;
use weir_model::{Head, Watermark};

use crate::job::Loaded;
use crate::open::Opened;
use crate::progress::Counted;
use crate::topology::Role;

const BLOCK_EVERY: Duration = Duration::from_millis(500);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A display under way.
pub(super) struct Shown {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Shown {
    pub(super) async fn end(self) {
        let _ = self.stop.send(());
        drop(self.task.await);
    }
}

/// Starts to show a run on standard error.
pub(super) fn show(opened: &Opened, loaded: &Arc<Loaded>) -> Shown {
    let (stop, mut stopped) = oneshot::channel();
    let (opened, loaded) = (opened.clone(), Arc::clone(loaded));
    let terminal = std::io::stderr().is_terminal();
    let task = tokio::spawn(async move {
        let every = if terminal { BLOCK_EVERY } else { LINE_EVERY };
        let mut last = Snapshot::default();
        let mut lines = 0;
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                () = opened.ctx.clock.sleep(every) => {}
            }
            let now = Snapshot::take(&opened);
            let heads = jobs::heads(opened.ctx.table.as_ref(), &loaded.topology.all_shards()).await.unwrap_or_default();
            let mut out = std::io::stderr().lock();
            if terminal {
                let block = block(&loaded, &now, &last, &heads);
                let up = if lines > 0 { format!("\x1b[{lines}A") } else { String::new() };
                lines = block.len();
                let text: String = block.into_iter().map(|line| format!("\x1b[2K{line}\n")).collect();
                drop(write!(out, "{up}{text}"));
            } else {
                drop(writeln!(out, "{}", block(&loaded, &now, &last, &heads).join(" | ")));
            }
            last = now;
        }
    });
    Shown { stop, task }
}

/// What the block tells, but for the heads: this process's counters, with those of the invocations it called.
#[derive(Debug, Clone, Default)]
struct Snapshot {
    /// Monotonic, for the rate.
    at_micros: i64,
    /// On the wall clock, for the lag.
    now_micros: i64,
    counted: Counted,
}

impl Snapshot {
    fn take(opened: &Opened) -> Self {
        let clock = opened.ctx.clock.as_ref();
        Self { at_micros: clock.monotonic_micros(), now_micros: clock.now_micros(), counted: opened.counted() }
    }
}

/// - `last`: the reading before, for the rate. - `heads`: of the job's shards; empty if the table did not answer.
fn block(loaded: &Loaded, now: &Snapshot, last: &Snapshot, heads: &[Head]) -> Vec<String> {
    let Counted { counters, open_panes, objects, table } = &now.counted;
    let micros = u64::try_from(now.at_micros - last.at_micros).unwrap_or(0).max(1);
    let rate = (counters.events - last.counted.counters.events).saturating_mul(1_000_000) / micros;
    let lanes = heads.iter().filter(|head| loaded.topology.stage(head.shard.stage).role == Role::Lane);
    let watermark = lanes.map(|head| head.watermark).min().unwrap_or(Watermark::NONE);
    let panes: u64 = open_panes.iter().map(|(_, panes)| panes).sum();
    let with_panes = open_panes.iter().filter(|(_, panes)| *panes > 0).count();
    vec![
        format!("{}  events {}  {}/s", loaded.name, count(counters.events), count(rate)),
        format!(
            "watermark {}  lag {}  open panes {} in {with_panes} shards",
            shown_time(watermark),
            lag(watermark, now.now_micros),
            count(panes)
        ),
        format!(
            "results {}  published {}  late {}  dead {}",
            count(counters.results),
            count(counters.published),
            count(counters.late),
            count(counters.dead)
        ),
        format!(
            "commits {}  object puts {}  gets {}  table transactions {}  reads {}",
            count(counters.commits),
            count(objects.puts),
            count(objects.gets),
            count(table.transactions),
            count(table.reads)
        ),
        format!("table write units {}  read units {} (as of DynamoDB)", count(table.write_units), count(table.read_units)),
    ]
}

/// How far event time is behind the wall clock; `-` where the watermark is no time.
fn lag(watermark: Watermark, now_micros: i64) -> String {
    if watermark == Watermark::NONE || watermark == Watermark::INFINITY {
        return "-".to_owned();
    }
    let millis = now_micros.saturating_sub(watermark.0) / 1_000;
    let (sign, millis) = (if millis < 0 { "-" } else { "" }, millis.unsigned_abs());
    let (seconds, minutes, hours, days) = (millis / 1_000, millis / 60_000, millis / 3_600_000, millis / 86_400_000);
    let shown = match (minutes, hours, days) {
        (0, ..) => format!("{seconds}.{} s", millis / 100 % 10),
        (_, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (_, _, 0) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", count(days), hours % 24),
    };
    format!("{sign}{shown}")
}

/// Prints what was committed, from the heads: it counts every process that took part.
#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
pub(super) async fn summary(opened: &Opened, loaded: &Loaded, finished: bool) -> anyhow::Result<()> {
    let heads = jobs::heads(opened.ctx.table.as_ref(), &loaded.topology.all_shards()).await?;
    let total = |role: Role, value: fn(&Head) -> u64| -> u64 {
        heads.iter().filter(|head| loaded.topology.stage(head.shard.stage).role == role).map(value).sum()
    };
    let late: u64 = heads.iter().map(|head| head.stats.rows_late).sum();
    println!(
        "{} {}: {} events read, {} rows published, {} late, {} dead, {} dropped by filters or a blackhole",
        loaded.name,
        if finished { "finished" } else { "stopped; run again to go on" },
        count(total(Role::Lane, |head| head.stats.rows_in)),
        count(total(Role::Publish, |head| head.stats.rows_out)),
        count(late),
        count(total(Role::Lane, |head| head.stats.rows_dead)),
        count(heads.iter().map(|head| head.stats.rows_dropped).sum()),
    );
    Ok(())
}

/// `1,234,567`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A watermark as UTC time.
pub(super) fn shown_time(watermark: Watermark) -> String {
    let day = watermark.0.div_euclid(86_400_000_000);
    if watermark == Watermark::NONE || watermark == Watermark::INFINITY || day.abs() > 3_000_000 {
        return watermark.to_string();
    }
    let micros = watermark.0.rem_euclid(86_400_000_000);
    let (year, month, date) = civil(day);
    let seconds = micros / 1_000_000;
    format!("{year:04}-{month:02}-{date:02} {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Year, month and day of a number of days since 1970-01-01 (Hinnant's civil calendar).
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_part = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month_part + 2) / 5 + 1;
    let month = if month_part < 10 { month_part + 3 } else { month_part - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use weir_coordinator::TableReading;
    use weir_model::{Activity, JobId};
    use weir_state::RequestCounts;

    use super::*;
    use crate::connect::Pinned;
    use crate::progress::Counters;
    use crate::topology::Topology;

    const SQL: &str =
        "CREATE TABLE plays (song_id BIGINT, etime TIMESTAMP(3), WATERMARK FOR etime AS etime) WITH ('connector' = 'plays');
        CREATE TABLE hot (song_id BIGINT, plays BIGINT) WITH ('connector' = 'blackhole');
        INSERT INTO hot SELECT song_id, count(*) FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND))
        GROUP BY window_start, window_end, song_id;";

    async fn hot() -> Loaded {
        let plan = weir_plan::compile(SQL).await.expect("compiles");
        let pinned = vec![Pinned::Nothing];
        let topology = Topology::new(JobId(1), &plan, &pinned, 2, 720);
        let (key_groups, plan_version, skew_max, commit_interval) = (720, 1, Duration::ZERO, None);
        Loaded {
            job: JobId(1),
            name: "hot".to_owned(),
            plan,
            topology,
            pinned,
            key_groups,
            plan_version,
            skew_max,
            commit_interval,
        }
    }

    #[tokio::test]
    async fn the_block_shows_input_time_windows_results_and_requests() {
        let loaded = hot().await;
        let shards = loaded.topology.all_shards();
        let minute = |minute: i64| Watermark(1_767_225_600_000_000 + minute * 60_000_000);
        let mut heads: Vec<Head> = shards.iter().map(|shard| Head { watermark: minute(1), ..Head::new(*shard) }).collect();
        heads[0].watermark = minute(3);
        heads[1].watermark = minute(2);
        heads[1].activity = Activity::Active;
        let counters =
            Counters { events: 3_500, results: 40, published: 30, late: 2, dead: 1, commits: 7, ..Counters::default() };
        let objects = RequestCounts { puts: 14, gets: 3, ..RequestCounts::default() };
        let table = TableReading { reads: 9, transactions: 8, writes: 16, read_units: 11, write_units: 32 };
        let counted = Counted { counters, open_panes: vec![(shards[2], 3), (shards[3], 0)], objects, table };
        let now = Snapshot { at_micros: 3_000_000, now_micros: minute(2).0 + 4_250_000, counted };
        let before = Counted { counters: Counters { events: 500, ..Counters::default() }, ..Counted::default() };
        let last = Snapshot { at_micros: 1_000_000, now_micros: 0, counted: before };
        let expected = [
            "hot  events 3,500  1,500/s",
            "watermark 2026-01-01 00:02:00  lag 4.2 s  open panes 3 in 1 shards",
            "results 40  published 30  late 2  dead 1",
            "commits 7  object puts 14  gets 3  table transactions 8  reads 9",
            "table write units 32  read units 11 (as of DynamoDB)",
        ];
        assert_eq!(block(&loaded, &now, &last, &heads), expected);
        assert!(block(&loaded, &now, &last, &[])[1].starts_with("watermark none  lag -  "), "the table did not answer");
    }

    #[test]
    fn a_lag_reads_as_people_say_it() {
        let of = |micros: i64| lag(Watermark(0), micros);
        let second = 1_000_000;
        assert_eq!([of(0), of(59 * second + 990_000), of(-second)], ["0.0 s", "59.9 s", "-1.0 s"]);
        assert_eq!([of(61 * second), of(3_700 * second)], ["1 min 1 s", "1 h 1 min"]);
        assert_eq!(of(86_400 * second * 1_234), "1,234 d 0 h");
        assert_eq!(lag(Watermark::INFINITY, 0), "-");
    }

    #[test]
    fn numbers_and_times_read_as_people_write_them() {
        assert_eq!([count(0), count(999), count(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!(shown_time(Watermark(0)), "1970-01-01 00:00:00");
        assert_eq!(shown_time(Watermark(1_767_225_661_000_000)), "2026-01-01 00:01:01");
        assert_eq!(shown_time(Watermark(-1)), "1969-12-31 23:59:59");
        assert_eq!(shown_time(Watermark::INFINITY), "end");
    }
}

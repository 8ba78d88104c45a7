//! How a run goes: a block that renews itself on a terminal, a line now and then elsewhere; a summary at the end.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use weir_coordinator::jobs;
use weir_model::{Head, Watermark};

use crate::job::Loaded;
use crate::open::Opened;
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

#[derive(Debug, Clone, Copy, Default)]
struct Snapshot {
    at_micros: i64,
    events: u64,
    results: u64,
    published: u64,
    commits: u64,
    late: u64,
    dead: u64,
    puts: u64,
    gets: u64,
    write_units: u64,
    read_units: u64,
}

impl Snapshot {
    fn take(opened: &Opened) -> Self {
        let progress = &opened.ctx.progress;
        let requests = opened.objects.counts();
        Self {
            at_micros: opened.ctx.clock.monotonic_micros(),
            events: progress.events.get(),
            results: progress.results.get(),
            published: progress.published.get(),
            commits: progress.commits.get(),
            late: progress.late.get(),
            dead: progress.dead.get(),
            puts: requests.puts,
            gets: requests.gets,
            write_units: opened.table.write_units.load(Ordering::Relaxed),
            read_units: opened.table.read_units.load(Ordering::Relaxed),
        }
    }
}

fn block(loaded: &Loaded, now: &Snapshot, last: &Snapshot, heads: &[Head]) -> Vec<String> {
    let micros = u64::try_from(now.at_micros - last.at_micros).unwrap_or(0).max(1);
    let rate = (now.events - last.events).saturating_mul(1_000_000) / micros;
    let watermark =
        heads.iter().filter(|head| loaded.topology.stage(head.shard.stage).role == Role::Lane).map(|head| head.watermark).min();
    let open = heads.iter().filter(|head| head.act_at.is_some()).count();
    vec![
        format!("{}  events {}  {}/s", loaded.name, count(now.events), count(rate)),
        format!("watermark {}  shards with open windows {open}", shown_time(watermark.unwrap_or(Watermark::NONE))),
        format!(
            "results {}  published {}  late {}  dead {}",
            count(now.results),
            count(now.published),
            count(now.late),
            count(now.dead)
        ),
        format!("commits {}  object puts {}  gets {}", count(now.commits), count(now.puts), count(now.gets)),
        format!("table write units {}  read units {} (as of DynamoDB)", count(now.write_units), count(now.read_units)),
    ]
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
        "{} {}: {} events read, {} rows published, {late} late, {} dead, {} dropped by filters or a blackhole",
        loaded.name,
        if finished { "finished" } else { "stopped; run again to go on" },
        count(total(Role::Lane, |head| head.stats.rows_in)),
        count(total(Role::Publish, |head| head.stats.rows_out)),
        total(Role::Lane, |head| head.stats.rows_dead),
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
    use super::*;

    #[test]
    fn numbers_and_times_read_as_people_write_them() {
        assert_eq!([count(0), count(999), count(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!(shown_time(Watermark(0)), "1970-01-01 00:00:00");
        assert_eq!(shown_time(Watermark(1_767_225_661_000_000)), "2026-01-01 00:01:01");
        assert_eq!(shown_time(Watermark(-1)), "1969-12-31 23:59:59");
        assert_eq!(shown_time(Watermark::INFINITY), "end");
    }
}

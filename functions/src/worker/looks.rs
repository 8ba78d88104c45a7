//! When a worker looks at the heads of others: at once after a write that it hears of, else ever less the longer nothing comes.
//!
//! Looks are what an idle job pays for, so they do not follow how often a source is asked. A lost wake-up costs a look's interval,
//! never more (T1).

use std::time::Duration;

use weir_coordinator::Changes;

use crate::context::Ctx;

/// Longest sleep, after which stopping, leaving and sharing are thought of, and longest time between two looks where the table does not
/// tell of other processes' writes. A round without a look asks nobody.
const SLEEP_MAX_MICROS: i64 = 50_000;
/// Longest time between two looks where it does.
const HEARD_MAX_MICROS: i64 = 5_000_000;
/// Of the time in which nothing came, the part that may pass until the next look.
const IDLE_SHARE: i64 = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Looks {
    changes: Changes,
    interval_min: i64,
    interval_max: i64,
    /// When there was something last.
    busy_at: i64,
    next_at: i64,
}

impl Looks {
    pub(super) fn new(ctx: &Ctx) -> Self {
        let now = ctx.clock.monotonic_micros();
        let interval_min = i64::try_from(ctx.tuning.ask_again.as_micros()).unwrap_or(i64::MAX);
        let most = if ctx.table.hears_others() { HEARD_MAX_MICROS } else { SLEEP_MAX_MICROS };
        let changes = ctx.table.changes();
        Self { changes, interval_min, interval_max: most.max(interval_min), busy_at: now, next_at: now }
    }

    /// Whether heads are to be looked at in the round that begins.
    pub(super) fn take(&mut self, now: i64) -> bool {
        let due = self.changes.heard() || now >= self.next_at;
        if due {
            self.next_at = now.saturating_add(((now - self.busy_at) / IDLE_SHARE).clamp(self.interval_min, self.interval_max));
        }
        due
    }

    /// There was something: the next round looks, whatever it hears.
    pub(super) fn busy(&mut self, now: i64) {
        self.busy_at = now;
        self.again();
    }

    /// The next round looks.
    pub(super) fn again(&mut self) {
        self.next_at = i64::MIN;
    }

    /// Sleeps until somebody writes, the next look is due or, where a source must be asked, it is time for that; never for long.
    pub(super) async fn wait(&mut self, ctx: &Ctx, polls: bool) {
        let until_look = self.next_at.saturating_sub(ctx.clock.monotonic_micros());
        let until_look = until_look.min(SLEEP_MAX_MICROS).max(self.interval_min);
        let micros = if polls { self.interval_min } else { until_look };
        let patience = Duration::from_micros(u64::try_from(micros).unwrap_or_default());
        tokio::select! {
            () = self.changes.next() => self.again(),
            () = ctx.clock.sleep(patience) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_coordinator::{Condition, CoordinationStore, ItemKey, MemoryTable, Write};

    use super::*;

    fn looks(table: &MemoryTable) -> Looks {
        let (interval_min, interval_max) = (5_000, HEARD_MAX_MICROS);
        Looks { changes: table.changes(), interval_min, interval_max, busy_at: 0, next_at: 0 }
    }

    #[test]
    fn looks_become_rare_and_a_job_at_work_looks_in_every_round() {
        let mut looks = looks(&MemoryTable::new());
        // Rounds every five milliseconds for an hour, as a worker makes them that asks a source.
        let hour = (0..720_000).filter(|round| looks.take(round * 5_000)).count();
        assert!((720..800).contains(&hour), "{hour} looks in an hour");
        looks.busy(3_600_000_000);
        assert!(looks.take(3_600_000_001), "it was at work");
        assert!(!looks.take(3_600_000_002));
    }

    #[tokio::test]
    async fn a_write_is_looked_at_once_and_at_once() {
        let table = Arc::new(MemoryTable::new());
        let mut looks = looks(&table);
        assert!(looks.take(1));
        assert!(!looks.take(2));
        let put = Write::Put { key: ItemKey::new("p", "s"), condition: Condition::Absent, body: "{}".into() };
        assert_eq!(table.transact(vec![put]).await.unwrap(), weir_coordinator::TransactOutcome::Applied);
        assert!(looks.take(3));
        assert!(!looks.take(4));
    }
}

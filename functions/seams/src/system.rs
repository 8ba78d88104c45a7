//! The real clock and the real ids: the only place that asks the operating system for time or randomness.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir_model::time::Sleep;
use weir_model::{Clock, Ids};

/// Wall clock and monotonic clock of the machine.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

#[expect(clippy::disallowed_methods, reason = "this is the seam's real form")]
impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the seam's real form")]
impl Clock for SystemClock {
    fn now_micros(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    fn monotonic_micros(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Ids of 48 bits of milliseconds and 80 random bits: time-ordered, never repeated.
#[derive(Debug)]
pub struct RandomIds {
    counter: AtomicU64,
}

impl RandomIds {
    /// Ids that no other process makes.
    #[must_use]
    pub fn new() -> Self {
        Self { counter: AtomicU64::new(0) }
    }
}

impl Default for RandomIds {
    fn default() -> Self {
        Self::new()
    }
}

impl Ids for RandomIds {
    fn next_u128(&self) -> u128 {
        // A version 7 UUID has the layout wanted; the counter keeps ids of one millisecond apart in order too.
        let id = uuid::Uuid::now_v7().as_u128();
        let low = u128::from(self.counter.fetch_add(1, Ordering::Relaxed) & 0xff);
        (id & !0xff) | low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_ordered_by_time() {
        let ids = RandomIds::new();
        let mut made: Vec<u128> = (0..10_000).map(|_| ids.next_u128()).collect();
        let first_half_max = made[..5_000].iter().map(|id| id >> 80).max();
        let second_half_min = made[5_000..].iter().map(|id| id >> 80).min();
        assert!(first_half_max <= second_half_min);
        made.sort_unstable();
        made.dedup();
        assert_eq!(made.len(), 10_000);
    }
}

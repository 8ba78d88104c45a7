//! Live counters of this process, for the terminal and the benchmarks. They describe; they decide nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::trace::Trace;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of this process since it started.
        #[derive(Debug, Default)]
        pub struct Progress {
            $($(#[$doc])* pub $name: Counter,)*
            /// Instants of steps, while latency is measured.
            pub trace: Trace,
        }
    };
}

counters! {
    /// Rows read from sources, committed or not.
    events,
    /// Source bytes read.
    source_bytes,
    /// Result rows made.
    results,
    /// Result rows visible in a sink.
    published,
    /// Commits: transactions that advanced at least one head.
    commits,
    /// Rows whose window had fired.
    late,
    /// Rows in dead-letter streams.
    dead,
    /// Times a worker found itself fenced.
    fenced,
    /// Microseconds spent decoding source rows.
    decode_micros,
    /// Microseconds spent in fragments and accumulators.
    execute_micros,
    /// Microseconds spent encoding segments.
    encode_micros,
    /// Microseconds spent waiting for commits before them.
    wait_micros,
    /// Microseconds spent storing objects.
    put_micros,
    /// Microseconds spent in the coordination table.
    commit_micros,
}

/// One counter; relaxed, since nothing rests on it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds the microseconds between two readings of one monotonic clock.
    pub fn add_between(&self, from_micros: i64, to_micros: i64) {
        self.add(u64::try_from(to_micros.saturating_sub(from_micros)).unwrap_or(0));
    }

    /// Reads.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

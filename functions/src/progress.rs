//! Live counters of this process, for the terminal and the benchmarks. They describe; they decide nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use weir_coordinator::{TableCounts, TableReading};
use weir_model::ShardKey;
use weir_state::{RequestCounts, Requests};

use crate::trace::Trace;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of this process since it started.
        #[derive(Debug, Default)]
        pub struct Progress {
            $($(#[$doc])* pub $name: Counter,)*
            /// Open panes of each merge shard that this process last served.
            pub open_panes: OpenPanes,
            /// Requests of processes that served an invocation for this one.
            pub elsewhere: Elsewhere,
            /// Instants of steps, while latency is measured.
            pub trace: Trace,
        }

        /// A reading of the counters of a [`Progress`].
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Progress {
            /// Reads all counters.
            #[must_use]
            pub fn counters(&self) -> Counters {
                Counters { $($name: self.$name.get(),)* }
            }

            fn add_counters(&self, counters: &Counters) {
                $(self.$name.add(counters.$name);)*
            }
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
    /// Rows whose window took none any more.
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

/// Number of open panes by merge shard, as of its last batch.
#[derive(Debug, Default)]
pub struct OpenPanes(Mutex<BTreeMap<ShardKey, u64>>);

impl OpenPanes {
    /// Says how many `shard` has.
    pub fn set(&self, shard: ShardKey, panes: u64) {
        self.with(|open| open.insert(shard, panes));
    }

    /// Another process serves `shard`.
    pub fn forget(&self, shard: ShardKey) {
        self.with(|open| open.remove(&shard));
    }

    /// Of all shards, in order.
    #[must_use]
    pub fn all(&self) -> Vec<(ShardKey, u64)> {
        self.with(|open| open.iter().map(|(shard, panes)| (*shard, *panes)).collect())
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<ShardKey, u64>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Requests that other processes made for this one.
#[derive(Debug, Default)]
pub struct Elsewhere {
    /// To the object store.
    pub objects: Requests,
    /// To the table.
    pub table: TableCounts,
}

/// What the process of an invocation has counted; travels with its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Its counters.
    pub counters: Counters,
    /// Open panes of the merge shards it served.
    pub open_panes: Vec<(ShardKey, u64)>,
    /// Its requests to the object store.
    pub objects: RequestCounts,
    /// Its requests to the table.
    pub table: TableReading,
}

impl Progress {
    /// Adds what the process of an invocation counted for this one.
    pub fn take_in(&self, counted: &Counted) {
        self.add_counters(&counted.counters);
        for (shard, panes) in &counted.open_panes {
            self.open_panes.set(*shard, *panes);
        }
        self.elsewhere.objects.add(&counted.objects);
        self.elsewhere.table.add_reading(&counted.table);
    }
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

#[cfg(test)]
mod tests {
    use weir_model::{JobId, ShardId, StageId};

    use super::*;

    #[test]
    fn what_another_process_counted_is_added_and_its_panes_replace_what_was_known() {
        let shard = ShardKey::new(JobId(1), StageId(1), ShardId(0));
        let (here, there) = (Progress::default(), Progress::default());
        here.commits.add(2);
        here.open_panes.set(shard, 9);
        there.commits.add(3);
        there.open_panes.set(shard, 4);
        let objects = RequestCounts { puts: 5, ..RequestCounts::default() };
        let table = TableReading { transactions: 6, ..TableReading::default() };
        let counted = Counted { counters: there.counters(), open_panes: there.open_panes.all(), objects, table };
        here.take_in(&counted);
        assert_eq!((here.commits.get(), here.open_panes.all()), (5, vec![(shard, 4)]));
        assert_eq!((here.elsewhere.objects.counts().puts, here.elsewhere.table.reading().transactions), (5, 6));
    }
}

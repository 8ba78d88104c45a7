//! Requests of a stretch of time, as quantities that have a price.

use crate::cost::Usage;
use crate::open::Opened;

/// Requests of a process to its store and its table.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) puts: f64,
    pub(super) gets: f64,
    pub(super) lists: f64,
    pub(super) deletes: f64,
    pub(super) bytes_put: f64,
    pub(super) table_reads: f64,
    pub(super) transactions: f64,
    pub(super) write_units: f64,
    pub(super) read_units: f64,
    /// Of the table's stream.
    pub(super) stream_reads: f64,
}

impl Counts {
    /// Since the process opened them.
    pub(super) fn of(opened: &Opened) -> Self {
        let (objects, table) = (opened.object_requests(), opened.table_requests());
        Self {
            puts: objects.puts as f64,
            gets: objects.gets as f64,
            lists: objects.lists as f64,
            deletes: objects.deletes as f64,
            bytes_put: objects.bytes_put as f64,
            table_reads: table.reads as f64,
            transactions: table.transactions as f64,
            write_units: table.write_units as f64,
            read_units: table.read_units as f64,
            stream_reads: opened.ctx.table.feed_reads() as f64,
        }
    }

    fn zip(self, other: Self, with: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            puts: with(self.puts, other.puts),
            gets: with(self.gets, other.gets),
            lists: with(self.lists, other.lists),
            deletes: with(self.deletes, other.deletes),
            bytes_put: with(self.bytes_put, other.bytes_put),
            table_reads: with(self.table_reads, other.table_reads),
            transactions: with(self.transactions, other.transactions),
            write_units: with(self.write_units, other.write_units),
            read_units: with(self.read_units, other.read_units),
            stream_reads: with(self.stream_reads, other.stream_reads),
        }
    }

    /// What came after `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        self.zip(earlier, |now, before| now - before)
    }

    pub(super) fn times(self, factor: f64) -> Self {
        self.zip(self, |count, _| count * factor)
    }

    /// What is paid of it.
    pub(super) fn usage(self, events: f64) -> Usage {
        Usage {
            events,
            puts: self.puts,
            gets: self.gets,
            lists: self.lists,
            write_units: self.write_units,
            read_units: self.read_units,
            stream_reads: self.stream_reads,
            ..Usage::default()
        }
    }

    /// What is free, or told in another measure.
    pub(super) fn figures(self) -> [(&'static str, f64); 4] {
        [
            ("deletes", self.deletes),
            ("table-reads", self.table_reads),
            ("transactions", self.transactions),
            ("put-megabytes", self.bytes_put / 1e6),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_scaled_from_what_was_counted_in_it() {
        let before = Counts { puts: 1.0, read_units: 100.0, ..Counts::default() };
        let after = Counts { puts: 1.0, read_units: 120.0, stream_reads: 2.0, ..Counts::default() };
        let usage = after.since(before).times(3_600.0 / 10.0).usage(0.0);
        assert_eq!((usage.puts, usage.read_units, usage.stream_reads), (0.0, 7_200.0, 720.0));
    }
}

//! What a value follows from: random bits of (seed, row, column, part), and the row's time.

use crate::generate::random;

/// Randomness of one column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    seed: u64,
    /// Fields from here on are the column's parts.
    field: u64,
}

impl Draw {
    /// - `place`: the column's place in the table: more columns behind it do not change it.
    pub(super) const fn new(seed: u64, place: u32) -> Self {
        Self { seed, field: (place as u64 + 1) << 32 }
    }

    /// 64 bits.
    pub(super) const fn bits(&self, row: u64, part: u64) -> u64 {
        random::bits(self.seed, row, self.field + part)
    }

    /// A number below `bound` (above 0).
    pub(super) const fn below(&self, row: u64, part: u64, bound: u64) -> u64 {
        random::below(self.seed, row, self.field + part, bound)
    }

    /// A number from 0 to 1, without 1.
    pub(super) fn unit(&self, row: u64, part: u64) -> f64 {
        (self.bits(row, part) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Whole numbers from `least` to `least + span`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    least: i64,
    span: u64,
}

impl Span {
    /// - `most`: not below `least`.
    pub(super) const fn new(least: i64, most: i64) -> Self {
        Self { least, span: most.abs_diff(least) }
    }

    /// One of them, uniformly.
    pub(super) const fn draw(&self, draw: &Draw, row: u64) -> i64 {
        let above = match self.span.checked_add(1) {
            Some(bound) => draw.below(row, 0, bound),
            None => draw.bits(row, 0),
        };
        self.least.wrapping_add_unsigned(above)
    }
}

/// Times of rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeline {
    /// Of row 0, microseconds since 1970-01-01 UTC.
    pub(super) start_micros: i64,
    /// Rows per second, above 0.
    pub(super) rate: u64,
}

impl Timeline {
    /// Time of a row, microseconds since 1970-01-01 UTC.
    pub(super) fn micros(&self, row: u64) -> i64 {
        let elapsed = u128::from(row) * 1_000_000 / u128::from(self.rate);
        self.start_micros.saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }
}

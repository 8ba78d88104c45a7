//! Panes: numbered slices of event time.
//!
//! Pane `n` of a tumbling window covers `[offset + n * size, offset + (n + 1) * size)` microseconds; negative times too. Rows are
//! grouped by one pane number, not by two timestamps.

use datafusion::arrow::array::{Array, Int64Array, RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;

use crate::EngineError;

/// Numbering of a tumbling window's panes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaneGrid {
    /// Length of a pane in microseconds, above zero.
    pub size_micros: i64,
    /// Start of pane 0.
    pub offset_micros: i64,
}

impl PaneGrid {
    /// Pane of an event time.
    #[must_use]
    pub const fn pane_of(self, time_micros: i64) -> i64 {
        time_micros.saturating_sub(self.offset_micros).div_euclid(self.size_micros)
    }

    /// First instant of `pane`, in microseconds; saturates at the ends of time.
    #[must_use]
    pub const fn start(self, pane: i64) -> i64 {
        pane.saturating_mul(self.size_micros).saturating_add(self.offset_micros)
    }

    /// First instant after `pane`, in microseconds; saturates at the ends of time.
    #[must_use]
    pub const fn end(self, pane: i64) -> i64 {
        pane.saturating_add(1).saturating_mul(self.size_micros).saturating_add(self.offset_micros)
    }
}

/// Cuts `rows` into one batch per pane of its column `column`, ascending by pane; rows keep their order within a pane.
///
/// Cost: nothing is copied where all rows are of one pane, the common case.
///
/// # Errors
/// [`EngineError::Schema`] if the column is not a pane column without nulls.
pub fn split_by_pane(rows: &RecordBatch, column: usize) -> Result<Vec<(i64, RecordBatch)>, EngineError> {
    let Some(panes) = rows.column(column).as_any().downcast_ref::<Int64Array>().filter(|panes| panes.null_count() == 0) else {
        return Err(EngineError::Schema {
            place: "pane column",
            expected: "Int64 without nulls".to_owned(),
            found: rows.schema().field(column).to_string(),
        });
    };
    let values = panes.values();
    let Some(&first) = values.first() else { return Ok(Vec::new()) };
    if values.iter().all(|&pane| pane == first) {
        return Ok(vec![(first, rows.clone())]);
    }
    if values.is_sorted() {
        return Ok(runs(values).map(|(pane, start, length)| (pane, rows.slice(start, length))).collect());
    }
    let mut order: Vec<u32> = (0..u32::try_from(values.len()).unwrap_or(u32::MAX)).collect();
    order.sort_by_key(|&row| values[row as usize]);
    let sorted: Vec<i64> = order.iter().map(|&row| values[row as usize]).collect();
    let taken = take_record_batch(rows, &UInt32Array::from(order))?;
    Ok(runs(&sorted).map(|(pane, start, length)| (pane, taken.slice(start, length))).collect())
}

/// Maximal runs of equal values: (value, start, length).
fn runs(values: &[i64]) -> impl Iterator<Item = (i64, usize, usize)> {
    let mut start = 0;
    values.chunk_by(|a, b| a == b).map(move |run| {
        let at = start;
        start += run.len();
        (run[0], at, run.len())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::ArrayRef;

    use super::*;

    const TEN_SECONDS: PaneGrid = PaneGrid { size_micros: 10_000_000, offset_micros: 0 };

    #[test]
    fn times_before_1970_fall_into_the_pane_that_covers_them() {
        assert_eq!(TEN_SECONDS.pane_of(-1), -1);
        assert_eq!(TEN_SECONDS.end(-1), 0);
        assert_eq!(TEN_SECONDS.pane_of(-10_000_000), -1);
        assert_eq!(TEN_SECONDS.pane_of(-10_000_001), -2);
    }

    #[test]
    fn an_offset_shifts_every_pane() {
        let grid = PaneGrid { size_micros: 10, offset_micros: 3 };
        assert_eq!([grid.pane_of(2), grid.pane_of(3), grid.pane_of(12), grid.pane_of(13)], [-1, 0, 0, 1]);
        assert_eq!(grid.end(0), 13);
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let grid = PaneGrid { size_micros: 10, offset_micros: 3 };
        assert!(grid.end(grid.pane_of(i64::MAX)) > 0);
        assert!(grid.end(grid.pane_of(i64::MIN)) < 0);
    }

    #[test]
    fn rows_keep_their_order_within_a_pane() {
        let batch = |panes: Vec<i64>| {
            let rows = Int64Array::from_iter_values(0..panes.len() as i64);
            RecordBatch::try_from_iter([("p", Arc::new(Int64Array::from(panes)) as ArrayRef), ("r", Arc::new(rows) as ArrayRef)])
                .unwrap()
        };
        let split = |panes| {
            let parts = split_by_pane(&batch(panes), 0).unwrap();
            let rows = |b: &RecordBatch| b.column(1).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
            parts.iter().map(|(pane, rows_of)| (*pane, rows(rows_of))).collect::<Vec<_>>()
        };
        assert_eq!(split(vec![4, 4]), [(4, vec![0, 1])]);
        assert_eq!(split(vec![4, 5, 5]), [(4, vec![0]), (5, vec![1, 2])]);
        assert_eq!(split(vec![5, -1, 5, 4]), [(-1, vec![1]), (4, vec![3]), (5, vec![0, 2])]);
        assert!(split(vec![]).is_empty());
    }
}

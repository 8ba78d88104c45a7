//! The first rows of many, for people.

use datafusion::arrow::array::RecordBatch;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// Rows in all.
    pub(crate) rows: u64,
    /// The first of them.
    pub(crate) first: Vec<RecordBatch>,
    left: usize,
}

impl Sample {
    /// Takes at most `rows`.
    pub(crate) fn new(rows: usize) -> Self {
        Self { rows: 0, first: Vec::new(), left: rows }
    }

    /// Counts more rows, and takes as many as there is room for.
    pub(crate) fn add(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows() as u64;
        let taken = self.left.min(batch.num_rows());
        if taken > 0 {
            self.first.push(batch.slice(0, taken));
            self.left -= taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn all_rows_are_counted_and_the_first_are_taken() {
        let rows = |count: i64| {
            RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from_iter_values(0..count)) as ArrayRef)]).unwrap()
        };
        let mut sample = Sample::new(5);
        [3, 0, 4, 7].map(rows).iter().for_each(|batch| sample.add(batch));
        assert_eq!(sample.rows, 14);
        assert_eq!(sample.first, [rows(3), rows(4).slice(0, 2)]);
    }
}

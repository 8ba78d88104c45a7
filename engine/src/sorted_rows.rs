//! Rows in the order of their key groups, gathered slice by slice: a large table is never copied as a whole.

use datafusion::arrow::array::{RecordBatch, UInt16Array, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::error::ArrowError;
use weir_state::key_sort::sort_by_key_group;

/// Rows as they lie, and their stable order by key group.
#[derive(Debug)]
pub(crate) struct SortedRows {
    rows: RecordBatch,
    order: UInt32Array,
    starts: Vec<usize>,
}

impl SortedRows {
    /// - `key_groups`: of each row, all below `count`.
    pub(crate) fn new(rows: RecordBatch, key_groups: &UInt16Array, count: u16) -> Self {
        let (order, starts) = sort_by_key_group(key_groups, count);
        Self { rows, order, starts }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// For each key group the place of its first row, and at the end the number of rows.
    pub(crate) fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Rows `offset..offset + length` of the order.
    pub(crate) fn slice(&self, offset: usize, length: usize) -> Result<RecordBatch, ArrowError> {
        take_record_batch(&self.rows, &self.order.slice(offset, length))
    }

    /// All rows.
    pub(crate) fn all(&self) -> Result<RecordBatch, ArrowError> {
        take_record_batch(&self.rows, &self.order)
    }
}

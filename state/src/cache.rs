//! Decoded segments of this process, by object and row group, bounded by bytes. Only a cache: dropping it changes no result.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use arrow::array::RecordBatch;

/// Least recently stored goes first.
#[derive(Debug)]
pub struct SegmentCache {
    bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    bytes: usize,
    batches: HashMap<(String, u16), RecordBatch>,
    order: VecDeque<(String, u16)>,
}

impl SegmentCache {
    /// A cache of at most `bytes_max` bytes; 0 keeps nothing.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, inner: Mutex::default() }
    }

    /// A row group, if it is still here.
    #[must_use]
    pub fn get(&self, object: &str, group: u16) -> Option<RecordBatch> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.batches.get(&(object.to_owned(), group)).cloned()
    }

    /// Keeps a row group and lets go of older ones.
    pub fn put(&self, object: &str, group: u16, batch: &RecordBatch) {
        let bytes = batch.get_array_memory_size();
        if bytes > self.bytes_max {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (object.to_owned(), group);
        if inner.batches.insert(key.clone(), batch.clone()).is_none() {
            inner.bytes += bytes;
            inner.order.push_back(key);
        }
        while inner.bytes > self.bytes_max {
            let Some(oldest) = inner.order.pop_front() else { break };
            if let Some(gone) = inner.batches.remove(&oldest) {
                inner.bytes = inner.bytes.saturating_sub(gone.get_array_memory_size());
            }
        }
    }
}

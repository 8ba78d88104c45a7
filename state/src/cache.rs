//! Decoded row groups and footers of this process, bounded by bytes. Only a cache: dropping it changes no result.
//!
//! Why by object: names are never re-used (C3) and objects never change, so what is here is right for ever; nothing is invalidated.
//! The least recently used goes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

/// Parsed footers are about this much larger than their encoded form.
const FOOTER_PARSED_FACTOR: usize = 4;

/// See the module.
#[derive(Debug)]
pub struct SegmentCache {
    bytes_max: usize,
    inner: Mutex<Inner>,
}

/// A row group by number, or the footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Footer,
    Rows(u16),
}

#[derive(Debug, Clone)]
enum Value {
    Footer(ArrowReaderMetadata),
    Rows(RecordBatch),
}

#[derive(Debug)]
struct Slot {
    value: Value,
    bytes: usize,
    used: u64,
}

#[derive(Debug, Default)]
struct Inner {
    bytes: usize,
    clock: u64,
    objects: HashMap<Arc<str>, BTreeMap<Part, Slot>>,
    by_use: BTreeMap<u64, (Arc<str>, Part)>,
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
        match self.find(object, Part::Rows(group))? {
            Value::Rows(batch) => Some(batch),
            Value::Footer(_) => None,
        }
    }

    /// Keeps a row group and lets go of what was not used for longest.
    pub fn put(&self, object: &str, group: u16, batch: &RecordBatch) {
        self.keep(object, Part::Rows(group), batch.get_array_memory_size(), || Value::Rows(batch.clone()));
    }

    /// An object's footer, if it is still here.
    pub(crate) fn footer(&self, object: &str) -> Option<ArrowReaderMetadata> {
        match self.find(object, Part::Footer)? {
            Value::Footer(footer) => Some(footer),
            Value::Rows(_) => None,
        }
    }

    /// Keeps a footer whose encoded form has `encoded_bytes`.
    pub(crate) fn put_footer(&self, object: &str, footer: &ArrowReaderMetadata, encoded_bytes: usize) {
        self.keep(object, Part::Footer, encoded_bytes * FOOTER_PARSED_FACTOR, || Value::Footer(footer.clone()));
    }

    /// Bytes held; never above the maximum.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    fn find(&self, object: &str, part: Part) -> Option<Value> {
        if self.bytes_max == 0 {
            return None;
        }
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).touch(object, part)
    }

    fn keep(&self, object: &str, part: Part, bytes: usize, value: impl FnOnce() -> Value) {
        if bytes > self.bytes_max {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.insert(object, part, bytes, value());
        while inner.bytes > self.bytes_max && inner.drop_oldest() {}
    }
}

impl Inner {
    fn touch(&mut self, object: &str, part: Part) -> Option<Value> {
        let slot = self.objects.get_mut(object)?.get_mut(&part)?;
        let key = self.by_use.remove(&slot.used)?;
        self.clock += 1;
        slot.used = self.clock;
        self.by_use.insert(self.clock, key);
        Some(slot.value.clone())
    }

    fn insert(&mut self, object: &str, part: Part, bytes: usize, value: Value) {
        self.clock += 1;
        let name = self.objects.get_key_value(object).map_or_else(|| Arc::from(object), |(name, _)| Arc::clone(name));
        self.by_use.insert(self.clock, (Arc::clone(&name), part));
        self.bytes += bytes;
        let slot = Slot { value, bytes, used: self.clock };
        if let Some(replaced) = self.objects.entry(name).or_default().insert(part, slot) {
            self.bytes -= replaced.bytes;
            self.by_use.remove(&replaced.used);
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, (object, part))) = self.by_use.pop_first() else { return false };
        let Some(parts) = self.objects.get_mut(&object) else { return true };
        if let Some(slot) = parts.remove(&part) {
            self.bytes -= slot.bytes;
        }
        if parts.is_empty() {
            self.objects.remove(&object);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn rows(count: i64) -> RecordBatch {
        RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from_iter_values(0..count)) as ArrayRef)]).unwrap()
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let each = rows(1000).get_array_memory_size();
        let cache = SegmentCache::new(each * 2 + each / 2);
        cache.put("a", 0, &rows(1000));
        cache.put("a", 1, &rows(1000));
        assert_eq!(cache.get("a", 0), Some(rows(1000)));
        cache.put("b", 0, &rows(1000));
        assert!(cache.get("a", 0).is_some() && cache.get("b", 0).is_some());
        assert_eq!(cache.get("a", 1), None);
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let each = rows(1000).get_array_memory_size();
        let cache = SegmentCache::new(each * 3);
        for group in 0..100 {
            cache.put(if group % 2 == 0 { "a" } else { "b" }, group / 4, &rows(1000));
            assert!(cache.bytes() <= each * 3, "{}", cache.bytes());
        }
        assert_eq!(cache.bytes(), each * 3);
        cache.put("large", 0, &rows(100_000));
        assert_eq!(cache.get("large", 0), None);
    }

    #[test]
    fn a_cache_of_no_bytes_keeps_nothing() {
        let cache = SegmentCache::new(0);
        cache.put("a", 0, &rows(1));
        assert_eq!((cache.get("a", 0), cache.bytes()), (None, 0));
    }
}

//! What was used last, up to a weight: the least recently used goes first.
//!
//! For a few values only: a process serves some jobs and holds some shards, so finding one is a walk along a list.

use std::collections::VecDeque;

/// See the module.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    /// Newest last.
    kept: VecDeque<(K, V, usize)>,
    weight: usize,
    weight_max: usize,
}

impl<K: PartialEq, V> Recent<K, V> {
    pub(crate) fn new(weight_max: usize) -> Self {
        Self { kept: VecDeque::new(), weight: 0, weight_max }
    }

    /// Takes a value out.
    pub(crate) fn take(&mut self, key: &K) -> Option<V> {
        let place = self.kept.iter().position(|(kept, _, _)| kept == key)?;
        let (_, value, weight) = self.kept.remove(place)?;
        self.weight -= weight;
        Some(value)
    }

    /// Keeps a value as the newest; one that is heavier than all may be is not kept.
    pub(crate) fn put(&mut self, key: K, value: V, weight: usize) {
        self.take(&key);
        self.weight += weight;
        self.kept.push_back((key, value, weight));
        while self.weight > self.weight_max
            && let Some((_, _, oldest)) = self.kept.pop_front()
        {
            self.weight -= oldest;
        }
    }
}

impl<K: PartialEq + Clone, V: Clone> Recent<K, V> {
    /// A value, which is the newest now.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        let place = self.kept.iter().position(|(kept, _, _)| kept == key)?;
        let newest = self.kept.remove(place)?;
        let value = newest.1.clone();
        self.kept.push_back(newest);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut recent = Recent::new(3);
        for key in ["a", "b", "c"] {
            recent.put(key, key, 1);
        }
        assert_eq!(recent.get(&"a"), Some("a"));
        recent.put("d", "d", 1);
        assert_eq!([recent.get(&"a"), recent.get(&"b"), recent.get(&"d")], [Some("a"), None, Some("d")]);
        assert_eq!(recent.take(&"a"), Some("a"));
        recent.put("e", "e", 2);
        assert_eq!([recent.get(&"a"), recent.get(&"c"), recent.get(&"d"), recent.get(&"e")], [None, None, Some("d"), Some("e")]);
    }

    #[test]
    fn what_is_heavier_than_all_may_be_is_not_kept() {
        let mut recent = Recent::new(3);
        recent.put("a", 1, 4);
        assert_eq!(recent.take(&"a"), None);
        recent.put("b", 2, 3);
        assert_eq!(recent.take(&"b"), Some(2));
    }
}

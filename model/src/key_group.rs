//! Key groups: the smallest unit of keyed state that moves between shards.
//!
//! `key group = xxh3_64(canonical key bytes) mod G`. The canonical bytes are ours and frozen: typed, big-endian, nulls tagged,
//! `-0.0 = 0.0`, one NaN, all string encodings alike. The engine's own hash is never used: it may change with a release.
//!
//! | tag | value | bytes after the tag |
//! | --- | --- | --- |
//! | 0 | null | none |
//! | 1 | boolean | 1: 0 or 1 |
//! | 2 | signed or unsigned integer up to 64 bits | 8: two's complement of the value as `i64` (`u64` above `i64::MAX`: tag 3) |
//! | 3 | unsigned integer above `i64::MAX` | 8 |
//! | 4 | float | 8: IEEE 754 bits of the value as `f64`, normalised |
//! | 5 | decimal | 16: unscaled value as `i128`, then 1: scale |
//! | 6 | string | 4: length, then UTF-8 |
//! | 7 | bytes | 4: length, then the bytes |
//! | 8 | instant (timestamp, any unit) | 16: nanoseconds as `i128` |
//! | 9 | date | 4: days as `i32` |
//! | 10 | time of day | 8: nanoseconds as `i64` |

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Key groups of a job unless its options say otherwise: divides by most numbers of shards one would choose.
pub const KEY_GROUPS_DEFAULT: u16 = 720;

/// Number of a key group, below the job's `G`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyGroup(pub u16);

impl KeyGroup {
    /// The key group of canonical key bytes among `groups` groups.
    ///
    /// A key of no columns has no bytes and lands in one fixed group.
    #[must_use]
    pub fn of(canonical_key: &[u8], groups: u16) -> Self {
        let group = xxh3_64(canonical_key) % u64::from(groups.max(1));
        Self(u16::try_from(group).unwrap_or(u16::MAX))
    }
}

/// Contiguous key groups `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// First group.
    pub start: u16,
    /// One past the last group.
    pub end: u16,
}

impl KeyGroupRange {
    /// Whether `group` lies in the range.
    #[must_use]
    pub const fn contains(self, group: KeyGroup) -> bool {
        self.start <= group.0 && group.0 < self.end
    }

    /// Number of key groups.
    #[must_use]
    pub const fn len(self) -> u16 {
        self.end.saturating_sub(self.start)
    }

    /// Whether the range holds no group.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// Cuts `groups` key groups into `shards` ranges whose sizes differ by at most one, in order.
    #[must_use]
    pub fn split_evenly(groups: u16, shards: u16) -> Vec<Self> {
        let bound = |i: u32| u16::try_from(i * u32::from(groups) / u32::from(shards.max(1))).unwrap_or(groups);
        (0..u32::from(shards)).map(|i| Self { start: bound(i), end: bound(i + 1) }).collect()
    }
}

impl fmt::Display for KeyGroupRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// Appends the canonical bytes of single values to a buffer. The tags are frozen: see the module's table.
#[derive(Debug, Default)]
pub struct CanonicalKey {
    bytes: Vec<u8>,
}

impl CanonicalKey {
    /// The bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Empties the buffer and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Appends a null.
    pub fn null(&mut self) {
        self.bytes.push(0);
    }

    /// Appends a boolean.
    pub fn boolean(&mut self, value: bool) {
        self.bytes.extend_from_slice(&[1, u8::from(value)]);
    }

    /// Appends an integer of any width up to 64 bits, signed.
    pub fn integer(&mut self, value: i64) {
        self.tagged(2, &value.to_be_bytes());
    }

    /// Appends an unsigned integer; equal values have equal bytes whatever their type's width or sign.
    pub fn unsigned(&mut self, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.integer(value),
            Err(_) => self.tagged(3, &value.to_be_bytes()),
        }
    }

    /// Appends a float; `-0.0` equals `0.0` and all NaNs are one.
    pub fn float(&mut self, value: f64) {
        let normal = if value.is_nan() {
            f64::NAN
        } else if value == 0.0 {
            0.0
        } else {
            value
        };
        let bits = if normal.is_nan() { 0x7ff8_0000_0000_0000 } else { normal.to_bits() };
        self.tagged(4, &bits.to_be_bytes());
    }

    /// Appends a decimal by its unscaled value and scale.
    pub fn decimal(&mut self, unscaled: i128, scale: i8) {
        self.tagged(5, &unscaled.to_be_bytes());
        self.bytes.extend_from_slice(&scale.to_be_bytes());
    }

    /// Appends a string.
    pub fn string(&mut self, value: &str) {
        self.sized(6, value.as_bytes());
    }

    /// Appends bytes.
    pub fn binary(&mut self, value: &[u8]) {
        self.sized(7, value);
    }

    /// Appends an instant in nanoseconds since 1970-01-01 UTC; the unit of the column does not matter.
    pub fn instant(&mut self, nanos: i128) {
        self.tagged(8, &nanos.to_be_bytes());
    }

    /// Appends a date in days since 1970-01-01.
    pub fn date(&mut self, days: i32) {
        self.tagged(9, &days.to_be_bytes());
    }

    /// Appends a time of day in nanoseconds.
    pub fn time_of_day(&mut self, nanos: i64) {
        self.tagged(10, &nanos.to_be_bytes());
    }

    fn tagged(&mut self, tag: u8, value: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(value);
    }

    fn sized(&mut self, tag: u8, value: &[u8]) {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.tagged(tag, &length.to_be_bytes());
        self.bytes.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_group_once() {
        for shards in [1, 2, 3, 7, 64, 720] {
            let ranges = KeyGroupRange::split_evenly(720, shards);
            assert_eq!(ranges.first().map(|r| r.start), Some(0));
            assert_eq!(ranges.last().map(|r| r.end), Some(720));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(ranges.iter().all(|r| !r.is_empty()));
        }
    }

    #[test]
    fn equal_values_have_equal_bytes() {
        let bytes = |write: fn(&mut CanonicalKey)| {
            let mut key = CanonicalKey::default();
            write(&mut key);
            key.bytes().to_vec()
        };
        assert_eq!(bytes(|k| k.float(-0.0)), bytes(|k| k.float(0.0)));
        assert_eq!(bytes(|k| k.float(f64::NAN)), bytes(|k| k.float(-f64::NAN)));
        assert_eq!(bytes(|k| k.unsigned(7)), bytes(|k| k.integer(7)));
        assert_ne!(bytes(|k| k.unsigned(u64::MAX)), bytes(|k| k.integer(-1)));
        assert_ne!(
            bytes(|k| {
                k.string("a");
                k.string("")
            }),
            bytes(|k| {
                k.string("");
                k.string("a")
            })
        );
    }
}

//! Rows of a bucket on disk, with the hash of each one's key beside them.
//!
//! ```text
//! keys of a batch --hash--> sought      hashes of a stretch --which are sought?--> rows to take      rows of it --take--> a small table
//! ```
//! Why: of a table that is many times its memory a batch touches a few rows in a hundred. Asked by its hashes a stretch costs some
//! nanoseconds a row, taken back into an index a hundred. A hash that two keys share brings a row too many, and changes nothing.

use std::ops::Range;

use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::common::hash_utils::{RandomState, create_hashes};

use super::held::Written;
use crate::EngineError;
use crate::spill_files::{Run, Scratch, SpillFiles};

/// Of the hashes of keys: they are never seen outside the process.
const SEED: u64 = 0x5765_6972;

/// Rows that were written at once, each of another key.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) written: Written,
    rows: Run,
    /// 8 bytes of each row.
    hashes: Run,
}

impl Stretch {
    pub(super) fn read(&self) -> Result<Vec<RecordBatch>, EngineError> {
        self.rows.read()
    }
}

/// The files of a table's stretches.
pub(super) struct StretchFiles {
    files: SpillFiles,
    /// Columns of a row.
    keys: Range<usize>,
    scratch: Scratch,
}

impl StretchFiles {
    pub(super) fn new(files: SpillFiles, keys: Range<usize>) -> Self {
        Self { files, keys, scratch: Scratch::default() }
    }

    /// Writes rows, no key twice.
    pub(super) fn write(&mut self, rows: &RecordBatch, written: Written) -> Result<Stretch, EngineError> {
        let hashes: Vec<u8> = self.hashes(rows)?.into_iter().flat_map(u64::to_le_bytes).collect();
        Ok(Stretch { written, rows: self.files.append(rows)?, hashes: self.files.append_bytes(&hashes)? })
    }

    /// The keys of a batch's rows, to be looked for.
    pub(super) fn sought(&self, batches: &[RecordBatch]) -> Result<Sought, EngineError> {
        let mut hashes = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
        for rows in batches {
            hashes.extend(self.hashes(rows)?);
        }
        Ok(Sought::new(hashes))
    }

    /// The rows of a stretch that have a sought key, in their order; `None` if none has.
    pub(super) fn find(&mut self, stretch: &Stretch, sought: &Sought) -> Result<Option<RecordBatch>, EngineError> {
        let hashes = stretch.hashes.read_bytes(&mut self.scratch)?.as_chunks().0;
        let found: Vec<u32> =
            (0u32..).zip(hashes).filter(|(_, hash)| sought.has(u64::from_le_bytes(**hash))).map(|(row, _)| row).collect();
        if found.is_empty() {
            return Ok(None);
        }
        let found = UInt32Array::from(found);
        let taken = stretch.rows.look_at(&mut self.scratch, |rows| match rows {
            [rows] => Ok(take_record_batch(rows, &found)?),
            several => Ok(take_record_batch(&concat_batches(several[0].schema_ref(), several)?, &found)?),
        });
        taken.map(Some)
    }

    fn hashes(&self, rows: &RecordBatch) -> Result<Vec<u64>, EngineError> {
        let mut hashes = vec![0; rows.num_rows()];
        create_hashes(&rows.columns()[self.keys.clone()], &RandomState::with_seed(SEED), &mut hashes)?;
        Ok(hashes)
    }
}

/// Hashes of the keys that a batch touches.
#[derive(Debug)]
pub(super) struct Sought {
    /// Ascending.
    hashes: Vec<u64>,
    /// By the lowest bits of a hash whether there may be one.
    marks: Vec<u64>,
}

/// Marks of each hash: one of so many others takes a second look.
const MARKS_OF_ONE: usize = 16;

impl Sought {
    fn new(mut hashes: Vec<u64>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        let words = (hashes.len() * MARKS_OF_ONE / 64).next_power_of_two();
        let mut sought = Self { hashes: Vec::new(), marks: vec![0; words] };
        for hash in &hashes {
            let (word, bit) = sought.place(*hash);
            sought.marks[word] |= bit;
        }
        Self { hashes, ..sought }
    }

    fn has(&self, hash: u64) -> bool {
        let (word, bit) = self.place(hash);
        self.marks[word] & bit != 0 && self.hashes.binary_search(&hash).is_ok()
    }

    fn place(&self, hash: u64) -> (usize, u64) {
        let words = self.marks.len() as u64;
        let word = (hash >> 6) & (words - 1);
        (usize::try_from(word).unwrap_or_default(), 1 << (hash & 63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sought_is_found_and_nothing_else() {
        let hash = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for count in [0, 1, 7, 64, 5_000] {
            let sought = Sought::new((0..count).chain(0..count / 2).map(hash).collect());
            assert!((0..count).all(|number| sought.has(hash(number))), "{count}");
            assert!(!(count..count + 10_000).any(|number| sought.has(hash(number))), "{count}");
        }
    }
}

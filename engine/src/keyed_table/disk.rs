//! What lies on disk of a bucket: stretches of rows, and what is known of them without reading.

use datafusion::arrow::array::RecordBatch;

use super::PASS_ROWS;
use super::held::{HeldTable, Part, Written};
use super::lifetime::Lifetime;
use super::stretch::{Stretch, StretchFiles};
use crate::EngineError;
use crate::chunks::slice_bytes;

/// Times that a bucket's new rows are written behind its others; then it is written anew. Not all buckets with the same batch.
pub(super) const APPENDED_MAX: usize = 32;
/// About what the index takes of each key.
const INDEX_BYTES: usize = 48;

/// Rows on disk, later ones in the place of earlier ones of their keys.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) stretches: Vec<Stretch>,
    pub(super) rows: usize,
    /// Times that rows were appended.
    pub(super) appended: usize,
    /// Keys; of a bucket that was restored without being read, at most so many.
    pub(super) groups: usize,
    /// Whether it was, so that it may have several rows of a key.
    pub(super) is_restored: bool,
    /// Keys changed since the last checkpoint.
    pub(super) changed: usize,
    /// Bytes that it takes in memory, as far as is known.
    pub(super) bytes: usize,
}

impl Disk {
    /// Whether it has become so long that it should be written anew.
    ///
    /// - `more`: rows that are to be appended. - `groups`: keys.
    pub(super) fn is_long(&self, more: usize, groups: usize) -> bool {
        self.appended >= APPENDED_MAX || self.rows + more > 2 * groups
    }

    /// Writes what a held bucket has and the disk has not, or all of it once that is shorter to read.
    pub(super) fn take(&mut self, files: &mut StretchFiles, lifetime: Lifetime, held: &HeldTable) -> Result<(), EngineError> {
        if self.stretches.is_empty() || self.is_long(held.unsaved(), held.groups()) {
            *self = Self::default();
            self.append_rows(files, lifetime, held, Part::All)?;
        } else {
            self.appended += usize::from(held.unsaved() > 0);
            self.append_rows(files, lifetime, held, Part::Unsaved)?;
        }
        (self.groups, self.changed, self.bytes) = (held.groups(), held.changed(), held.bytes());
        self.is_restored = false;
        Ok(())
    }

    /// Writes rows of `table` behind its own.
    pub(super) fn append_rows(
        &mut self,
        files: &mut StretchFiles,
        lifetime: Lifetime,
        table: &HeldTable,
        part: Part,
    ) -> Result<(), EngineError> {
        let (unchanged, changed) = table.living_slots(lifetime, part)?;
        for (slots, written) in [(unchanged, Written::BeforeCheckpoint), (changed, Written::SinceCheckpoint)] {
            for part in slots.chunks(PASS_ROWS) {
                self.append(files, &table.gather(part)?, written)?;
            }
        }
        Ok(())
    }

    pub(super) fn append(&mut self, files: &mut StretchFiles, rows: &RecordBatch, written: Written) -> Result<(), EngineError> {
        self.stretches.push(files.write(rows, written)?);
        self.rows += rows.num_rows();
        self.bytes += slice_bytes(rows) + rows.num_rows() * INDEX_BYTES;
        Ok(())
    }
}

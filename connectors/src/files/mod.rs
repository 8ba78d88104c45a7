//! Files as a source: NDJSON, CSV and Parquet; globs and folders; gzip and zstd; large files split over lanes.
//!
//! What is read is pinned: path, size and version of every file, and its splits, when the job is created or (continuous) when the file
//! is picked up. A file that changes or vanishes under a running job is an error that names it, never other rows; put back, it is read
//! on (`pinned` says what that rests on).
//!
//! ```text
//! listing --splits--> lane: ranges read ahead -> blocks of whole records -> plain? columns : Arrow's decoder -> batch, bad rows
//!                                             `-> row groups (Parquet) -> declared columns
//! ```

mod listing;
mod options;
mod pinned;

pub(crate) mod conform;
mod follow;
mod parquet;
mod text;

mod bytes;
pub(crate) mod lines;

mod columns;
mod csv;
pub mod decode;
mod flat_csv;
mod flat_json;
mod json;

use std::sync::Arc;

use ::bytes::Bytes;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use object_store::ObjectStore;
use weir_model::{Clock, Offset};

pub use listing::{Compression, FileListing, Format, Split, discover, local_store};
pub use options::{FileOptions, Mode, OPTIONS};
pub(crate) use options::{format, local_path};
pub use pinned::{Content, ContentHash, Extent, PinnedFile};

use crate::options::{OptionsError, TableOptions};
use crate::source::{Source, SourceError, SourceReader};

/// Pinned files.
#[derive(Debug, Clone)]
pub struct FileSource {
    store: pinned::PinnedStore,
    listing: Arc<FileListing>,
    schema: SchemaRef,
    options: FileOptions,
    /// Of a continuous source.
    clock: Option<Arc<dyn Clock>>,
}

impl FileSource {
    /// The files of `listing` with the declared columns `schema`, and no others: `'mode' = 'bounded'`.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        listing: Arc<FileListing>,
        schema: SchemaRef,
        options: TableOptions<'_>,
    ) -> Result<Self, OptionsError> {
        let options = FileOptions::new(options)?;
        if options.mode == Mode::Continuous {
            return Err(options.error(
                "'mode' = 'continuous' cannot be used here: leave it out, and run the job again under another name for new files",
            ));
        }
        check_columns(&options, &schema)?;
        Ok(Self { store: pinned::PinnedStore::new(store), listing, schema, options, clock: None })
    }

    /// The files of `listing` and those that appear later. For callers that keep the readers' ledger with the offsets they commit.
    ///
    /// - `clock`: tells when to look for files again.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option.
    pub fn continuous(
        store: Arc<dyn ObjectStore>,
        listing: Arc<FileListing>,
        schema: SchemaRef,
        options: TableOptions<'_>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OptionsError> {
        let options = FileOptions { mode: Mode::Continuous, ..FileOptions::new(options)? };
        check_columns(&options, &schema)?;
        Ok(Self { store: pinned::PinnedStore::new(store), listing, schema, options, clock: Some(clock) })
    }

    fn reader(
        &self,
        listing: &Arc<FileListing>,
        step: u32,
        from: Offset,
        projection: &[usize],
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        let lane = Lane { store: self.store.clone(), listing: Arc::clone(listing), step: u64::from(step.max(1)), from };
        Ok(match listing.format {
            Format::Parquet => Box::new(parquet::ParquetReader::new(lane, &self.schema, projection)?),
            Format::Json | Format::Csv => {
                let decoder = decode::decoder(listing.format, &self.schema, projection, &self.options.text)?;
                let declared = self.schema.fields().iter().map(|field| field.name().clone()).collect();
                Box::new(text::TextReader::new(lane, decoder, declared, &self.options.text))
            }
        })
    }
}

#[async_trait]
impl Source for FileSource {
    fn bounded(&self) -> bool {
        self.clock.is_none()
    }

    fn describe(&self) -> String {
        let bytes: u64 = self.listing.files.iter().map(|file| file.bytes).sum();
        let (files, splits) = (self.listing.files.len(), self.listing.splits.len());
        format!("{} as {}: {files} files, {splits} splits, {bytes} bytes", self.options.path, self.listing.format.extension())
    }

    async fn open(
        &self,
        lane: u32,
        lanes: u32,
        from: Offset,
        projection: &[usize],
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        self.open_with_ledger(lane, lanes, from, &[], projection).await
    }

    async fn open_with_ledger(
        &self,
        lane: u32,
        lanes: u32,
        from: Offset,
        ledger: &[Bytes],
        projection: &[usize],
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        if let Some(clock) = &self.clock {
            let follow = follow::FollowReader::new(self.clone(), Arc::clone(clock), lane, from, ledger, projection);
            return Ok(Box::new(follow?));
        }
        // A fresh lane starts at its first split.
        let from = if from == Offset::default() { Offset { split: u64::from(lane), at: 0 } } else { from };
        self.reader(&self.listing, lanes, from, projection)
    }
}

fn check_columns(options: &FileOptions, schema: &SchemaRef) -> Result<(), OptionsError> {
    crate::encode::check(options.format, schema).map_err(|message| options.error(message))
}

/// A lane's way through the splits.
#[derive(Debug)]
struct Lane {
    store: pinned::PinnedStore,
    listing: Arc<FileListing>,
    /// Distance to the lane's next split.
    step: u64,
    from: Offset,
}

impl Lane {
    /// The split at `offset` and its file; `None` past the last.
    fn split(&self, offset: Offset) -> Option<(&Split, &PinnedFile)> {
        let split = self.listing.splits.get(usize::try_from(offset.split).ok()?)?;
        Some((split, self.listing.files.get(split.file)?))
    }

    /// Start of the lane's split after `offset`'s.
    fn after(&self, offset: Offset) -> Offset {
        Offset { split: offset.split + self.step, at: 0 }
    }
}

#[cfg(test)]
mod tests;

//! Reading back what a publisher's target had acknowledged at some commit, whatever has been appended since.

use std::fs;
use std::io::{Cursor, ErrorKind};
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use weir_model::head::PublishState;

use super::FileTarget;
use crate::files::Format;
use crate::source::SourceError;

/// Bytes of snapshot files that are read into memory for a question; the files of a larger one's changelog are scanned instead.
const HELD_BYTES_MAX: u64 = 256 << 20;

/// Files of a target as a commit left them.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Files that never change any more.
    pub whole: Vec<PathBuf>,
    /// Rows of the file that grows, those that were acknowledged, and of a snapshot; columns as [`readable`] has them.
    pub growing: Vec<RecordBatch>,
}

/// Columns as a reader of a sink's files gets them: CSV writes NULL and an empty text alike, so there each may be NULL.
#[must_use]
pub fn readable(format: Format, schema: &SchemaRef) -> SchemaRef {
    match format {
        Format::Csv => {
            let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
            SchemaRef::new(Schema::new(fields.collect::<Vec<_>>()))
        }
        Format::Json | Format::Parquet => SchemaRef::clone(schema),
    }
}

impl FileTarget {
    /// Format of its files.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Columns of its files.
    #[must_use]
    pub const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What `state` says was published. The file that grows is read whole, at once: its successor may take its place meanwhile.
    ///
    /// # Errors
    /// [`SourceError`] naming a file that cannot be read or has lost rows.
    pub fn published(&self, state: &PublishState) -> Result<Published, SourceError> {
        self.published_from(0, state)
    }

    /// As [`Self::published`], for whoever wants the newest row of each key: a snapshot that says no more than `state` takes the place of
    /// the files that it covers. Rows may come twice. The snapshot is read at once, too: others may take its place.
    ///
    /// # Errors
    /// As [`Self::published`].
    pub fn latest(&self, state: &PublishState) -> Result<Published, SourceError> {
        let manifest = self.key.as_ref().and_then(|_| self.manifest());
        let Some(snapshot) = manifest.as_ref().and_then(|manifest| manifest.as_of(state)) else { return self.published(state) };
        let size = |file: &String| fs::metadata(self.folder.join(file)).map_or(0, |found| found.len());
        if snapshot.snapshot.iter().map(size).sum::<u64>() > HELD_BYTES_MAX {
            // Files are scanned, a snapshot is held.
            return self.published(state);
        }
        let mut rows = Vec::new();
        for path in snapshot.snapshot.iter().map(|file| self.folder.join(file)) {
            let read = match fs::read(&path) {
                // Two snapshots have come since, and took it away.
                Err(error) if error.kind() == ErrorKind::NotFound => return self.published(state),
                read => read.map_err(ArrowError::from),
            };
            let read = read.and_then(|bytes| self.decode(Bytes::from(bytes), usize::MAX));
            rows.extend(read.map_err(|error| SourceError::format(&path.display().to_string(), error.to_string()))?);
        }
        let covered = snapshot.covers.file;
        let ends_there = snapshot.changelog_from != self.file_name(covered);
        let rest = self.published_from(covered + u64::from(ends_there), state)?;
        rows.extend(rest.growing);
        Ok(Published { whole: rest.whole, growing: rows })
    }

    /// Rows of the files numbered `first` and later.
    fn published_from(&self, first: u64, state: &PublishState) -> Result<Published, SourceError> {
        let path = |number| self.folder.join(self.file_name(number));
        let (whole, gone): (Vec<_>, Vec<_>) = (first..state.file_number).map(path).partition(|path| path.exists());
        for path in gone {
            tracing::warn!(file = %path.display(), "a file with results is gone: its rows are in no answer");
        }
        let grows = state.file_rows > 0 && first <= state.file_number;
        let growing = if grows { self.acknowledged(path(state.file_number), state)? } else { Vec::new() };
        Ok(Published { whole, growing })
    }

    fn acknowledged(&self, path: PathBuf, state: &PublishState) -> Result<Vec<RecordBatch>, SourceError> {
        let shown = path.display().to_string();
        let bytes = fs::read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => SourceError::format(&shown, "the results that were published here are gone"),
            _ => SourceError::format(&shown, error.to_string()),
        })?;
        let rows = usize::try_from(state.file_rows).unwrap_or(usize::MAX);
        let read = self.decode(Bytes::from(bytes), rows).map_err(|error| SourceError::format(&shown, error.to_string()))?;
        let found: usize = read.iter().map(RecordBatch::num_rows).sum();
        if found < rows {
            return Err(SourceError::format(&shown, format!("has {found} rows, {rows} were published")));
        }
        Ok(read)
    }

    /// The first `rows` rows of a file.
    fn decode(&self, bytes: Bytes, rows: usize) -> Result<Vec<RecordBatch>, ArrowError> {
        let schema = readable(self.format, &self.schema);
        let mut left = rows;
        let mut take = |batch: Result<RecordBatch, ArrowError>| {
            let batch = batch?;
            let taken = batch.slice(0, batch.num_rows().min(left));
            left -= taken.num_rows();
            RecordBatch::try_new(readable(self.format, &self.schema), taken.columns().to_vec())
        };
        match self.format {
            Format::Json => arrow::json::ReaderBuilder::new(schema).build(Cursor::new(bytes))?.map(&mut take).collect(),
            Format::Csv => arrow::csv::ReaderBuilder::new(schema).build(Cursor::new(bytes))?.map(&mut take).collect(),
            Format::Parquet => ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?.map(&mut take).collect(),
        }
    }
}

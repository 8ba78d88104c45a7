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

/// Files of a target as a commit left them.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Files that never change any more.
    pub whole: Vec<PathBuf>,
    /// Rows of the file that grows: those that were acknowledged; columns as [`readable`] has them.
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
        let path = |number| self.folder.join(self.file_name(number));
        let (whole, gone): (Vec<_>, Vec<_>) = (0..state.file_number).map(path).partition(|path| path.exists());
        for path in gone {
            tracing::warn!(file = %path.display(), "a file with results is gone: its rows are in no answer");
        }
        let growing = if state.file_rows == 0 { Vec::new() } else { self.acknowledged(path(state.file_number), state)? };
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

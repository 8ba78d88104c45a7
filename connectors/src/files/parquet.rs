//! Reads a lane's row groups of Parquet files. `Offset.at` counts rows within the row group.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, try_join_all};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use weir_model::Offset;

use super::listing::parquet_metadata;
use super::pinned::{PinnedFile, PinnedStore, shown};
use super::{Lane, conform};
use crate::source::{Pull, SourceBatch, SourceError, SourceReader};

/// Rows of a batch.
const BATCH_ROWS: usize = 32_768;

/// A lane of Parquet files.
pub(crate) struct ParquetReader {
    lane: Lane,
    at: Offset,
    projected: SchemaRef,
    /// The file that was read last: its splits follow one another.
    open: Option<(usize, ArrowReaderMetadata)>,
    rows: Option<Group>,
}

struct Group {
    stream: ParquetRecordBatchStream<PinnedReader>,
    bytes_per_row: f64,
}

impl std::fmt::Debug for ParquetReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetReader").field("at", &self.at).finish_non_exhaustive()
    }
}

impl ParquetReader {
    pub(crate) fn new(lane: Lane, schema: &SchemaRef, projection: &[usize]) -> Result<Self, SourceError> {
        Ok(Self { at: lane.from, lane, projected: Arc::new(schema.project(projection)?), open: None, rows: None })
    }

    async fn open(&mut self) -> Result<bool, SourceError> {
        let Some((split, file)) = self.lane.split(self.at) else { return Ok(false) };
        let (split, file) = (*split, file.clone());
        let metadata = match &self.open {
            Some((index, metadata)) if *index == split.file => metadata.clone(),
            _ => {
                let metadata = parquet_metadata(&self.lane.store, &file).await?;
                let loaded = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new());
                loaded.map_err(|error| SourceError::format(&shown(&file.path), error.to_string()))?
            }
        };
        self.open = Some((split.file, metadata.clone()));
        let group = usize::try_from(split.start).unwrap_or(usize::MAX);
        let mask = self.mask(&metadata, &file)?;
        let bytes_per_row = projected_bytes(&metadata, group, &mask) / (split.end.max(1) as f64);
        let reader = PinnedReader { store: self.lane.store.clone(), file, metadata: Arc::clone(metadata.metadata()) };
        let name = shown(&reader.file.path);
        let stream = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .with_offset(usize::try_from(self.at.at).unwrap_or(usize::MAX))
            .build()
            .map_err(|error| SourceError::format(&name, error.to_string()))?;
        self.rows = Some(Group { stream, bytes_per_row });
        Ok(true)
    }

    /// The declared columns in the file; refuses one that is missing or of a type that would lose values.
    fn mask(&self, metadata: &ArrowReaderMetadata, file: &PinnedFile) -> Result<ProjectionMask, SourceError> {
        let found = metadata.schema().fields();
        let mut roots = Vec::new();
        for field in self.projected.fields() {
            let refuse = |message: String| SourceError::format(&shown(&file.path), message);
            let Some((index, column)) = found.find(field.name()) else {
                return Err(refuse(format!("there is no column {}; the file has {}", field.name(), conform::names(found))));
            };
            conform::check(field.name(), column.data_type(), field.data_type()).map_err(refuse)?;
            roots.push(index);
        }
        Ok(ProjectionMask::roots(metadata.parquet_schema(), roots))
    }

    /// The declared columns in the declared order and types.
    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch, String> {
        let mut columns = Vec::with_capacity(self.projected.fields().len());
        for field in self.projected.fields() {
            let column = batch.column_by_name(field.name()).ok_or_else(|| format!("there is no column {}", field.name()))?;
            columns.push(conform::conform(column, field)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.projected), columns, &options).map_err(|error| error.to_string())
    }
}

fn projected_bytes(metadata: &ArrowReaderMetadata, group: usize, mask: &ProjectionMask) -> f64 {
    let Some(group) = metadata.metadata().row_groups().get(group) else { return 0.0 };
    let sizes = group
        .columns()
        .iter()
        .enumerate()
        .filter(|(leaf, _)| mask.leaf_included(*leaf))
        .map(|(_, column)| column.compressed_size());
    sizes.sum::<i64>() as f64
}

#[async_trait]
impl SourceReader for ParquetReader {
    async fn next(&mut self) -> Result<Pull, SourceError> {
        loop {
            if self.rows.is_none() && !self.open().await? {
                return Ok(Pull::End);
            }
            let Some(group) = &mut self.rows else { return Ok(Pull::End) };
            let per_row = group.bytes_per_row;
            match group.stream.next().await {
                Some(Ok(batch)) => {
                    self.at.at += batch.num_rows() as u64;
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate for display")]
                    let bytes = (per_row * batch.num_rows() as f64) as u64;
                    let batch = self.conform(&batch).map_err(|message| SourceError::format(&self.file(), message))?;
                    return Ok(Pull::Rows(SourceBatch { batch, upto: self.at, bytes, bad: Vec::new() }));
                }
                Some(Err(error)) => return Err(self.damaged(error)),
                None => {
                    self.rows = None;
                    self.at = self.lane.after(self.at);
                }
            }
        }
    }
}

impl ParquetReader {
    fn file(&self) -> String {
        self.lane.split(self.at).map_or_else(String::new, |(_, file)| shown(&file.path))
    }

    fn damaged(&self, error: ParquetError) -> SourceError {
        let file = self.file();
        match error {
            ParquetError::External(inner) => match inner.downcast::<SourceError>() {
                Ok(ours) => *ours,
                Err(other) => SourceError::format(&file, other.to_string()),
            },
            other => SourceError::format(&file, other.to_string()),
        }
    }
}

/// Ranges of a pinned file.
struct PinnedReader {
    store: PinnedStore,
    file: PinnedFile,
    metadata: Arc<ParquetMetaData>,
}

impl AsyncFileReader for PinnedReader {
    fn get_bytes(&mut self, range: std::ops::Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        let read =
            async move { self.store.read(&self.file, range).await.map_err(|error| ParquetError::External(Box::new(error))) };
        Box::pin(read)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<std::ops::Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        let reads = ranges.into_iter().map(|range| self.store.read(&self.file, range));
        let all = try_join_all(reads);
        Box::pin(async move { all.await.map_err(|error| ParquetError::External(Box::new(error))) })
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        Box::pin(std::future::ready(Ok(Arc::clone(&self.metadata))))
    }
}

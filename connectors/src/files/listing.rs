//! Which files a job reads, pinned by version, and how they are cut into splits.

use std::path::{Path as LocalPath, PathBuf};
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use serde::{Deserialize, Serialize};

use super::options::{FileOptions, Mode};
use super::pinned::{PinnedFile, PinnedStore, shown};
use crate::options::{OptionsError, TableOptions};
use crate::source::SourceError;

/// Bytes of a text file in one split.
pub(crate) const SPLIT_BYTES: u64 = 16 << 20;
/// Bytes read from a Parquet file's end at once: most footers fit.
const FOOTER_BYTES: u64 = 64 << 10;

/// Format of a source's or sink's files. Persisted in the pinned listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// Comma-separated values.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// Extension of a file in this format.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }
}

/// Compression of one file, by option or extension. Persisted in the pinned listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// As it is.
    None,
    /// gzip, any number of members.
    Gzip,
    /// Zstandard, any number of frames.
    Zstd,
}

/// A part of a file that one lane reads at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Index of the file.
    pub file: usize,
    /// First byte (text), or index of the row group (Parquet).
    pub start: u64,
    /// One past the last byte (text), or rows of the row group (Parquet).
    pub end: u64,
}

/// Everything a source reads. Only ever grows, so a split's index is for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileListing {
    /// Format of all files.
    pub format: Format,
    /// Files by path; files that appeared later follow by modification time and path.
    pub files: Vec<PinnedFile>,
    /// Splits in the order of files and places in them.
    pub splits: Vec<Split>,
}

/// The store that local paths are read from.
#[must_use]
pub fn local_store() -> Arc<dyn ObjectStore> {
    Arc::new(LocalFileSystem::new())
}

/// Lists and pins the files of a table, when its job is created.
///
/// # Errors
/// [`OptionsError`] naming the path or option; also if a bounded source's path names no file.
pub async fn discover(store: &Arc<dyn ObjectStore>, options: TableOptions<'_>) -> Result<FileListing, OptionsError> {
    let options = FileOptions::new(options)?;
    let mut listing = FileListing { format: options.format, files: Vec::new(), splits: Vec::new() };
    let found = expand(&options)?;
    if options.mode == Mode::Continuous {
        // Any of them may be being written: the reader settles them like those that appear later.
        return Ok(listing);
    }
    if found.is_empty() {
        return Err(options.error(format!("path {} names no file: give a file, a folder with files, or a glob", options.path)));
    }
    let store = PinnedStore::new(Arc::clone(store));
    for local in found {
        let found = look(store.store(), &options, &local).await?;
        let pinned = listing.pin(&store, &options, found.file).await;
        pinned.map_err(|error| options.error(error.to_string()))?;
    }
    Ok(listing)
}

/// A file as it is now.
pub(super) struct Found {
    pub(super) file: PinnedFile,
    pub(super) modified_micros: i64,
}

/// Looks at one file.
pub(super) async fn look(store: &dyn ObjectStore, options: &FileOptions, local: &LocalPath) -> Result<Found, OptionsError> {
    let unreadable = |error: &dyn std::fmt::Display| options.error(format!("file {} cannot be read: {error}", local.display()));
    let path = Path::from_absolute_path(local).map_err(|error| unreadable(&error))?;
    let meta = store.head(&path).await.map_err(|error| unreadable(&error))?;
    let file = PinnedFile {
        path: path.to_string(),
        bytes: meta.size,
        e_tag: meta.e_tag,
        compression: options.compression_of(local),
        content: None,
    };
    Ok(Found { file, modified_micros: meta.last_modified.timestamp_micros() })
}

impl FileListing {
    /// Adds a file and its splits, or leaves the listing as it is.
    pub(super) async fn pin(&mut self, store: &PinnedStore, options: &FileOptions, file: PinnedFile) -> Result<(), SourceError> {
        let file = store.known(file).await?;
        self.splits.extend(splits(store, &file, self.files.len(), options).await?);
        self.files.push(file);
        Ok(())
    }
}

/// Files that the path names now, sorted.
pub(super) fn expand(options: &FileOptions) -> Result<Vec<PathBuf>, OptionsError> {
    let path = LocalPath::new(&options.path);
    let failed = |error: &dyn std::fmt::Display| options.error(format!("path {}: {error}", path.display()));
    let is_visible = |path: &LocalPath| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with(['.', '_']));
    let mut found = Vec::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(|error| failed(&error))? {
            let path = entry.map_err(|error| failed(&error))?.path();
            if path.is_file() && is_visible(&path) {
                found.push(path);
            }
        }
    } else if path.is_file() {
        found.push(path.to_owned());
    } else {
        for entry in glob::glob(&options.path).map_err(|error| failed(&error))? {
            // A folder that may not be read would be input that silently is not there.
            let path = entry.map_err(|error| failed(&error))?;
            if path.is_file() {
                found.push(path);
            }
        }
    }
    let mut found = found.iter().map(std::fs::canonicalize).collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
    found.sort();
    found.dedup();
    Ok(found)
}

async fn splits(store: &PinnedStore, file: &PinnedFile, index: usize, options: &FileOptions) -> Result<Vec<Split>, SourceError> {
    if options.format == Format::Parquet {
        let metadata = parquet_metadata(store, file).await?;
        let rows = metadata.row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0));
        return Ok((0u64..).zip(rows).map(|(group, rows)| Split { file: index, start: group, end: rows }).collect());
    }
    let hidden_line_ends = options.format == Format::Csv && options.text.newlines_in_values;
    let step = if file.compression != Compression::None || hidden_line_ends { file.bytes.max(1) } else { SPLIT_BYTES };
    Ok(cut(index, file.bytes, step))
}

/// Splits of `step` bytes.
pub(super) fn cut(file: usize, bytes: u64, step: u64) -> Vec<Split> {
    let starts = (0..bytes.div_ceil(step)).map(|number| number * step);
    starts.map(|start| Split { file, start, end: (start + step).min(bytes) }).collect()
}

/// Reads a Parquet footer, on condition of the pinned version.
pub(crate) async fn parquet_metadata(store: &PinnedStore, file: &PinnedFile) -> Result<ParquetMetaData, SourceError> {
    let damaged = |message: String| SourceError::format(&shown(&file.path), format!("{message}: is it Parquet?"));
    if file.bytes < 12 {
        return Err(damaged(format!("it has only {} bytes", file.bytes)));
    }
    let tail_start = file.bytes.saturating_sub(FOOTER_BYTES);
    let tail = store.read(file, tail_start..file.bytes).await?;
    let length_at = tail.len() - 8;
    let length = tail[length_at..length_at + 4].try_into().map(u32::from_le_bytes).unwrap_or(0);
    let footer_start = (file.bytes - 8).checked_sub(u64::from(length)).filter(|_| tail.ends_with(b"PAR1"));
    let footer_start = footer_start.ok_or_else(|| damaged("it does not end in a Parquet footer".to_owned()))?;
    let footer = match footer_start.checked_sub(tail_start).and_then(|skip| usize::try_from(skip).ok()) {
        Some(skip) => tail.slice(skip..length_at),
        None => store.read(file, footer_start..file.bytes - 8).await?,
    };
    ParquetMetaDataReader::decode_metadata(&footer).map_err(|error| damaged(error.to_string()))
}

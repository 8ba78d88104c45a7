//! Options of a `filesystem` source.

use std::path::Path as LocalPath;
use std::time::Duration;

use super::decode::TextOptions;
use super::listing::{Compression, Format};
use crate::options::{OptionsError, TableOptions};

/// Known keys.
///
/// | key | default | meaning |
/// | --- | --- | --- |
/// | `path` | required | a file, a folder (its files, not hidden ones) or a glob |
/// | `format` | required | `json` (one object per line), `csv`, `parquet` |
/// | `mode` | `bounded` | `continuous` also reads files that appear later, by one lane |
/// | `source.monitor-interval` | `1 s` | how often a continuous source looks for files |
/// | `compression` | `auto` | by extension, or `none`, `gzip`, `zstd` |
/// | `csv.header` | `false` | the first record of each file is skipped |
/// | `csv.field-delimiter` | `,` | |
/// | `csv.quote-character` | `"` | |
/// | `csv.null-literal` | empty value | |
/// | `csv.newlines-in-values` | `true` | `false` lets one large file be read by several lanes |
/// | `json.fail-on-missing-field` | `false` | a record without a declared field is bad |
pub const OPTIONS: [&str; 12] = [
    "connector",
    "path",
    "format",
    "mode",
    "source.monitor-interval",
    "compression",
    "csv.header",
    "csv.field-delimiter",
    "csv.quote-character",
    "csv.null-literal",
    "csv.newlines-in-values",
    "json.fail-on-missing-field",
];

/// Whether a source ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The files that were there when the job was created.
    Bounded,
    /// Those, and files that appear later.
    Continuous,
}

/// Options of a `filesystem` source, checked.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// The table.
    pub table: String,
    /// A file, a folder or a glob, without scheme.
    pub path: String,
    /// Format of all files.
    pub format: Format,
    /// Whether the source ends.
    pub mode: Mode,
    /// How often a continuous source looks for files.
    pub monitor_interval: Duration,
    /// Compression of all files; `None` goes by extension.
    pub compression: Option<Compression>,
    /// How text is read.
    pub text: TextOptions,
}

impl FileOptions {
    /// Checks a table's options.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option and what to write.
    pub fn new(options: TableOptions<'_>) -> Result<Self, OptionsError> {
        options.only(&OPTIONS)?;
        let choices = [
            ("auto", None),
            ("none", Some(Compression::None)),
            ("gzip", Some(Compression::Gzip)),
            ("zstd", Some(Compression::Zstd)),
        ];
        Ok(Self {
            table: options.table.to_owned(),
            path: local_path(options)?,
            format: format(options)?,
            mode: options.choice("mode", Mode::Bounded, &[("bounded", Mode::Bounded), ("continuous", Mode::Continuous)])?,
            monitor_interval: options.duration("source.monitor-interval")?.unwrap_or(Duration::from_secs(1)),
            compression: options.choice("compression", None, &choices)?,
            text: TextOptions::new(options)?,
        })
    }

    pub(super) fn error(&self, message: impl Into<String>) -> OptionsError {
        OptionsError { table: self.table.clone(), message: message.into() }
    }

    pub(super) fn compression_of(&self, path: &LocalPath) -> Compression {
        self.compression.unwrap_or_else(|| match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz" | "gzip") => Compression::Gzip,
            Some("zst" | "zstd") => Compression::Zstd,
            _ => Compression::None,
        })
    }
}

/// The `format` of a source or sink.
pub(crate) fn format(options: TableOptions<'_>) -> Result<Format, OptionsError> {
    options.require("format")?;
    options.choice("format", Format::Json, &[("json", Format::Json), ("csv", Format::Csv), ("parquet", Format::Parquet)])
}

/// The `path` of a source or sink on this machine.
pub(crate) fn local_path(options: TableOptions<'_>) -> Result<String, OptionsError> {
    let path = options.require("path")?;
    let path = path.strip_prefix("file://").unwrap_or(path);
    match path.split_once("://") {
        Some((scheme, _)) => Err(options.error(format!("path {path} has scheme {scheme}: write a local path or file://"))),
        None if path.is_empty() => Err(options.error("option 'path' is empty")),
        None => Ok(path.to_owned()),
    }
}

//! Streams by name: made once, with their columns; found again by whoever appends or reads.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::{Buf, Bytes};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use weir_coordinator::streams::{self, CreateStream};
use weir_model::stream::{STREAM_FORMAT, StreamRow};
use weir_state::{StateError, paths, store};

use crate::Seams;

/// Longest name of a stream.
const NAME_CHARS_MAX: usize = 128;

/// A stream that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The name has other characters than a name may have.
    #[error("stream name {0:?} must be 1 to {NAME_CHARS_MAX} letters, digits, '_', '-' or '.'")]
    Name(String),
    /// Its columns cannot be kept or read back.
    #[error("columns of stream {name}: {message}")]
    Columns {
        /// The stream.
        name: String,
        /// What is wrong with them.
        message: String,
    },
    /// The table.
    #[error(transparent)]
    Table(#[from] weir_coordinator::StoreError),
    /// The objects.
    #[error(transparent)]
    State(#[from] StateError),
}

fn columns(name: &str, error: &dyn std::fmt::Display) -> StreamError {
    StreamError::Columns { name: name.to_owned(), message: error.to_string() }
}

/// The stream `name`; made with the columns of `schema` and `lanes` lanes if there is none, else as it is.
///
/// # Errors
/// [`StreamError`]; nothing was made then, or all of it.
pub async fn open_or_create(seams: &Seams, name: &str, schema: &SchemaRef, lanes: u16) -> Result<StreamRow, StreamError> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(known) {
        return Err(StreamError::Name(name.to_owned()));
    }
    if let Some(row) = streams::find(seams.table.as_ref(), name).await? {
        return Ok(row);
    }
    let stream = seams.ids.job();
    let object = paths::schema(stream, 1);
    let bytes = encode(schema).map_err(|error| columns(name, &error))?;
    store::put(seams.objects.as_ref(), &object, bytes).await?;
    let row = StreamRow {
        format: STREAM_FORMAT,
        stream,
        name: name.to_owned(),
        schema: object,
        lanes,
        closed: false,
        created_micros: seams.clock.now_micros(),
    };
    match streams::create(seams.table.as_ref(), &row).await? {
        CreateStream::Created => Ok(row),
        CreateStream::NameTaken(other) => Ok(*other),
    }
}

fn encode(schema: &SchemaRef) -> Result<Bytes, arrow::error::ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    writer.finish()?;
    Ok(Bytes::from(writer.into_inner()?))
}

/// The columns of a stream.
///
/// # Errors
/// [`StreamError`] naming the stream.
pub async fn read_schema(seams: &Seams, row: &StreamRow) -> Result<SchemaRef, StreamError> {
    let failed = |error| StateError::store(&row.schema, error);
    let found = seams.objects.get(&Path::from(row.schema.as_str())).await.map_err(failed)?;
    let bytes = found.bytes().await.map_err(failed)?;
    let reader = StreamReader::try_new(bytes.reader(), None).map_err(|error| columns(&row.name, &error))?;
    Ok(Arc::clone(&reader.schema()))
}

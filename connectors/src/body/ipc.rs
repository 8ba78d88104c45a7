//! Arrow IPC from memory: nothing is allocated for what a length promises, only for what is there.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{FileDecoder, StreamDecoder, read_footer_length};
use arrow::ipc::{Block, root_as_footer};
use bytes::Bytes;

/// What an Arrow file, as opposed to a stream, begins with.
pub(super) const FILE_MAGIC: &[u8] = b"ARROW1";
/// Length of the footer and magic at the end of a file.
const TRAILER_BYTES: usize = 10;

/// Batches of a stream.
pub(super) fn stream(bytes: &Bytes) -> Result<Vec<RecordBatch>, String> {
    let mut buffer = Buffer::from(bytes.clone());
    let mut decoder = StreamDecoder::new();
    let mut batches = Vec::new();
    while let Some(batch) = decoder.decode(&mut buffer).map_err(|error| error.to_string())? {
        batches.push(batch);
    }
    decoder.finish().map_err(|error| error.to_string())?;
    // Without a schema it is not even an empty stream.
    if decoder.schema().is_none() { Err("it has no schema".to_owned()) } else { Ok(batches) }
}

/// Batches of a file.
pub(super) fn file(bytes: &Bytes) -> Result<Vec<RecordBatch>, String> {
    let buffer = Buffer::from(bytes.clone());
    let trailer_at = bytes.len().checked_sub(TRAILER_BYTES).ok_or("it is too short")?;
    let trailer: [u8; TRAILER_BYTES] = bytes[trailer_at..].try_into().map_err(|_| "it is too short")?;
    let length = read_footer_length(trailer).map_err(|error| error.to_string())?;
    let footer_at = trailer_at.checked_sub(length).ok_or("its footer is longer than the file")?;
    let footer = root_as_footer(&bytes[footer_at..trailer_at]).map_err(|error| error.to_string())?;
    let schema = footer.schema().ok_or("it has no schema")?;
    let mut decoder = FileDecoder::new(Arc::new(fb_to_schema(schema)), footer.version());
    for block in footer.dictionaries().iter().flatten() {
        let slice = within(block, &buffer)?;
        decoder.read_dictionary(block, &slice).map_err(|error| error.to_string())?;
    }
    let mut batches = Vec::new();
    for block in footer.recordBatches().iter().flatten() {
        let slice = within(block, &buffer)?;
        batches.extend(decoder.read_record_batch(block, &slice).map_err(|error| error.to_string())?);
    }
    Ok(batches)
}

/// The bytes of a block, which must lie in the file.
fn within(block: &Block, file: &Buffer) -> Result<Buffer, String> {
    let outside = || "a block lies outside of the file".to_owned();
    let start = usize::try_from(block.offset()).map_err(|_| outside())?;
    let metadata = usize::try_from(block.metaDataLength()).map_err(|_| outside())?;
    let body = usize::try_from(block.bodyLength()).map_err(|_| outside())?;
    let length = metadata.checked_add(body).ok_or_else(outside)?;
    let range: Range<usize> = start..start.checked_add(length).ok_or_else(outside)?;
    if range.end > file.len() { Err(outside()) } else { Ok(file.slice_with_length(range.start, length)) }
}

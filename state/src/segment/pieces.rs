//! Parts of an object that were fetched, readable at the offsets they have in the whole.

use bytes::{Buf, Bytes};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

/// Fetched parts of one object, by offset. What was not fetched is an end of file, never zeros.
#[derive(Debug)]
pub(super) struct Pieces {
    object_bytes: u64,
    pieces: Vec<(u64, Bytes)>,
}

impl Pieces {
    /// Parts of an object of `object_bytes` bytes.
    pub(super) fn new(object_bytes: u64, pieces: Vec<(u64, Bytes)>) -> Self {
        Self { object_bytes, pieces }
    }

    /// The whole object.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { object_bytes: bytes.len() as u64, pieces: vec![(0, bytes)] }
    }

    fn bytes_from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let inside = |(at, bytes): &&(u64, Bytes)| *at <= start && start <= at + bytes.len() as u64;
        // The last one: where two pieces touch, the offset belongs to the second.
        let (at, bytes) = self.pieces.iter().rfind(inside).ok_or_else(|| not_here(start))?;
        Ok(bytes.slice(usize::try_from(start - at).map_err(|_| not_here(start))?..))
    }
}

fn not_here(start: u64) -> ParquetError {
    ParquetError::EOF(format!("nothing at offset {start}"))
}

impl Length for Pieces {
    fn len(&self) -> u64 {
        self.object_bytes
    }
}

impl ChunkReader for Pieces {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.bytes_from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let piece = self.bytes_from(start)?;
        if piece.len() < length {
            return Err(ParquetError::EOF(format!("{length} bytes at offset {start} go past the end")));
        }
        Ok(piece.slice(..length))
    }
}

//! Files of rows that have no room in memory. They have no names: whatever kills the process frees them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::ipc::reader::StreamDecoder;
use datafusion::arrow::ipc::writer::StreamWriter;

use crate::EngineError;

/// Bytes past which runs go to another file; a file's space is free again when nobody has a run in it.
const FILE_BYTES: u64 = 256 << 20;

/// The files of one shard: many runs share one.
#[derive(Debug)]
pub(crate) struct SpillFiles {
    folder: PathBuf,
    file_bytes: u64,
    current: Option<(Arc<File>, u64)>,
}

impl SpillFiles {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, file_bytes: FILE_BYTES, current: None }
    }

    /// The same with smaller files: where runs die at different times, more space is free again.
    pub(crate) fn with_file_bytes(self, file_bytes: u64) -> Self {
        Self { file_bytes, ..self }
    }

    /// Writes rows.
    ///
    /// # Errors
    /// [`EngineError::Spill`] if the disk refuses.
    pub(crate) fn append(&mut self, rows: &RecordBatch) -> Result<Run, EngineError> {
        let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
        writer.write(rows)?;
        self.append_bytes(&writer.into_inner()?)
    }

    /// Writes bytes that are no rows.
    ///
    /// # Errors
    /// [`EngineError::Spill`] if the disk refuses.
    pub(crate) fn append_bytes(&mut self, bytes: &[u8]) -> Result<Run, EngineError> {
        let failed = |source| EngineError::Spill { place: self.folder.display().to_string(), source };
        let (file, offset) = match self.current.take().filter(|(_, end)| *end < self.file_bytes) {
            Some(current) => current,
            None => (Arc::new(tempfile::tempfile_in(&self.folder).map_err(failed)?), 0),
        };
        file.write_all_at(bytes, offset).map_err(failed)?;
        self.current = Some((Arc::clone(&file), offset + bytes.len() as u64));
        Ok(Run { file, offset, bytes: bytes.len() })
    }
}

/// A run of rows in a file.
#[derive(Debug)]
pub(crate) struct Run {
    file: Arc<File>,
    offset: u64,
    bytes: usize,
}

/// Memory that one read after the other uses: as much as the longest run has, taken from the system once.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Vec<u8>);

impl Run {
    /// Reads the rows.
    ///
    /// # Errors
    /// [`EngineError::Spill`] if the disk does not give back what was written.
    pub(crate) fn read(&self) -> Result<Vec<RecordBatch>, EngineError> {
        let mut bytes = vec![0; self.bytes];
        self.fill(&mut bytes)?;
        decoded(Buffer::from_vec(bytes))
    }

    /// Reads the rows for as long as `look` looks at them: they lie in `scratch`, and what it takes should be copies.
    ///
    /// # Errors
    /// [`EngineError::Spill`] if the disk does not give back what was written; those of `look`.
    pub(crate) fn look_at<T>(
        &self,
        scratch: &mut Scratch,
        look: impl FnOnce(&[RecordBatch]) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.read_bytes(scratch)?;
        let all = Buffer::from_vec(std::mem::take(&mut scratch.0));
        let rows = decoded(all.slice_with_length(0, self.bytes))?;
        let found = look(&rows);
        drop(rows);
        // Not if somebody still looks; the next read takes new memory then.
        scratch.0 = all.into_vec().unwrap_or_default();
        found
    }

    /// Reads what was written as bytes.
    ///
    /// # Errors
    /// [`EngineError::Spill`] if the disk does not give it back.
    pub(crate) fn read_bytes<'a>(&self, scratch: &'a mut Scratch) -> Result<&'a [u8], EngineError> {
        if scratch.0.len() < self.bytes {
            scratch.0.resize(self.bytes, 0);
        }
        let bytes = &mut scratch.0[..self.bytes];
        self.fill(bytes)?;
        Ok(bytes)
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), EngineError> {
        let read = self.file.read_exact_at(bytes, self.offset);
        read.map_err(|source| EngineError::Spill { place: "a spill file".to_owned(), source })
    }
}

/// The rows that `bytes` are; they stay where they are.
fn decoded(mut bytes: Buffer) -> Result<Vec<RecordBatch>, EngineError> {
    let (mut decoder, mut rows) = (StreamDecoder::new(), Vec::new());
    while !bytes.is_empty() {
        rows.extend(decoder.decode(&mut bytes)?);
    }
    Ok(rows)
}

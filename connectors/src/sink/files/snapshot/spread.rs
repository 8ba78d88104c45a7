//! Rows spread over partitions by their keys' hash, in files of the staging folder: what does not fit in memory at once.
//!
//! The files fall with the folder of the generation; nobody else looks at them. The order of a key's rows is kept.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use xxhash_rust::xxh3::xxh3_64;

use super::newest::Keys;
use super::{FileTarget, unwritable};
use crate::source::SourceError;

/// Rows being spread.
pub(super) struct Spread {
    folder: PathBuf,
    keys: Keys,
    files: Vec<(PathBuf, StreamWriter<BufWriter<File>>)>,
}

impl Spread {
    /// Makes the files in `folder`; `None` if the folder it lies in is gone, which is a fence.
    pub(super) fn open(target: &FileTarget, folder: &Path, partitions: u64) -> Result<Option<Self>, SourceError> {
        match fs::create_dir(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unwritable(folder, &error)),
        }
        let mut files = Vec::new();
        for partition in 0..partitions {
            let path = folder.join(format!("{partition:03}.arrows"));
            let file = File::create(&path).map_err(|error| unwritable(&path, &error))?;
            let writer = StreamWriter::try_new(BufWriter::new(file), &target.schema).map_err(|error| failed(&path, &error))?;
            files.push((path, writer));
        }
        let keys = Keys::new(&target.schema, target.key.clone().unwrap_or_default());
        Ok(Some(Self { folder: folder.to_owned(), keys: keys.map_err(|error| failed(folder, &error))?, files }))
    }

    pub(super) fn take(&mut self, batch: &RecordBatch) -> Result<(), SourceError> {
        let keys = self.keys.of(batch).map_err(|error| failed(&self.folder, &error))?;
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.files.len()];
        for (row, key) in (0_u32..).zip(keys.iter()) {
            let partition = xxh3_64(key.data()) % self.files.len() as u64;
            rows[usize::try_from(partition).unwrap_or_default()].push(row);
        }
        for ((path, writer), rows) in self.files.iter_mut().zip(rows).filter(|(_, rows)| !rows.is_empty()) {
            let part = take_record_batch(batch, &UInt32Array::from(rows));
            part.and_then(|part| writer.write(&part)).map_err(|error| failed(path, &error))?;
        }
        Ok(())
    }

    /// The partitions, to be read one after the other.
    pub(super) fn partitions(self) -> Result<Vec<Partition>, SourceError> {
        let finish = |(path, mut writer): (PathBuf, StreamWriter<BufWriter<File>>)| {
            writer.finish().map_err(|error| failed(&path, &error))?;
            Ok(Partition(path))
        };
        self.files.into_iter().map(finish).collect()
    }
}

/// A file of spread rows.
pub(super) struct Partition(PathBuf);

impl Partition {
    /// Gives `take` the rows batch by batch, and removes the file.
    pub(super) fn each(self, mut take: impl FnMut(&RecordBatch) -> Result<(), SourceError>) -> Result<(), SourceError> {
        let file = File::open(&self.0).map_err(|error| unwritable(&self.0, &error))?;
        let reader = StreamReader::try_new(BufReader::new(file), None).map_err(|error| failed(&self.0, &error))?;
        for batch in reader {
            take(&batch.map_err(|error| failed(&self.0, &error))?)?;
        }
        drop(fs::remove_file(&self.0));
        Ok(())
    }
}

fn failed(path: &Path, error: &ArrowError) -> SourceError {
    SourceError::format(&path.display().to_string(), error.to_string())
}

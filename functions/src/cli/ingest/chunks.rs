//! Whole rows of a file, a request's worth at a time: a function of the file, the format and the size alone.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use datafusion::arrow::array::{RecordBatch, RecordBatchReader};
use datafusion::arrow::ipc::reader::{FileReader, StreamReader};
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use weir_connectors::body::{self, BodyFormat};

/// Longest row: more is refused by servers anyway.
const ROW_BYTES_MAX: usize = 32 << 20;
/// Rows of a batch read from a file of columns.
const BATCH_ROWS: usize = 32_768;

/// Body of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) body: Bytes,
    pub(super) content_type: &'static str,
    /// Bytes of the file that it stands for, where that is known.
    pub(super) file_bytes: u64,
    /// Rows of the file before it.
    pub(super) rows_before: u64,
}

/// Chunks of a file, in order.
pub(super) struct Chunks {
    rows: Rows,
    /// Size of the file, if it is one.
    bytes: Option<u64>,
    rows_before: u64,
}

enum Rows {
    Text(Text),
    Columns { batches: Box<dyn RecordBatchReader + Send>, chunk_bytes: usize },
}

impl Chunks {
    /// - `file`: standard input if there is none.
    pub(super) fn open(file: Option<&Path>, format: BodyFormat, chunk_bytes: usize) -> anyhow::Result<Self> {
        let bytes = file.and_then(|file| std::fs::metadata(file).ok()).map(|meta| meta.len());
        let rows = match format {
            BodyFormat::NdJson | BodyFormat::Json | BodyFormat::Csv { .. } => Rows::Text(Text::open(file, format, chunk_bytes)?),
            BodyFormat::Arrow | BodyFormat::Parquet => {
                let path = file.context("Parquet and Arrow are read from a file: name it after the stream")?;
                let batches = batches(path, format).with_context(|| path.display().to_string())?;
                Rows::Columns { batches, chunk_bytes }
            }
        };
        Ok(Self { rows, bytes, rows_before: 0 })
    }

    pub(super) fn bytes(&self) -> Option<u64> {
        self.bytes.filter(|_| matches!(self.rows, Rows::Text(_)))
    }

    fn read(&mut self) -> anyhow::Result<Option<Chunk>> {
        let rows_before = self.rows_before;
        let found = match &mut self.rows {
            Rows::Text(text) => text.read()?,
            Rows::Columns { batches, chunk_bytes } => columns(batches.as_mut(), *chunk_bytes)?,
        };
        let Some((chunk, rows)) = found else { return Ok(None) };
        self.rows_before += rows;
        Ok(Some(Chunk { rows_before, ..chunk }))
    }
}

impl Iterator for Chunks {
    type Item = anyhow::Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Lines, or CSV records, which may hold line ends.
struct Text {
    input: Box<dyn Read + Send>,
    format: BodyFormat,
    chunk_bytes: usize,
    /// Line that goes before each chunk.
    header: Vec<u8>,
    buffer: Vec<u8>,
    ended: bool,
}

impl Text {
    fn open(file: Option<&Path>, format: BodyFormat, chunk_bytes: usize) -> anyhow::Result<Self> {
        let input: Box<dyn Read + Send> = match file {
            Some(path) => Box::new(File::open(path).with_context(|| path.display().to_string())?),
            None => Box::new(std::io::stdin()),
        };
        let mut text = Self { input, format, chunk_bytes, header: Vec::new(), buffer: Vec::new(), ended: false };
        if format == (BodyFormat::Csv { header: true }) {
            text.read_header()?;
        }
        Ok(text)
    }

    fn read_header(&mut self) -> anyhow::Result<()> {
        while !self.buffer.contains(&b'\n') && !self.ended {
            self.fill(self.buffer.len() + 4_096)?;
        }
        let end = self.buffer.iter().position(|byte| *byte == b'\n').map_or(self.buffer.len(), |end| end + 1);
        self.header = self.buffer.drain(..end).collect();
        Ok(())
    }

    /// Reads until the buffer holds `wanted` bytes or the input ends.
    fn fill(&mut self, wanted: usize) -> anyhow::Result<()> {
        let missing = wanted.saturating_sub(self.buffer.len()) as u64;
        if missing == 0 || self.ended {
            return Ok(());
        }
        let read = self.input.by_ref().take(missing).read_to_end(&mut self.buffer).context("reading the input")?;
        self.ended = (read as u64) < missing;
        Ok(())
    }

    fn read(&mut self) -> anyhow::Result<Option<(Chunk, u64)>> {
        let mut wanted = self.chunk_bytes.max(1);
        loop {
            self.fill(wanted)?;
            if self.buffer.is_empty() {
                return Ok(None);
            }
            let is_rest = self.ended && self.buffer.len() <= wanted;
            let within = &self.buffer[..wanted.min(self.buffer.len())];
            let end = if is_rest { Some(within.len()) } else { body::last_record_end(self.format, within) };
            if let Some(end) = end {
                let rest = self.buffer.split_off(end);
                let rows = std::mem::replace(&mut self.buffer, rest);
                return Ok(Some(self.chunk(rows)));
            }
            ensure!(
                wanted < ROW_BYTES_MAX,
                "a row is longer than {ROW_BYTES_MAX} bytes: is a quote left open, or a line end missing?"
            );
            wanted *= 2;
        }
    }

    fn chunk(&self, rows: Vec<u8>) -> (Chunk, u64) {
        let content_type = match self.format {
            BodyFormat::Csv { header: true } => "text/csv; header=present",
            BodyFormat::Csv { header: false } => "text/csv",
            _ => "application/x-ndjson",
        };
        let (count, file_bytes) = (body::records(self.format, &rows), rows.len() as u64);
        let body = if self.header.is_empty() { rows } else { [self.header.as_slice(), &rows].concat() };
        (Chunk { body: Bytes::from(body), content_type, file_bytes, rows_before: 0 }, count as u64)
    }
}

fn batches(path: &Path, format: BodyFormat) -> anyhow::Result<Box<dyn RecordBatchReader + Send>> {
    let file = File::open(path)?;
    if format == BodyFormat::Parquet {
        return Ok(Box::new(ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH_ROWS).build()?));
    }
    match FileReader::try_new(file, None) {
        Ok(reader) => Ok(Box::new(reader)),
        Err(_) => Ok(Box::new(StreamReader::try_new(File::open(path)?, None)?)),
    }
}

/// One batch as an Arrow stream; a large one in several would change the numbers of the chunks after it with the size alone.
fn columns(batches: &mut (dyn RecordBatchReader + Send), chunk_bytes: usize) -> anyhow::Result<Option<(Chunk, u64)>> {
    let schema = batches.schema();
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    let (mut rows, mut bytes) = (0_u64, 0);
    for batch in &mut *batches {
        let batch: RecordBatch = batch?;
        rows += batch.num_rows() as u64;
        bytes += batch.get_array_memory_size();
        writer.write(&batch)?;
        if bytes >= chunk_bytes {
            break;
        }
    }
    writer.finish()?;
    let body = Bytes::from(writer.into_inner()?);
    let content_type = "application/vnd.apache.arrow.stream";
    let chunk = Chunk { file_bytes: body.len() as u64, body, content_type, rows_before: 0 };
    Ok((rows > 0).then_some((chunk, rows)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(text: &str, format: BodyFormat, bytes: usize) -> Vec<(String, u64)> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let chunks = Chunks::open(Some(file.path()), format, bytes).unwrap();
        chunks.map(|chunk| chunk.unwrap()).map(|c| (String::from_utf8(c.body.to_vec()).unwrap(), c.rows_before)).collect()
    }

    #[test]
    fn chunks_end_where_rows_end() {
        let found = chunks("{\"a\":1}\n{\"a\":2}\n\n{\"a\":3}", BodyFormat::NdJson, 10);
        let expected = [("{\"a\":1}\n", 0), ("{\"a\":2}\n\n", 1), ("{\"a\":3}", 2)];
        assert_eq!(found, expected.map(|(text, rows)| (text.to_owned(), rows)));
    }

    #[test]
    fn a_quoted_line_end_ends_no_row_and_the_header_goes_with_each_chunk() {
        let found = chunks("a,b\n1,\"x\ny\"\n2,z\n", BodyFormat::Csv { header: true }, 4);
        let expected = [("a,b\n1,\"x\ny\"\n", 0), ("a,b\n2,z\n", 1)];
        assert_eq!(found, expected.map(|(text, rows)| (text.to_owned(), rows)));
    }
}

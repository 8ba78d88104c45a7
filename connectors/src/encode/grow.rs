//! Rows after those of a Parquet file: row groups of some size are taken over as they lie, only a small last one is encoded again with what
//! is new. Nothing of the file but that is in memory.
//!
//! A file that grows by many small steps would else be decoded and encoded as a whole with each of them.

use std::fs::File;
use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;

/// Rows of a file's row groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupRows {
    /// A row group with fewer is encoded again when the file grows.
    pub(super) min: usize,
    pub(super) max: usize,
}

/// Writes the rows of the file `old`, and `batches` after them, to `to`.
///
/// # Errors
/// [`ParquetError`] if `old` is no Parquet file with the columns of `schema`, or `to` takes nothing more.
pub(super) fn grow<W: Write + Send>(
    schema: &SchemaRef,
    properties: WriterProperties,
    group_rows: GroupRows,
    old: &File,
    batches: &[RecordBatch],
    to: W,
) -> Result<(), ParquetError> {
    let loaded = ArrowReaderMetadata::load(old, ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional))?;
    let metadata = loaded.metadata();
    let is_large = |rows: i64| usize::try_from(rows).is_ok_and(|rows| rows >= group_rows.min);
    let kept = metadata.row_groups().iter().take_while(|group| is_large(group.num_rows())).count();
    let rest = ParquetRecordBatchReaderBuilder::new_with_metadata(old.try_clone()?, loaded.clone())
        .with_row_groups((kept..metadata.num_row_groups()).collect())
        .build()?;
    let rest = rest.map(|batch| RecordBatch::try_new(SchemaRef::clone(schema), batch?.columns().to_vec()));
    let rest = rest.collect::<Result<Vec<_>, ArrowError>>()?;
    let (mut file, factory) = ArrowWriter::try_new(to, SchemaRef::clone(schema), Some(properties))?.into_serialized_writer()?;
    for group in 0..kept {
        take_over(&mut file, old, metadata, group)?;
    }
    for (number, group) in groups_of(rest.iter().chain(batches), group_rows.max).into_iter().enumerate() {
        write_group(&mut file, &factory, schema, kept + number, &group)?;
    }
    // Not `into_inner`, which hides what the disk said.
    file.finish()?;
    Ok(())
}

fn take_over<W: Write + Send>(
    file: &mut SerializedFileWriter<W>,
    old: &File,
    metadata: &ParquetMetaData,
    group: usize,
) -> Result<(), ParquetError> {
    let from = metadata.row_group(group);
    let mut to = file.next_row_group()?;
    for (number, column) in from.columns().iter().enumerate() {
        let close = ColumnCloseResult {
            bytes_written: u64::try_from(column.compressed_size()).unwrap_or_default(),
            rows_written: u64::try_from(from.num_rows()).unwrap_or_default(),
            metadata: column.clone(),
            bloom_filter: None,
            column_index: metadata.column_index().map(|index| index[group][number].clone()),
            offset_index: metadata.offset_index().map(|index| index[group][number].clone()),
        };
        to.append_column(old, close)?;
    }
    to.close()?;
    Ok(())
}

/// Cuts rows into groups of `group_rows` rows; the last may have fewer. Nothing is copied.
fn groups_of<'a>(batches: impl Iterator<Item = &'a RecordBatch>, group_rows: usize) -> Vec<Vec<RecordBatch>> {
    let mut groups: Vec<Vec<RecordBatch>> = Vec::new();
    let mut room = 0;
    for batch in batches {
        let mut at = 0;
        while at < batch.num_rows() {
            if room == 0 {
                groups.push(Vec::new());
                room = group_rows;
            }
            let taken = room.min(batch.num_rows() - at);
            groups.last_mut().into_iter().for_each(|group| group.push(batch.slice(at, taken)));
            (at, room) = (at + taken, room - taken);
        }
    }
    groups
}

fn write_group<W: Write + Send>(
    file: &mut SerializedFileWriter<W>,
    factory: &ArrowRowGroupWriterFactory,
    schema: &SchemaRef,
    number: usize,
    batches: &[RecordBatch],
) -> Result<(), ParquetError> {
    let mut columns = factory.create_column_writers(number)?;
    for batch in batches {
        let mut leaves = Vec::with_capacity(columns.len());
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            leaves.extend(compute_leaves(field, column)?);
        }
        for (column, leaf) in columns.iter_mut().zip(&leaves) {
            column.write(leaf)?;
        }
    }
    let mut group = file.next_row_group()?;
    for column in columns {
        column.close()?.append_to_row_group(&mut group)?;
    }
    group.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;
    use bytes::Bytes;

    use super::*;

    fn rows(range: std::ops::Range<i64>) -> RecordBatch {
        let names = StringArray::from_iter(range.clone().map(|n| (n % 3 != 0).then(|| format!("name {n}"))));
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(
            range.clone().map(|n| (n % 5 != 0).then(|| (0..n % 4).map(Some).collect::<Vec<_>>())),
        );
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(range));
        RecordBatch::try_from_iter_with_nullable([
            ("n", numbers, false),
            ("name", Arc::new(names) as ArrayRef, true),
            ("list", Arc::new(lists) as ArrayRef, true),
        ])
        .unwrap()
    }

    fn read(file: &Bytes) -> (RecordBatch, Vec<i64>) {
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(
            file.clone(),
            ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional),
        );
        let reader = reader.unwrap();
        assert!(reader.metadata().offset_index().is_some(), "every row group has its page index");
        let groups = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
        let schema = SchemaRef::clone(reader.schema());
        let batches = reader.build().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        (arrow::compute::concat_batches(&schema, &batches).unwrap(), groups)
    }

    const GROUPS: GroupRows = GroupRows { min: 60, max: 100 };

    fn grown(old: &Bytes, batches: &[RecordBatch]) -> Result<Bytes, ParquetError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(old).unwrap();
        let mut to = Vec::new();
        grow(&rows(0..1).schema(), WriterProperties::default(), GROUPS, &file, batches, &mut to)?;
        Ok(to.into())
    }

    #[test]
    fn a_file_that_grows_has_the_rows_in_groups_neither_small_nor_large() {
        let mut writer = ArrowWriter::try_new(Vec::new(), rows(0..1).schema(), None).unwrap();
        writer.write(&rows(0..7)).unwrap();
        let mut file = Bytes::from(writer.into_inner().unwrap());
        let mut end = 7;
        for step in [1, 53, 100, 250, 3, 49, 8, 4] {
            let (first, second) = (rows(end..end + step / 2), rows(end + step / 2..end + step));
            file = grown(&file, &[first, second]).unwrap();
            end += step;
            let (found, groups) = read(&file);
            assert_eq!(found.columns(), rows(0..end).columns());
            assert!(groups.iter().rev().skip(1).all(|rows| (60..=100).contains(rows)), "{groups:?}");
        }
        assert_eq!(read(&file).1, [61, 100, 100, 100, 100, 14]);
    }

    #[test]
    fn rows_that_are_never_null_follow_those_that_may_be() {
        let column = |nullable| {
            let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
            RecordBatch::try_from_iter_with_nullable([("n", numbers, nullable)]).unwrap()
        };
        let (may, never) = (column(true), column(false));
        let mut file = tempfile::tempfile().unwrap();
        let mut writer = ArrowWriter::try_new(&mut file, may.schema(), None).unwrap();
        writer.write(&may).unwrap();
        writer.close().unwrap();
        let mut to = Vec::new();
        grow(&may.schema(), WriterProperties::default(), GROUPS, &file, &[never], &mut to).unwrap();
        let (found, _) = read(&to.into());
        assert_eq!(found.column(0).as_ref(), &Int64Array::from(vec![1, 2, 1, 2]));
    }

    #[test]
    fn what_is_no_parquet_file_is_refused() {
        assert!(grown(&Bytes::from_static(b"{}"), &[rows(0..1)]).is_err());
    }
}

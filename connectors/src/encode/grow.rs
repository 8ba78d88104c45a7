//! Rows after those of a Parquet file: full row groups are taken over as they lie, only the last one is encoded again with what is new.
//!
//! A file that grows by many small steps would else be decoded and encoded as a whole with each of them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;

/// The file `old` with `batches` after its rows, in row groups of `group_rows` rows and a last one of what is left.
///
/// # Errors
/// [`ArrowError`] if `old` is no Parquet file with the columns of `schema`.
pub(super) fn grown(
    schema: &SchemaRef,
    properties: WriterProperties,
    group_rows: usize,
    old: &Bytes,
    batches: &[RecordBatch],
) -> Result<Vec<u8>, ArrowError> {
    let loaded = ArrowReaderMetadata::load(old, ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional))?;
    let metadata = loaded.metadata();
    let full = metadata.row_groups().iter().take_while(|group| usize::try_from(group.num_rows()) == Ok(group_rows)).count();
    let rest = ParquetRecordBatchReaderBuilder::new_with_metadata(old.clone(), loaded.clone())
        .with_row_groups((full..metadata.num_row_groups()).collect())
        .build()?;
    let writer = ArrowWriter::try_new(Vec::with_capacity(old.len() * 2), SchemaRef::clone(schema), Some(properties))?;
    let (mut file, factory) = writer.into_serialized_writer()?;
    for group in 0..full {
        take_over(&mut file, old, metadata, group)?;
    }
    let mut rows = rest.map(|batch| RecordBatch::try_new(SchemaRef::clone(schema), batch?.columns().to_vec()));
    let rows = rows.by_ref().collect::<Result<Vec<_>, _>>()?;
    for (number, group) in groups_of(rows.iter().chain(batches), group_rows).into_iter().enumerate() {
        write_group(&mut file, &factory, full + number, &group)?;
    }
    Ok(file.into_inner()?)
}

fn take_over(
    file: &mut SerializedFileWriter<Vec<u8>>,
    old: &Bytes,
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

fn write_group(
    file: &mut SerializedFileWriter<Vec<u8>>,
    factory: &ArrowRowGroupWriterFactory,
    number: usize,
    batches: &[RecordBatch],
) -> Result<(), ParquetError> {
    let mut columns = factory.create_column_writers(number)?;
    for batch in batches {
        let mut leaves = Vec::with_capacity(columns.len());
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
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

    #[test]
    fn a_file_that_grows_has_the_rows_and_row_groups_of_one_that_was_written_at_once() {
        let schema = rows(0..1).schema();
        let mut writer = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(&schema), None).unwrap();
        writer.write(&rows(0..7)).unwrap();
        let mut file = Bytes::from(writer.into_inner().unwrap());
        let mut end = 7;
        for step in [1, 93, 100, 250, 3, 49] {
            let (first, second) = (rows(end..end + step / 2), rows(end + step / 2..end + step));
            file = grown(&schema, WriterProperties::default(), 100, &file, &[first, second]).unwrap().into();
            end += step;
            let (found, groups) = read(&file);
            assert_eq!(found.columns(), rows(0..end).columns());
            assert!(groups.iter().rev().skip(1).all(|rows| *rows == 100), "{groups:?}");
        }
    }

    #[test]
    fn what_is_no_parquet_file_is_refused() {
        let schema = rows(0..1).schema();
        assert!(grown(&schema, WriterProperties::default(), 100, &Bytes::from_static(b"{}"), &[rows(0..1)]).is_err());
    }
}

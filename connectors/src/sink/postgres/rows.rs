//! What a step does to the target: the newest row of each key, as texts.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Sign of a result that is taken back for good.
const DELETED: &str = "-D";

/// Rows of a step by what becomes of them.
#[derive(Debug, PartialEq)]
pub(super) struct Split {
    /// All columns.
    pub(super) written: Vec<RecordBatch>,
    /// The key's columns; of a key with a NULL also what is written: a unique index takes two of those for different.
    pub(super) deleted: Vec<RecordBatch>,
}

impl Split {
    /// - `rows`: in order; with a column `op` after `columns` where there is a `key`.
    ///
    /// # Errors
    /// [`ArrowError`] for other columns.
    pub(super) fn new(rows: &[RecordBatch], columns: &SchemaRef, key: &[usize]) -> Result<Self, ArrowError> {
        let Some(first) = rows.first() else { return Ok(Self { written: Vec::new(), deleted: Vec::new() }) };
        if key.is_empty() {
            return Ok(Self { written: rows.to_vec(), deleted: Vec::new() });
        }
        let all = concat_batches(first.schema_ref(), rows)?;
        let width = columns.fields().len();
        let signs = all.columns().get(width).and_then(|column| column.as_string_opt::<i32>());
        let signs = signs.ok_or_else(|| ArrowError::SchemaError("a changelog has a column op after its columns".to_owned()))?;
        let (mut written, mut deleted) = (Vec::new(), Vec::new());
        for row in newest(&all, key)? {
            let gone = signs.value(row as usize) == DELETED;
            if gone || key.iter().any(|place| all.column(*place).is_null(row as usize)) {
                deleted.push(row);
            }
            if !gone {
                written.push(row);
            }
        }
        let places: Vec<usize> = (0..width).collect();
        let taken = |rows: Vec<u32>, places: &[usize]| take_record_batch(&all.project(places)?, &UInt32Array::from(rows));
        Ok(Self { written: vec![taken(written, &places)?], deleted: vec![taken(deleted, key)?] })
    }
}

/// The last row of each key, ascending.
fn newest(rows: &RecordBatch, key: &[usize]) -> Result<Vec<u32>, ArrowError> {
    let columns: Vec<ArrayRef> = key.iter().map(|place| ArrayRef::clone(rows.column(*place))).collect();
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let keys = RowConverter::new(fields)?.convert_columns(&columns)?;
    let mut last: HashMap<OwnedRow, u32> = HashMap::with_capacity(rows.num_rows());
    for (row, key) in (0u32..).zip(keys.iter()) {
        last.insert(key.owned(), row);
    }
    let mut newest: Vec<u32> = last.into_values().collect();
    newest.sort_unstable();
    Ok(newest)
}

/// Each column's values as PostgreSQL reads them.
///
/// # Errors
/// [`ArrowError`] for a type that cannot be shown.
pub(super) fn texts(rows: &RecordBatch) -> Result<Vec<Vec<Option<String>>>, ArrowError> {
    rows.columns().iter().map(column_texts).collect()
}

fn column_texts(column: &ArrayRef) -> Result<Vec<Option<String>>, ArrowError> {
    // Microseconds are what both sides have.
    let column = match column.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            arrow::compute::cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?
        }
        _ => ArrayRef::clone(column),
    };
    let options = FormatOptions::new();
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
    // PostgreSQL knows no text with a NUL in it.
    let text = |row: usize| {
        let text = column.is_valid(row).then(|| formatter.value(row).try_to_string()).transpose()?;
        Ok(text.map(|text| if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }))
    };
    (0..column.len()).map(text).collect()
}

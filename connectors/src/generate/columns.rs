//! Columns of generated rows, each made in one go from the numbers of its rows.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringBuilder, TimestampMillisecondArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};

use crate::source::SourceError;

/// BIGINT; a value past its end becomes its end.
pub(super) fn integers(numbers: Range<u64>, value: impl Fn(u64) -> u64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(numbers.map(|number| signed(value(number)))))
}

/// TIMESTAMP(3), from milliseconds since 1970-01-01.
pub(super) fn times(numbers: Range<u64>, millis: impl Fn(u64) -> u64) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values(numbers.map(|number| signed(millis(number)))))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// STRING.
///
/// - `each`: usual bytes of a text.
/// - `write`: appends the ASCII text of a number to the empty buffer.
pub(super) fn texts(numbers: Range<u64>, each: usize, write: impl Fn(u64, &mut Vec<u8>)) -> ArrayRef {
    let rows = count(&numbers);
    let mut builder = StringBuilder::with_capacity(rows, rows.saturating_mul(each));
    let mut text = Vec::with_capacity(each);
    for number in numbers {
        text.clear();
        write(number, &mut text);
        builder.append_value(std::str::from_utf8(&text).unwrap_or_default());
    }
    Arc::new(builder.finish())
}

/// How many numbers there are.
pub(super) fn count(numbers: &Range<u64>) -> usize {
    usize::try_from(numbers.end.saturating_sub(numbers.start)).unwrap_or(0)
}

/// The column in its declared type.
///
/// # Errors
/// [`SourceError::Arrow`] if a value does not fit: a row must not lose one silently.
pub(super) fn conform(column: ArrayRef, declared: &DataType) -> Result<ArrayRef, SourceError> {
    if column.data_type() == declared {
        return Ok(column);
    }
    Ok(cast_with_options(&column, declared, &CastOptions { safe: false, ..CastOptions::default() })?)
}

/// Rows `numbers`, also if no column is asked for.
///
/// # Errors
/// [`SourceError::Arrow`] if the columns are not those of `schema`.
pub(super) fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, numbers: &Range<u64>) -> Result<RecordBatch, SourceError> {
    let options = RecordBatchOptions::new().with_row_count(Some(count(numbers)));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

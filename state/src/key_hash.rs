//! Key groups of whole columns, exactly as `weir_model::key_group` defines them for single values.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int64Type, TimeUnit, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt64Type,
};
use weir_model::KeyGroup;
use weir_model::key_group::CanonicalKey;

use crate::StateError;

/// Appends the key group of every row to `out`.
///
/// - `columns`: the key; none at all puts every row in one group. - `groups`: key groups of the job.
///
/// # Errors
/// [`StateError::KeyType`] for a type that has no canonical bytes.
pub fn key_groups(columns: &[ArrayRef], rows: usize, groups: u16, out: &mut Vec<u16>) -> Result<(), StateError> {
    let columns = columns.iter().map(normal).collect::<Result<Vec<_>, _>>()?;
    let mut key = CanonicalKey::default();
    out.reserve(rows);
    if let [Column::Integer(values)] = columns.as_slice()
        && values.null_count() == 0
    {
        for value in values.as_primitive::<Int64Type>().values() {
            key.clear();
            key.integer(*value);
            out.push(KeyGroup::of(key.bytes(), groups).0);
        }
        return Ok(());
    }
    for row in 0..rows {
        key.clear();
        for column in &columns {
            column.append(row, &mut key);
        }
        out.push(KeyGroup::of(key.bytes(), groups).0);
    }
    Ok(())
}

/// A column in the one form its canonical bytes are read from.
enum Column {
    Integer(ArrayRef),
    Unsigned(ArrayRef),
    Float(ArrayRef),
    Decimal(ArrayRef, i8),
    Text(ArrayRef),
    Bytes(ArrayRef),
    Boolean(ArrayRef),
    Instant(ArrayRef, i128),
    Date(ArrayRef),
    TimeOfDay(ArrayRef),
    Null,
}

fn normal(array: &ArrayRef) -> Result<Column, StateError> {
    let to = |data_type: &DataType| cast(array, data_type);
    Ok(match array.data_type() {
        DataType::Int64 => Column::Integer(array.clone()),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => {
            Column::Integer(to(&DataType::Int64)?)
        }
        DataType::UInt64 => Column::Unsigned(array.clone()),
        DataType::Float64 | DataType::Float32 => Column::Float(array.clone()),
        DataType::Decimal128(_, scale) => Column::Decimal(array.clone(), *scale),
        DataType::Utf8 => Column::Text(array.clone()),
        DataType::LargeUtf8 | DataType::Utf8View => Column::Text(to(&DataType::Utf8)?),
        DataType::Dictionary(_, values) if matches!(**values, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => {
            Column::Text(to(&DataType::Utf8)?)
        }
        DataType::Binary => Column::Bytes(array.clone()),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Column::Bytes(to(&DataType::Binary)?),
        DataType::Boolean => Column::Boolean(array.clone()),
        DataType::Timestamp(unit, _) => Column::Instant(array.clone(), nanos_per(*unit)),
        DataType::Date32 => Column::Date(array.clone()),
        DataType::Time32(_) | DataType::Time64(_) => Column::TimeOfDay(to(&DataType::Time64(TimeUnit::Nanosecond))?),
        DataType::Null => Column::Null,
        other => return Err(StateError::KeyType(other.clone())),
    })
}

const fn nanos_per(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

impl Column {
    fn array(&self) -> Option<&ArrayRef> {
        match self {
            Self::Integer(array)
            | Self::Unsigned(array)
            | Self::Float(array)
            | Self::Decimal(array, _)
            | Self::Text(array)
            | Self::Bytes(array)
            | Self::Boolean(array)
            | Self::Instant(array, _)
            | Self::Date(array)
            | Self::TimeOfDay(array) => Some(array),
            Self::Null => None,
        }
    }

    fn append(&self, row: usize, key: &mut CanonicalKey) {
        if self.array().is_none_or(|array| array.is_null(row)) {
            return key.null();
        }
        match self {
            Self::Integer(array) => key.integer(array.as_primitive::<Int64Type>().value(row)),
            Self::Unsigned(array) => key.unsigned(array.as_primitive::<UInt64Type>().value(row)),
            Self::Float(array) => key.float(match array.data_type() {
                DataType::Float32 => f64::from(array.as_primitive::<Float32Type>().value(row)),
                _ => array.as_primitive::<Float64Type>().value(row),
            }),
            Self::Decimal(array, scale) => key.decimal(array.as_primitive::<Decimal128Type>().value(row), *scale),
            Self::Text(array) => key.string(array.as_string::<i32>().value(row)),
            Self::Bytes(array) => key.binary(array.as_binary::<i32>().value(row)),
            Self::Boolean(array) => key.boolean(array.as_boolean().value(row)),
            Self::Instant(array, scale) => key.instant(i128::from(instant(array, row)) * scale),
            Self::Date(array) => key.date(array.as_primitive::<Date32Type>().value(row)),
            Self::TimeOfDay(array) => key.time_of_day(array.as_primitive::<Time64NanosecondType>().value(row)),
            Self::Null => key.null(),
        }
    }
}

fn instant(array: &ArrayRef, row: usize) -> i64 {
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => array.as_primitive::<TimestampSecondType>().value(row),
        DataType::Timestamp(TimeUnit::Millisecond, _) => array.as_primitive::<TimestampMillisecondType>().value(row),
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().value(row),
        _ => array.as_primitive::<TimestampNanosecondType>().value(row),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int32Array, Int64Array, LargeStringArray, StringArray, StringViewArray, TimestampMillisecondArray};

    use super::*;

    fn groups(columns: &[ArrayRef]) -> Vec<u16> {
        let mut out = Vec::new();
        key_groups(columns, columns[0].len(), 720, &mut out).unwrap();
        out
    }

    #[test]
    fn the_encoding_of_a_column_does_not_change_its_key_groups() {
        let text = [Some("a"), None, Some(""), Some("söng")];
        let utf8 = groups(&[Arc::new(StringArray::from_iter(text))]);
        assert_eq!(utf8, groups(&[Arc::new(LargeStringArray::from_iter(text))]));
        assert_eq!(utf8, groups(&[Arc::new(StringViewArray::from_iter(text))]));
        let wide = groups(&[Arc::new(Int64Array::from(vec![Some(-7), None, Some(9)]))]);
        assert_eq!(wide, groups(&[Arc::new(Int32Array::from(vec![Some(-7), None, Some(9)]))]));
        let millis = groups(&[Arc::new(TimestampMillisecondArray::from(vec![1_500]))]);
        let micros = groups(&[Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![1_500_000]))]);
        assert_eq!(millis, micros);
    }

    #[test]
    fn columns_are_hashed_as_the_scalar_definition_says() {
        let mut key = CanonicalKey::default();
        key.integer(42);
        key.string("x");
        key.float(0.0);
        let expected = KeyGroup::of(key.bytes(), 720).0;
        let columns: [ArrayRef; 3] =
            [Arc::new(Int64Array::from(vec![42])), Arc::new(StringArray::from(vec!["x"])), Arc::new(Float64Array::from(vec![-0.0]))];
        assert_eq!(groups(&columns), [expected]);
    }

    #[test]
    fn a_key_of_no_columns_is_one_group() {
        let mut out = Vec::new();
        key_groups(&[], 3, 720, &mut out).unwrap();
        assert!(out.len() == 3 && out.iter().all(|group| *group == out[0]));
    }
}

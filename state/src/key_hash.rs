//! Key groups of whole columns, exactly as `weir_model::key_group` defines them for single values.
//!
//! Why two paths: nearly all keys are one integer, one string or one instant without nulls, and hashing is on every event's way. Those
//! are hashed from a buffer on the stack or in place; all others go through [`CanonicalKey`], the definition itself.
//! Never: the engine's hash, or a hash that depends on a column's encoding (dictionary, view, width, unit).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int64Type, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt64Type,
};
use weir_model::KeyGroup;
use weir_model::key_group::CanonicalKey;

use crate::StateError;

/// Appends the key group of every row to `out`.
///
/// - `columns`: the key, each of `rows` rows; none at all puts every row in one group. - `groups`: key groups of the job.
/// - Cost: O(key bytes), no allocation per row.
///
/// # Errors
/// [`StateError::KeyType`] for a type that has no canonical bytes; [`StateError::Arrow`] if a string column exceeds 2 GiB.
pub fn key_groups(columns: &[ArrayRef], rows: usize, groups: u16, out: &mut Vec<u16>) -> Result<(), StateError> {
    let columns = columns.iter().map(normal).collect::<Result<Vec<_>, _>>()?;
    out.reserve(rows);
    match columns.as_slice() {
        [Column::Integer(values)] if values.null_count() == 0 => {
            integers(values.as_primitive::<Int64Type>().values(), groups, out)
        }
        [Column::Instant(values, scale)] if values.null_count() == 0 => instants(values, *scale, groups, out),
        [Column::Text(values)] if values.null_count() == 0 => texts(values, groups, out),
        several => rows_of(several, rows, groups, out),
    }
    Ok(())
}

fn rows_of(columns: &[Column], rows: usize, groups: u16, out: &mut Vec<u16>) {
    let mut key = CanonicalKey::default();
    for row in 0..rows {
        key.clear();
        for column in columns {
            column.append(row, &mut key);
        }
        out.push(KeyGroup::of(key.bytes(), groups).0);
    }
}

/// Tag 2 and the value, as [`CanonicalKey::integer`] writes them.
fn integers(values: &[i64], groups: u16, out: &mut Vec<u16>) {
    let mut key = [2u8; 9];
    out.extend(values.iter().map(|value| {
        key[1..].copy_from_slice(&value.to_be_bytes());
        KeyGroup::of(&key, groups).0
    }));
}

/// Tag 8 and the nanoseconds, as [`CanonicalKey::instant`] writes them.
fn instants(values: &ArrayRef, scale: i128, groups: u16, out: &mut Vec<u16>) {
    let mut key = [8u8; 17];
    out.extend(instant_values(values).iter().map(|value| {
        key[1..].copy_from_slice(&(i128::from(*value) * scale).to_be_bytes());
        KeyGroup::of(&key, groups).0
    }));
}

/// Tag 6, the length and the bytes, as [`CanonicalKey::string`] writes them; without asking each row whether it is null.
fn texts(values: &ArrayRef, groups: u16, out: &mut Vec<u16>) {
    let values = values.as_string::<i32>();
    let mut key = CanonicalKey::default();
    for row in 0..values.len() {
        key.clear();
        key.string(values.value(row));
        out.push(KeyGroup::of(key.bytes(), groups).0);
    }
}

/// A column in the one form its canonical bytes are read from.
#[derive(Debug)]
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
    let same = || Arc::clone(array);
    let to = |data_type: &DataType| cast(array, data_type);
    Ok(match array.data_type() {
        DataType::Int64 => Column::Integer(same()),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => {
            Column::Integer(to(&DataType::Int64)?)
        }
        DataType::UInt64 => Column::Unsigned(same()),
        DataType::Float64 | DataType::Float32 => Column::Float(same()),
        DataType::Decimal128(_, scale) => Column::Decimal(same(), *scale),
        DataType::Utf8 => Column::Text(same()),
        DataType::LargeUtf8 | DataType::Utf8View => Column::Text(to(&DataType::Utf8)?),
        DataType::Dictionary(_, values) => return normal(&to(values)?),
        DataType::Binary => Column::Bytes(same()),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Column::Bytes(to(&DataType::Binary)?),
        DataType::Boolean => Column::Boolean(same()),
        DataType::Timestamp(unit, _) => Column::Instant(same(), nanos_per(*unit)),
        DataType::Date32 => Column::Date(same()),
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
            Self::Instant(array, scale) => key.instant(i128::from(instant_values(array)[row]) * scale),
            Self::Date(array) => key.date(array.as_primitive::<Date32Type>().value(row)),
            Self::TimeOfDay(array) => key.time_of_day(array.as_primitive::<Time64NanosecondType>().value(row)),
            Self::Null => key.null(),
        }
    }
}

fn instant_values(array: &ArrayRef) -> &[i64] {
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => array.as_primitive::<TimestampSecondType>().values(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => array.as_primitive::<TimestampMillisecondType>().values(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().values(),
        _ => array.as_primitive::<TimestampNanosecondType>().values(),
    }
}

#[cfg(test)]
mod tests;

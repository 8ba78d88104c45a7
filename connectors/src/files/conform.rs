//! A file's columns in the declared types: by name, and only where no value can change.
//!
//! Arrow's cast makes NULL of what does not fit; a source must never do that. So a type is taken if every value of it has the same
//! meaning in the declared one, or (finer times) if each value present has; anything else is an error that names the column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StructArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, TimeUnit};

/// Whether a column of `found` can be read as `declared`; else what is wrong.
pub(crate) fn check(name: &str, found: &DataType, declared: &DataType) -> Result<(), String> {
    let mismatch = || Err(format!("column {name} is {found}, which cannot be read as the declared {declared} without loss"));
    match (found, declared) {
        (found, declared) if found == declared || widens(found, declared) => Ok(()),
        (DataType::Struct(found), DataType::Struct(declared)) => declared.iter().try_for_each(|field| {
            let path = format!("{name}.{}", field.name());
            match found.find(field.name()) {
                Some((_, inner)) => check(&path, inner.data_type(), field.data_type()),
                None => Err(format!("there is no column {path}; {name} has {}", names(found))),
            }
        }),
        (DataType::List(found) | DataType::LargeList(found), DataType::List(declared)) => {
            // Elements are cast as one: structs would go by place, and finer times would not be looked at.
            let (found, declared) = (found.data_type(), declared.data_type());
            let plain =
                found == declared || !found.is_nested() && !matches!(found, DataType::Timestamp(_, _)) && widens(found, declared);
            if plain { Ok(()) } else { mismatch() }
        }
        _ => mismatch(),
    }
}

/// Whether every value of `from` (or, for times, every whole value) is one of `to`.
fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Date32, Decimal128, Dictionary, Float16, Float32, Float64, LargeBinary, LargeUtf8, Timestamp, Utf8,
        Utf8View,
    };
    match (from, to) {
        (Dictionary(_, values), to) => values.as_ref() == to || widens(values, to),
        (Utf8 | LargeUtf8 | Utf8View, Utf8) | (Binary | LargeBinary | BinaryView, Binary) => true,
        (from, to) if from.is_integer() && to.is_integer() => integer_bits(from) <= integer_bits(to),
        (from, Float64) if from.is_integer() => integer_bits(from) <= 32,
        (Float16, Float32 | Float64) | (Float32, Float64) => true,
        (from, Decimal128(precision, scale)) if from.is_integer() => {
            let digits = match integer_bits(from) {
                8 => 3,
                16 => 5,
                32 => 10,
                _ => 20,
            };
            i16::from(*precision) - i16::from(*scale) >= digits
        }
        (Decimal128(from_digits, from_scale), Decimal128(to_digits, to_scale)) => {
            let whole = |digits: u8, scale: i8| i16::from(digits) - i16::from(scale);
            to_scale >= from_scale && whole(*to_digits, *to_scale) >= whole(*from_digits, *from_scale)
        }
        // Times are instants in UTC with a zone and without; finer ones are looked at value by value.
        (Timestamp(_, _) | Date32, Timestamp(_, _)) => true,
        _ => false,
    }
}

/// Bits of a signed integer that holds every value of the type.
fn integer_bits(data_type: &DataType) -> u8 {
    match data_type {
        DataType::Int8 => 8,
        DataType::Int16 | DataType::UInt8 => 16,
        DataType::Int32 | DataType::UInt16 => 32,
        DataType::Int64 | DataType::UInt32 => 64,
        _ => 65,
    }
}

/// `column` as the declared `field`; [`check`] has passed for its type.
pub(crate) fn conform(column: &ArrayRef, field: &Field) -> Result<ArrayRef, String> {
    let failed = |error: arrow::error::ArrowError| format!("column {}: {error}", field.name());
    match (column.data_type(), field.data_type()) {
        (found, declared) if found == declared => Ok(Arc::clone(column)),
        (DataType::Struct(_), DataType::Struct(declared)) => {
            rows(column.as_struct(), declared).map(|rows| Arc::new(rows) as ArrayRef)
        }
        (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) => {
            if per_second(*from) > per_second(*to) {
                check_whole(column, *from, *to, field)?;
            }
            cast_with_options(column, field.data_type(), &strict()).map_err(failed)
        }
        (_, declared) => cast_with_options(column, declared, &strict()).map_err(failed),
    }
}

fn strict() -> CastOptions<'static> {
    CastOptions { safe: false, ..CastOptions::default() }
}

fn rows(found: &StructArray, declared: &Fields) -> Result<StructArray, String> {
    let mut columns = Vec::with_capacity(declared.len());
    for field in declared {
        let column = found.column_by_name(field.name()).ok_or_else(|| format!("there is no column {}", field.name()))?;
        columns.push(conform(column, field)?);
    }
    StructArray::try_new_with_length(declared.clone(), columns, found.nulls().cloned(), found.len())
        .map_err(|error| error.to_string())
}

/// Refuses times with digits that the declared unit cannot hold.
fn check_whole(column: &ArrayRef, from: TimeUnit, to: TimeUnit, field: &Field) -> Result<(), String> {
    let values = cast_with_options(column, &DataType::Int64, &strict()).map_err(|error| error.to_string())?;
    let values: &Int64Array = values.as_primitive::<Int64Type>();
    let factor = per_second(from) / per_second(to);
    if values.iter().flatten().all(|value| value % factor == 0) {
        return Ok(());
    }
    let digits = per_second(from).ilog10();
    Err(format!("column {} has times finer than the declared {}: declare TIMESTAMP({digits})", field.name(), field.data_type()))
}

const fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Names of `fields`, for messages.
pub(crate) fn names(fields: &Fields) -> String {
    fields.iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, TimestampNanosecondArray};

    use super::*;

    #[test]
    fn wider_types_are_read_and_narrower_ones_refused_by_name() {
        use DataType::{Decimal128, Float32, Float64, Int32, Int64, UInt64, Utf8};
        for (from, to) in [(Int32, Int64), (Float32, Float64), (Int32, Decimal128(10, 0)), (Decimal128(5, 2), Decimal128(7, 3))] {
            assert_eq!(check("c", &from, &to), Ok(()), "{from} as {to}");
        }
        for (from, to) in [(Int64, Int32), (UInt64, Int64), (Int64, Float64), (Utf8, Int64), (Decimal128(7, 3), Decimal128(7, 4))]
        {
            assert!(check("price", &from, &to).unwrap_err().contains("column price"), "{from} as {to}");
        }
    }

    #[test]
    fn finer_times_are_read_when_nothing_is_cut_off() {
        let field = Field::new("t", DataType::Timestamp(TimeUnit::Millisecond, None), true);
        let times = |values: Vec<Option<i64>>| Arc::new(TimestampNanosecondArray::from(values).with_timezone("UTC")) as ArrayRef;
        let whole = conform(&times(vec![Some(-1_000_000), None, Some(5_000_000)]), &field).unwrap();
        assert_eq!(whole.len(), 3);
        let millis = whole.as_primitive::<arrow::datatypes::TimestampMillisecondType>();
        assert_eq!(millis.iter().collect::<Vec<_>>(), [Some(-1), None, Some(5)]);
        let refused = conform(&times(vec![Some(1_500_000)]), &field).unwrap_err();
        assert!(refused.contains("TIMESTAMP(9)"), "{refused}");
    }

    #[test]
    fn nested_fields_are_found_by_name() {
        let inner = |fields: Vec<Field>| DataType::Struct(Fields::from(fields));
        let found = inner(vec![Field::new("b", DataType::Int32, true), Field::new("a", DataType::Int32, true)]);
        let declared = inner(vec![Field::new("a", DataType::Int64, true)]);
        assert_eq!(check("r", &found, &declared), Ok(()));
        let DataType::Struct(fields) = &found else { panic!("a struct") };
        let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(vec![1])), Arc::new(Int32Array::from(vec![2]))];
        let column: ArrayRef = Arc::new(StructArray::new(fields.clone(), columns, None));
        let read = conform(&column, &Field::new("r", declared, true)).unwrap();
        assert_eq!(read.as_struct().column(0).as_primitive::<Int64Type>().value(0), 2);
        let missing = check("r", &found, &inner(vec![Field::new("c", DataType::Int64, true)])).unwrap_err();
        assert_eq!(missing, "there is no column r.c; r has b, a");
    }
}

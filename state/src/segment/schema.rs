//! Which columns a segment can hold, and a name for them that does not change with a release of the engine.

use std::fmt::Write;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use xxhash_rust::xxh3::xxh3_64;

use crate::StateError;

/// xxh3 of names, types and nullability of all columns, in order. The spelling of types is ours and frozen.
///
/// # Errors
/// [`StateError::Unstorable`] for a type that Parquet cannot hold.
pub fn fingerprint(schema: &Schema) -> Result<u64, StateError> {
    let mut text = String::new();
    for field in schema.fields() {
        let written = write_field(field, &mut text);
        written.map_err(|data_type| StateError::Unstorable { column: field.name().clone(), data_type })?;
    }
    Ok(xxh3_64(text.as_bytes()))
}

/// First column that a segment cannot hold, with the type that stands in the way (its own or a nested one); `None` if all can be.
#[must_use]
pub fn unstorable(schema: &Schema) -> Option<(String, DataType)> {
    let mut text = String::new();
    schema
        .fields()
        .iter()
        .find_map(|field| write_field(field, &mut text).err().map(|data_type| (field.name().clone(), data_type)))
}

/// Whether `found` has the names and types of `expected`, by position; nullability may differ.
///
/// # Errors
/// [`StateError::SchemaMismatch`] naming the first column that differs.
pub fn check_schema(object: &str, found: &SchemaRef, expected: &SchemaRef) -> Result<(), StateError> {
    let mismatch = |expected: String, found: String| StateError::SchemaMismatch { object: object.to_owned(), expected, found };
    if found.fields().len() != expected.fields().len() {
        return Err(mismatch(format!("{} columns", expected.fields().len()), format!("{} columns", found.fields().len())));
    }
    let differs =
        |(found, expected): &(&Field, &Field)| found.name() != expected.name() || found.data_type() != expected.data_type();
    let mut pairs = found.fields().iter().map(AsRef::as_ref).zip(expected.fields().iter().map(AsRef::as_ref));
    match pairs.find(differs) {
        None => Ok(()),
        Some((found, expected)) => Err(mismatch(column(expected), column(found))),
    }
}

fn column(field: &Field) -> String {
    format!("{} {}", field.name(), field.data_type())
}

fn write_field(field: &Field, out: &mut String) -> Result<(), DataType> {
    // Lengths keep names apart from what follows them.
    push(out, format_args!("{}:{}", field.name().len(), field.name()));
    out.push(if field.is_nullable() { '?' } else { '!' });
    write_type(field.data_type(), out)?;
    out.push(';');
    Ok(())
}

/// An allow-list: what is not named here is refused before a row of it is written.
fn write_type(data_type: &DataType, out: &mut String) -> Result<(), DataType> {
    match data_type {
        DataType::List(item) => write_nested("list", &[item], out)?,
        DataType::LargeList(item) => write_nested("large-list", &[item], out)?,
        DataType::FixedSizeList(item, size) => {
            push(out, format_args!("fixed-list({size})"));
            write_nested("", &[item], out)?;
        }
        DataType::Struct(fields) => write_nested("struct", &fields.iter().collect::<Vec<_>>(), out)?,
        DataType::Map(entries, _) => write_nested("map", &[entries], out)?,
        DataType::Dictionary(key, value) => {
            out.push_str("dictionary<");
            write_type(key, out)?;
            out.push(',');
            write_type(value, out)?;
            out.push('>');
        }
        DataType::FixedSizeBinary(size) => push(out, format_args!("fixed-binary({size})")),
        DataType::Decimal32(precision, scale) => push(out, format_args!("decimal32({precision},{scale})")),
        DataType::Decimal64(precision, scale) => push(out, format_args!("decimal64({precision},{scale})")),
        DataType::Decimal128(precision, scale) => push(out, format_args!("decimal128({precision},{scale})")),
        DataType::Decimal256(precision, scale) => push(out, format_args!("decimal256({precision},{scale})")),
        DataType::Timestamp(unit, zone) => {
            push(out, format_args!("timestamp({},{})", unit_name(*unit), zone.as_deref().unwrap_or("")))
        }
        DataType::Time32(unit) => push(out, format_args!("time32({})", unit_name(*unit))),
        DataType::Time64(unit) => push(out, format_args!("time64({})", unit_name(*unit))),
        DataType::Duration(unit) => push(out, format_args!("duration({})", unit_name(*unit))),
        simple => out.push_str(simple_name(simple).ok_or_else(|| simple.clone())?),
    }
    Ok(())
}

fn write_nested(name: &str, fields: &[&arrow::datatypes::FieldRef], out: &mut String) -> Result<(), DataType> {
    out.push_str(name);
    out.push('<');
    for field in fields {
        write_field(field, out)?;
    }
    out.push('>');
    Ok(())
}

/// Types without parameters; `None` for those that Parquet cannot hold or does not give back as they were.
const fn simple_name(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Null => "null",
        DataType::Boolean => "boolean",
        DataType::Int8 => "int8",
        DataType::Int16 => "int16",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::UInt8 => "uint8",
        DataType::UInt16 => "uint16",
        DataType::UInt32 => "uint32",
        DataType::UInt64 => "uint64",
        DataType::Float16 => "float16",
        DataType::Float32 => "float32",
        DataType::Float64 => "float64",
        DataType::Date32 => "date32",
        DataType::Date64 => "date64",
        DataType::Utf8 => "utf8",
        DataType::LargeUtf8 => "large-utf8",
        DataType::Utf8View => "utf8-view",
        DataType::Binary => "binary",
        DataType::LargeBinary => "large-binary",
        DataType::BinaryView => "binary-view",
        _ => return None,
    })
}

const fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

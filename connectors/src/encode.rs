//! Record batches as NDJSON, CSV or Parquet bytes: what file sinks and generated inputs hold.

mod grow;

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, NullableEncoder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::files::Format;
use grow::GroupRows;

/// Rows of the row groups in a Parquet file for others.
const GROUP_ROWS: GroupRows = GroupRows { min: 1 << 16, max: 1 << 18 };

/// Whether a file of `format` can hold rows of `schema`; else what to do.
///
/// # Errors
/// A message that names the column.
pub fn check(format: Format, schema: &SchemaRef) -> Result<(), String> {
    let nested = |field: &&Arc<Field>| field.data_type().is_nested();
    match (format, schema.fields().iter().find(nested)) {
        (Format::Csv, Some(field)) => {
            let (name, kind) = (field.name(), field.data_type());
            Err(format!(
                "column {name} is {kind}, which CSV cannot hold: write 'format' = 'json' or 'parquet', or project its fields"
            ))
        }
        (Format::Json | Format::Csv | Format::Parquet, _) => Ok(()),
    }
}

/// Encodes `batches` of `schema`. The bytes follow from the rows alone.
///
/// # Errors
/// [`ArrowError`] for a type the format cannot hold.
pub fn encode(format: Format, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    match format {
        Format::Json => json(batches),
        Format::Csv => csv(batches),
        Format::Parquet => parquet(schema, batches),
    }
}

fn json(batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    // Nulls are written: a column that is null throughout must still be a column to whoever reads the file.
    json_lines(batches, true)
}

/// Rows as JSON objects, one a line.
///
/// - `nulls`: whether a column without a value is written.
///
/// # Errors
/// [`ArrowError`] for a type that JSON cannot hold.
pub fn json_lines(batches: &[RecordBatch], nulls: bool) -> Result<Vec<u8>, ArrowError> {
    let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(nulls).with_encoder_factory(Arc::new(NonFinite));
    let mut writer = builder.build::<_, LineDelimited>(Vec::new());
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    Ok(writer.into_inner())
}

/// Writes NaN and infinities as text, as Flink does: JSON has no such numbers, and the writer would make them null.
#[derive(Debug)]
struct NonFinite;

impl EncoderFactory for NonFinite {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let texts: Vec<String> = match array.data_type() {
            DataType::Float64 if array.as_primitive::<Float64Type>().values().iter().any(|value| !value.is_finite()) => {
                array.as_primitive::<Float64Type>().values().iter().map(|value| format!("{value:?}")).collect()
            }
            DataType::Float32 if array.as_primitive::<Float32Type>().values().iter().any(|value| !value.is_finite()) => {
                array.as_primitive::<Float32Type>().values().iter().map(|value| format!("{value:?}")).collect()
            }
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(Box::new(Floats(texts)), array.nulls().cloned())))
    }
}

struct Floats(Vec<String>);

impl Encoder for Floats {
    fn encode(&mut self, index: usize, out: &mut Vec<u8>) {
        let text = match self.0[index].as_str() {
            "NaN" => "\"NaN\"",
            "inf" => "\"Infinity\"",
            "-inf" => "\"-Infinity\"",
            number => number,
        };
        out.extend_from_slice(text.as_bytes());
    }
}

fn csv(batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = arrow::csv::WriterBuilder::new().with_header(false).build(&mut bytes);
    for batch in batches {
        writer.write(batch)?;
    }
    drop(writer);
    Ok(bytes)
}

fn parquet_properties() -> WriterProperties {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    properties.set_max_row_group_row_count(Some(GROUP_ROWS.max)).build()
}

fn parquet(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut writer = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(schema), Some(parquet_properties()))?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?)
}

/// Writes the rows of `old`, a file of so many bytes that this module encoded, and `batches` after them, to `to`. Only the new rows, and
/// the last few of a Parquet file, are ever in memory.
///
/// # Errors
/// [`std::io::Error`] of the disk; [`ErrorKind::InvalidData`] if `old` is not of the format, or the format cannot hold a value.
pub fn append(
    format: Format,
    schema: &SchemaRef,
    old: Option<(&File, u64)>,
    batches: &[RecordBatch],
    to: &mut File,
) -> std::io::Result<()> {
    match (format, old) {
        (Format::Parquet, Some((old, _))) => {
            grow::grow(schema, parquet_properties(), GROUP_ROWS, old, batches, to).map_err(io_error)
        }
        (_, old) => {
            if let Some((mut old, bytes)) = old {
                old.rewind()?;
                if std::io::copy(&mut old.take(bytes), to)? != bytes {
                    return Err(std::io::Error::new(ErrorKind::InvalidData, "it has become shorter meanwhile"));
                }
            }
            to.write_all(&encode(format, schema, batches).map_err(arrow_io_error)?)
        }
    }
}

/// The disk's own error, if that is the cause; else one of [`ErrorKind::InvalidData`].
pub(crate) fn io_error(error: ParquetError) -> std::io::Error {
    let cause = match error {
        ParquetError::External(cause) => cause,
        other => return std::io::Error::new(ErrorKind::InvalidData, other),
    };
    match cause.downcast::<std::io::Error>() {
        Ok(error) => *error,
        Err(cause) => match cause.downcast::<ArrowError>() {
            Ok(error) => arrow_io_error(*error),
            Err(cause) => std::io::Error::new(ErrorKind::InvalidData, cause),
        },
    }
}

/// As [`io_error`].
pub(crate) fn arrow_io_error(error: ArrowError) -> std::io::Error {
    match error {
        ArrowError::IoError(_, error) => error,
        other => std::io::Error::new(ErrorKind::InvalidData, other),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array};

    use super::*;

    #[test]
    fn what_json_has_no_number_for_is_written_as_text() {
        let values = Float64Array::from(vec![Some(1.5), Some(f64::NAN), None, Some(f64::NEG_INFINITY)]);
        let batch = RecordBatch::try_from_iter([("v", Arc::new(values) as ArrayRef)]).unwrap();
        let text = encode(Format::Json, &batch.schema(), &[batch]).unwrap();
        let lines = "{\"v\":1.5}\n{\"v\":\"NaN\"}\n{\"v\":null}\n{\"v\":\"-Infinity\"}\n";
        assert_eq!(String::from_utf8(text).unwrap(), lines);
    }
}

//! Rows as text, one JSON object a line: read strictly where a person wrote them, written as file sinks write them.

use std::ops::Range;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Fields, SchemaRef};
use serde_json::Value;
use weir_connectors::encode;
use weir_connectors::files::Format;
use weir_connectors::files::decode::{self, TextOptions};
use weir_plan::nearest;

/// Rows that a person wrote: every column of `schema` and no other, in any order.
///
/// # Errors
/// A message that names the row and the column.
pub(super) fn read_strictly(schema: &SchemaRef, text: &str) -> Result<RecordBatch, String> {
    for (number, record) in (1..).zip(records(text)) {
        let at = |why: String| format!("row {number}: {why}");
        let value: Value = serde_json::from_str(&text[record]).map_err(|error| at(format!("not one JSON object: {error}")))?;
        let Value::Object(_) = value else { return Err(at("not a JSON object: write {\"column\": value, ..}".to_owned())) };
        check(schema.fields(), &value, "").map_err(at)?;
    }
    read(schema, text)
}

/// Rows of `text` in the columns of `schema`.
///
/// # Errors
/// A message that names the row.
pub(super) fn read(schema: &SchemaRef, text: &str) -> Result<RecordBatch, String> {
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let decoder = decode::decoder(Format::Json, schema, &all, &TextOptions::default());
    let mut decoder = decoder.map_err(|error| error.to_string())?;
    let mut batches = Vec::new();
    for (number, record) in (1..).zip(records(text)) {
        batches.push(decoder.decode(text.as_bytes(), &[record]).map_err(|why| format!("row {number}: {why}"))?);
    }
    concat_batches(schema, &batches).map_err(|error| error.to_string())
}

/// Each row as a line.
///
/// # Errors
/// A column that JSON cannot hold.
pub(super) fn lines(rows: &RecordBatch) -> anyhow::Result<Vec<String>> {
    let bytes = encode::encode(Format::Json, rows.schema_ref(), std::slice::from_ref(rows))?;
    Ok(String::from_utf8(bytes)?.lines().map(str::to_owned).collect())
}

/// Lines that are not blank.
fn records(text: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut found = Vec::new();
    for line in text.split_inclusive('\n') {
        let shown = line.trim_end();
        if !shown.is_empty() {
            found.push(start..start + shown.len());
        }
        start += line.len();
    }
    found
}

/// Columns, and fields of ROWs in them, by name.
fn check(fields: &Fields, value: &Value, within: &str) -> Result<(), String> {
    let Value::Object(written) = value else { return Ok(()) };
    let names = || fields.iter().map(|field| field.name().as_str());
    if let Some(unknown) = written.keys().find(|key| names().all(|name| name != *key)) {
        let hint = nearest(unknown, names()).map_or_else(
            || format!("there are {}", names().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean {near}?"),
        );
        return Err(format!("unknown column {within}{unknown}: {hint}"));
    }
    for field in fields {
        let name = field.name();
        let Some(value) = written.get(name) else {
            return Err(format!("column {within}{name} is missing: write null if it has no value"));
        };
        if let DataType::Struct(inner) = field.data_type() {
            check(inner, value, &format!("{within}{name}."))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::{Field, Schema, TimeUnit};

    use super::*;

    fn schema() -> SchemaRef {
        let place = DataType::Struct(vec![Field::new("zip", DataType::Int32, true)].into());
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        let columns = [("id", DataType::Int64), ("score", DataType::Float64), ("at", time), ("place", place)];
        Arc::new(Schema::new(columns.map(|(name, kind)| Field::new(name, kind, true)).to_vec()))
    }

    #[test]
    fn rows_are_written_in_one_way_however_they_were_read() {
        let text = "\n  {\"score\": 1, \"id\": 2, \"at\": \"2026-01-01 00:00:01.5\", \"place\": {\"zip\": 7}}\n\
                    {\"id\":3,\"score\":null,\"at\":\"2026-01-01T00:00:01\",\"place\":null}\n\n";
        let expected = [
            "{\"id\":2,\"score\":1.0,\"at\":\"2026-01-01T00:00:01.500\",\"place\":{\"zip\":7}}",
            "{\"id\":3,\"score\":null,\"at\":\"2026-01-01T00:00:01\",\"place\":null}",
        ];
        assert_eq!(lines(&read_strictly(&schema(), text).unwrap()).unwrap(), expected);
        assert_eq!(read_strictly(&schema(), " \n").unwrap().num_rows(), 0);
    }

    #[test]
    fn a_row_that_does_not_fit_is_named() {
        let rest = "\"score\": 1, \"at\": null";
        let refused = |row: &str| read_strictly(&schema(), &format!("\n{row}")).unwrap_err();
        assert_eq!(refused(&format!("{{\"idd\": 1, {rest}}}")), "row 1: unknown column idd: did you mean id?");
        let message = refused(&format!("{{\"id\": 1, {rest}}}"));
        assert_eq!(message, "row 1: column place is missing: write null if it has no value");
        let message = refused(&format!("{{\"id\": 1, {rest}, \"place\": {{\"zap\": 1}}}}"));
        assert_eq!(message, "row 1: unknown column place.zap: did you mean zip?");
        assert!(refused(&format!("{{\"id\": \"x\", {rest}, \"place\": null}}")).starts_with("row 1: "));
        assert!(refused("[1]").contains("not a JSON object"));
        assert!(refused("{\"id\": 1").contains("not one JSON object"));
    }
}

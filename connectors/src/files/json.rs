//! NDJSON records: plain ones straight into columns, all others by Arrow's decoder.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use serde::de::IgnoredAny;

use super::decode::{Quick, RowDecoder, TextOptions};
use super::flat_json::FlatJson;
use crate::source::SourceError;

/// Least number of rows a decoder is made for.
const ROWS_LEAST: usize = 1024;

/// Decodes NDJSON.
///
/// Unknown fields are skipped, missing ones are null, or make the record bad with `'json.fail-on-missing-field'`.
#[derive(Debug)]
pub(crate) struct JsonDecoder {
    quick: Quick<FlatJson>,
    decoder: Option<(Decoder, usize)>,
    projected: SchemaRef,
    missing: Missing,
}

/// What a missing field makes of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// The field is null.
    Null,
    /// The record is bad.
    Bad,
}

impl JsonDecoder {
    pub(crate) fn new(schema: &SchemaRef, projection: &[usize], text: &TextOptions) -> Result<Self, SourceError> {
        let projected = Arc::new(schema.project(projection)?);
        let missing = if text.fail_on_missing { Missing::Bad } else { Missing::Null };
        Ok(Self { quick: Quick::new(FlatJson::new(&projected)), decoder: None, projected, missing })
    }

    #[cfg(test)]
    pub(crate) fn thorough(schema: &SchemaRef, projection: &[usize], text: &TextOptions) -> Result<Self, SourceError> {
        Ok(Self { quick: Quick::new(None), ..Self::new(schema, projection, text)? })
    }

    fn run(&mut self, block: &[u8], records: &[Range<usize>]) -> Result<RecordBatch, ArrowError> {
        let rows = records.len();
        let (mut decoder, rows_max) = match self.decoder.take() {
            Some((decoder, rows_max)) if rows_max >= rows => (decoder, rows_max),
            _ => {
                let rows_max = rows.max(ROWS_LEAST);
                (ReaderBuilder::new(Arc::clone(&self.projected)).with_batch_size(rows_max).build_decoder()?, rows_max)
            }
        };
        for (number, record) in (1..).zip(records) {
            decoder.decode(&block[record.clone()])?;
            if decoder.has_partial_record() || decoder.len() != number {
                return Err(ArrowError::JsonError("the line is not one JSON object".to_owned()));
            }
        }
        let batch = decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&self.projected)));
        // Only a decoder that did not fail is used again: a failed one holds half a record.
        self.decoder = Some((decoder, rows_max));
        self.conform(&batch, rows)
    }

    fn conform(&self, batch: &RecordBatch, rows: usize) -> Result<RecordBatch, ArrowError> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.projected), batch.columns().to_vec(), &options)
    }
}

impl RowDecoder for JsonDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.projected
    }

    fn decode(&mut self, block: &[u8], records: &[Range<usize>]) -> Result<RecordBatch, String> {
        let result = match self.quick.attempt(|quick| quick.decode(block, records)) {
            Some(batch) => self.conform(&batch, records.len()),
            None => self.run(block, records),
        };
        let batch = result.map_err(|error| {
            let text = error.to_string();
            text.strip_prefix("Json error: ").unwrap_or(&text).to_owned()
        })?;
        match self.missing {
            Missing::Null => Ok(batch),
            Missing::Bad => self.complete(batch, block, records),
        }
    }
}

impl JsonDecoder {
    /// Refuses rows whose nulls nobody wrote. Only a record with a null is looked at again: the columns do not tell why it is one.
    fn complete(&self, batch: RecordBatch, block: &[u8], records: &[Range<usize>]) -> Result<RecordBatch, String> {
        for (row, record) in records.iter().enumerate() {
            let nulls = (0..batch.num_columns()).filter(|column| batch.column(*column).is_null(row));
            let names: Vec<&str> = nulls.map(|column| self.projected.field(column).name().as_str()).collect();
            if names.is_empty() {
                continue;
            }
            let written: BTreeMap<String, IgnoredAny> =
                serde_json::from_slice(&block[record.clone()]).map_err(|error| error.to_string())?;
            if let Some(missing) = names.iter().find(|name| !written.contains_key(**name)) {
                return Err(format!("field {missing} is missing ('json.fail-on-missing-field')"));
            }
        }
        Ok(batch)
    }
}

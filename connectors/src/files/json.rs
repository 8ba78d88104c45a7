//! NDJSON records: plain ones straight into columns, all others by Arrow's decoder.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;

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
    decoded: SchemaRef,
    projected: SchemaRef,
}

impl JsonDecoder {
    pub(crate) fn new(schema: &SchemaRef, projection: &[usize], text: &TextOptions) -> Result<Self, SourceError> {
        let projected = Arc::new(schema.project(projection)?);
        // A field that must be there is declared NOT NULL to the decoder, which then refuses the row.
        let strict = |field: &Field| field.clone().with_nullable(field.is_nullable() && !text.fail_on_missing);
        let decoded = Arc::new(Schema::new(projected.fields().iter().map(|field| strict(field)).collect::<Vec<_>>()));
        Ok(Self { quick: Quick::new(FlatJson::new(&decoded)), decoder: None, decoded, projected })
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
                (ReaderBuilder::new(Arc::clone(&self.decoded)).with_batch_size(rows_max).build_decoder()?, rows_max)
            }
        };
        for (number, record) in (1..).zip(records) {
            decoder.decode(&block[record.clone()])?;
            if decoder.has_partial_record() || decoder.len() != number {
                return Err(ArrowError::JsonError("the line is not one JSON object".to_owned()));
            }
        }
        let batch = decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&self.decoded)));
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
        result.map_err(|error| {
            let text = error.to_string();
            text.strip_prefix("Json error: ").unwrap_or(&text).to_owned()
        })
    }
}

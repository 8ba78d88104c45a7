//! CSV records: plain ones straight into columns, all others by Arrow's decoder.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Decoder;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use regex::Regex;

use super::decode::{Quick, RowDecoder, TextOptions};
use super::flat_csv::FlatCsv;
use crate::source::SourceError;

/// Decodes CSV: values by place. An empty value is null, or only `'csv.null-literal'` is where that is set.
#[derive(Debug)]
pub(crate) struct CsvDecoder {
    quick: Quick<FlatCsv>,
    declared: SchemaRef,
    projection: Vec<usize>,
    projected: SchemaRef,
    text: TextOptions,
    null: Option<Regex>,
}

impl CsvDecoder {
    pub(crate) fn new(schema: &SchemaRef, projection: &[usize], text: &TextOptions) -> Result<Self, SourceError> {
        let projected = Arc::new(schema.project(projection)?);
        let pattern = |literal: &String| Regex::new(&format!("^{}$", regex::escape(literal)));
        let null = text.null_literal.as_ref().map(pattern).transpose();
        Ok(Self {
            quick: Quick::new(FlatCsv::new(schema, projection, &projected, text)),
            declared: Arc::clone(schema),
            projection: projection.to_vec(),
            projected,
            text: text.clone(),
            null: null.map_err(|error| SourceError::format("csv", error.to_string()))?,
        })
    }

    #[cfg(test)]
    pub(crate) fn thorough(schema: &SchemaRef, projection: &[usize], text: &TextOptions) -> Result<Self, SourceError> {
        Ok(Self { quick: Quick::new(None), ..Self::new(schema, projection, text)? })
    }

    fn build(&self, rows: usize) -> Decoder {
        let builder = ReaderBuilder::new(Arc::clone(&self.declared))
            .with_delimiter(self.text.delimiter)
            .with_quote(self.text.quote)
            .with_batch_size(rows)
            .with_projection(self.projection.clone());
        match &self.null {
            Some(null) => builder.with_null_regex(null.clone()).build_decoder(),
            None => builder.build_decoder(),
        }
    }

    fn run(&mut self, block: &[u8], records: &[Range<usize>]) -> Result<RecordBatch, ArrowError> {
        // Room for one more row than expected, so that a record with two rows shows.
        let rows_max = records.len() + 1;
        let mut decoder = self.build(rows_max);
        for (number, record) in (1..).zip(records) {
            let line = with_line_end(block, record);
            let mut taken = decoder.decode(line)?;
            if !line.ends_with(b"\n") {
                // The last record of its file. A line end, not the end of input, closes it: an open quote must not pass for a value.
                taken = taken.min(line.len()) + decoder.decode(b"\n")? - 1;
            }
            if taken != line.len() || rows_max - decoder.capacity() != number {
                return Err(ArrowError::CsvError(
                    "the line is not one record: a quote is left open, or it has a carriage return".to_owned(),
                ));
            }
        }
        Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&self.projected))))
    }
}

/// A record with the line end after it.
fn with_line_end<'a>(block: &'a [u8], record: &Range<usize>) -> &'a [u8] {
    let mut end = record.end;
    end += usize::from(block.get(end) == Some(&b'\r'));
    end += usize::from(block.get(end) == Some(&b'\n'));
    &block[record.start..end]
}

impl RowDecoder for CsvDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.projected
    }

    fn decode(&mut self, block: &[u8], records: &[Range<usize>]) -> Result<RecordBatch, String> {
        if let Some(batch) = self.quick.attempt(|quick| quick.decode(block, records)) {
            return Ok(batch);
        }
        self.run(block, records).map_err(|error| {
            let text = error.to_string();
            let text = text.strip_prefix("Csv error: ").or_else(|| text.strip_prefix("Parser error: ")).unwrap_or(&text);
            // The decoder counts lines from where it began: that number means nothing to a person.
            text.replace(" at line 1", "").replace(" for line 1", "")
        })
    }
}

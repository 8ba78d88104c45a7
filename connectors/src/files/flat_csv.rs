//! CSV records without quotes, read straight into columns: only the wanted values are looked at.
//!
//! It declines a block with a quote, a stray carriage return, a record with too few or too many values, or a value in an unusual form;
//! Arrow's decoder then reads the whole block. What it takes, Arrow's decoder reads the same: a property test compares the two.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};

use super::columns::{Columns, Token};
use super::decode::TextOptions;

/// Reads plain records.
#[derive(Debug)]
pub(crate) struct FlatCsv {
    columns: Columns,
    /// By place in the record: the wanted column and how to read it.
    places: Vec<Option<(usize, Read)>>,
    delimiter: u8,
    quote: u8,
    null: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Read {
    Number,
    Bool,
    Text,
}

impl FlatCsv {
    /// Reads columns `projection` of `declared`; `None` if one has a type that only Arrow's decoder reads.
    pub(crate) fn new(declared: &SchemaRef, projection: &[usize], projected: &SchemaRef, text: &TextOptions) -> Option<Self> {
        let mut places = vec![None; declared.fields().len()];
        for (column, place) in projection.iter().enumerate() {
            places[*place] = Some((
                column,
                match projected.field(column).data_type() {
                    DataType::Boolean => Read::Bool,
                    DataType::Utf8 | DataType::Timestamp(_, _) => Read::Text,
                    _ => Read::Number,
                },
            ));
        }
        let null = text.null_literal.clone().unwrap_or_default().into_bytes();
        Some(Self { columns: Columns::new(projected, true)?, places, delimiter: text.delimiter, quote: text.quote, null })
    }

    /// Decodes `records` of `block`, or declines.
    pub(crate) fn decode(&mut self, block: &[u8], records: &[Range<usize>]) -> Option<RecordBatch> {
        let (first, last) = (records.first()?, records.last()?);
        let whole = &block[first.start..last.end];
        std::str::from_utf8(whole).ok()?;
        if memchr::memchr(self.quote, whole).is_some() {
            return None;
        }
        let returns = memchr::memchr(b'\r', whole).is_some();
        self.columns.clear(records.len());
        for record in records {
            let record = &block[record.clone()];
            if returns && memchr::memchr(b'\r', record).is_some() {
                return None;
            }
            self.record(record)?;
        }
        self.columns.finish()
    }

    fn record(&mut self, record: &[u8]) -> Option<()> {
        let mut start = 0;
        let last = self.places.len().checked_sub(1)?;
        for number in 0..=last {
            let end = match memchr::memchr(self.delimiter, &record[start..]) {
                Some(length) if number < last => start + length,
                None if number == last => record.len(),
                _ => return None,
            };
            if let Some((column, read)) = self.places[number] {
                let token = self.token(read, &record[start..end])?;
                self.columns.push(column, token)?;
            }
            start = end + 1;
        }
        self.columns.end_row()
    }

    #[inline]
    fn token<'a>(&self, read: Read, value: &'a [u8]) -> Option<Token<'a>> {
        if value == self.null.as_slice() {
            return Some(Token::Null);
        }
        Some(match read {
            Read::Number => Token::Number(value),
            Read::Text => Token::Text(value),
            Read::Bool if value == b"true" => Token::Bool(true),
            Read::Bool if value == b"false" => Token::Bool(false),
            Read::Bool => return None,
        })
    }
}

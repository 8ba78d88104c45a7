//! NDJSON records of plain values, read straight into columns: several times as fast as building a tape of every field.
//!
//! It takes one object per line with names and texts without escapes, and numbers, truth values and nulls in JSON's strict grammar. On
//! anything else (nested values that are not plain, escapes, a name twice, an unusual number or time) it declines the whole block,
//! and Arrow's decoder reads it. What it takes, Arrow's decoder reads the same: a property test compares the two.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::columns::{Columns, Token, number_length};

/// Fields of a record whose order is remembered.
const FIELDS_MAX: usize = 256;

/// Reads plain records.
#[derive(Debug)]
pub(crate) struct FlatJson {
    columns: Columns,
    names: Vec<String>,
    /// The fields of the first record, in order: later ones mostly have the same.
    fields: Vec<KnownField>,
}

#[derive(Debug)]
struct KnownField {
    /// Name with its quotes and the colon.
    prefix: Vec<u8>,
    column: Option<usize>,
}

impl FlatJson {
    /// Reads `schema`; `None` if a column has a type that only Arrow's decoder reads.
    pub(crate) fn new(schema: &SchemaRef) -> Option<Self> {
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        Some(Self { columns: Columns::new(schema, true)?, names, fields: Vec::new() })
    }

    /// Decodes `records` of `block`, or declines.
    pub(crate) fn decode(&mut self, block: &[u8], records: &[Range<usize>]) -> Option<RecordBatch> {
        let (first, last) = (records.first()?, records.last()?);
        std::str::from_utf8(&block[first.start..last.end]).ok()?;
        self.columns.clear(records.len());
        for record in records {
            self.record(skip_blanks(&block[record.clone()]))?;
        }
        self.columns.finish()
    }

    fn record(&mut self, line: &[u8]) -> Option<()> {
        let mut rest = skip_blanks(line.strip_prefix(b"{")?);
        let mut number = 0;
        if rest != b"}" {
            loop {
                let (column, value) = self.name(number, rest)?;
                rest = skip_blanks(self.value(column, skip_blanks(value))?);
                number += 1;
                match rest.first()? {
                    b',' => rest = skip_blanks(&rest[1..]),
                    b'}' if skip_blanks(&rest[1..]).is_empty() => break,
                    _ => return None,
                }
            }
        }
        self.columns.end_row()
    }

    /// The wanted column that the name at the start of `rest` is for, and what follows the colon.
    #[inline]
    fn name<'a>(&mut self, number: usize, rest: &'a [u8]) -> Option<(Option<usize>, &'a [u8])> {
        if let Some(known) = self.fields.get(number)
            && let Some(value) = rest.strip_prefix(known.prefix.as_slice())
        {
            return Some((known.column, value));
        }
        let (name, after) = text(rest)?;
        let value = skip_blanks(after).strip_prefix(b":")?;
        let column = self.names.iter().position(|wanted| wanted.as_bytes() == name);
        if number == self.fields.len() && number < FIELDS_MAX {
            self.fields.push(KnownField { prefix: rest[..rest.len() - value.len()].to_vec(), column });
        }
        Some((column, value))
    }

    /// Takes the value at the start of `rest`; returns what follows it.
    #[inline]
    fn value<'a>(&mut self, column: Option<usize>, rest: &'a [u8]) -> Option<&'a [u8]> {
        let (token, after) = match rest.first()? {
            b'"' => {
                let (text, after) = text(rest)?;
                (Token::Text(text), after)
            }
            b'-' | b'0'..=b'9' => {
                let length = number_length(rest)?;
                (Token::Number(&rest[..length]), &rest[length..])
            }
            b't' => (Token::Bool(true), rest.strip_prefix(b"true")?),
            b'f' => (Token::Bool(false), rest.strip_prefix(b"false")?),
            b'n' => (Token::Null, rest.strip_prefix(b"null")?),
            _ => return None,
        };
        if let Some(column) = column {
            self.columns.push(column, token)?;
        }
        Some(after)
    }
}

/// The text at the start of `rest`, without its quotes, and what follows; `None` if it has escapes or no end.
#[inline]
fn text(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let inside = rest.strip_prefix(b"\"")?;
    let end = memchr::memchr2(b'"', b'\\', inside)?;
    (inside[end] == b'"').then(|| (&inside[..end], &inside[end + 1..]))
}

/// `rest` from its first byte that is not blank.
#[inline]
fn skip_blanks(rest: &[u8]) -> &[u8] {
    match rest.first() {
        Some(b' ' | b'\t' | b'\r' | b'\n') => {
            let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
            &rest[blanks..]
        }
        _ => rest,
    }
}

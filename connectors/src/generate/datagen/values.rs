//! The values of a column, made column by column.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, TimestampMicrosecondArray,
};
use arrow::buffer::BooleanBuffer;

use super::draw::{Draw, Span, Timeline};
use crate::generate::columns::{count, texts};
use crate::source::SourceError;

const DAY_MICROS: i64 = 86_400_000_000;
const HEXADECIMAL: [u8; 16] = *b"0123456789abcdef";

/// How a row's number becomes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// True or false.
    Boolean,
    /// Whole numbers.
    Whole(Span),
    /// Numbers in units of 1/64.
    SixtyFourths(Span),
    /// Numbers in units of the last decimal place.
    Decimal {
        /// The units.
        span: Span,
        /// The type's digits.
        precision: u8,
        /// The type's decimal places.
        scale: i8,
    },
    /// One number after the other.
    Sequence {
        /// The first.
        start: i64,
        /// How many.
        rows: u64,
    },
    /// Texts of hexadecimal digits.
    Hexadecimal {
        /// Digits of each.
        length: u64,
    },
    /// Byte strings.
    Bytes {
        /// Bytes of each.
        length: u64,
    },
    /// Days of the rows' times.
    Day,
    /// Times up to the rows' times.
    Past {
        /// How far behind at most, microseconds.
        max_micros: u64,
    },
}

impl Values {
    /// Values of the rows `numbers`.
    ///
    /// # Errors
    /// [`SourceError::Arrow`] if a DECIMAL's precision is out of range.
    pub(super) fn array(&self, draw: &Draw, timeline: &Timeline, numbers: Range<u64>) -> Result<ArrayRef, SourceError> {
        Ok(match *self {
            Self::Boolean => booleans(draw, &numbers),
            Self::Whole(span) => Arc::new(Int64Array::from_iter_values(numbers.map(|row| span.draw(draw, row)))),
            Self::SixtyFourths(span) => {
                Arc::new(Float64Array::from_iter_values(numbers.map(|row| span.draw(draw, row) as f64 / 64.0)))
            }
            Self::Decimal { span, precision, scale } => {
                let units = Decimal128Array::from_iter_values(numbers.map(|row| i128::from(span.draw(draw, row))));
                Arc::new(units.with_precision_and_scale(precision, scale)?)
            }
            Self::Sequence { start, .. } => {
                Arc::new(Int64Array::from_iter_values(numbers.map(|row| start.wrapping_add_unsigned(row))))
            }
            Self::Hexadecimal { length } => {
                let each = usize::try_from(length).unwrap_or(0);
                texts(numbers, each, |row, text| hexadecimal(draw, row, length, text))
            }
            Self::Bytes { length } => bytes(draw, numbers, usize::try_from(length).unwrap_or(0)),
            Self::Day => Arc::new(Date32Array::from_iter_values(numbers.map(|row| day(timeline.micros(row))))),
            Self::Past { max_micros } => {
                let times = numbers.map(|row| past(draw, timeline, row, max_micros));
                Arc::new(TimestampMicrosecondArray::from_iter_values(times))
            }
        })
    }
}

fn booleans(draw: &Draw, numbers: &Range<u64>) -> ArrayRef {
    let heads = |row: usize| draw.bits(numbers.start + row as u64, 0) & 1 == 1;
    Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(count(numbers), heads), None))
}

/// Sixteen digits from each draw.
fn hexadecimal(draw: &Draw, row: u64, length: u64, text: &mut Vec<u8>) {
    for part in 0..length.div_ceil(16) {
        let mut bits = draw.bits(row, part);
        for _ in 0..(length - part * 16).min(16) {
            text.push(HEXADECIMAL[usize::try_from(bits & 15).unwrap_or(0)]);
            bits >>= 4;
        }
    }
}

/// Eight bytes from each draw.
fn bytes(draw: &Draw, numbers: Range<u64>, length: usize) -> ArrayRef {
    let rows = count(&numbers);
    let mut builder = BinaryBuilder::with_capacity(rows, rows.saturating_mul(length));
    let mut value = Vec::with_capacity(length + 8);
    for row in numbers {
        value.clear();
        for part in 0..length.div_ceil(8) {
            value.extend_from_slice(&draw.bits(row, part as u64).to_le_bytes());
        }
        builder.append_value(&value[..length]);
    }
    Arc::new(builder.finish())
}

fn day(micros: i64) -> i32 {
    i32::try_from(micros.div_euclid(DAY_MICROS)).unwrap_or(i32::MAX)
}

fn past(draw: &Draw, timeline: &Timeline, row: u64, max_micros: u64) -> i64 {
    let behind = draw.below(row, 0, max_micros.saturating_add(1));
    timeline.micros(row).saturating_sub_unsigned(behind)
}

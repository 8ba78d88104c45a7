//! Columns that are filled token by token, for decoders that know where a value begins and ends.
//!
//! Why: Arrow's text decoders copy every field of a record, wanted or not. These take the wanted tokens straight from the block.
//! Never: a value that Arrow's decoder would read differently. A token in any but its plainest form is refused with `None`, and the
//! caller gives the whole block to Arrow's decoder; so results never depend on which of the two ran.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, NullBufferBuilder,
    PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Field, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};

/// Digits that fit an `i64` whatever they are.
const DIGITS_MAX: usize = 18;

/// The wanted columns of a block.
#[derive(Debug)]
pub(crate) struct Columns {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
}

/// A value's token.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Token<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number's characters, not checked.
    Number(&'a [u8]),
    /// A text's characters, without quotes and escapes, valid UTF-8.
    Text(&'a [u8]),
}

impl Columns {
    /// Columns of `schema`; `None` if one has a type that only Arrow's decoder reads.
    pub(crate) fn new(schema: &SchemaRef, nulls: bool) -> Option<Self> {
        let columns = schema.fields().iter().map(|field| Column::new(field, nulls)).collect::<Option<_>>()?;
        Some(Self { schema: Arc::clone(schema), columns, rows: 0 })
    }

    /// Drops what was gathered and makes room for about `rows` rows.
    pub(crate) fn clear(&mut self, rows: usize) {
        self.rows = 0;
        self.columns.iter_mut().for_each(|column| column.clear(rows));
    }

    /// The value of column `index` in the current row; `None` if it must go to Arrow's decoder (a second value for a row must, too).
    #[inline]
    pub(crate) fn push(&mut self, index: usize, token: Token<'_>) -> Option<()> {
        let column = &mut self.columns[index];
        if column.rows != self.rows {
            return None;
        }
        column.push(token)
    }

    /// Ends a row: columns without a value are null.
    #[inline]
    pub(crate) fn end_row(&mut self) -> Option<()> {
        for column in &mut self.columns {
            if column.rows == self.rows {
                column.push_null()?;
            }
        }
        self.rows += 1;
        Some(())
    }

    /// The gathered rows.
    pub(crate) fn finish(&mut self) -> Option<RecordBatch> {
        let arrays = self.columns.iter_mut().map(Column::finish).collect::<Option<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options).ok()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int { least: i64, most: i64 },
    Float,
    Bool,
    Text,
    Time(TimeUnit),
}

#[derive(Debug)]
struct Column {
    kind: Kind,
    data_type: DataType,
    nullable: bool,
    rows: usize,
    valid: NullBufferBuilder,
    ints: Vec<i64>,
    floats: Vec<f64>,
    bools: BooleanBufferBuilder,
    text: Vec<u8>,
    ends: Vec<i32>,
}

impl Column {
    fn new(field: &Field, nulls: bool) -> Option<Self> {
        let kind = match field.data_type() {
            DataType::Int8 => Kind::Int { least: i8::MIN.into(), most: i8::MAX.into() },
            DataType::Int16 => Kind::Int { least: i16::MIN.into(), most: i16::MAX.into() },
            DataType::Int32 => Kind::Int { least: i32::MIN.into(), most: i32::MAX.into() },
            DataType::Int64 => Kind::Int { least: i64::MIN, most: i64::MAX },
            DataType::Float64 => Kind::Float,
            DataType::Boolean => Kind::Bool,
            DataType::Utf8 => Kind::Text,
            DataType::Timestamp(unit, zone) if zone.as_ref().is_none_or(|zone| zone.as_ref() == "+00:00") => Kind::Time(*unit),
            _ => return None,
        };
        Some(Self {
            kind,
            data_type: field.data_type().clone(),
            nullable: field.is_nullable() && nulls,
            rows: 0,
            valid: NullBufferBuilder::new(0),
            ints: Vec::new(),
            floats: Vec::new(),
            bools: BooleanBufferBuilder::new(0),
            text: Vec::new(),
            ends: vec![0],
        })
    }

    fn clear(&mut self, rows: usize) {
        self.rows = 0;
        self.valid = NullBufferBuilder::new(rows);
        self.ints.clear();
        self.floats.clear();
        self.bools.truncate(0);
        self.text.clear();
        self.ends.clear();
        self.ends.push(0);
        match self.kind {
            Kind::Int { .. } | Kind::Time(_) => self.ints.reserve(rows),
            Kind::Float => self.floats.reserve(rows),
            Kind::Bool => {}
            Kind::Text => self.ends.reserve(rows),
        }
    }

    #[inline]
    fn push(&mut self, token: Token<'_>) -> Option<()> {
        match (self.kind, token) {
            (_, Token::Null) => return self.push_null(),
            (Kind::Int { least, most }, Token::Number(digits)) => {
                self.ints.push(integer(digits).filter(|value| (least..=most).contains(value))?);
            }
            (Kind::Float, Token::Number(digits)) => self.floats.push(float(digits)?),
            (Kind::Bool, Token::Bool(value)) => self.bools.append(value),
            (Kind::Text, Token::Text(text)) => {
                self.text.extend_from_slice(text);
                self.ends.push(i32::try_from(self.text.len()).ok()?);
            }
            (Kind::Time(unit), Token::Text(text)) => self.ints.push(time(text, unit)?),
            _ => return None,
        }
        self.valid.append_non_null();
        self.rows += 1;
        Some(())
    }

    fn push_null(&mut self) -> Option<()> {
        if !self.nullable {
            return None;
        }
        match self.kind {
            Kind::Int { .. } | Kind::Time(_) => self.ints.push(0),
            Kind::Float => self.floats.push(0.0),
            Kind::Bool => self.bools.append(false),
            Kind::Text => self.ends.push(*self.ends.last()?),
        }
        self.valid.append_null();
        self.rows += 1;
        Some(())
    }

    fn finish(&mut self) -> Option<ArrayRef> {
        let nulls = self.valid.finish();
        Some(match self.kind {
            Kind::Int { .. } => integers(&self.data_type, std::mem::take(&mut self.ints), nulls)?,
            Kind::Float => Arc::new(Float64Array::new(std::mem::take(&mut self.floats).into(), nulls)),
            Kind::Bool => Arc::new(BooleanArray::new(self.bools.finish(), nulls)),
            Kind::Text => {
                let ends = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(&mut self.ends, vec![0])));
                Arc::new(StringArray::try_new(ends, Buffer::from_vec(std::mem::take(&mut self.text)), nulls).ok()?)
            }
            Kind::Time(unit) => times(unit, &self.data_type, std::mem::take(&mut self.ints), nulls),
        })
    }
}

fn integers(data_type: &DataType, values: Vec<i64>, nulls: Option<NullBuffer>) -> Option<ArrayRef> {
    macro_rules! narrow {
        ($array:ident, $native:ty) => {{
            let values = values.into_iter().map(<$native>::try_from).collect::<Result<Vec<_>, _>>().ok()?;
            Arc::new($array::new(values.into(), nulls)) as ArrayRef
        }};
    }
    Some(match data_type {
        DataType::Int8 => narrow!(Int8Array, i8),
        DataType::Int16 => narrow!(Int16Array, i16),
        DataType::Int32 => narrow!(Int32Array, i32),
        _ => Arc::new(Int64Array::new(values.into(), nulls)),
    })
}

fn times(unit: TimeUnit, data_type: &DataType, values: Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    macro_rules! array {
        ($unit:ty) => {
            Arc::new(PrimitiveArray::<$unit>::new(values.into(), nulls).with_data_type(data_type.clone()))
        };
    }
    match unit {
        TimeUnit::Second => array!(TimestampSecondType),
        TimeUnit::Millisecond => array!(TimestampMillisecondType),
        TimeUnit::Microsecond => array!(TimestampMicrosecondType),
        TimeUnit::Nanosecond => array!(TimestampNanosecondType),
    }
}

/// A plain integer: an optional minus and up to 18 digits without a leading zero.
#[inline]
pub(crate) fn integer(token: &[u8]) -> Option<i64> {
    let (negative, digits) = match token {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > DIGITS_MAX || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let mut value = 0i64;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

/// A number in JSON's grammar; rounding is correct, so it is the value that any correct parser gives.
#[inline]
fn float(token: &[u8]) -> Option<f64> {
    if number_length(token) != Some(token.len()) {
        return None;
    }
    // Up to 15 digits and up to 22 decimals, the quotient of two exact doubles is the correctly rounded value.
    if let Some(point) = token.iter().position(|byte| *byte == b'.')
        && token.len() <= 16
        && let (Some(whole), Some(decimals)) = (integer(&token[..point]), token.get(point + 1..))
        && let Some(fraction) = digits(decimals)
        && token[0] != b'-'
    {
        let scale = 10f64.powi(i32::try_from(decimals.len()).ok()?);
        let scaled = whole * 10i64.pow(u32::try_from(decimals.len()).ok()?) + fraction;
        return Some(scaled as f64 / scale);
    }
    std::str::from_utf8(token).ok()?.parse().ok()
}

/// Length of the JSON number at the start of `bytes`.
#[inline]
pub(crate) fn number_length(bytes: &[u8]) -> Option<usize> {
    let run = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let whole = run(at);
    if whole == 0 || (whole > 1 && bytes[at] == b'0') {
        return None;
    }
    at += whole;
    if bytes.get(at) == Some(&b'.') {
        let decimals = run(at + 1);
        at += 1 + decimals;
        if decimals == 0 {
            return None;
        }
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = run(at.min(bytes.len()));
        at += exponent;
        if exponent == 0 {
            return None;
        }
    }
    Some(at)
}

#[inline]
fn digits(bytes: &[u8]) -> Option<i64> {
    let mut value = 0i64;
    for &byte in bytes {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(value)
}

/// `YYYY-MM-DD{ |T}HH:MM:SS[.f{1,9}][Z]` in `unit` since 1970; finer digits are cut off towards the past.
#[inline]
pub(crate) fn time(text: &[u8], unit: TimeUnit) -> Option<i64> {
    let text = text.strip_suffix(b"Z").unwrap_or(text);
    if text.len() < 19
        || text[4] != b'-'
        || text[7] != b'-'
        || !matches!(text[10], b' ' | b'T')
        || text[13] != b':'
        || text[16] != b':'
    {
        return None;
    }
    let (year, month, day) = (digits(&text[..4])?, digits(&text[5..7])?, digits(&text[8..10])?);
    let (hour, minute, second) = (digits(&text[11..13])?, digits(&text[14..16])?, digits(&text[17..19])?);
    if year == 0 || hour > 23 || minute > 59 || second > 59 || day == 0 || day > days_in(year, month)? {
        return None;
    }
    let nanos = match &text[19..] {
        [] => 0,
        [b'.', fraction @ ..] if (1..=9).contains(&fraction.len()) => {
            digits(fraction)? * 10i64.pow(9 - u32::try_from(fraction.len()).ok()?)
        }
        _ => return None,
    };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(match unit {
        TimeUnit::Second => seconds,
        TimeUnit::Millisecond => seconds * 1_000 + nanos / 1_000_000,
        TimeUnit::Microsecond => seconds * 1_000_000 + nanos / 1_000,
        TimeUnit::Nanosecond => seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?,
    })
}

#[inline]
fn days_in(year: i64, month: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    Some(match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        1..=12 => 31,
        _ => return None,
    })
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar, counting years from March so that leap days come last.
#[inline]
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year;
    days - 719_468
}

#[cfg(test)]
mod tests {
    use arrow::compute::cast;
    use proptest::prelude::*;

    use super::*;

    /// What Arrow makes of the text, in milliseconds.
    fn by_arrow(text: &str) -> Option<i64> {
        let array: ArrayRef = Arc::new(StringArray::from(vec![text]));
        let cast = cast(&array, &DataType::Timestamp(TimeUnit::Millisecond, None)).ok()?;
        let cast = cast.as_any().downcast_ref::<PrimitiveArray<TimestampMillisecondType>>()?;
        cast.iter().next()?
    }

    #[test]
    fn odd_tokens_are_left_to_arrow() {
        for token in ["", "-", "01", "+1", "1.0", "1e3", "1234567890123456789", "1 ", "0x1"] {
            assert_eq!(integer(token.as_bytes()), None, "{token}");
        }
        for token in ["", "-", "1.", ".5", "01.5", "1e", "NaN", "1.5x", "+1.5"] {
            assert_eq!(float(token.as_bytes()), None, "{token}");
        }
        for token in [
            "2020-01-01",
            "2020-02-30 00:00:00",
            "2020-01-01 24:00:00",
            "2020-01-01 00:00:60",
            "2020-01-01 00:00:00+02:00",
            "0000-01-01 00:00:00",
        ] {
            assert_eq!(time(token.as_bytes(), TimeUnit::Millisecond), None, "{token}");
        }
    }

    proptest! {
        #[test]
        fn integers_are_what_std_reads(value in -999_999_999_999_999_999i64..=999_999_999_999_999_999) {
            prop_assert_eq!(integer(value.to_string().as_bytes()), Some(value));
        }

        #[test]
        fn floats_are_what_std_reads(whole in 0u64..10_000_000, decimals in "[0-9]{1,12}", sign in "-?", exponent in "(e[+-]?[0-9]{1,2})?") {
            let text = format!("{sign}{whole}.{decimals}{exponent}");
            let expected: f64 = text.parse().unwrap();
            prop_assert_eq!(float(text.as_bytes()).map(f64::to_bits), Some(expected.to_bits()), "{}", text);
        }

        #[test]
        fn times_are_what_arrow_reads(
            year in 1i64..=9999, month in 1u8..=13, day in 1u8..=31, hour in 0u8..=24, minute in 0u8..=60,
            second in 0u8..=60, fraction in "(\\.[0-9]{1,9})?", separator in "[ T]", zone in "Z?",
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}{separator}{hour:02}:{minute:02}:{second:02}{fraction}{zone}");
            if let Some(ours) = time(text.as_bytes(), TimeUnit::Millisecond) {
                // Arrow's cast goes by way of nanoseconds only for that unit, so every year is comparable.
                prop_assert_eq!(Some(ours), by_arrow(&text), "{}", text);
            }
        }
    }
}

//! A generated column: what its type and options make of a row's number.

use std::ops::Range;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::nullif;
use arrow::datatypes::DataType;

use super::draw::{Draw, Span, Timeline};
use super::fields::{FieldOptions, Kind, decimal, sixty_fourths, whole};
use super::values::Values;
use crate::generate::columns::count;
use crate::options::OptionsError;
use crate::source::SourceError;

/// Digits of a DECIMAL that are random.
const DIGITS_MAX: u32 = 18;
/// Part of a column's randomness that says whether a value is NULL; values take parts from 0 on.
const NULL_PART: u64 = u32::MAX as u64;

/// A column.
#[derive(Debug)]
pub(super) struct Column {
    name: String,
    draw: Draw,
    values: Values,
    null_rate: f64,
}

impl Column {
    /// - `place`: the column's place in the table.
    ///
    /// # Errors
    /// [`OptionsError`] naming the column: its type is not generated, or an option does not fit it.
    pub(super) fn new(options: FieldOptions<'_>, seed: u64, place: u32) -> Result<Self, OptionsError> {
        let values = match options.kind()? {
            Kind::Random => random(options)?,
            Kind::Sequence => sequence(options)?,
        };
        let name = options.field.name().clone();
        Ok(Self { name, draw: Draw::new(seed, place), values, null_rate: options.null_rate()? })
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// Rows after which the table ends.
    pub(super) const fn rows(&self) -> Option<u64> {
        match &self.values {
            Values::Sequence { rows, .. } => Some(*rows),
            _ => None,
        }
    }

    /// Values of the rows `numbers`, in a type that can be cast to the declared one.
    pub(super) fn array(&self, timeline: &Timeline, numbers: &Range<u64>) -> Result<ArrayRef, SourceError> {
        let values = self.values.array(&self.draw, timeline, numbers.clone())?;
        if self.null_rate == 0.0 {
            return Ok(values);
        }
        let null = |row: usize| self.draw.unit(numbers.start + row as u64, NULL_PART) < self.null_rate;
        let nulls = BooleanArray::new(BooleanBuffer::collect_bool(count(numbers), null), None);
        Ok(nullif(&values, &nulls)?)
    }
}

fn random(options: FieldOptions<'_>) -> Result<Values, OptionsError> {
    let declared = options.field.data_type();
    options.only(random_keys(declared), &format!("random values of {declared}"))?;
    Ok(match declared {
        DataType::Boolean => Values::Boolean,
        DataType::Float32 => Values::SixtyFourths(fractions(options, 1 << 24, 1_000)?),
        DataType::Float64 => Values::SixtyFourths(fractions(options, 1 << 52, 1_000_000)?),
        DataType::Decimal128(precision, scale) => decimals(options, *precision, *scale)?,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Values::Hexadecimal { length: options.length()? },
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Values::Bytes { length: options.length()? },
        DataType::Date32 => Values::Day,
        DataType::Timestamp(..) => Values::Past { max_micros: options.max_past_micros()? },
        other => {
            let (least, most) = integer_range(other).ok_or_else(|| refused(options))?;
            let range = least..=most;
            let wanted = format!("a whole number from {least} to {most}");
            Values::Whole(options.span(&range, &range, &wanted, |_, text| whole(text))?)
        }
    })
}

const fn random_keys(declared: &DataType) -> &'static [&'static str] {
    match declared {
        DataType::Boolean | DataType::Date32 => &["kind", "null-rate"],
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => &["kind", "null-rate", "length"],
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => &["kind", "null-rate", "length"],
        DataType::Timestamp(..) => &["kind", "null-rate", "max-past"],
        _ => &["kind", "null-rate", "min", "max"],
    }
}

/// - `units_max`: 64ths that the type holds exactly.
/// - `most`: the default upper end.
fn fractions(options: FieldOptions<'_>, units_max: i64, most: i64) -> Result<Span, OptionsError> {
    let wanted = format!("a number from -{0} to {0}", units_max / 64);
    options.span(&(-units_max..=units_max), &(0..=most * 64), &wanted, sixty_fourths)
}

fn decimals(options: FieldOptions<'_>, precision: u8, scale: i8) -> Result<Values, OptionsError> {
    let places = u32::try_from(scale).unwrap_or(0);
    let most = nines(u32::from(precision));
    let wanted = format!("a number of at most {} digits, {places} of them decimal places", DIGITS_MAX.min(precision.into()));
    let span = options.span(&(-most..=most), &(0..=most), &wanted, |_, text| decimal(text, places))?;
    Ok(Values::Decimal { span, precision, scale })
}

/// The largest number of so many digits, or of [`DIGITS_MAX`] if that is less.
fn nines(digits: u32) -> i64 {
    10i64.pow(digits.min(DIGITS_MAX)) - 1
}

fn sequence(options: FieldOptions<'_>) -> Result<Values, OptionsError> {
    let declared = options.field.data_type();
    let (least, most) = match declared {
        DataType::Float32 => (-(1 << 24), 1 << 24),
        DataType::Float64 => (-(1 << 53), 1 << 53),
        DataType::Decimal128(precision, scale) => {
            let most = nines(u32::from(*precision).saturating_sub(u32::try_from(*scale).unwrap_or(0)));
            (-most, most)
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => (i64::MIN, i64::MAX),
        other => integer_range(other).ok_or_else(|| {
            options.error(format!(
                "a sequence cannot be of {declared}: declare it as BIGINT, INT, SMALLINT, TINYINT, FLOAT, DOUBLE, DECIMAL or STRING"
            ))
        })?,
    };
    options.only(&["kind", "start", "end"], "a sequence")?;
    let ends = options.sequence(&(least..=most))?;
    Ok(Values::Sequence { start: *ends.start(), rows: ends.end().abs_diff(*ends.start()).saturating_add(1) })
}

fn integer_range(declared: &DataType) -> Option<(i64, i64)> {
    match declared {
        DataType::Int8 => Some((i8::MIN.into(), i8::MAX.into())),
        DataType::Int16 => Some((i16::MIN.into(), i16::MAX.into())),
        DataType::Int32 => Some((i32::MIN.into(), i32::MAX.into())),
        DataType::Int64 => Some((i64::MIN, i64::MAX)),
        _ => None,
    }
}

fn refused(options: FieldOptions<'_>) -> OptionsError {
    options.error(format!(
        "values of {} are not generated: declare it as BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL, STRING, \
         BYTES, DATE, TIMESTAMP or TIMESTAMP_LTZ, or compute it from such columns",
        options.field.data_type()
    ))
}

//! `'fields.X.*'` options of one column, typed.

use std::ops::RangeInclusive;

use arrow::datatypes::Field;

use super::draw::Span;
use crate::options::{OptionsError, TableOptions};

/// All options of a column.
pub(super) const KEYS: [&str; 8] = ["kind", "min", "max", "length", "start", "end", "null-rate", "max-past"];
/// Longest STRING or BYTES: a batch of them stays below what Arrow's offsets can count.
const LENGTH_MAX: u64 = 16_384;
const LENGTH: u64 = 100;

/// The option's full name.
pub(super) fn key(column: &str, key: &str) -> String {
    format!("fields.{column}.{key}")
}

/// How a column's values are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Independent of each other.
    Random,
    /// One after the other.
    Sequence,
}

/// The options of one column.
#[derive(Debug, Clone, Copy)]
pub(super) struct FieldOptions<'a> {
    pub(super) options: TableOptions<'a>,
    pub(super) field: &'a Field,
}

impl<'a> FieldOptions<'a> {
    fn key(&self, name: &str) -> String {
        key(self.field.name(), name)
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.options.get(&self.key(name))
    }

    /// An error about this column.
    pub(super) fn error(&self, message: impl std::fmt::Display) -> OptionsError {
        self.options.error(format!("column {}: {message}", self.field.name()))
    }

    fn wrong(&self, name: &str, text: &str, wanted: &str) -> OptionsError {
        self.options.error(format!("option '{}' = '{text}' is not {wanted}", self.key(name)))
    }

    /// `'kind'`.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option.
    pub(super) fn kind(&self) -> Result<Kind, OptionsError> {
        self.options.choice(&self.key("kind"), Kind::Random, &[("random", Kind::Random), ("sequence", Kind::Sequence)])
    }

    /// Refuses options that mean nothing for `what`.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option and those that do.
    pub(super) fn only(&self, known: &[&str], what: &str) -> Result<(), OptionsError> {
        let Some(stray) = KEYS.into_iter().find(|name| self.get(name).is_some() && !known.contains(name)) else {
            return Ok(());
        };
        let known: Vec<String> = known.iter().map(|name| format!("'{}'", self.key(name))).collect();
        Err(self.error(format!("option '{}' means nothing for {what}: write {}", self.key(stray), known.join(", "))))
    }

    /// `'min'` and `'max'`, in units.
    ///
    /// - `range`: units that are allowed.
    /// - `default`: ends that are not given.
    /// - `wanted`: what an end is, for people.
    /// - `parse`: units of an end's text, by the option's name.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option and `wanted`.
    pub(super) fn span(
        &self,
        range: &RangeInclusive<i64>,
        default: &RangeInclusive<i64>,
        wanted: &str,
        parse: impl Fn(&str, &str) -> Option<i64>,
    ) -> Result<Span, OptionsError> {
        let end = |name: &str, default: i64| match self.get(name) {
            None => Ok(default),
            Some(text) => parse(name, text).filter(|units| range.contains(units)).ok_or_else(|| self.wrong(name, text, wanted)),
        };
        let (least, most) = (end("min", *default.start())?, end("max", *default.end())?);
        if least > most {
            return Err(self.error(format!("'{}' is above '{}': write both", self.key("min"), self.key("max"))));
        }
        Ok(Span::new(least, most))
    }

    /// `'start'` and `'end'`, which a sequence needs.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option.
    pub(super) fn sequence(&self, range: &RangeInclusive<i64>) -> Result<RangeInclusive<i64>, OptionsError> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let end = |name: &str| {
            let text = self.get(name).ok_or_else(|| self.error(format!("a sequence needs '{}'", self.key(name))))?;
            whole(text).filter(|number| range.contains(number)).ok_or_else(|| self.wrong(name, text, &wanted))
        };
        let (start, end) = (end("start")?, end("end")?);
        if start > end {
            return Err(self.error(format!("'{}' is above '{}'", self.key("start"), self.key("end"))));
        }
        Ok(start..=end)
    }

    /// `'length'`.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option.
    pub(super) fn length(&self) -> Result<u64, OptionsError> {
        let Some(text) = self.get("length") else { return Ok(LENGTH) };
        let length = whole(text).and_then(|length| u64::try_from(length).ok()).filter(|length| *length <= LENGTH_MAX);
        length.ok_or_else(|| self.wrong("length", text, &format!("a length from 0 to {LENGTH_MAX}")))
    }

    /// `'max-past'` in microseconds.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option.
    pub(super) fn max_past_micros(&self) -> Result<u64, OptionsError> {
        let past = self.options.duration(&self.key("max-past"))?.unwrap_or_default();
        Ok(u64::try_from(past.as_micros()).unwrap_or(u64::MAX))
    }

    /// `'null-rate'`, from 0 to 1.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option.
    pub(super) fn null_rate(&self) -> Result<f64, OptionsError> {
        let Some(text) = self.get("null-rate") else { return Ok(0.0) };
        let rate = text.parse::<f64>().ok().filter(|rate| (0.0..=1.0).contains(rate));
        let rate = rate.ok_or_else(|| self.wrong("null-rate", text, "a share from 0 to 1"))?;
        if rate > 0.0 && !self.field.is_nullable() {
            return Err(self.error(format!("it is NOT NULL: leave '{}' out", self.key("null-rate"))));
        }
        Ok(rate)
    }
}

/// A whole number, with `_` between digits or not.
pub(super) fn whole(text: &str) -> Option<i64> {
    text.replace('_', "").parse().ok()
}

/// Units of 1/64, of a lower end rounded up and of an upper one rounded down.
pub(super) fn sixty_fourths(name: &str, text: &str) -> Option<i64> {
    let units = text.parse::<f64>().ok().filter(|number| number.is_finite())? * 64.0;
    let rounded = if name == "min" { units.ceil() } else { units.floor() };
    #[expect(clippy::cast_possible_truncation, reason = "what does not fit becomes the largest, which the caller refuses")]
    let units = rounded as i64;
    Some(units)
}

/// Units of the last of `scale` decimal places; `None` if `text` has more places or does not fit.
pub(super) fn decimal(text: &str, scale: u32) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let places = u32::try_from(fraction.len()).ok()?;
    let number = format!("{whole}{fraction}");
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let units = 10i64.checked_pow(scale.checked_sub(places)?)?;
    number.parse::<i64>().ok()?.checked_mul(units)?.checked_mul(sign)
}

//! Whether this machine's clock agrees with a store's, as far as the `Date` of an answer tells (W3).
//!
//! ```text
//! this clock    asked ------------------------------- answered
//! store's clock          date <= it answered < date + 1 s
//! ```
//! A `Date` has whole seconds and the answer took its time, so only a least difference is known. A clock is refused for what is
//! certain: one that is up to a second more off, and the round trip, may pass.

use std::fmt;
use std::time::Duration;

/// What a `Date` leaves open, microseconds.
const RESOLUTION_MICROS: i64 = 1_000_000;
/// A clock that is certainly further off is refused, microseconds.
const SKEW_MICROS_MAX: i64 = 1_000_000;

/// What a store said of the time. Microseconds UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Before the request was sent, by this machine's clock.
    pub asked_micros: i64,
    /// After the answer had come, by this machine's clock.
    pub answered_micros: i64,
    /// The answer's `Date`, by the store's clock.
    pub date_micros: i64,
}

/// How this machine's clock stands to the store's.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    /// As far as is known.
    Agrees,
    /// At least so much ahead.
    Ahead(Duration),
    /// At least so much behind.
    Behind(Duration),
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (by, side) = match self {
            Self::Agrees => return f.write_str("this machine's clock agrees with the store's"),
            Self::Ahead(by) => (by, "ahead of"),
            Self::Behind(by) => (by, "behind"),
        };
        let seconds = by.as_secs_f64();
        write!(f, "this machine's clock is {seconds:.1} s {side} the store's, or more: set it (chrony or NTP), then run again")
    }
}

/// Judges a clock by one answer.
pub fn decide_skew(stamp: &Stamp) -> Skew {
    let ahead = stamp.asked_micros.saturating_sub(stamp.date_micros.saturating_add(RESOLUTION_MICROS));
    let behind = stamp.date_micros.saturating_sub(stamp.answered_micros);
    let duration = |micros: i64| Duration::from_micros(micros.unsigned_abs());
    if ahead > SKEW_MICROS_MAX {
        Skew::Ahead(duration(ahead))
    } else if behind > SKEW_MICROS_MAX {
        Skew::Behind(duration(behind))
    } else {
        Skew::Agrees
    }
}

/// Microseconds of a `Date` header, `Sun, 06 Nov 1994 08:49:37 GMT` (the one form that RFC 9110 lets servers send); `None` if it is
/// another text.
#[must_use]
pub fn parse_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.trim().strip_suffix(" GMT")?.split_once(", ")?.1.split([' ', ':']);
    let mut number = |max: i64| parts.next()?.parse::<i64>().ok().filter(|number| (0..=max).contains(number));
    let day = number(31)?;
    let month = parts.next()?;
    let month = MONTHS.iter().zip(1_i64..).find(|(name, _)| **name == month)?.1;
    let mut number = |max: i64| parts.next()?.parse::<i64>().ok().filter(|number| (0..=max).contains(number));
    let (year, hour, minute, second) = (number(9_999)?, number(23)?, number(59)?, number(60)?);
    Some((days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000_000)
}

/// Days from 1970-01-01 to a date (Hinnant's civil calendar: years begin in March, so that a leap day is the last).
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of the second 100, asked for at `asked` and heard at `answered`.
    fn skew(asked: i64, answered: i64) -> Skew {
        decide_skew(&Stamp { asked_micros: asked, answered_micros: answered, date_micros: 100_000_000 })
    }

    #[test]
    fn a_date_is_read_as_the_standard_writes_it() {
        assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(parse_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777_000_000));
        assert_eq!(parse_date("Tue, 29 Feb 2028 23:59:59 GMT"), Some(1_835_481_599_000_000));
        for text in ["", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37", "now"] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    #[test]
    fn a_clock_is_refused_only_for_what_is_certain() {
        assert_eq!(skew(100_500_000, 100_600_000), Skew::Agrees);
        assert_eq!(skew(101_900_000, 101_950_000), Skew::Agrees, "the store may have answered at 100.999");
        assert_eq!(skew(99_100_000, 99_200_000), Skew::Agrees);
        assert_eq!(skew(90_000_000, 99_500_000), Skew::Agrees, "a slow answer proves little");
        assert_eq!(skew(103_500_000, 103_600_000), Skew::Ahead(Duration::from_millis(2_500)));
        assert_eq!(skew(97_000_000, 97_500_000), Skew::Behind(Duration::from_millis(2_500)));
    }

    #[test]
    fn a_refusal_says_how_much_and_what_to_do() {
        let said = Skew::Ahead(Duration::from_millis(2_500)).to_string();
        assert!(said.contains("2.5 s ahead") && said.contains("NTP"), "{said}");
    }
}

//! Event time and the clock seam.
//!
//! Event times are `i64` microseconds since 1970-01-01 UTC (W3). A watermark is such an instant.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

/// No row with an earlier event time is expected. Never moves back (WM-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Watermark(pub i64);

impl Watermark {
    /// Nothing is known yet.
    pub const NONE: Self = Self(i64::MIN);
    /// The stream itself is closed (W2).
    pub const INFINITY: Self = Self(i64::MAX);

    /// Whether every row before `end_micros` has been seen, so that a window ending there may fire.
    #[must_use]
    pub const fn passed(self, end_micros: i64) -> bool {
        end_micros <= self.0
    }

    /// Least watermark of the active inputs; `None` if there is no active input.
    pub fn least(inputs: impl IntoIterator<Item = Self>) -> Option<Self> {
        inputs.into_iter().min()
    }
}

impl Default for Watermark {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NONE => f.write_str("none"),
            Self::INFINITY => f.write_str("end"),
            Self(micros) => write!(f, "{micros}us"),
        }
    }
}

/// Future returned by [`Clock::sleep`].
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Seam: the only source of wall-clock time. Decisions that looked at it are recorded in the recipe (R1).
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Microseconds since 1970-01-01 UTC.
    fn now_micros(&self) -> i64;

    /// Microseconds on a clock that never jumps; only differences mean something.
    fn monotonic_micros(&self) -> i64;

    /// Completes after `duration` on this clock.
    fn sleep(&self, duration: std::time::Duration) -> Sleep;
}

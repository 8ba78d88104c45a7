//! One line on a terminal that is written over, for work that takes a while.

use std::io::Write as _;
use std::time::Duration;

/// The line.
pub(super) struct Ticker {
    on: bool,
    shown_at: Duration,
}

impl Ticker {
    const EVERY: Duration = Duration::from_millis(200);

    /// - `on`: whether anybody sees it.
    pub(super) const fn new(on: bool) -> Self {
        Self { on, shown_at: Duration::ZERO }
    }

    /// Shows `text`, unless something was shown a moment ago.
    ///
    /// - `elapsed`: since the work began.
    pub(super) fn show(&mut self, elapsed: Duration, text: impl FnOnce() -> String) {
        if !self.on || elapsed < self.shown_at + Self::EVERY {
            return;
        }
        self.shown_at = elapsed;
        drop(write!(std::io::stderr(), "\r\x1b[2K{}", text()));
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        if self.on {
            drop(write!(std::io::stderr(), "\r\x1b[2K"));
        }
    }
}

//! What all kinds of events share: seed, time, prices and who is active.

use crate::generate::random::{below, bits};

/// First id of persons, and of auctions.
pub(super) const FIRST_ID: u64 = 1_000;
/// Every hundredth person is a hot seller and the next one a hot bidder; every hundredth auction is hot.
pub(super) const HOT_EVERY: u64 = 100;
/// Auctions that are open at once.
pub(super) const OPEN_AUCTIONS: u64 = 100;
/// Newest persons that bid and sell.
const ACTIVE_PERSONS: u64 = 1_000;

/// 2015-07-15 00:00:00 UTC, the reference generator's base time.
pub(super) const BASE_TIME_MILLIS: u64 = 1_436_918_400_000;
/// 10,000 events per second of event time.
pub(super) const DELAY_MICROS: u64 = 100;

/// An auction house.
#[derive(Debug, Clone, Copy)]
pub(super) struct House {
    pub(super) seed: u64,
    /// Event time of event 0, milliseconds since 1970-01-01.
    pub(super) base_millis: u64,
    /// Event time between events, microseconds.
    pub(super) delay_micros: u64,
}

impl House {
    /// The reference generator's times.
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed, base_millis: BASE_TIME_MILLIS, delay_micros: DELAY_MICROS }
    }

    /// Event time of an event, milliseconds since 1970-01-01.
    pub(super) const fn millis(&self, event: u64) -> u64 {
        self.base_millis.saturating_add(event.saturating_mul(self.delay_micros) / 1_000)
    }

    /// 10 to the power of a number from 0 to 6, times 100, as the reference generator draws prices.
    pub(super) fn price(&self, row: u64, field: u64) -> u64 {
        let draw = bits(self.seed, row, field);
        let unit = (draw >> 11) as f64 / (1u64 << 53) as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 100 and 100,000,000")]
        let price = (10f64.powf(unit * 6.0) * 100.0).round() as u64;
        price
    }

    /// Number of one of the active persons, `newest` being the last one.
    pub(super) const fn active_person(&self, row: u64, field: u64, newest: u64) -> u64 {
        let active = if newest < ACTIVE_PERSONS { newest } else { ACTIVE_PERSONS };
        newest - active + below(self.seed, row, field, active + 1)
    }
}

//! Nexmark bids: the auction benchmark's main stream, in its published proportions.
//!
//! Of 50 consecutive events one is a person, three are auctions and 46 are bids. Half of all bids go to the hot auction of their
//! hundred, three quarters come from the hot bidder. Row `n` is bid number `n`; its event number, ids and time follow from it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, RecordBatch, RecordBatchOptions, StringBuilder, TimestampMillisecondBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use weir_model::Clock;

use super::random::{below, bits};
use super::reader::{Generated, Generator};
use crate::options::{OptionsError, TableOptions};
use crate::source::SourceError;

const OPTIONS: [&str; 8] =
    ["connector", "nexmark.table", "events.num", "rows-per-second", "base-time", "inter-event-delay-us", "seed", "start-time"];

const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
const BIDS: u64 = 46;
const EVENTS: u64 = PERSONS + AUCTIONS + BIDS;
/// Auctions that are open at once, and persons that bid.
const OPEN_AUCTIONS: u64 = 100;
const ACTIVE_PERSONS: u64 = 1_000;
const FIRST_ID: u64 = 1_000;
const HOT_AUCTION_EVERY: u64 = 100;
const HOT_BIDDER_EVERY: u64 = 100;
/// 2015-07-15 00:00:00 UTC, the reference generator's base time.
const BASE_TIME_MILLIS: u64 = 1_436_918_400_000;
const CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

/// The source of `'connector' = 'nexmark', 'nexmark.table' = 'bid'`.
pub type BidSource = Generated<Bids>;

/// Makes bids by their numbers.
#[derive(Debug)]
pub struct Bids {
    seed: u64,
    base_millis: u64,
    /// Event time between events, microseconds.
    delay_micros: u64,
}

impl BidSource {
    /// A source with the declared columns `schema`.
    ///
    /// # Errors
    /// [`OptionsError`] naming an option or column.
    pub fn new(options: TableOptions<'_>, schema: SchemaRef, clock: Arc<dyn Clock>) -> Result<Self, OptionsError> {
        options.only(&OPTIONS)?;
        if options.get("nexmark.table").unwrap_or("bid") != "bid" {
            return Err(options.error("'nexmark.table' must be 'bid': persons and auctions are not generated yet"));
        }
        let known = ["auction", "bidder", "price", "channel", "url", "dateTime", "extra"];
        if let Some(unknown) = schema.fields().iter().find(|field| !known.contains(&field.name().as_str())) {
            return Err(options.error(format!("column {} is not one of a bid's: {}", unknown.name(), known.join(", "))));
        }
        let events = options.number("events.num")?;
        let rate = options.number("rows-per-second")?.filter(|rate| *rate > 0);
        let now = clock.now_micros();
        let start_micros = options.number("start-time")?.and_then(|start| i64::try_from(start).ok()).unwrap_or(now);
        let generator = Bids {
            seed: options.number("seed")?.unwrap_or(0),
            base_millis: options.number("base-time")?.unwrap_or(BASE_TIME_MILLIS),
            delay_micros: options.number("inter-event-delay-us")?.unwrap_or(100),
        };
        Ok(Self { generator: Arc::new(generator), schema, total: events.map(bids_in), rate, clock, start_micros })
    }
}

/// Bids among the first `events` events.
fn bids_in(events: u64) -> u64 {
    events / EVENTS * BIDS + (events % EVENTS).saturating_sub(PERSONS + AUCTIONS)
}

/// Event number of a bid.
const fn event_of(bid: u64) -> u64 {
    bid / BIDS * EVENTS + PERSONS + AUCTIONS + bid % BIDS
}

impl Bids {
    /// Bids of `seed` at the reference generator's base time, 10,000 events per second of event time.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, base_millis: BASE_TIME_MILLIS, delay_micros: 100 }
    }

    fn auction(&self, bid: u64) -> u64 {
        let newest = bid / BIDS * AUCTIONS + AUCTIONS - 1;
        let id = if below(self.seed, bid, 1, 2) > 0 {
            newest / HOT_AUCTION_EVERY * HOT_AUCTION_EVERY
        } else {
            let oldest = newest.saturating_sub(OPEN_AUCTIONS);
            oldest + below(self.seed, bid, 2, newest - oldest + 1)
        };
        FIRST_ID + id
    }

    fn bidder(&self, bid: u64) -> u64 {
        let newest = bid / BIDS * PERSONS;
        let id = if below(self.seed, bid, 3, 4) > 0 {
            newest / HOT_BIDDER_EVERY * HOT_BIDDER_EVERY + 1
        } else {
            let active = newest.min(ACTIVE_PERSONS);
            newest - active + below(self.seed, bid, 4, active + 1)
        };
        FIRST_ID + id
    }

    /// 10 to the power of a number from 0 to 6, times 100, as the reference generator draws prices.
    fn price(&self, bid: u64) -> u64 {
        let draw = bits(self.seed, bid, 5);
        let unit = (draw >> 11) as f64 / (1u64 << 53) as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 100 and 100,000,000")]
        let price = (10f64.powf(unit * 6.0) * 100.0).round() as u64;
        price
    }

    fn millis(&self, bid: u64) -> u64 {
        self.base_millis + event_of(bid) * self.delay_micros / 1_000
    }

    fn column(&self, name: &str, numbers: std::ops::Range<u64>) -> ArrayRef {
        let count = usize::try_from(numbers.end - numbers.start).unwrap_or(0);
        let integers = |value: &dyn Fn(u64) -> u64| -> ArrayRef {
            let mut builder = Int64Builder::with_capacity(count);
            numbers.clone().for_each(|bid| builder.append_value(i64::try_from(value(bid)).unwrap_or(i64::MAX)));
            Arc::new(builder.finish())
        };
        match name {
            "auction" => integers(&|bid| self.auction(bid)),
            "bidder" => integers(&|bid| self.bidder(bid)),
            "price" => integers(&|bid| self.price(bid)),
            "dateTime" => {
                let mut builder = TimestampMillisecondBuilder::with_capacity(count);
                numbers.for_each(|bid| builder.append_value(i64::try_from(self.millis(bid)).unwrap_or(i64::MAX)));
                Arc::new(builder.finish())
            }
            "channel" => self.texts(numbers, count, 12, |bids, bid, text| bids.channel(bid, text)),
            "url" => self.texts(numbers, count, 64, |bids, bid, text| {
                text.extend_from_slice(b"https://www.nexmark.com/item.htm?query=1&channel_id=");
                bids.letters(bid, 7, 10, text);
            }),
            _ => self.texts(numbers, count, 32, |bids, bid, text| {
                let length = 16 + below(bids.seed, bid, 9, 25);
                bids.letters(bid, 10, length, text);
            }),
        }
    }

    fn texts(
        &self,
        numbers: std::ops::Range<u64>,
        count: usize,
        each: usize,
        write: impl Fn(&Self, u64, &mut Vec<u8>),
    ) -> ArrayRef {
        let mut builder = StringBuilder::with_capacity(count, count * each);
        let mut text = Vec::with_capacity(96);
        for bid in numbers {
            text.clear();
            write(self, bid, &mut text);
            builder.append_value(std::str::from_utf8(&text).unwrap_or_default());
        }
        Arc::new(builder.finish())
    }

    fn channel(&self, bid: u64, text: &mut Vec<u8>) {
        if below(self.seed, bid, 6, 2) == 0 {
            let hot = usize::try_from(below(self.seed, bid, 8, 4)).unwrap_or(0);
            text.extend_from_slice(CHANNELS[hot].as_bytes());
        } else {
            text.extend_from_slice(b"channel-");
            let number = below(self.seed, bid, 8, 10_000);
            for place in [1_000, 100, 10, 1] {
                text.push(b'0' + u8::try_from(number / place % 10).unwrap_or(0));
            }
        }
    }

    /// Lower-case letters, twelve from each draw.
    fn letters(&self, bid: u64, field: u64, count: u64, text: &mut Vec<u8>) {
        let mut left = count;
        let mut draw_number = 0;
        while left > 0 {
            let mut draw = bits(self.seed, bid, field + 1_000 * draw_number);
            for _ in 0..left.min(12) {
                text.push(b'a' + u8::try_from(draw % 26).unwrap_or(0));
                draw /= 26;
            }
            left -= left.min(12);
            draw_number += 1;
        }
    }
}

impl Generator for Bids {
    fn rows(&self, numbers: std::ops::Range<u64>, _projection: &[usize], schema: &SchemaRef) -> Result<RecordBatch, SourceError> {
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let column = self.column(field.name(), numbers.clone());
            let same = column.data_type() == field.data_type();
            columns.push(if same { column } else { conform(&column, field.data_type())? });
        }
        let rows = usize::try_from(numbers.end - numbers.start).unwrap_or(0);
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
    }
}

fn conform(column: &ArrayRef, declared: &DataType) -> Result<ArrayRef, SourceError> {
    Ok(cast(column, declared)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Field, Int64Type, Schema, TimeUnit};
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    const BIDS_0: Bids = Bids::new(0);

    fn schema() -> SchemaRef {
        let text = ["channel", "url", "extra"].map(|name| Field::new(name, DataType::Utf8, true));
        let numbers = ["auction", "bidder", "price"].map(|name| Field::new(name, DataType::Int64, true));
        let time = Field::new("dateTime", DataType::Timestamp(TimeUnit::Millisecond, None), true);
        Arc::new(Schema::new(numbers.into_iter().chain(text).chain([time]).collect::<Vec<_>>()))
    }

    #[test]
    fn a_range_is_the_concatenation_of_its_parts() {
        let rows = |range| BIDS_0.rows(range, &[], &schema()).unwrap();
        let parts = arrow::compute::concat_batches(&schema(), &[rows(0..7), rows(7..1_000)]).unwrap();
        assert_eq!(parts, rows(0..1_000));
    }

    #[test]
    fn half_of_the_bids_go_to_hot_auctions_and_most_come_from_hot_bidders() {
        let rows = BIDS_0.rows(100_000..200_000, &[], &schema()).unwrap();
        let count = |column: usize, hot: fn(i64) -> bool| {
            rows.column(column).as_primitive::<Int64Type>().values().iter().filter(|id| hot(**id - 1_000)).count()
        };
        let hot_auctions = count(0, |id| id % 100 == 0);
        assert!((50_000..53_000).contains(&hot_auctions), "{hot_auctions}");
        let hot_bidders = count(1, |id| id % 100 == 1);
        assert!((74_000..78_000).contains(&hot_bidders), "{hot_bidders}");
    }

    #[test]
    fn the_first_bids_never_change() {
        let rows = BIDS_0.rows(0..10_000, &[], &schema()).unwrap();
        let text = crate::encode::encode(crate::files::Format::Json, &schema(), &[rows]).unwrap();
        assert_eq!(xxh3_64(&text), GOLDEN, "the generator changed: results of old jobs could not be replayed");
    }

    const GOLDEN: u64 = 10_704_478_861_994_426_634;
}

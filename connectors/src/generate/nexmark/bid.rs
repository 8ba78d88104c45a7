//! Bids. Their random fields are 1 to 99.

use std::ops::Range;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::declared::Holds::{self, Number, Text, Time};
use super::event::Kind;
use super::house::{FIRST_ID, HOT_EVERY, House, OPEN_AUCTIONS};
use super::text::{digits, letters, pick};
use crate::generate::columns::{integers, texts, times};
use crate::generate::random::below;
use crate::generate::reader::Generator;
use crate::source::SourceError;

const HOT_AUCTION_RATIO: u64 = 2;
const HOT_BIDDER_RATIO: u64 = 4;
const CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

/// Makes bids by their numbers, for whoever wants them without a table.
#[derive(Debug)]
pub struct Bids(House);

impl Bids {
    /// Bids of `seed` at the reference generator's base time, 10,000 events per second of event time.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(House::new(seed))
    }
}

impl Generator for Bids {
    fn rows(&self, numbers: Range<u64>, _projection: &[usize], schema: &SchemaRef) -> Result<RecordBatch, SourceError> {
        Kind::Bid.rows(&self.0, numbers, schema)
    }
}

pub(super) const FIELDS: [(&str, Holds); 7] = [
    ("auction", Number),
    ("bidder", Number),
    ("price", Number),
    ("channel", Text),
    ("url", Text),
    ("dateTime", Time),
    ("extra", Text),
];

/// A field of bids `numbers`; `None` if they have no such field.
pub(super) fn column(house: &House, field: &str, numbers: Range<u64>) -> Option<ArrayRef> {
    let seed = house.seed;
    Some(match field {
        "auction" => integers(numbers, |bid| auction(house, bid)),
        "bidder" => integers(numbers, |bid| bidder(house, bid)),
        "price" => integers(numbers, |bid| house.price(bid, 5)),
        "channel" => texts(numbers, 12, |bid, text| channel(seed, bid, text)),
        "url" => texts(numbers, 64, |bid, text| {
            text.extend_from_slice(b"https://www.nexmark.com/item.htm?query=1&channel_id=");
            letters(seed, bid, 7, 10, text);
        }),
        "dateTime" => times(numbers, |bid| house.millis(Kind::Bid.event(bid))),
        "extra" => texts(numbers, 32, |bid, text| letters(seed, bid, 10, 16 + below(seed, bid, 9, 25), text)),
        _ => return None,
    })
}

fn auction(house: &House, bid: u64) -> u64 {
    let newest = bid / Kind::Bid.each() * Kind::Auction.each() + Kind::Auction.each() - 1;
    let id = if below(house.seed, bid, 1, HOT_AUCTION_RATIO) > 0 {
        newest / HOT_EVERY * HOT_EVERY
    } else {
        let oldest = newest.saturating_sub(OPEN_AUCTIONS);
        oldest + below(house.seed, bid, 2, newest - oldest + 1)
    };
    FIRST_ID + id
}

fn bidder(house: &House, bid: u64) -> u64 {
    let newest = bid / Kind::Bid.each() * Kind::Person.each();
    let hot = below(house.seed, bid, 3, HOT_BIDDER_RATIO) > 0;
    FIRST_ID + if hot { newest / HOT_EVERY * HOT_EVERY + 1 } else { house.active_person(bid, 4, newest) }
}

fn channel(seed: u64, bid: u64, text: &mut Vec<u8>) {
    if below(seed, bid, 6, 2) == 0 {
        text.extend_from_slice(pick(&CHANNELS, seed, bid, 8).as_bytes());
    } else {
        text.extend_from_slice(b"channel-");
        digits(below(seed, bid, 8, 10_000), 4, text);
    }
}

//! Auctions. Their random fields are 201 to 299.

use std::ops::Range;

use arrow::array::ArrayRef;

use super::declared::Holds::{self, Number, Text, Time};
use super::event::{EVENTS, Kind};
use super::house::{FIRST_ID, HOT_EVERY, House, OPEN_AUCTIONS};
use super::text::{letters, padding};
use crate::generate::columns::{integers, texts, times};
use crate::generate::random::below;

const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// One seller in so many is not the hot one.
const HOT_SELLER_RATIO: u64 = 4;
/// Average bytes of a row: 8 of each number and time, and those of its texts.
const BYTES: u64 = 500;
const ITEM_NAME_BYTES: u64 = 20;
const DESCRIPTION_BYTES: u64 = 100;
const EXTRA_BYTES: u64 = BYTES - 7 * 8 - ITEM_NAME_BYTES - DESCRIPTION_BYTES;

pub(super) const FIELDS: [(&str, Holds); 10] = [
    ("id", Number),
    ("itemName", Text),
    ("description", Text),
    ("initialBid", Number),
    ("reserve", Number),
    ("dateTime", Time),
    ("expires", Time),
    ("seller", Number),
    ("category", Number),
    ("extra", Text),
];

/// A field of auctions `numbers`; `None` if they have no such field.
pub(super) fn column(house: &House, field: &str, numbers: Range<u64>) -> Option<ArrayRef> {
    let seed = house.seed;
    Some(match field {
        "id" => integers(numbers, |auction| FIRST_ID + auction),
        "itemName" => texts(numbers, 20, |auction, text| letters(seed, auction, 201, ITEM_NAME_BYTES, text)),
        "description" => texts(numbers, 100, |auction, text| letters(seed, auction, 202, DESCRIPTION_BYTES, text)),
        "initialBid" => integers(numbers, |auction| initial_bid(house, auction)),
        "reserve" => integers(numbers, |auction| initial_bid(house, auction) + house.price(auction, 204)),
        "dateTime" => times(numbers, |auction| house.millis(Kind::Auction.event(auction))),
        "expires" => times(numbers, |auction| expires(house, auction)),
        "seller" => integers(numbers, |auction| seller(house, auction)),
        "category" => integers(numbers, |auction| FIRST_CATEGORY + below(seed, auction, 208, CATEGORIES)),
        "extra" => texts(numbers, 400, |auction, text| padding(seed, auction, 209, EXTRA_BYTES, text)),
        _ => return None,
    })
}

fn initial_bid(house: &House, auction: u64) -> u64 {
    house.price(auction, 203)
}

/// Milliseconds. An auction is open, on average, until [`OPEN_AUCTIONS`] more have opened: so many are open at once.
fn expires(house: &House, auction: u64) -> u64 {
    let event = Kind::Auction.event(auction);
    let opened = house.millis(event);
    let horizon = house.millis(event + OPEN_AUCTIONS * EVENTS / Kind::Auction.each()) - opened;
    opened + 1 + below(house.seed, auction, 205, (2 * horizon).max(1))
}

fn seller(house: &House, auction: u64) -> u64 {
    let newest = auction / Kind::Auction.each() * Kind::Person.each();
    let hot = below(house.seed, auction, 206, HOT_SELLER_RATIO) > 0;
    FIRST_ID + if hot { newest / HOT_EVERY * HOT_EVERY } else { house.active_person(auction, 207, newest) }
}

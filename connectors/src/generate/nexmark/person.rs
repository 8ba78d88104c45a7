//! Persons. Their random fields are 101 to 199.

use std::ops::Range;

use arrow::array::ArrayRef;

use super::declared::Holds::{self, Number, Text, Time};
use super::event::Kind;
use super::house::{FIRST_ID, House};
use super::text::{digits, letters, padding, pick};
use crate::generate::columns::{integers, texts, times};
use crate::generate::random::below;

const FIRST_NAMES: [&str; 11] = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

/// Average bytes of a row: 8 of each number and time, and those of its texts.
const BYTES: usize = 200;
/// Of `id` and `dateTime`, `emailAddress`, `creditCard` and `state`, which are always as long.
const FIXED_BYTES: usize = 2 * 8 + EMAIL_BYTES + CREDIT_CARD_BYTES + 2;
const EMAIL_BYTES: usize = 17;
const CREDIT_CARD_BYTES: usize = 19;

pub(super) const FIELDS: [(&str, Holds); 8] = [
    ("id", Number),
    ("name", Text),
    ("emailAddress", Text),
    ("creditCard", Text),
    ("city", Text),
    ("state", Text),
    ("dateTime", Time),
    ("extra", Text),
];

/// A field of persons `numbers`; `None` if they have no such field.
pub(super) fn column(house: &House, field: &str, numbers: Range<u64>) -> Option<ArrayRef> {
    let seed = house.seed;
    Some(match field {
        "id" => integers(numbers, |person| FIRST_ID + person),
        "name" => texts(numbers, 14, |person, text| {
            text.extend_from_slice(first_name(seed, person).as_bytes());
            text.push(b' ');
            text.extend_from_slice(last_name(seed, person).as_bytes());
        }),
        "emailAddress" => texts(numbers, EMAIL_BYTES, |person, text| email(seed, person, text)),
        "creditCard" => texts(numbers, CREDIT_CARD_BYTES, |person, text| credit_card(seed, person, text)),
        "city" => texts(numbers, 13, |person, text| text.extend_from_slice(city(seed, person).as_bytes())),
        "state" => texts(numbers, 2, |person, text| text.extend_from_slice(pick(&STATES, seed, person, 110).as_bytes())),
        "dateTime" => times(numbers, |person| house.millis(Kind::Person.event(person))),
        "extra" => texts(numbers, 160, |person, text| extra(seed, person, text)),
        _ => return None,
    })
}

fn first_name(seed: u64, person: u64) -> &'static str {
    pick(&FIRST_NAMES, seed, person, 101)
}

fn last_name(seed: u64, person: u64) -> &'static str {
    pick(&LAST_NAMES, seed, person, 102)
}

fn city(seed: u64, person: u64) -> &'static str {
    pick(&CITIES, seed, person, 109)
}

fn email(seed: u64, person: u64, text: &mut Vec<u8>) {
    letters(seed, person, 103, 7, text);
    text.push(b'@');
    letters(seed, person, 104, 5, text);
    text.extend_from_slice(b".com");
}

/// Four groups of four digits.
fn credit_card(seed: u64, person: u64, text: &mut Vec<u8>) {
    for group in 0..4 {
        if group > 0 {
            text.push(b' ');
        }
        digits(below(seed, person, 105 + group, 10_000), 4, text);
    }
}

fn extra(seed: u64, person: u64, text: &mut Vec<u8>) {
    let name = first_name(seed, person).len() + 1 + last_name(seed, person).len();
    let taken = FIXED_BYTES + name + city(seed, person).len();
    padding(seed, person, 111, (BYTES - taken) as u64, text);
}

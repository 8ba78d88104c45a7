//! Events: which kind each number is, and the table that mixes the kinds.
//!
//! ```text
//! event   0       1..4      4..50  | 50      51..54    54..100 | ..
//!         person  auctions  bids   | person  auctions  bids    | ..
//! number  0       0..3      0..46  | 1       3..6      46..92  | ..
//! ```

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, RecordBatch, StructArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};

use super::declared::Holds;
use super::house::House;
use super::{auction, bid, person};
use crate::generate::columns::{batch, conform};
use crate::source::SourceError;

/// Consecutive events in which each kind has its share.
pub(super) const EVENTS: u64 = 50;
pub(super) const EVENT_TYPE: &str = "event_type";

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A person registered.
    Person,
    /// An auction opened.
    Auction,
    /// Somebody bid.
    Bid,
}

impl Kind {
    /// In the order of their events.
    pub(super) const ALL: [Self; 3] = [Self::Person, Self::Auction, Self::Bid];

    /// The table's name, and the column's in the combined table.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Auction => "auction",
            Self::Bid => "bid",
        }
    }

    /// Events of other kinds before this one's among [`EVENTS`], and how many are this one's.
    const fn share(self) -> (u64, u64) {
        match self {
            Self::Person => (0, 1),
            Self::Auction => (1, 3),
            Self::Bid => (4, 46),
        }
    }

    /// How many among [`EVENTS`] are of this kind.
    pub(super) const fn each(self) -> u64 {
        self.share().1
    }

    /// How many of the first `events` events are of this kind: also the number of the next one.
    pub(super) const fn among(self, events: u64) -> u64 {
        let (before, each) = self.share();
        let started = (events % EVENTS).saturating_sub(before);
        events / EVENTS * each + if started < each { started } else { each }
    }

    /// Event number of the kind's number `number`.
    pub(super) const fn event(self, number: u64) -> u64 {
        let (before, each) = self.share();
        number / each * EVENTS + before + number % each
    }

    const fn of(event: u64) -> Self {
        match event % EVENTS {
            0 => Self::Person,
            1..4 => Self::Auction,
            _ => Self::Bid,
        }
    }

    const fn event_type(self) -> i32 {
        match self {
            Self::Person => 0,
            Self::Auction => 1,
            Self::Bid => 2,
        }
    }

    /// Fields of a row, with what they hold.
    pub(super) const fn fields(self) -> &'static [(&'static str, Holds)] {
        match self {
            Self::Person => &person::FIELDS,
            Self::Auction => &auction::FIELDS,
            Self::Bid => &bid::FIELDS,
        }
    }

    /// One field of the rows `numbers` of this kind, in its declared type.
    fn column(self, house: &House, field: &Field, numbers: Range<u64>) -> Result<ArrayRef, SourceError> {
        let column = match self {
            Self::Person => person::column(house, field.name(), numbers),
            Self::Auction => auction::column(house, field.name(), numbers),
            Self::Bid => bid::column(house, field.name(), numbers),
        };
        conform(column.ok_or_else(|| unknown(field))?, field.data_type())
    }

    /// Rows `numbers` of the kind's flat table.
    pub(super) fn rows(self, house: &House, numbers: Range<u64>, schema: &SchemaRef) -> Result<RecordBatch, SourceError> {
        let columns = schema.fields().iter().map(|field| self.column(house, field, numbers.clone()));
        batch(schema, columns.collect::<Result<_, _>>()?, &numbers)
    }
}

/// A column of the combined table.
pub(super) fn column(house: &House, declared: &Field, events: &Range<u64>) -> Result<ArrayRef, SourceError> {
    if declared.name() == EVENT_TYPE {
        let types = Int32Array::from_iter_values(events.clone().map(|event| Kind::of(event).event_type()));
        return conform(Arc::new(types), declared.data_type());
    }
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == declared.name());
    match (kind, declared.data_type()) {
        (Some(kind), DataType::Struct(fields)) => record(house, kind, fields, events),
        _ => Err(unknown(declared)),
    }
}

/// The flat table's rows of one kind, spread over their events; NULL at events of other kinds.
fn record(house: &House, kind: Kind, fields: &Fields, events: &Range<u64>) -> Result<ArrayRef, SourceError> {
    let numbers = kind.among(events.start)..kind.among(events.end);
    let mut places = 0u32..;
    let spread: UInt32Array = events.clone().map(|event| if Kind::of(event) == kind { places.next() } else { None }).collect();
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields.iter() {
        columns.push(take(&kind.column(house, field, numbers.clone())?, &spread, None)?);
    }
    let rows = StructArray::try_new_with_length(fields.clone(), columns, spread.nulls().cloned(), spread.len())?;
    Ok(Arc::new(rows))
}

fn unknown(field: &Field) -> SourceError {
    SourceError::format("nexmark", format!("no column {}", field.name()))
}

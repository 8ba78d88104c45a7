//! Nexmark: the events of an auction house, in their published proportions.
//!
//! | `'nexmark.table'` | row `n` | columns |
//! | --- | --- | --- |
//! | absent | event `n` | `event_type` (0 person, 1 auction, 2 bid), `person`, `auction`, `bid`: ROWs of the tables below, NULL but one |
//! | `person` | person `n` | `id`, `name`, `emailAddress`, `creditCard`, `city`, `state`, `dateTime`, `extra` |
//! | `auction` | auction `n` | `id`, `itemName`, `description`, `initialBid`, `reserve`, `dateTime`, `expires`, `seller`, `category`, `extra` |
//! | `bid` | bid `n` | `auction`, `bidder`, `price`, `channel`, `url`, `dateTime`, `extra` |
//!
//! Ids, prices and categories are BIGINT, times TIMESTAMP(3), `event_type` INT, the rest STRING; types that these can be cast to may
//! be declared. A table declares the columns, and a ROW the fields, that it wants.
//!
//! Of 50 consecutive events one is a person, three are auctions and 46 are bids; `'events.num'` counts events of all kinds, whatever
//! the table. Half of all bids go to the hot auction of their hundred, three quarters come from the hot bidder; three quarters of
//! all auctions are the hot seller's. A person or auction row takes 200 or 500 bytes on average, which `extra` makes up.
//!
//! Why numbers: an event's number gives its kind, its number among its kind, its ids and its time, so that the four tables agree
//! without looking at each other. Unlike the published generator, no row names a person or auction that is yet to come, but the hot
//! bidder of the first events.

mod event;
mod house;

mod auction;
mod bid;
mod person;

mod declared;
mod text;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use weir_model::Clock;

pub use bid::Bids;
use event::Kind;
use house::{BASE_TIME_MILLIS, DELAY_MICROS, House};

use super::columns::batch;
use super::reader::{Generated, Generator, described};
use crate::options::{OptionsError, TableOptions};
use crate::source::SourceError;

const OPTIONS: [&str; 8] =
    ["connector", "nexmark.table", "events.num", "rows-per-second", "base-time", "inter-event-delay-us", "seed", "start-time"];

/// The source of `'connector' = 'nexmark'`.
pub type NexmarkSource = Generated<Nexmark>;

/// Makes the rows of one Nexmark table by their numbers.
#[derive(Debug)]
pub struct Nexmark {
    house: House,
    table: Table,
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    /// An event of any kind.
    Events,
    /// An event of this kind.
    Flat(Kind),
}

impl Table {
    /// Rows among the first `events` events.
    const fn rows_among(self, events: u64) -> u64 {
        match self {
            Self::Events => events,
            Self::Flat(kind) => kind.among(events),
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::Events => "nexmark events",
            Self::Flat(Kind::Person) => "nexmark persons",
            Self::Flat(Kind::Auction) => "nexmark auctions",
            Self::Flat(Kind::Bid) => "nexmark bids",
        }
    }
}

impl NexmarkSource {
    /// A source with the declared columns `schema`: see the tables above.
    ///
    /// `'events.num'` bounds it, `'rows-per-second'` paces its rows from `'start-time'` (microseconds on the wall clock) on;
    /// `'base-time'` (milliseconds) and `'inter-event-delay-us'` are event time.
    ///
    /// # Errors
    /// [`OptionsError`] naming an option, column or field.
    pub fn new(options: TableOptions<'_>, schema: SchemaRef, clock: Arc<dyn Clock>) -> Result<Self, OptionsError> {
        options.only(&OPTIONS)?;
        let flat = Kind::ALL.map(|kind| (kind.name(), Table::Flat(kind)));
        let table = options.choice("nexmark.table", Table::Events, &flat)?;
        declared::check(options, table, schema.fields())?;
        let house = House {
            seed: options.number("seed")?.unwrap_or(0),
            base_millis: options.number("base-time")?.unwrap_or(BASE_TIME_MILLIS),
            delay_micros: options.number("inter-event-delay-us")?.unwrap_or(DELAY_MICROS),
        };
        let events = options.number("events.num")?;
        let now = clock.now_micros();
        Ok(Self {
            what: described(table.describe(), events, "events", house.seed),
            generator: Arc::new(Nexmark { house, table }),
            schema,
            total: events.map(|events| table.rows_among(events)),
            rate: options.number("rows-per-second")?.filter(|rate| *rate > 0),
            clock,
            start_micros: options.number("start-time")?.and_then(|start| i64::try_from(start).ok()).unwrap_or(now),
        })
    }
}

impl Generator for Nexmark {
    fn rows(&self, numbers: Range<u64>, _projection: &[usize], schema: &SchemaRef) -> Result<RecordBatch, SourceError> {
        match self.table {
            Table::Events => {
                let columns = schema.fields().iter().map(|field| event::column(&self.house, field, &numbers));
                batch(schema, columns.collect::<Result<_, _>>()?, &numbers)
            }
            Table::Flat(kind) => kind.rows(&self.house, numbers, schema),
        }
    }
}

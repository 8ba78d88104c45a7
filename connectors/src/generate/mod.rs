//! Generated sources: every row is a pure function of its number, so any range can be made again and nothing is ever copied.

mod bids;
mod plays;
mod random;
mod reader;

pub use bids::{BidSource, Bids};
pub use plays::{PlaySource, Plays};
pub use reader::Generator;

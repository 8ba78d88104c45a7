//! Generated sources: every row is a pure function of its number, so any range can be made again and nothing is ever copied.

mod columns;
mod datagen;
mod nexmark;
mod plays;
mod random;
mod reader;
#[cfg(test)]
mod testing;

pub use datagen::{Datagen, DatagenSource};
pub use nexmark::{Bids, Nexmark, NexmarkSource};
pub use plays::{PlaySource, Plays};
pub use reader::{Generator, PACED_BLOCK_ROWS};

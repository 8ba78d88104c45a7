//! Retention: deleting is a commit first (G2). Floors rise by compare-and-set in the row that holds the pins; only then are objects
//! below them deleted.
//!
//! The order of a collector's cycle is part of the rule; every other order loses data in the model:
//!
//! ```text
//! 1 read all heads       generations, and the readers' restart points
//! 2 raise floors         compare-and-set of the row that holds the pins
//! 3 read all heads again what they name; a head read before 1 or 2 may not know a commit that shares an object with a later one
//! 4 read the row again   a pin on a shard keeps also what its head named before and no longer names: an old checkpoint
//! 5 delete               where `orphans_may_go`: what only entries at or below a floor name; orphans by `decide_orphan`
//! ```

use std::collections::BTreeMap;

use crate::ids::{Epoch, Generation};
use crate::retention::{Pin, Retention};

/// One reader of a shard and the last epoch of it that the reader will never read again: its restart point (G3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// The shard that is read.
    pub of: String,
    /// Restart point of the reader: the checkpoint's positions, not the committed ones.
    pub restart: Epoch,
}

/// The retention row with floors raised as far as every reader and pin allows; `None` if nothing rises.
///
/// - `readers`: for every shard *all* its readers (receivers, publishers, itself); a shard nobody reads is not named and keeps its
///   floor.
#[must_use]
pub fn decide_floors(row: &Retention, readers: &[Reader]) -> Option<Retention> {
    let mut least: BTreeMap<&str, Epoch> = BTreeMap::new();
    for reader in readers {
        least.entry(reader.of.as_str()).and_modify(|epoch| *epoch = (*epoch).min(reader.restart)).or_insert(reader.restart);
    }
    let mut next = row.clone();
    for (shard, restart) in least {
        let floor = row.floor(shard);
        let allowed = restart.min(pinned_below(row, shard));
        if allowed > floor {
            next.floors.insert(shard.to_owned(), allowed);
        }
    }
    (next.floors != row.floors).then_some(next)
}

/// Last epoch of `shard` that no pin needs.
fn pinned_below(row: &Retention, shard: &str) -> Epoch {
    let needs = row
        .pins
        .values()
        .filter_map(|pin| if pin.everything { Some(row.floor(shard).next()) } else { pin.needs.get(shard).copied() });
    needs.min().map_or(Epoch(u64::MAX), |first| Epoch(first.0.saturating_sub(1)))
}

/// What comes of a wish to read the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinDecision {
    /// Write this row, on condition that nothing has changed since it was read.
    Write(Retention),
    /// That past is gone.
    TooLate {
        /// The shard whose floor is above the wish.
        shard: String,
        /// Its floor.
        floor: Epoch,
    },
}

/// Adds `pin` for `reader`, unless it asks for what may be gone already (G2).
#[must_use]
pub fn decide_pin(row: &Retention, reader: &str, pin: Pin) -> PinDecision {
    let gone = pin.needs.iter().find(|(shard, first)| **first <= row.floor(shard));
    if let Some((shard, _)) = gone {
        return PinDecision::TooLate { shard: shard.clone(), floor: row.floor(shard) };
    }
    let mut next = row.clone();
    next.pins.insert(reader.to_owned(), pin);
    PinDecision::Write(next)
}

/// What to do about an object that a listing found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphan {
    /// Its maker can no longer commit it and nobody names it.
    Delete,
    /// Its maker may still commit it; claim the shard first if it must go.
    ClaimFirst,
    /// Something names it.
    Keep,
}

/// Decides on an object made by `anchor` while the head of its shard is at `head` (G1). Age decides nothing.
///
/// - `head`: read *before* the heads and manifests that say whether the object is `named`: once a generation is over nothing of it can
///   be named any more, so names read after that are final.
#[must_use]
pub fn decide_orphan(anchor: Generation, head: Generation, named: bool) -> Orphan {
    if named {
        Orphan::Keep
    } else if anchor < head {
        Orphan::Delete
    } else {
        Orphan::ClaimFirst
    }
}

/// Whether orphans anchored at `shard`, and objects that fell with its entries, may be deleted while these pins stand: a pinned reader may
/// have read a head whose checkpoint has been replaced since, and an object that no head names any more looks like one that none ever
/// named.
///
/// - `row`: read *after* the heads that say what is named.
#[must_use]
pub fn orphans_may_go(row: &Retention, shard: &str) -> bool {
    row.pins.values().all(|pin| !pin.everything && !pin.needs.contains_key(shard))
}

#[cfg(test)]
mod tests;

//! The retention row: pins and floors of a job in ONE versioned row (G2).
//!
//! Readers of the past write a pin before they read heads; the collector raises floors by compare-and-set and only then deletes.
//! Because both live in one row, a pin and a floor that contradict each other cannot both be written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::Epoch;

/// Version of the retention row's encoding; a reader refuses any other.
pub const RETENTION_FORMAT: u16 = 1;

/// A reader's claim on the past: by shard, the first epoch it still needs. A shard that is not named is not pinned.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Pin {
    /// First epoch needed, by [`crate::ShardKey`]'s text; [`Pin::everything`] needs no names.
    pub needs: BTreeMap<String, Epoch>,
    /// Holds every floor where it is: taken before the reader knows which epochs it needs.
    pub everything: bool,
}

/// Pins and floors.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Retention {
    /// [`RETENTION_FORMAT`].
    pub format: u16,
    /// Pins by reader id.
    #[serde(default)]
    pub pins: BTreeMap<String, Pin>,
    /// By shard, the last epoch whose data may be gone. Never falls.
    #[serde(default)]
    pub floors: BTreeMap<String, Epoch>,
}

impl Retention {
    /// A job's first row: nothing pinned, nothing collected.
    #[must_use]
    pub fn new() -> Self {
        Self { format: RETENTION_FORMAT, ..Self::default() }
    }

    /// The floor of `shard`.
    #[must_use]
    pub fn floor(&self, shard: &str) -> Epoch {
        self.floors.get(shard).copied().unwrap_or_default()
    }
}

//! The manifest of a snapshot: one JSON object, `_latest/{job}-{shard}.json` in the sink's folder.
//!
//! | field | meaning |
//! | --- | --- |
//! | `format` | 1; a reader refuses any other |
//! | `key` | the columns of the key |
//! | `number` | of the snapshot, counted from 1 |
//! | `snapshot` | its Parquet files, below the sink's folder; columns as in the changelog, one row a key, none that was deleted |
//! | `rows` | in them |
//! | `epochs` | by shard, the last epoch whose changes are in it |
//! | `covers` | the same as a place in the changelog: number of the file, rows of it, changes from the first |
//! | `changelog` | pattern of the changelog's files |
//! | `changelog_from` | name of the first of them that may have changes that the snapshot has not: that and those after it are the rest |
//! | `previous` | the snapshot before, whose files are still there |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_model::head::PublishState;

/// Version of the encoding.
const FORMAT: u16 = 1;
/// Folder in the sink's folder; other engines skip names that begin so.
pub(in super::super) const FOLDER: &str = "_latest";

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Manifest {
    format: u16,
    key: Vec<String>,
    #[serde(flatten)]
    pub(in super::super) latest: Snapshot,
    changelog: String,
    pub(super) previous: Option<Snapshot>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Snapshot {
    pub(in super::super) number: u64,
    pub(in super::super) snapshot: Vec<String>,
    pub(in super::super) rows: u64,
    pub(in super::super) epochs: BTreeMap<String, u64>,
    pub(in super::super) covers: Covers,
    pub(in super::super) changelog_from: String,
}

/// A place in a changelog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Covers {
    pub(in super::super) file: u64,
    pub(in super::super) rows: u64,
    pub(in super::super) changes: u64,
}

impl Manifest {
    pub(super) fn new(key: Vec<String>, changelog: String, latest: Snapshot, previous: Option<Snapshot>) -> Self {
        Self { format: FORMAT, key, latest, changelog, previous }
    }

    /// # Errors
    /// In words, if it is no manifest of this format.
    pub(in super::super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match manifest.format {
            FORMAT => Ok(manifest),
            other => Err(format!("format {other}, this build reads {FORMAT}")),
        }
    }

    /// # Errors
    /// In words; none is known.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec_pretty(self).map_err(|error| error.to_string())
    }

    pub(super) fn names(&self, file: &str) -> bool {
        self.latest.snapshot.iter().chain(self.previous.iter().flat_map(|previous| &previous.snapshot)).any(|named| named == file)
    }

    /// The newest snapshot that has no change after `state`.
    pub(in super::super) fn as_of(&self, state: &PublishState) -> Option<&Snapshot> {
        let reached = (state.file_number, state.file_rows);
        let within = |snapshot: &&Snapshot| (snapshot.covers.file, snapshot.covers.rows) <= reached;
        [Some(&self.latest), self.previous.as_ref()].into_iter().flatten().find(within)
    }
}

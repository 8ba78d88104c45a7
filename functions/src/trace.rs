//! Instants of a run's steps, kept only while somebody measures latency. They describe; they decide nothing.
//!
//! Why here and not in a target: a row's latency is only explained by the instants of the epoch that carried it.
//! Never: costs more than one atomic load where nobody measures.
//!
//! ```text
//! due --Read--> in the lane --Cut--> epoch ends --Encoded--> --Stored--> --Committed--> ... --Visible--> in the target
//! ```

use std::sync::{Mutex, OnceLock, PoisonError};

use datafusion::arrow::array::RecordBatch;
use weir_model::{Clock, Epoch, Head, Offset, ShardKey};

/// Steps kept; later ones are left out, so whoever takes as many has not seen all.
pub const NOTES_MAX: usize = 1 << 20;

/// What a round has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reached {
    /// All that it stores is encoded.
    Encoded,
    /// Its objects are stored, and the commits before it are done.
    Stored,
    /// Its commit was heard.
    Committed,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Step {
    /// A lane's reader gave every row before `upto`.
    Read {
        /// The lane.
        shard: ShardKey,
        /// Its place in the source.
        upto: Offset,
    },
    /// A lane ended the reading of an epoch, which has every row before `upto` that no earlier epoch has.
    Cut {
        /// The lane.
        shard: ShardKey,
        /// The epoch.
        epoch: Epoch,
        /// Its place in the source.
        upto: Offset,
    },
    /// A round came further.
    Round {
        /// How far.
        reached: Reached,
        /// Shards it advances, and to which epochs.
        heads: Vec<(ShardKey, Epoch)>,
    },
    /// A publisher made rows visible in its target.
    Visible {
        /// The rows, in the sink's columns.
        rows: Vec<RecordBatch>,
    },
}

impl Step {
    /// A round of `heads` came as far as `reached`.
    #[must_use]
    pub fn round(reached: Reached, heads: &[Head]) -> Self {
        Self::Round { reached, heads: heads.iter().map(|head| (head.shard, head.epoch)).collect() }
    }
}

/// A step and its instant.
#[derive(Debug, Clone)]
pub struct Noted {
    /// Microseconds on the wall clock, by which paced generators say what is due.
    pub at_micros: i64,
    /// What happened.
    pub step: Step,
}

/// Steps of this process since [`start`](Self::start); none before.
#[derive(Debug, Default)]
pub struct Trace(OnceLock<Mutex<Vec<Noted>>>);

impl Trace {
    /// Begins to keep steps.
    pub fn start(&self) {
        self.0.get_or_init(Mutex::default);
    }

    /// Keeps a step, if somebody wants it.
    pub fn note(&self, clock: &dyn Clock, step: impl FnOnce() -> Step) {
        let Some(notes) = self.0.get() else { return };
        let noted = Noted { at_micros: clock.now_micros(), step: step() };
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < NOTES_MAX {
            notes.push(noted);
        }
    }

    /// Takes the steps kept so far, in the order in which they were noted.
    #[must_use]
    pub fn take(&self) -> Vec<Noted> {
        self.0.get().map(|notes| std::mem::take(&mut *notes.lock().unwrap_or_else(PoisonError::into_inner))).unwrap_or_default()
    }
}

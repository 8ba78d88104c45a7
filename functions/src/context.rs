//! What every handler gets: the four seams, the process's identity and its tuning. Built once at cold start.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::ObjectStore;
use weir_coordinator::CoordinationStore;
use weir_engine::FIRED_ROWS_MAX;
pub use weir_engine::StateBudget;
use weir_model::decide::CheckpointLimits;
use weir_model::{Clock, Ids, OwnerId, ShardKey};
use weir_seams::Liveness;
use weir_state::SegmentCache;

use crate::connect::Connectors;
use crate::progress::Progress;
use crate::recent::Recent;
use crate::worker::Warm;

/// Bounds and intervals of a worker. Everything that decides *when* a batch is cut stands here; the cut itself is recorded (R1).
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Longest time from reading a row to committing it.
    pub commit_interval: Duration,
    /// Rows after which a lane's epoch is cut.
    pub epoch_rows_max: u64,
    /// Groups or result rows gathered after which a lane's epoch is cut: what one segment of about 16 MiB holds.
    pub gathered_rows_max: usize,
    /// Memory that a lane's epoch may take before it is cut.
    pub gathered_bytes_max: usize,
    /// Undecodable rows after which a lane's epoch is cut.
    pub bad_rows_max: usize,
    /// Unread exchange bytes after which a merge shard runs although nothing fires.
    pub unread_bytes_max: u64,
    /// Bytes that a lane's receivers may leave unread before it stops reading its source.
    pub edge_bytes_max: u64,
    /// Others leave the shards of a silent owner alone for this long.
    pub lease: Duration,
    /// How long a worker waits for more before it leaves.
    pub linger: Duration,
    /// How often a source that has nothing now, or a head of another process, is asked again.
    pub ask_again: Duration,
    /// How long shards are kept at least where another process would take its share.
    pub share_after: Duration,
    /// Rounds whose commit may be under way while the next is computed.
    pub rounds_in_flight: usize,
    /// Rows of a published file's step; more are published in several.
    pub publish_rows_max: u64,
    /// Memory that the rows of a published file's step may take.
    pub publish_bytes_max: usize,
    /// What a load of a merge shard may have to replay (C5).
    pub checkpoints: CheckpointLimits,
    /// Results of a merge shard's batch; what is due beyond them waits for the next. The same in every process of a job (R1).
    pub fired_rows_max: usize,
    /// Memory for the state of each merge shard, and where the rest goes.
    pub state: StateBudget,
    /// Memory that the rows of a merge shard's batch may take; an epoch is never cut.
    pub merge_bytes_max: usize,
    /// Holders in a row that may vanish from a shard without a commit before it is given up; nobody watches a function.
    pub vanished_max: u32,
    /// When the invocation leaves, monotonic: an epoch is cut for it.
    pub leave_at_micros: i64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_secs(1),
            epoch_rows_max: 16 << 20,
            gathered_rows_max: 1 << 20,
            gathered_bytes_max: 64 << 20,
            bad_rows_max: 1 << 16,
            unread_bytes_max: 8 << 20,
            edge_bytes_max: 256 << 20,
            lease: Duration::from_secs(10),
            linger: Duration::from_millis(500),
            ask_again: Duration::from_millis(5),
            share_after: Duration::from_secs(1),
            rounds_in_flight: 2,
            publish_rows_max: 4 << 20,
            publish_bytes_max: 64 << 20,
            checkpoints: CheckpointLimits { replay_epochs_max: 64, ..CheckpointLimits::default() },
            fired_rows_max: FIRED_ROWS_MAX,
            state: StateBudget::default(),
            merge_bytes_max: 256 << 20,
            vanished_max: u32::MAX,
            leave_at_micros: i64::MAX,
        }
    }
}

impl Tuning {
    /// The same with batches halved so many times: one that is too large for its process must become small enough some day.
    ///
    /// Only what says where a batch is cut, which recipes record (R1); [`Self::fired_rows_max`] is not.
    #[must_use]
    pub fn halved(&self, times: u32) -> Self {
        let times = times.min(HALVINGS_MAX);
        if times == 0 {
            return self.clone();
        }
        Self {
            commit_interval: self.commit_interval / (1 << times),
            epoch_rows_max: (self.epoch_rows_max >> times).max(1),
            gathered_rows_max: (self.gathered_rows_max >> times).max(1),
            gathered_bytes_max: (self.gathered_bytes_max >> times).max(1),
            publish_rows_max: (self.publish_rows_max >> times).max(1),
            publish_bytes_max: (self.publish_bytes_max >> times).max(1),
            merge_bytes_max: (self.merge_bytes_max >> times).max(1),
            rounds_in_flight: 1,
            ..self.clone()
        }
    }
}

/// Halvings of a batch.
const HALVINGS_MAX: u32 = 16;

/// Asked by a person or a signal: finish the round, commit, leave.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks every worker to leave after its round.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The context of every handler.
#[derive(Debug, Clone)]
pub struct Ctx {
    /// Seam: objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Seam: the coordination table.
    pub table: Arc<dyn CoordinationStore>,
    /// Seam: time.
    pub clock: Arc<dyn Clock>,
    /// Seam: identities.
    pub ids: Arc<dyn Ids>,
    /// This process.
    pub owner: OwnerId,
    /// Hints about other processes.
    pub liveness: Arc<dyn Liveness>,
    /// Opens sources and sinks.
    pub connectors: Arc<dyn Connectors>,
    /// Decoded segments, by object.
    pub cache: Arc<SegmentCache>,
    /// Operators left by earlier invocations of this process, by shard (C2).
    pub warm: Arc<WarmCache>,
    /// Live counters for people.
    pub progress: Arc<Progress>,
    /// Bounds and intervals.
    pub tuning: Tuning,
    /// Whether to leave.
    pub stop: Stop,
}

impl Ctx {
    /// The same for one invocation.
    ///
    /// - `leave_at`: when it leaves, monotonic. - `vanished`: holders that vanished before it, in a row.
    #[must_use]
    pub(crate) fn of_invocation(&self, leave_at: i64, vanished: u32) -> Self {
        Self { tuning: Tuning { leave_at_micros: leave_at, ..self.tuning.halved(vanished) }, ..self.clone() }
    }
}

/// What a warm operator takes beside its windows: compiled expressions, about.
const WARM_BYTES: usize = 256 << 10;
/// Memory for warm operators where nothing is said.
const WARM_BYTES_MAX: usize = 256 << 20;

/// Operators left by earlier invocations; valid only at the commit they were left at (C2). Bounded by bytes: a function that serves many
/// jobs would else keep them all.
#[derive(Debug)]
pub struct WarmCache(Mutex<Recent<ShardKey, Warm>>);

impl Default for WarmCache {
    fn default() -> Self {
        Self::new(WARM_BYTES_MAX)
    }
}

impl WarmCache {
    /// Keeps operators of at most `bytes_max` together; the least recently used goes first.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self(Mutex::new(Recent::new(bytes_max)))
    }

    /// Takes what was left for `shard`.
    pub fn take(&self, shard: ShardKey) -> Option<Warm> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(&shard)
    }

    /// Leaves an operator for the next invocation.
    pub fn leave(&self, shard: ShardKey, warm: Warm) {
        let bytes = warm.bytes() + WARM_BYTES;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(shard, warm, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_halved_by_what_its_recipe_records_and_by_nothing_else() {
        let tuning = Tuning::default();
        let halved = tuning.halved(3);
        assert_eq!(halved.epoch_rows_max, tuning.epoch_rows_max / 8);
        assert_eq!(halved.commit_interval, tuning.commit_interval / 8);
        assert_eq!(halved.merge_bytes_max, tuning.merge_bytes_max / 8);
        assert_eq!((halved.fired_rows_max, halved.lease), (tuning.fired_rows_max, tuning.lease));
        assert_eq!(tuning.halved(0).merge_bytes_max, tuning.merge_bytes_max);
        assert_eq!(Tuning { epoch_rows_max: 1, ..tuning }.halved(u32::MAX).epoch_rows_max, 1);
    }
}

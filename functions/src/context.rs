//! What every handler gets: the four seams, the process's identity and its tuning. Built once at cold start.

use std::collections::HashMap;
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
    /// How long shards are kept where another process would take its share.
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
    /// Memory for the open windows of each merge shard, and where the rest goes.
    pub state: StateBudget,
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
            share_after: Duration::from_secs(5),
            rounds_in_flight: 2,
            publish_rows_max: 4 << 20,
            publish_bytes_max: 64 << 20,
            checkpoints: CheckpointLimits { replay_epochs_max: 64, ..CheckpointLimits::default() },
            fired_rows_max: FIRED_ROWS_MAX,
            state: StateBudget::default(),
        }
    }
}

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

/// Operators left by earlier invocations; valid only at the commit they were left at (C2).
#[derive(Debug, Default)]
pub struct WarmCache(Mutex<HashMap<ShardKey, Warm>>);

impl WarmCache {
    /// Takes what was left for `shard`.
    pub fn take(&self, shard: ShardKey) -> Option<Warm> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&shard)
    }

    /// Leaves an operator for the next invocation.
    pub fn leave(&self, shard: ShardKey, warm: Warm) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, warm);
    }
}

//! One run's world: clock, ids, stores and table, in memory; processes come and go in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use object_store::memory::InMemory;
use weir_coordinator::{CountingTable, MemoryTable};
use weir_model::decide::{CheckpointLimits, OwnerLiveness};
use weir_model::time::Sleep;
use weir_model::{Clock, Ids, OwnerId};
use weir_seams::Liveness;
use weir_state::{Hooked, SegmentCache};

use super::crashes::Life;
use super::given::{CaseConnectors, Given};
use crate::context::{Ctx, Stop, Tuning, WarmCache};
use crate::progress::Progress;

/// How long an epoch waits for more: on this clock it is over as soon as nothing more comes.
const COMMIT_INTERVAL: Duration = Duration::from_millis(10);
/// Epochs that a load may replay: so few that loads meet checkpoints too.
const REPLAY_EPOCHS_MAX: u64 = 2;

/// A wall clock that only the case moves, and a monotonic one that moves when somebody sleeps or looks.
#[derive(Debug, Default)]
pub(super) struct CaseClock {
    now_micros: AtomicI64,
    monotonic_micros: AtomicI64,
}

impl CaseClock {
    pub(super) fn set(&self, now_micros: i64) {
        self.now_micros.store(now_micros, Ordering::Relaxed);
    }
}

impl Clock for CaseClock {
    fn now_micros(&self) -> i64 {
        self.now_micros.load(Ordering::Relaxed)
    }

    fn monotonic_micros(&self) -> i64 {
        self.monotonic_micros.fetch_add(1, Ordering::Relaxed)
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.monotonic_micros.fetch_add(i64::try_from(duration.as_micros()).unwrap_or_default(), Ordering::Relaxed);
        Box::pin(tokio::task::yield_now())
    }
}

#[derive(Debug, Default)]
struct CaseIds(AtomicU64);

impl Ids for CaseIds {
    fn next_u128(&self) -> u128 {
        let next = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        // Like real ids: ordered, and with a scattered low end.
        (u128::from(next) << 80) | u128::from(next.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// One process lives at a time: any other holder is dead.
#[derive(Debug)]
struct OthersAreDead;

impl Liveness for OthersAreDead {
    fn of(&self, _owner: OwnerId) -> OwnerLiveness {
        OwnerLiveness::Dead
    }
}

/// What outlives the processes of a run.
#[derive(Debug)]
pub(super) struct World {
    pub(super) objects: Arc<InMemory>,
    pub(super) table: Arc<MemoryTable>,
    pub(super) clock: Arc<CaseClock>,
    pub(super) connectors: Arc<CaseConnectors>,
    ids: Arc<CaseIds>,
    /// Holds the sinks.
    _folder: tempfile::TempDir,
}

impl World {
    pub(super) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("a folder for the sinks of a test")?;
        let connectors = CaseConnectors { given: Arc::new(Given::default()), folder: folder.path().to_owned() };
        Ok(Self {
            objects: Arc::new(InMemory::new()),
            table: Arc::new(MemoryTable::new()),
            clock: Arc::default(),
            connectors: Arc::new(connectors),
            ids: Arc::default(),
            _folder: folder,
        })
    }

    /// A process with caches of its own, whose storage calls end with `life`.
    pub(super) fn process(&self, life: &Arc<Life>) -> Ctx {
        let table = CountingTable::new(Arc::clone(&self.table) as _, Arc::default()).with_faults(Arc::clone(life) as _);
        Ctx {
            objects: Arc::new(Hooked::new(Arc::clone(&self.objects) as _, Arc::clone(life))),
            table: Arc::new(table),
            clock: Arc::clone(&self.clock) as _,
            ids: Arc::clone(&self.ids) as _,
            owner: self.ids.owner(),
            liveness: Arc::new(OthersAreDead),
            connectors: Arc::clone(&self.connectors) as _,
            cache: Arc::new(SegmentCache::new(1 << 20)),
            warm: Arc::new(WarmCache::default()),
            progress: Arc::new(Progress::default()),
            tuning: tuning(),
            stop: Stop::default(),
        }
    }
}

/// Nobody waits: the wall clock stands still.
fn tuning() -> Tuning {
    Tuning {
        commit_interval: COMMIT_INTERVAL,
        ask_again: COMMIT_INTERVAL,
        linger: Duration::ZERO,
        lease: Duration::ZERO,
        checkpoints: CheckpointLimits { replay_epochs_max: REPLAY_EPOCHS_MAX, ..CheckpointLimits::default() },
        ..Tuning::default()
    }
}

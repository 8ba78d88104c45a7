//! Builds the context of a process from its settings: stores, table, clock, ids, identity.

use std::sync::Arc;

use object_store::ObjectStore;
use weir_coordinator::{CoordinationStore, CountingTable, TableCounts, TableReading, self_test};
use weir_engine::StateBudget;
use weir_model::{Clock, Ids, OwnerId};
pub use weir_seams::OpenError;
use weir_seams::{Liveness, Part, RandomIds, SystemClock};
use weir_state::{CountingStore, RequestCounts, Requests, SegmentCache};

use crate::config::{Config, Durability};
use crate::connect::LocalConnectors;
use crate::context::{Ctx, Stop, Tuning, WarmCache};
use crate::progress::{Counted, Progress};

/// What an epoch, a batch or a step may take, however little memory there is: smaller commits would cost more than they save.
const EPOCH_BYTES_MIN: usize = 4 << 20;

/// A context with its request counters.
#[derive(Debug, Clone)]
pub struct Opened {
    /// For handlers.
    pub ctx: Ctx,
    /// Requests of this process to the object store.
    pub objects: Arc<Requests>,
    /// Requests of this process to the table.
    pub table: Arc<TableCounts>,
}

impl Opened {
    /// Requests to the object store, those of invocations in other processes too.
    #[must_use]
    pub fn object_requests(&self) -> RequestCounts {
        self.objects.counts() + self.ctx.progress.elsewhere.objects.counts()
    }

    /// Requests to the table, those of invocations in other processes too.
    #[must_use]
    pub fn table_requests(&self) -> TableReading {
        self.table.reading() + self.ctx.progress.elsewhere.table.reading()
    }

    /// What this process has counted, for whoever called it.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let progress = &self.ctx.progress;
        Counted {
            counters: progress.counters(),
            open_panes: progress.open_panes.all(),
            objects: self.object_requests(),
            table: self.table_requests(),
        }
    }
}

/// Opens everything that `config` names and tests the table (T2).
///
/// # Errors
/// [`OpenError`] naming the place and the remedy.
pub async fn open(config: &Config) -> Result<Opened, OpenError> {
    let places = config.places();
    let (store, table) = (places.open_objects().await?, places.open_table().await?);
    self_test::run(table.as_ref(), &RandomIds::new().owner().to_string()).await?;
    let owner = RandomIds::new().owner();
    Ok(assemble(config, store, table, owner, places.take_part(owner, Part::Process)?))
}

/// Opens what `config` names for one invocation of a process that has opened and tested the same: nothing is tested again.
///
/// # Errors
/// [`OpenError`] naming the place and the remedy.
pub async fn open_for_invocation(config: &Config) -> Result<Opened, OpenError> {
    let places = config.places();
    let (store, table) = (places.open_checked_objects().await?, places.open_table().await?);
    let owner = RandomIds::new().owner();
    Ok(assemble(config, store, table, owner, places.take_part(owner, Part::Invocation)?))
}

/// Opens what `config` names to look at it: nothing is made, and no shard is asked for.
///
/// # Errors
/// [`OpenError`]; also if there is no store.
pub async fn open_to_look(config: &Config) -> Result<Opened, OpenError> {
    let places = config.places();
    places.must_exist()?;
    let (table, store) = (places.open_table().await?, places.open_objects().await?);
    Ok(assemble(config, store, table, RandomIds::new().owner(), places.watch()))
}

/// As [`open_to_look`], and is seen to live while it does: what it pins is let go of when it dies.
///
/// # Errors
/// As [`open_to_look`].
pub async fn open_to_pin(config: &Config) -> Result<Opened, OpenError> {
    let opened = open_to_look(config).await?;
    let liveness = config.places().take_part(opened.ctx.owner, Part::Invocation)?;
    Ok(Opened { ctx: Ctx { liveness, ..opened.ctx }, ..opened })
}

fn assemble(
    config: &Config,
    store: Arc<dyn ObjectStore>,
    inner: Arc<dyn CoordinationStore>,
    owner: OwnerId,
    liveness: Arc<dyn Liveness>,
) -> Opened {
    let fsync = config.durability == Durability::Fsync;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let ids: Arc<dyn Ids> = Arc::new(RandomIds::new());
    let objects = Arc::new(Requests::default());
    let store = Arc::new(CountingStore::new(store, Arc::clone(&objects)));
    let table = Arc::new(TableCounts::default());
    let part = |part: u64| usize::try_from(config.memory / part).unwrap_or(usize::MAX);
    let step_bytes = part(16).max(EPOCH_BYTES_MIN);
    let ctx = Ctx {
        objects: store,
        table: Arc::new(CountingTable::new(inner, Arc::clone(&table))),
        connectors: Arc::new(LocalConnectors::new(Arc::clone(&clock), fsync)),
        clock,
        ids,
        owner,
        liveness,
        cache: Arc::new(SegmentCache::new(part(8))),
        // As much as open windows may take in all.
        warm: Arc::new(WarmCache::new(part(2))),
        progress: Arc::new(Progress::default()),
        tuning: Tuning {
            commit_interval: config.commit_interval,
            lease: config.lease,
            state: state_budget(config),
            gathered_bytes_max: epoch_budget(config),
            publish_bytes_max: step_bytes,
            merge_bytes_max: epoch_budget(config),
            // Receivers of the same worker hold what they have not taken yet, unpacked.
            edge_bytes_max: (config.memory / 8 / u64::from(config.parallelism())).min(Tuning::default().edge_bytes_max),
            ..Tuning::default()
        },
        stop: Stop::default(),
    };
    Opened { ctx, objects, table }
}

/// Half of the memory for state, shared by the shards that this process may hold.
fn state_budget(config: &Config) -> StateBudget {
    let shards = u64::from(config.parallelism());
    let bytes_max = usize::try_from(config.memory / 2 / shards).unwrap_or(usize::MAX);
    let folder = config.spill_folder.clone().unwrap_or_else(std::env::temp_dir);
    StateBudget { bytes_max, folder, ..StateBudget::default() }
}

/// A sixteenth of the memory for what lanes gather, shared alike, and one for what merge shards take: it is copied when it is folded,
/// and when it is sent.
fn epoch_budget(config: &Config) -> usize {
    let shards = u64::from(config.parallelism());
    usize::try_from(config.memory / 16 / shards).unwrap_or(usize::MAX).max(EPOCH_BYTES_MIN)
}

//! Builds the context of a process from its settings: stores, table, clock, ids, identity.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use weir_coordinator::dynamodb::DynamoTable;
use weir_coordinator::{CoordinationStore, CountingTable, MemoryTable, SqliteTable, TableCounts, self_test};
use weir_engine::StateBudget;
use weir_model::{Clock, Ids};
use weir_state::{CountingStore, Requests, SegmentCache, s3, store};

use crate::aws;
use crate::config::{Config, Durability};
use crate::connect::LocalConnectors;
use crate::context::{Ctx, Stop, Tuning, WarmCache};
use crate::liveness::{Liveness, LockedOwners, UnknownLiveness};
use crate::progress::Progress;
use crate::seams::{RandomIds, SystemClock};

/// What an epoch or a step may take, however little memory there is: smaller commits would cost more than they save.
const EPOCH_BYTES_MIN: usize = 4 << 20;

/// A context with its request counters.
#[derive(Debug, Clone)]
pub struct Opened {
    /// For handlers.
    pub ctx: Ctx,
    /// Requests to the object store.
    pub objects: Arc<Requests>,
    /// Requests to the table.
    pub table: Arc<TableCounts>,
}

/// A place that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Objects.
    #[error(transparent)]
    Store(#[from] weir_state::StateError),
    /// The table.
    #[error(transparent)]
    Table(#[from] weir_coordinator::StoreError),
    /// The settings contradict each other.
    #[error("{0}")]
    Settings(String),
}

/// Opens everything that `config` names and tests the table (T2).
///
/// # Errors
/// [`OpenError`] naming the place and the remedy.
pub async fn open(config: &Config) -> Result<Opened, OpenError> {
    let store = open_store(config).await?;
    let table = open_table(config, config.durability == Durability::Fsync).await?;
    self_test::run(table.as_ref(), &RandomIds::new().owner().to_string()).await?;
    assemble(config, store, table, true)
}

/// Opens what `config` names to look at it: nothing is made, and no shard is asked for.
///
/// # Errors
/// [`OpenError`]; also if there is no store.
pub async fn open_to_look(config: &Config) -> Result<Opened, OpenError> {
    if let Some(folder) = folder(config).filter(|folder| !folder.is_dir()) {
        let message = format!("there is no store in {}: name the one of the job with --store file://DIR", folder.display());
        return Err(OpenError::Settings(message));
    }
    let table = open_table(config, config.durability == Durability::Fsync).await?;
    assemble(config, open_store(config).await?, table, false)
}

async fn open_store(config: &Config) -> Result<Arc<dyn ObjectStore>, OpenError> {
    if !s3::is_bucket(&config.store) {
        return Ok(store::open(&config.store, config.durability == Durability::Fsync)?);
    }
    let store = s3::open(&config.store, aws::access(Arc::new(SystemClock::new())).await)?;
    s3::check(store.as_ref(), &config.store).await?;
    Ok(store)
}

fn assemble(
    config: &Config,
    store: Arc<dyn ObjectStore>,
    inner: Arc<dyn CoordinationStore>,
    takes_part: bool,
) -> Result<Opened, OpenError> {
    let fsync = config.durability == Durability::Fsync;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let ids: Arc<dyn Ids> = Arc::new(RandomIds::new());
    let objects = Arc::new(Requests::default());
    let store = Arc::new(CountingStore::new(store, Arc::clone(&objects)));
    let table = Arc::new(TableCounts::default());
    let owner = ids.owner();
    let liveness: Arc<dyn Liveness> = match folder(config) {
        Some(folder) if !takes_part => Arc::new(LockedOwners::watch(&folder.join("owners"))),
        Some(folder) => Arc::new(LockedOwners::register(&folder.join("owners"), owner).map_err(|error| {
            OpenError::Settings(format!(
                "folder {}: {error}; choose a folder this user may write with --store file://DIR",
                folder.display()
            ))
        })?),
        None => Arc::new(UnknownLiveness),
    };
    let cache_bytes = usize::try_from(config.memory / 4).unwrap_or(usize::MAX);
    let ctx = Ctx {
        objects: store,
        table: Arc::new(CountingTable::new(inner, Arc::clone(&table))),
        connectors: Arc::new(LocalConnectors::new(Arc::clone(&clock), fsync)),
        clock,
        ids,
        owner,
        liveness,
        cache: Arc::new(SegmentCache::new(cache_bytes)),
        warm: Arc::new(WarmCache::default()),
        progress: Arc::new(Progress::default()),
        tuning: Tuning {
            commit_interval: config.commit_interval,
            lease: config.lease,
            state: state_budget(config),
            gathered_bytes_max: epoch_budget(config),
            publish_bytes_max: usize::try_from(config.memory / 16).unwrap_or(usize::MAX).max(EPOCH_BYTES_MIN),
            ..Tuning::default()
        },
        stop: Stop::default(),
    };
    Ok(Opened { ctx, objects, table })
}

/// Half of the memory for open windows, shared by the shards that this process may hold.
fn state_budget(config: &Config) -> StateBudget {
    let shards = u64::from(config.parallelism());
    let bytes_max = usize::try_from(config.memory / 2 / shards).unwrap_or(usize::MAX);
    StateBudget { bytes_max, folder: config.spill_folder.clone().unwrap_or_else(std::env::temp_dir) }
}

/// A sixteenth of the memory for what lanes gather, shared alike: it is copied when it is sent.
fn epoch_budget(config: &Config) -> usize {
    let lanes = u64::from(config.parallelism());
    usize::try_from(config.memory / 16 / lanes).unwrap_or(usize::MAX).max(EPOCH_BYTES_MIN)
}

async fn open_table(config: &Config, fsync: bool) -> Result<Arc<dyn CoordinationStore>, OpenError> {
    if config.coordination.is_none() && s3::is_bucket(&config.store) {
        let message = "a bucket needs a table beside it: name one with --coordination dynamodb://TABLE (weir table create TABLE)";
        return Err(OpenError::Settings(message.to_owned()));
    }
    let address = config.coordination();
    if address == "memory:" {
        return Ok(Arc::new(MemoryTable::new()));
    }
    if let Some(file) = address.strip_prefix("sqlite://") {
        return Ok(Arc::new(SqliteTable::open(Path::new(file), fsync)?));
    }
    if let Some(name) = address.strip_prefix("dynamodb://") {
        let (clock, ids) = (Arc::new(SystemClock::new()), Arc::new(RandomIds::new()));
        return Ok(Arc::new(DynamoTable::open(name, None, clock, ids).await?));
    }
    Err(OpenError::Settings(format!(
        "coordination {address:?} is not understood: write memory:, sqlite://FILE or dynamodb://TABLE"
    )))
}

/// The folder that several processes share, if there is one.
fn folder(config: &Config) -> Option<PathBuf> {
    config.store.strip_prefix("file://").map(PathBuf::from).filter(|_| config.coordination() != "memory:")
}

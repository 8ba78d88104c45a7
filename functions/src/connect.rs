//! Opens sources and targets from a plan's tables: the place where connector names mean something.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use weir_connectors::files::{self, FileListing, FileSource};
use weir_connectors::generate::{DatagenSource, NexmarkSource, PlaySource};
use weir_connectors::sink::{FileTarget, PostgresTarget};
use weir_connectors::{OptionsError, Source, TableOptions};
use weir_model::{Clock, ShardKey};
use weir_plan::{Changes, SinkTable, SourceTable, nearest};

use crate::changelog;
use crate::stream::Attached;

/// What a bounded source was pinned to when the job was created; lies in the plan object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pinned {
    /// The source's rows follow from its options alone.
    Nothing,
    /// Files at their versions.
    Files(FileListing),
    /// A stream, and where its columns lie.
    Stream(Attached),
    /// When a generator's first row was due, microseconds on the wall clock.
    Start(i64),
}

impl Pinned {
    /// The stream, if that is what the source reads.
    #[must_use]
    pub fn stream(&self) -> Option<&Attached> {
        match self {
            Self::Stream(attached) => Some(attached),
            Self::Nothing | Self::Files(_) | Self::Start(_) => None,
        }
    }
}

/// Where a publisher's rows go.
#[derive(Debug)]
pub enum Target {
    /// Files in a folder.
    Files(FileTarget),
    /// A PostgreSQL table.
    Postgres(Box<PostgresTarget>),
    /// Lines on standard output.
    Print,
}

/// Opens tables.
#[async_trait]
pub trait Connectors: Send + Sync + fmt::Debug {
    /// Pins what a source will read; also checks its options.
    ///
    /// # Errors
    /// [`OptionsError`] naming the table and what to write.
    async fn pin(&self, table: &SourceTable) -> Result<Pinned, OptionsError>;

    /// A pinned source.
    ///
    /// # Errors
    /// [`OptionsError`].
    fn source(&self, table: &SourceTable, pinned: &Pinned) -> Result<Arc<dyn Source>, OptionsError>;

    /// The target of a sink's publisher; also checks its options.
    ///
    /// # Errors
    /// [`OptionsError`].
    fn target(&self, table: &SinkTable, shard: ShardKey) -> Result<Target, OptionsError>;
}

/// The connectors of this build, on the local file system.
#[derive(Debug)]
pub struct LocalConnectors {
    files: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    fsync: bool,
}

impl LocalConnectors {
    /// - `fsync`: published files survive a power cut.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, fsync: bool) -> Self {
        Self { files: files::local_store(), clock, fsync }
    }
}

const SOURCES: [&str; 5] = ["filesystem", "http", "datagen", "nexmark", "plays"];
const SINKS: [&str; 4] = ["filesystem", "jdbc", "print", "blackhole"];

fn unknown(options: TableOptions<'_>, known: &[&str]) -> OptionsError {
    let connector = options.get("connector").unwrap_or_default();
    let hint =
        nearest(connector, known.iter().copied()).map_or_else(|| known.join(", "), |near| format!("did you mean '{near}'?"));
    options.error(format!("unknown connector '{connector}' here: {hint}"))
}

#[async_trait]
impl Connectors for LocalConnectors {
    async fn pin(&self, table: &SourceTable) -> Result<Pinned, OptionsError> {
        let options = TableOptions { table: &table.name, options: &table.options };
        let pinned = match options.get("connector") {
            Some("filesystem") => Pinned::Files(files::discover(&self.files, options).await?),
            Some("datagen") => Pinned::Start(self.clock.now_micros()),
            Some("nexmark" | "plays") if options.get("rows-per-second").is_some() => Pinned::Start(self.clock.now_micros()),
            Some("nexmark" | "plays") => Pinned::Nothing,
            _ => return Err(unknown(options, &SOURCES)),
        };
        self.source(table, &pinned)?;
        Ok(pinned)
    }

    fn source(&self, table: &SourceTable, pinned: &Pinned) -> Result<Arc<dyn Source>, OptionsError> {
        let mut with = table.options.clone();
        if let Pinned::Start(start) = pinned {
            with.entry("start-time".to_owned()).or_insert_with(|| start.to_string());
        }
        let options = TableOptions { table: &table.name, options: &with };
        let schema = Arc::clone(&table.schema);
        Ok(match (options.get("connector"), pinned) {
            (Some("filesystem"), Pinned::Files(listing)) => {
                let (files, listing) = (Arc::clone(&self.files), Arc::new(listing.clone()));
                Arc::new(match options.get("mode") {
                    Some("continuous") => FileSource::continuous(files, listing, schema, options, Arc::clone(&self.clock))?,
                    _ => FileSource::new(files, listing, schema, options)?,
                })
            }
            (Some("datagen"), _) => Arc::new(DatagenSource::new(options, schema, Arc::clone(&self.clock))?),
            (Some("nexmark"), _) => Arc::new(NexmarkSource::new(options, schema, Arc::clone(&self.clock))?),
            (Some("plays"), _) => Arc::new(PlaySource::new(options, schema, Arc::clone(&self.clock))?),
            _ => return Err(unknown(options, &SOURCES)),
        })
    }

    fn target(&self, table: &SinkTable, shard: ShardKey) -> Result<Target, OptionsError> {
        let options = TableOptions { table: &table.name, options: &table.options };
        match options.get("connector") {
            Some("filesystem") => {
                let target = FileTarget::new(options, changelog::sink_schema(table), shard, self.fsync)?;
                Ok(Target::Files(match &table.changes {
                    Changes::Upsert { key } => target.keyed_by(key.clone()),
                    Changes::Append | Changes::Retract => target,
                }))
            }
            Some("jdbc") => {
                let key = match &table.changes {
                    Changes::Upsert { key } => key.clone(),
                    Changes::Append | Changes::Retract => Vec::new(),
                };
                let target = PostgresTarget::new(options, Arc::clone(&table.schema), key, shard)?;
                Ok(Target::Postgres(Box::new(target)))
            }
            Some("print" | "blackhole") => options.only(&["connector"]).map(|()| Target::Print),
            _ => Err(unknown(options, &SINKS)),
        }
    }
}

//! SQL over what the jobs of a store hold, as one consistent cut of each job (X1).
//!
//! | schema | a table for | its rows |
//! | --- | --- | --- |
//! | `results` | each sink that keeps files | what was published or committed to be; of results that change, the newest of each key |
//! | `changelog` | each such sink whose results change | every change, with `op` and `epoch` |
//! | `live` | each aggregate, by its sink's name | what its open windows, or its table by key, would say now; of an aggregate of an aggregate, the outer one |
//! | `late` | each windowed aggregate, by its sink's name | the source's rows that came after their window took rows |
//! | `dead` | each INSERT, by its sink's name | the dead-letter stream, see [`crate::dead_letter`] |
//! | `streams` | each HTTP stream that the job reads | its rows, as far as they are kept |
//!
//! The catalog is the job's name. A question reads only the tables that it names.
//!
//! ```text
//! SQL --names--> jobs --pin--> heads, sinks first --> rows of the tables named --unpin--> an ordinary DataFusion query
//! ```
//! Never: takes part in a job, or writes anything but its pin.

mod cut;
pub(crate) mod protocol;
mod rows;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context as _;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, MemTable, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::common::ResolvedTableReference;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use weir_coordinator::jobs;
use weir_model::Epoch;

use crate::job::{self, Loaded};
use crate::open::Opened;
pub(crate) use cut::{Cut, until_interrupted};
use rows::Reader;
pub(crate) use tables::{Schema, Table, late_columns, names};

/// The jobs of a store, and what can be asked of each.
#[derive(Debug)]
pub(crate) struct Questions {
    opened: Opened,
    jobs: BTreeMap<String, Asked>,
    /// Whose tables may be named without their job.
    default: Option<String>,
}

#[derive(Debug)]
struct Asked {
    loaded: Loaded,
    tables: Vec<Table>,
}

impl Questions {
    /// - `default`: the job whose tables need not be qualified; else the only one there is.
    ///
    /// # Errors
    /// No such job, or the table cannot be read. Jobs that this build cannot open are left out with a warning.
    pub(crate) async fn open(opened: Opened, default: Option<&str>) -> anyhow::Result<Self> {
        let mut found = BTreeMap::new();
        for (name, id) in jobs::list(opened.ctx.table.as_ref()).await? {
            match job::open(&opened.ctx, id).await {
                Ok(loaded) => {
                    let tables = tables::of_job(&opened.ctx, &loaded).await?;
                    found.insert(name, Asked { loaded, tables });
                }
                Err(error) if default == Some(name.as_str()) => return Err(error.into()),
                Err(error) => tracing::warn!(job = name, %error, "the job cannot be asked"),
            }
        }
        if let Some(default) = default.filter(|default| !found.contains_key(*default)) {
            let near = weir_plan::nearest(default, found.keys().map(String::as_str));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
            anyhow::bail!("no job {default:?} in the store{hint}");
        }
        let only = found.keys().next().filter(|_| found.len() == 1).cloned();
        Ok(Self { opened, jobs: found, default: default.map(str::to_owned).or(only) })
    }

    /// Jobs with their tables, by name.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&str, &[Table])> {
        self.jobs.iter().map(|(job, asked)| (job.as_str(), asked.tables.as_slice()))
    }

    /// Whether unqualified names are those of `job`.
    pub(crate) fn is_default(&self, job: &str) -> bool {
        self.default.as_deref() == Some(job)
    }

    /// The answer to `sql`, as of a cut taken now. Rows of the tables named are held in memory, but for result files that no longer grow.
    ///
    /// # Errors
    /// SQL that is no question, names a table that is not there, or fails; something committed that cannot be read.
    pub(crate) async fn ask(&self, sql: &str) -> anyhow::Result<DataFrame> {
        let context = self.context()?;
        let named = self.named(&context, sql)?;
        let of_job = |job: &str| named.iter().filter(|table| table.catalog.as_ref() == job).cloned().collect::<Vec<_>>();
        for (name, asked) in &self.jobs {
            let named = of_job(name);
            if !named.is_empty() {
                self.load(&context, name, asked, &named).await?;
            }
        }
        plan(&context, sql).await
    }

    /// Last epochs of all shards that an answer may be of: while they are the same, so is the answer. Reads only.
    ///
    /// # Errors
    /// The table.
    pub(crate) async fn epochs(&self) -> anyhow::Result<Vec<Epoch>> {
        let mut epochs = Vec::new();
        for asked in self.jobs.values() {
            let heads = jobs::heads(self.opened.ctx.table.as_ref(), &cut::shards(&asked.loaded)).await?;
            epochs.extend(heads.iter().map(|head| head.epoch));
        }
        Ok(epochs)
    }

    /// Columns of the answer to `sql`; reads nothing.
    ///
    /// # Errors
    /// As [`Self::ask`], but for what is read.
    pub(crate) async fn columns(&self, sql: &str) -> anyhow::Result<SchemaRef> {
        let planned = plan(&self.context()?, sql).await?;
        Ok(SchemaRef::new(planned.schema().as_arrow().clone()))
    }

    /// A session in which every table is there, and empty.
    fn context(&self) -> anyhow::Result<SessionContext> {
        let mut config = session().with_information_schema(true).with_create_default_catalog_and_schema(false);
        if let Some(default) = &self.default {
            config = config.with_default_catalog_and_schema(default, Schema::Results.name());
        }
        let context = SessionContext::new_with_config(config);
        for (job, asked) in &self.jobs {
            let catalog = Arc::new(MemoryCatalogProvider::new());
            for schema in Schema::ALL {
                let provider = Arc::new(MemorySchemaProvider::new());
                for table in asked.tables.iter().filter(|table| table.schema == schema) {
                    let empty = MemTable::try_new(SchemaRef::clone(&table.columns), vec![Vec::new()])?;
                    provider.register_table(table.name.clone(), Arc::new(empty))?;
                }
                catalog.register_schema(schema.name(), provider)?;
            }
            context.register_catalog(job, catalog);
        }
        Ok(context)
    }

    /// Tables of ours that `sql` names.
    fn named(&self, context: &SessionContext, sql: &str) -> anyhow::Result<BTreeSet<ResolvedTableReference>> {
        let state = context.state();
        let dialect = state.config_options().sql_parser.dialect;
        let statement = state.sql_to_statement(sql, &dialect).map_err(told)?;
        let references = state.resolve_table_references(&statement).map_err(told)?;
        let default = self.default.as_deref().unwrap_or_default();
        let resolved = references.into_iter().map(|reference| reference.resolve(default, Schema::Results.name()));
        let ours = |table: &ResolvedTableReference| {
            let asked = self.jobs.get(table.catalog.as_ref());
            asked.is_some_and(|asked| asked.tables.iter().any(|known| known.is(table)))
        };
        Ok(resolved.filter(ours).collect())
    }

    /// Puts rows in the place of the empty tables named.
    async fn load(
        &self,
        context: &SessionContext,
        job: &str,
        asked: &Asked,
        named: &[ResolvedTableReference],
    ) -> anyhow::Result<()> {
        let catalog = context.catalog(job).with_context(|| format!("catalog {job}"))?;
        let tables: Vec<&Table> = asked.tables.iter().filter(|table| named.iter().any(|named| table.is(named))).collect();
        let cut = Cut::take(&self.opened.ctx, &asked.loaded).await?;
        let reading = async {
            let mut reader = Reader::new(&self.opened.ctx, &asked.loaded, &cut, context);
            for table in tables {
                let provider = catalog.schema(table.schema.name()).with_context(|| format!("schema {}", table.schema.name()))?;
                let rows = reader.read(table).await?;
                provider.deregister_table(&table.name)?;
                provider.register_table(table.name.clone(), rows)?;
            }
            anyhow::Ok(())
        };
        let read = until_interrupted(reading).await;
        cut.let_go(&self.opened.ctx, &asked.loaded, read).await
    }
}

/// How questions are read: as the scripts of jobs are. Names are as they are written, and 0.1 is a decimal.
pub(crate) fn session() -> SessionConfig {
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.enable_ident_normalization = false;
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    config
}

/// Questions only: nothing can be written.
async fn plan(context: &SessionContext, sql: &str) -> anyhow::Result<DataFrame> {
    let questions = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    context.sql_with_options(sql, questions).await.map_err(told)
}

/// An error of the engine without its own prefixes; of an unknown table, with the remedy.
fn told(error: datafusion::error::DataFusionError) -> anyhow::Error {
    let text = error.strip_backtrace();
    let text = text.strip_prefix("Error during planning: ").unwrap_or(&text);
    let lists = if text.contains("not found") && text.starts_with("table") {
        "\nhelp: weir query without SQL lists the tables there are"
    } else {
        ""
    };
    anyhow::anyhow!("{text}{lists}")
}

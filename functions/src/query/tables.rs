//! Which tables a job has, and their columns: known without reading a row.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::{Schema as Columns, SchemaRef};
use datafusion::common::ResolvedTableReference;
use weir_model::StageId;
use weir_plan::{AggregateStage, Changes};

use super::cut::streams;
use crate::changelog::sink_schema;
use crate::connect::Target;
use crate::context::Ctx;
use crate::dead_letter;
use crate::job::Loaded;
use crate::stream::{Attached, columns_of};
use crate::topology::{Role, Stage};

/// A schema of a job's catalog, see [`super`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schema {
    Results,
    Changelog,
    Live,
    Late,
    Dead,
    Streams,
}

impl Schema {
    pub(crate) const ALL: [Self; 6] = [Self::Results, Self::Changelog, Self::Live, Self::Late, Self::Dead, Self::Streams];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Results => "results",
            Self::Changelog => "changelog",
            Self::Live => "live",
            Self::Late => "late",
            Self::Dead => "dead",
            Self::Streams => "streams",
        }
    }
}

/// A table that can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) schema: Schema,
    pub(crate) name: String,
    pub(crate) columns: SchemaRef,
    pub(super) of: Of,
}

/// What a table is of.
#[derive(Debug, Clone)]
pub(super) enum Of {
    /// The stage that makes its rows.
    Stage(StageId),
    /// A stream.
    Stream(Attached),
}

impl Table {
    /// Whether this is the table that a question names.
    pub(super) fn is(&self, named: &ResolvedTableReference) -> bool {
        named.schema.as_ref() == self.schema.name() && named.table.as_ref() == self.name
    }
}

/// Names of a job's INSERTs: those of their sinks. The second INSERT into a sink has the sink's name and `_2`.
pub(crate) fn names(loaded: &Loaded) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut name = |sink: &str| {
        let mut names = (1..).map(|number: u32| if number == 1 { sink.to_owned() } else { format!("{sink}_{number}") });
        names.find(|name| taken.insert(name.clone())).unwrap_or_default()
    };
    loaded.plan.pipelines.iter().map(|pipeline| name(&pipeline.sink.name)).collect()
}

/// Tables of a job.
///
/// # Errors
/// A stream's columns cannot be read, or a connector's options are wrong.
pub(super) async fn of_job(ctx: &Ctx, loaded: &Loaded) -> anyhow::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for (index, name) in names(loaded).iter().enumerate() {
        tables.extend(of_pipeline(ctx, loaded, index, name)?);
    }
    for stream in streams(loaded) {
        let columns = columns_of(ctx, stream).await?;
        let (name, of) = (stream.row.name.clone(), Of::Stream(stream.clone()));
        tables.push(Table { schema: Schema::Streams, name, columns, of });
    }
    Ok(tables)
}

fn of_pipeline(ctx: &Ctx, loaded: &Loaded, index: usize, name: &str) -> anyhow::Result<Vec<Table>> {
    let pipeline = &loaded.plan.pipelines[index];
    let stages = || loaded.topology.stages.iter().filter(|stage| stage.pipeline == index);
    let stage = |role| stages().find(|stage| stage.role == role);
    let table = |schema, stage: &Stage, columns| {
        let (name, of) = (name.to_owned(), Of::Stage(stage.id));
        Table { schema, name, columns, of }
    };
    let mut tables = Vec::new();
    if let Some(publish) = stage(Role::Publish)
        && let Some(shard) = loaded.topology.shards(publish.id).first()
        && let Target::Files(_) = ctx.connectors.target(&pipeline.sink, *shard)?
    {
        tables.push(table(Schema::Results, publish, SchemaRef::clone(&pipeline.sink.schema)));
        if pipeline.sink.changes != Changes::Append {
            tables.push(table(Schema::Changelog, publish, sink_schema(&pipeline.sink)));
        }
    }
    if let Some(last) = stages().rfind(|stage| stage.role == Role::Merge) {
        tables.push(table(Schema::Live, last, SchemaRef::clone(&pipeline.sink.schema)));
    }
    if let Some(first) = stage(Role::Merge)
        && pipeline.aggregates.first().is_some_and(AggregateStage::is_window)
    {
        tables.push(table(Schema::Late, first, late_columns(loaded, index)?));
    }
    if let Some(lane) = stage(Role::Lane) {
        tables.push(table(Schema::Dead, lane, dead_letter::schema()));
    }
    Ok(tables)
}

/// Late rows have the source's columns, as far as the job reads them.
///
/// # Errors
/// None, while a plan's projection is of its source.
pub(crate) fn late_columns(loaded: &Loaded, index: usize) -> anyhow::Result<SchemaRef> {
    let source = &loaded.plan.pipelines[index].source;
    let read: Columns = source.schema.project(&source.projection)?;
    Ok(SchemaRef::new(read))
}

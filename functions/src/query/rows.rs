//! The rows of a table at a cut.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use datafusion::arrow::array::{ArrayRef, Int8Array, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::compute::kernels::cmp::neq;
use datafusion::arrow::datatypes::{Field, Schema as Columns, SchemaRef};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::{Column, ScalarValue};
use datafusion::functions::expr_fn::coalesce;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{ExprFunctionExt, lit};
use datafusion::prelude::{CsvReadOptions, DataFrame, Expr, JsonReadOptions, ParquetReadOptions, SessionContext};
use weir_connectors::SourceError;
use weir_connectors::files::Format;
use weir_connectors::sink::{FileTarget, Published, readable};
use weir_model::head::PublishState;
use weir_model::{Epoch, Head, SegmentKind, ShardId, ShardKey, StageId};
use weir_plan::{Changes, Op, SinkTable};
use weir_state::segment;

use super::cut::Cut;
use super::tables::{Of, Schema, Table};
use crate::changelog;
use crate::connect::Target;
use crate::context::Ctx;
use crate::job::Loaded;
use crate::kept::Stream;
use crate::stream::Attached;
use crate::worker::look::{Unsaid, unsaid};

/// Reads tables of one job at one cut.
pub(super) struct Reader<'a> {
    ctx: &'a Ctx,
    loaded: &'a Loaded,
    cut: &'a Cut,
    session: &'a SessionContext,
    /// By merge stage: two tables may need it.
    unsaid: HashMap<StageId, Arc<Vec<Unsaid>>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(ctx: &'a Ctx, loaded: &'a Loaded, cut: &'a Cut, session: &'a SessionContext) -> Self {
        Self { ctx, loaded, cut, session, unsaid: HashMap::new() }
    }

    /// The rows of `table`, with its columns.
    ///
    /// # Errors
    /// Something that was committed cannot be read.
    pub(super) async fn read(&mut self, table: &Table) -> anyhow::Result<Arc<dyn TableProvider>> {
        let columns = &table.columns;
        let rows = match (table.schema, &table.of) {
            (Schema::Results, Of::Stage(stage)) => return self.results(*stage).await,
            (Schema::Changelog, Of::Stage(stage)) => {
                return Ok(self.rows_of_files(*stage, FileTarget::published).await?.into_view());
            }
            (Schema::Live, Of::Stage(stage)) => self.live(*stage, columns).await?,
            (Schema::Late, Of::Stage(stage)) => self.late(*stage, columns).await?,
            (Schema::Dead, Of::Stage(stage)) => self.kept(*stage, Stream::Dead, columns).await?,
            (Schema::Streams, Of::Stream(stream)) => self.stream(stream, columns).await?,
            (Schema::Streams, Of::Stage(_)) | (_, Of::Stream(_)) => Vec::new(),
        };
        Ok(Arc::new(MemTable::try_new(SchemaRef::clone(columns), vec![rows])?))
    }

    fn sink(&self, stage: StageId) -> &'a SinkTable {
        &self.loaded.plan.pipelines[self.loaded.topology.stage(stage).pipeline].sink
    }

    /// Results as they stand: of a changelog, the newest of each key that was not taken back.
    async fn results(&self, stage: StageId) -> anyhow::Result<Arc<dyn TableProvider>> {
        let sink = self.sink(stage);
        let Changes::Upsert { key } = &sink.changes else {
            return Ok(self.rows_of_files(stage, FileTarget::published).await?.into_view());
        };
        // Older changes than the newest of a key are not missed.
        let rows = self.rows_of_files(stage, FileTarget::latest).await?;
        let column = |name: &str| Expr::Column(Column::new_unqualified(name));
        let key = key.iter().map(|place| column(sink.schema.field(*place).name())).collect();
        let newest_first = vec![column("epoch").sort(false, false)];
        let place = row_number().partition_by(key).order_by(newest_first).build()?.alias(PLACE);
        let gone = ScalarValue::from(Op::Delete.sign());
        let stands = column(PLACE).eq(lit(1u64)).and(column("op").not_eq(lit(gone)));
        let declared: Vec<Expr> = sink.schema.fields().iter().map(|field| column(field.name())).collect();
        let all: Vec<Expr> = rows.schema().fields().iter().map(|field| column(field.name())).chain([place]).collect();
        Ok(rows.select(all)?.filter(stands)?.select(declared)?.into_view())
    }

    /// What is in the sink's files, and what is committed to be.
    async fn rows_of_files(
        &self,
        stage: StageId,
        published: fn(&FileTarget, &PublishState) -> Result<Published, SourceError>,
    ) -> anyhow::Result<DataFrame> {
        let sink = self.sink(stage);
        let columns = changelog::sink_schema(sink);
        let mut rows = Vec::new();
        let mut whole = Vec::new();
        let mut format = Format::Parquet;
        for shard in self.loaded.topology.shards(stage) {
            let Target::Files(target) = self.ctx.connectors.target(sink, shard)? else { continue };
            let head = self.cut.head(shard)?;
            let published = published(&target, &head.publish.clone().unwrap_or_default())?;
            format = target.format();
            whole.extend(published.whole);
            rows.extend(published.growing);
            rows.extend(self.unpublished(sink, shard, head).await?);
        }
        let given = readable(format, &columns);
        let rows = conformed(rows, &given)?;
        let in_memory = self.session.read_table(Arc::new(MemTable::try_new(SchemaRef::clone(&given), vec![rows])?))?;
        let rows = if whole.is_empty() { in_memory } else { self.files(format, &given, &whole).await?.union(in_memory)? };
        Ok(rows.select(columns.fields().iter().map(|field| declared(field, format)).collect::<Vec<_>>())?)
    }

    async fn files(&self, format: Format, columns: &SchemaRef, files: &[PathBuf]) -> anyhow::Result<DataFrame> {
        let extension = files.first().and_then(|path| path.extension()?.to_str()).unwrap_or_default();
        let urls = files.iter().map(|path| url(path)).collect::<anyhow::Result<Vec<String>>>()?;
        Ok(match format {
            Format::Json => {
                let options = JsonReadOptions::default().schema(columns).file_extension(extension);
                self.session.read_json(urls, options).await?
            }
            Format::Csv => {
                let options = CsvReadOptions::new().has_header(false).schema(columns).file_extension(extension);
                self.session.read_csv(urls, options.newlines_in_values(true)).await?
            }
            Format::Parquet => {
                let options = ParquetReadOptions::default().schema(columns).file_extension(extension);
                self.session.read_parquet(urls, options).await?
            }
        })
    }

    /// Committed by those before the publisher, and not acknowledged by its target.
    async fn unpublished(&self, sink: &SinkTable, shard: ShardKey, head: &Head) -> anyhow::Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for upstream in self.loaded.topology.upstream_of(shard) {
            for (epoch, batch) in self.rows_after(upstream, head.input(upstream).epoch, SegmentKind::Output).await? {
                rows.push(changelog::shown(sink, batch, epoch)?);
            }
        }
        Ok(rows)
    }

    async fn rows_after(&self, shard: ShardKey, after: Epoch, kind: SegmentKind) -> anyhow::Result<Vec<(Epoch, RecordBatch)>> {
        let mut rows = Vec::new();
        for entry in self.cut.entries(self.ctx, shard, after).await? {
            if let Some(segment) = entry.segment(kind) {
                let read = segment::read_for(self.ctx.objects.as_ref(), &self.ctx.cache, segment, ShardId(0)).await?;
                rows.extend(read.into_iter().map(|batch| (entry.epoch, batch)));
            }
        }
        Ok(rows)
    }

    async fn live(&mut self, stage: StageId, columns: &SchemaRef) -> anyhow::Result<Vec<RecordBatch>> {
        let has_op = self.sink(stage).changes.has_op();
        let unsaid = self.unsaid(stage).await?;
        let results = unsaid.iter().flat_map(|unsaid| &unsaid.results);
        results.map(|rows| Ok(RecordBatch::try_new(SchemaRef::clone(columns), stands(rows, has_op)?)?)).collect()
    }

    async fn late(&mut self, stage: StageId, columns: &SchemaRef) -> anyhow::Result<Vec<RecordBatch>> {
        let mut rows = self.kept(stage, Stream::Late, columns).await?;
        let unsaid = self.unsaid(stage).await?;
        rows.extend(conformed(unsaid.iter().flat_map(|unsaid| unsaid.late.clone()).collect(), columns)?);
        Ok(rows)
    }

    async fn unsaid(&mut self, stage: StageId) -> anyhow::Result<Arc<Vec<Unsaid>>> {
        if let Some(known) = self.unsaid.get(&stage) {
            return Ok(Arc::clone(known));
        }
        let mut found = Vec::new();
        for shard in self.loaded.topology.shards(stage) {
            let upstream = self.cut.upstream(self.loaded, shard)?;
            found.push(unsaid(self.ctx, self.loaded, self.cut.head(shard)?, &upstream).await?);
        }
        let found = Arc::new(found);
        self.unsaid.insert(stage, Arc::clone(&found));
        Ok(found)
    }

    async fn kept(&self, stage: StageId, stream: Stream, columns: &SchemaRef) -> anyhow::Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for shard in self.loaded.topology.shards(stage) {
            let head = self.cut.head(shard)?;
            rows.extend(stream.rows(self.ctx.objects.as_ref(), &self.ctx.cache, head).await?);
        }
        conformed(rows, columns)
    }

    /// What is kept of a stream: epochs above the floors.
    async fn stream(&self, stream: &Attached, columns: &SchemaRef) -> anyhow::Result<Vec<RecordBatch>> {
        let floors = weir_coordinator::retention::read(self.ctx.table.as_ref(), stream.row.stream).await?;
        let mut rows = Vec::new();
        for shard in stream.row.shards() {
            let events = self.rows_after(shard, floors.floor(&shard.to_string()), SegmentKind::Events).await?;
            rows.extend(events.into_iter().map(|(_, batch)| batch));
        }
        conformed(rows, columns)
    }
}

/// Columns of those results that are there; rows that change begin with what happened to them.
fn stands(rows: &RecordBatch, has_op: bool) -> anyhow::Result<Vec<ArrayRef>> {
    if !has_op {
        return Ok(rows.columns().to_vec());
    }
    let gone = Int8Array::new_scalar(Op::Delete as i8);
    let rows = filter_record_batch(rows, &neq(rows.column(0), &gone)?)?;
    Ok(rows.columns()[1..].to_vec())
}

/// A file by a URL: as a path, brackets and stars in its name would be a pattern.
fn url(path: &Path) -> anyhow::Result<String> {
    let url = std::path::absolute(path).ok().and_then(|path| reqwest::Url::from_file_path(path).ok());
    Ok(url.with_context(|| format!("file {}", path.display()))?.into())
}

/// A column as the sink declares it, of rows that were read back: a text of CSV that cannot be NULL was empty.
fn declared(field: &Field, format: Format) -> Expr {
    let column = Expr::Column(Column::new_unqualified(field.name()));
    if format == Format::Csv && !field.is_nullable() && field.data_type().is_string() {
        return coalesce(vec![column, lit("")]).alias(field.name());
    }
    column
}

/// Name of a column that no sink can declare.
const PLACE: &str = "__place";

/// The same rows under the names and nullability of `columns`.
fn conformed(rows: Vec<RecordBatch>, columns: &Arc<Columns>) -> anyhow::Result<Vec<RecordBatch>> {
    let conform = |batch: RecordBatch| Ok(RecordBatch::try_new(SchemaRef::clone(columns), batch.columns().to_vec())?);
    rows.into_iter().map(conform).collect()
}

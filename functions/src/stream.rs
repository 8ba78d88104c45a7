//! Streams that a job reads: `'connector' = 'http'` names one (docs/decisions/0008).
//!
//! ```text
//! source table --attach--> the stream of that name, made if there is none --pin--> its past is kept for this job
//! lanes commit positions --let_go--> the pin moves --> floors rise to the least pin --> what fell is deleted
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use weir_connectors::TableOptions;
use weir_coordinator::claim;
use weir_coordinator::retention::{self, Hold};
use weir_model::decide::{PinDecision, Reader};
use weir_model::retention::Pin;
use weir_model::stream::{STREAM_LANES_MAX, StreamRow};
use weir_model::{Epoch, Head, JobId, ShardKey};
use weir_plan::SourceTable;
use weir_state::collect;

use crate::connect::Pinned;
use crate::context::Ctx;
use crate::job::{JobError, Loaded};
use crate::pins::unpin_the_dead;
use crate::topology::Role;
use crate::worker::WorkerError;

/// Connector of tables that read a stream.
pub const CONNECTOR: &str = "http";

/// Options of such a table.
const OPTIONS: [&str; 3] = ["connector", "stream", "lanes"];

/// Lanes of a stream that a table declares without saying how many.
const LANES_DEFAULT: u64 = 4;

/// A stream as a pipeline reads it; lies in the plan object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The stream, as it was when the job was created.
    pub row: StreamRow,
    /// Places of the pipeline's columns in the stream's, in the order in which the pipeline reads them.
    pub columns: Vec<usize>,
}

/// Name of the stream that `table` reads; `None` if it reads something else.
#[must_use]
pub fn name_of(table: &SourceTable) -> Option<&str> {
    let reads_stream = table.options.get("connector").is_some_and(|connector| connector == CONNECTOR);
    reads_stream.then(|| table.options.get("stream").unwrap_or(&table.name).as_str())
}

/// The stream that `table` reads; made with the table's columns if there is none of that name.
///
/// # Errors
/// [`JobError::Connector`] if an option is wrong or a column is not in the stream.
pub async fn attach(ctx: &Ctx, table: &SourceTable, name: &str) -> Result<Attached, JobError> {
    let options = TableOptions { table: &table.name, options: &table.options };
    options.only(&OPTIONS)?;
    let lanes = options.number("lanes")?.unwrap_or(LANES_DEFAULT);
    let lanes = u16::try_from(lanes).ok().filter(|lanes| (1..=STREAM_LANES_MAX).contains(lanes));
    let lanes = lanes.ok_or_else(|| options.error(format!("'lanes' is a number from 1 to {STREAM_LANES_MAX}")))?;
    let seams = ingest_seams(ctx);
    let row = weir_ingest::open_or_create(&seams, name, &table.schema, lanes)
        .await
        .map_err(|error| options.error(error.to_string()))?;
    let schema = weir_ingest::read_schema(&seams, &row).await.map_err(|error| options.error(error.to_string()))?;
    let columns = places(&schema, table).map_err(|message| options.error(message))?;
    Ok(Attached { row, columns })
}

/// Where the columns that a pipeline reads lie in the stream.
fn places(stream: &SchemaRef, table: &SourceTable) -> Result<Vec<usize>, String> {
    let place = |column: &usize| {
        let wanted = table.schema.field(*column);
        match stream.column_with_name(wanted.name()) {
            Some((place, found)) if found.data_type() == wanted.data_type() => Ok(place),
            Some((_, found)) => {
                let (name, found, wanted) = (wanted.name(), found.data_type(), wanted.data_type());
                Err(format!("column {name} is {found} in the stream, {wanted} here: declare it as the stream does"))
            }
            None => Err(format!("the stream has no column {}: declare only columns of the stream", wanted.name())),
        }
    };
    table.projection.iter().map(place).collect()
}

/// The past of the job's streams that is kept for it from its creation on, before any of it is read (G2).
#[must_use]
pub fn holds(pinned: &[Pinned]) -> Vec<Hold> {
    let mut holds: Vec<Hold> = Vec::new();
    for row in pinned.iter().filter_map(Pinned::stream).map(|attached| &attached.row) {
        if holds.iter().all(|hold| hold.stream != row.stream) {
            holds.push(Hold { stream: row.stream, lanes: row.shards() });
        }
    }
    holds
}

/// Lets go of what the job's lanes have read and committed, and deletes what nobody else holds.
///
/// - `heads`: of the job's shards. A lane keeps no state, so its positions are its restart point (G3).
///
/// # Errors
/// [`WorkerError`]; nothing that is needed was deleted.
pub(crate) async fn let_go(ctx: &Ctx, loaded: &Loaded, heads: &BTreeMap<ShardKey, Head>) -> Result<u64, WorkerError> {
    let mut deleted = 0;
    for (stream, needs) in needs(loaded, heads) {
        let pin = Pin { needs: needs.iter().map(|(shard, epoch)| (shard.to_string(), *epoch)).collect(), everything: false };
        if let PinDecision::TooLate { .. } =
            retention::pin(ctx.table.as_ref(), stream, &retention::job_reader(loaded.job), &pin).await?
        {
            continue;
        }
        let mut lanes = Vec::with_capacity(needs.len());
        for shard in needs.keys() {
            lanes.push(claim::read_head(ctx.table.as_ref(), *shard).await?.0);
        }
        let readers: Vec<Reader> = lanes.iter().map(|head| Reader { of: head.shard.to_string(), restart: head.epoch }).collect();
        let row = retention::raise_floors(ctx.table.as_ref(), stream, &readers).await?;
        unpin_the_dead(ctx, stream, &row).await?;
        // Read again: what a head named before the floors rose may have spilled since.
        for lane in &mut lanes {
            *lane = claim::read_head(ctx.table.as_ref(), lane.shard).await?.0;
        }
        deleted += collect::collect_below(ctx.objects.as_ref(), &lanes, &row).await?.deleted;
    }
    Ok(deleted)
}

/// By stream, the first epoch of each of its lanes that the job still needs.
fn needs(loaded: &Loaded, heads: &BTreeMap<ShardKey, Head>) -> BTreeMap<JobId, BTreeMap<ShardKey, Epoch>> {
    let mut needs: BTreeMap<JobId, BTreeMap<ShardKey, Epoch>> = BTreeMap::new();
    for stage in loaded.topology.stages.iter().filter(|stage| stage.role == Role::Lane) {
        let Some(attached) = loaded.pinned[stage.pipeline].stream() else { continue };
        let lanes = loaded.topology.shards(stage.id);
        let of_stream = needs.entry(attached.row.stream).or_default();
        for (number, shard) in attached.row.shards().into_iter().enumerate() {
            let head = lanes.get(number % lanes.len()).and_then(|lane| heads.get(lane));
            let next = head.map(|head| head.input(shard).epoch.next()).unwrap_or_default();
            of_stream.entry(shard).and_modify(|least| *least = (*least).min(next)).or_insert(next);
        }
    }
    needs
}

/// Lets go of the past of all streams: the job is finished.
///
/// # Errors
/// [`WorkerError::Table`].
pub(crate) async fn release(ctx: &Ctx, loaded: &Loaded) -> Result<(), WorkerError> {
    for attached in loaded.pinned.iter().filter_map(Pinned::stream) {
        retention::unpin(ctx.table.as_ref(), attached.row.stream, &retention::job_reader(loaded.job)).await?;
    }
    Ok(())
}

/// Columns of a stream.
///
/// # Errors
/// [`JobError::Options`] if they cannot be read.
pub(crate) async fn columns_of(ctx: &Ctx, stream: &Attached) -> Result<SchemaRef, JobError> {
    let schema = weir_ingest::read_schema(&ingest_seams(ctx), &stream.row).await;
    schema.map_err(|error| JobError::Options(format!("stream {:?}: {error}", stream.row.name)))
}

/// What appending to streams needs of a context.
#[must_use]
pub fn ingest_seams(ctx: &Ctx) -> weir_ingest::Seams {
    weir_ingest::Seams {
        objects: Arc::clone(&ctx.objects),
        table: Arc::clone(&ctx.table),
        clock: Arc::clone(&ctx.clock),
        ids: Arc::clone(&ctx.ids),
        owner: ctx.owner,
        liveness: Arc::clone(&ctx.liveness),
    }
}

//! What tests of this crate stand on: a store and a table in memory, real time.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use object_store::memory::InMemory;
use weir_coordinator::{MemoryTable, claim};
use weir_model::stream::StreamRow;
use weir_model::{Epoch, Head, Ids, SegmentKind, ShardId, ShardKey};
use weir_seams::{RandomIds, SystemClock, UnknownLiveness};
use weir_state::manifest::{Entries, entries_between};
use weir_state::{SegmentCache, segment};

use crate::{Seams, open_or_create};

pub(crate) fn seams() -> Seams {
    let ids = RandomIds::new();
    let owner = ids.owner();
    Seams {
        objects: Arc::new(InMemory::new()),
        table: Arc::new(MemoryTable::new()),
        clock: Arc::new(SystemClock::new()),
        ids: Arc::new(ids),
        owner,
        liveness: Arc::new(UnknownLiveness),
    }
}

/// Another process on the same store and table.
pub(crate) fn other(seams: &Seams) -> Seams {
    Seams { owner: seams.ids.owner(), ..seams.clone() }
}

pub(crate) fn schema() -> SchemaRef {
    let fields = vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)];
    Arc::new(Schema::new(fields))
}

pub(crate) async fn stream(seams: &Seams, lanes: u16) -> StreamRow {
    open_or_create(seams, "plays", &schema(), lanes).await.unwrap()
}

pub(crate) async fn head(seams: &Seams, shard: ShardKey) -> Head {
    claim::read_head(seams.table.as_ref(), shard).await.unwrap().0
}

/// The `id`s that the stream holds, sorted.
pub(crate) async fn ids(seams: &Seams, row: &StreamRow) -> Vec<i64> {
    let mut ids = Vec::new();
    for shard in row.shards() {
        for batch in rows(seams, shard).await {
            ids.extend(batch.column(0).as_primitive::<Int64Type>().values());
        }
    }
    ids.sort_unstable();
    ids
}

async fn rows(seams: &Seams, shard: ShardKey) -> Vec<RecordBatch> {
    let head = head(seams, shard).await;
    let found = entries_between(seams.objects.as_ref(), &head, Epoch(0), head.epoch).await.unwrap();
    let Entries::Found(entries) = found else { panic!("entries of {shard} are gone") };
    let cache = SegmentCache::new(1 << 20);
    let mut rows = Vec::new();
    for entry in entries {
        if let Some(segment) = entry.segment(SegmentKind::Events) {
            rows.extend(segment::read_for(seams.objects.as_ref(), &cache, segment, ShardId(0)).await.unwrap());
        }
    }
    rows
}

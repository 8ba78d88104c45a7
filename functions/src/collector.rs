//! Retention: raises floors as far as every reader and pin allows, then deletes what fell (G1, G2, G3).
//!
//! Any number of collectors may run: floors rise by compare-and-set, deleting twice is harmless. Heads are read receivers first: a
//! receiver's restart point covers an epoch only if that epoch was committed, so the sender's head read later names everything of it.

use std::collections::BTreeMap;

use weir_coordinator::retention;
use weir_model::decide::{Reader, orphans_may_go};
use weir_model::{Epoch, Head, ShardKey};
use weir_state::collect::{self, Named, Past};

use crate::context::Ctx;
use crate::job::Loaded;
use crate::stream;
use crate::topology::Role;
use crate::worker::WorkerError;

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects deleted because they fell below a floor.
    pub fallen: u64,
    /// Objects deleted because no head ever named them.
    pub orphans: u64,
}

/// One pass. Looks for orphans too (one LIST) if `orphans` is set.
///
/// # Errors
/// [`WorkerError`]; nothing that is needed was deleted.
pub async fn collect(ctx: &Ctx, loaded: &Loaded, orphans: bool) -> Result<Collected, WorkerError> {
    let mut heads: BTreeMap<ShardKey, Head> = BTreeMap::new();
    for stage in loaded.topology.stages.iter().rev() {
        for shard in loaded.topology.shards(stage.id) {
            heads.insert(shard, weir_coordinator::claim::read_head(ctx.table.as_ref(), shard).await?.0);
        }
    }
    let readers = readers(loaded, &heads);
    let row = retention::raise_floors(ctx.table.as_ref(), loaded.job, &readers).await?;
    let store = ctx.objects.as_ref();
    let mut named: Vec<Named> = Vec::with_capacity(heads.len());
    for head in heads.values() {
        let floor = row.floor(&head.shard.to_string());
        named.push(collect::named_by(store, head, floor, Past::of(&row, head)).await?);
    }
    let fallen = collect::delete(store, &collect::deletable(&named)).await?;
    let of_streams = stream::let_go(ctx, loaded, &heads).await?;
    let mut collected = Collected { fallen: fallen + of_streams, orphans: 0 };
    if orphans {
        // The row was read after the heads: who pinned since then reads heads that name no more than these.
        let heads: Vec<Head> = heads.into_values().filter(|head| orphans_may_go(&row, &head.shard.to_string())).collect();
        let lost = collect::orphans(store, loaded.job, &heads, &named).await?;
        collected.orphans = collect::delete(store, &lost).await?;
    }
    Ok(collected)
}

/// Every reader of every shard: its receivers, and itself as far as it replays its own recipes.
fn readers(loaded: &Loaded, heads: &BTreeMap<ShardKey, Head>) -> Vec<Reader> {
    let mut readers = Vec::new();
    for (shard, head) in heads {
        let stage = loaded.topology.stage(shard.stage);
        let own = match stage.role {
            Role::Merge => head.checkpoint.as_ref().map(|checkpoint| checkpoint.epoch).unwrap_or_default(),
            Role::Lane | Role::Publish => head.epoch,
        };
        readers.push(reader(*shard, own));
        let keeps_state = stage.role == Role::Merge;
        readers.extend(
            loaded.topology.upstream_of(*shard).into_iter().map(|from| reader(from, head.restart_point(from, !keeps_state))),
        );
    }
    readers
}

fn reader(of: ShardKey, restart: Epoch) -> Reader {
    Reader { of: of.to_string(), restart }
}

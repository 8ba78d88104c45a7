//! Retention: raises floors as far as every reader and pin allows, then deletes what fell (G1, G2, G3).
//!
//! Any number of collectors may run: floors rise by compare-and-set, deleting twice is harmless. Heads are read receivers first: a
//! receiver's restart point covers an epoch only if that epoch was committed, so the sender's head read later names everything of it.
//!
//! Requests of a pass: a read per shard and of the retention row, a write where floors rise, the deletes. A search for orphans adds one
//! LIST; where it finds objects of the present generation of a shard that nobody holds, one write per such shard and the reads again.

use std::collections::{BTreeMap, BTreeSet};

use weir_coordinator::{ClaimOutcome, retention};
use weir_model::decide::{Reader, orphans_may_go};
use weir_model::retention::Retention;
use weir_model::{Epoch, Head, ShardKey};
use weir_state::collect::{self, Named, Past};

use crate::context::Ctx;
use crate::job::Loaded;
use crate::pins::{liveness, unpin_the_dead};
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

/// What a pass looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// What fell below a floor.
    Fallen,
    /// Also what no head names.
    Orphans,
}

/// One pass.
///
/// # Errors
/// [`WorkerError`]; nothing that is needed was deleted.
pub async fn collect(ctx: &Ctx, loaded: &Loaded, search: Search) -> Result<Collected, WorkerError> {
    let heads = read_heads(ctx, loaded).await?;
    let row = retention::raise_floors(ctx.table.as_ref(), loaded.job, &readers(loaded, &heads)).await?;
    unpin_the_dead(ctx, loaded.job, &row).await?;
    let store = ctx.objects.as_ref();
    let named = named(ctx, &heads, &row).await?;
    let fallen = collect::delete(store, &collect::deletable(&named)).await?;
    let of_streams = stream::let_go(ctx, loaded, &heads).await?;
    let mut collected = Collected { fallen: fallen + of_streams, orphans: 0 };
    if search == Search::Orphans {
        // The row was read after the heads: who pinned since then reads heads that name no more than these.
        let unnamed = collect::orphans(store, loaded.job, &unpinned(heads, &row), &named).await?;
        collected.orphans = collect::delete(store, &unnamed.lost).await?;
        collected.orphans += collect_quiet(ctx, loaded, unnamed.unfinished).await?;
    }
    Ok(collected)
}

/// Receivers first.
async fn read_heads(ctx: &Ctx, loaded: &Loaded) -> Result<BTreeMap<ShardKey, Head>, WorkerError> {
    let mut heads = BTreeMap::new();
    for stage in loaded.topology.stages.iter().rev() {
        for shard in loaded.topology.shards(stage.id) {
            heads.insert(shard, weir_coordinator::claim::read_head(ctx.table.as_ref(), shard).await?.0);
        }
    }
    Ok(heads)
}

/// - `row`: read after the heads.
async fn named(ctx: &Ctx, heads: &BTreeMap<ShardKey, Head>, row: &Retention) -> Result<Vec<Named>, WorkerError> {
    let mut all = Vec::with_capacity(heads.len());
    for head in heads.values() {
        let floor = row.floor(&head.shard.to_string());
        all.push(collect::named_by(ctx.objects.as_ref(), head, floor, Past::of(row, head)).await?);
    }
    Ok(all)
}

fn unpinned(heads: BTreeMap<ShardKey, Head>, row: &Retention) -> Vec<Head> {
    heads.into_values().filter(|head| orphans_may_go(row, &head.shard.to_string())).collect()
}

/// Deletes what the present generations of quiet shards made and never committed (G1): once a shard is fenced, names read after that are
/// final. Shards that somebody holds are left alone: what they have under way looks the same.
async fn collect_quiet(ctx: &Ctx, loaded: &Loaded, unfinished: Vec<(ShardKey, String)>) -> Result<u64, WorkerError> {
    let mut fenced = BTreeSet::new();
    for shard in unfinished.iter().map(|(shard, _)| *shard).collect::<BTreeSet<_>>() {
        let now = ctx.clock.now_micros();
        let outcome = weir_coordinator::fence(ctx.table.as_ref(), shard, now, |holder| liveness(ctx, holder)).await?;
        if matches!(outcome, ClaimOutcome::Claimed(_)) {
            fenced.insert(shard);
        }
    }
    if fenced.is_empty() {
        return Ok(0);
    }
    let heads = read_heads(ctx, loaded).await?;
    let row = retention::read(ctx.table.as_ref(), loaded.job).await?;
    let named = named(ctx, &heads, &row).await?;
    let candidates = unfinished.into_iter().filter(|(shard, _)| fenced.contains(shard)).map(|(_, object)| object);
    let unnamed = collect::judge(ctx.objects.as_ref(), &unpinned(heads, &row), &named, candidates).await?;
    Ok(collect::delete(ctx.objects.as_ref(), &unnamed.lost).await?)
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

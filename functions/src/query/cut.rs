//! A consistent cut: heads read under a pin, sinks first.
//!
//! A receiver's head is read before those of its upstream, so what it consumed is committed there. An event is then in exactly one place:
//! consumed, or in an entry between the two heads.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use weir_coordinator::{claim, retention};
use weir_model::decide::PinDecision;
use weir_model::retention::Pin;
use weir_model::{Epoch, Head, JobId, ShardKey};
use weir_state::manifest::{Entries, entries_between};

use crate::context::Ctx;
use crate::job::Loaded;
use crate::stream::Attached;
use crate::topology::{Role, Stage};

/// Heads of a job and of the streams that it reads.
#[derive(Debug)]
pub(crate) struct Cut {
    heads: BTreeMap<ShardKey, Head>,
}

impl Cut {
    /// Pins the past and reads the heads. Requests: two table writes for the job and each of its streams, one read for each shard.
    ///
    /// # Errors
    /// The table, or a past that cannot be pinned; nothing stays pinned then.
    pub(crate) async fn take(ctx: &Ctx, loaded: &Loaded) -> anyhow::Result<Self> {
        let heads = async {
            for owner in pinned(loaded) {
                let everything = Pin { everything: true, ..Pin::default() };
                let decision = retention::pin(ctx.table.as_ref(), owner, &reader(ctx), &everything).await?;
                anyhow::ensure!(matches!(decision, PinDecision::Write(_)), "the past of job {:?} cannot be pinned", loaded.name);
            }
            let mut heads = BTreeMap::new();
            for shards in sinks_first(loaded) {
                let read = try_join_all(shards.into_iter().map(|shard| claim::read_head(ctx.table.as_ref(), shard))).await?;
                heads.extend(read.into_iter().map(|(head, _)| (head.shard, head)));
            }
            Ok(heads)
        };
        match until_interrupted(heads).await {
            Ok(heads) => Ok(Self { heads }),
            Err(error) => {
                // The first error is what matters; the pin of a process that has ended is taken back by a collector.
                drop(unpin(ctx, loaded).await);
                Err(error)
            }
        }
    }

    /// Lets go of the pin, whatever came of reading under it. A pin that stays, because the table does not answer, is taken back when this
    /// process has ended: no reason to throw an answer away.
    ///
    /// # Errors
    /// That of `read`.
    pub(crate) async fn let_go<T>(self, ctx: &Ctx, loaded: &Loaded, read: anyhow::Result<T>) -> anyhow::Result<T> {
        if let Err(error) = unpin(ctx, loaded).await {
            tracing::warn!(job = loaded.name, %error, "the past stays pinned until this process ends");
        }
        read
    }

    /// Head of `shard`.
    ///
    /// # Errors
    /// None of the job's shards.
    pub(crate) fn head(&self, shard: ShardKey) -> anyhow::Result<&Head> {
        self.heads.get(&shard).ok_or_else(|| anyhow::anyhow!("shard {shard} is not part of the cut"))
    }

    /// All heads of the cut, those of streams too.
    pub(crate) fn heads(&self) -> &BTreeMap<ShardKey, Head> {
        &self.heads
    }

    /// Heads of the shards that `shard` reads from.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub(super) fn upstream(&self, loaded: &Loaded, shard: ShardKey) -> anyhow::Result<BTreeMap<ShardKey, Head>> {
        let heads = loaded.topology.upstream_of(shard).into_iter();
        heads.map(|upstream| Ok((upstream, self.head(upstream)?.clone()))).collect()
    }

    /// Entries of `shard` after epoch `after`.
    ///
    /// # Errors
    /// Entries that are gone although they were pinned.
    pub(super) async fn entries(&self, ctx: &Ctx, shard: ShardKey, after: Epoch) -> anyhow::Result<Vec<weir_model::CommitEntry>> {
        let head = self.head(shard)?;
        match entries_between(ctx.objects.as_ref(), head, after, head.epoch.max(after)).await? {
            Entries::Found(entries) => Ok(entries),
            Entries::Missing => anyhow::bail!("shard {shard}: epochs after {after} are gone"),
        }
    }
}

/// What comes of `reading`, unless somebody presses Ctrl-C first: a pin must be let go of then, too.
///
/// # Errors
/// Those of `reading`, or the interruption.
pub(crate) async fn until_interrupted<T>(reading: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        read = reading => read,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    }
}

fn reader(ctx: &Ctx) -> String {
    retention::look_reader(ctx.owner)
}

/// Whose past is pinned: the job's and that of its streams.
fn pinned(loaded: &Loaded) -> Vec<JobId> {
    let streams = streams(loaded).map(|stream| stream.row.stream);
    [loaded.job].into_iter().chain(streams).collect()
}

/// Streams that the job reads, each once.
pub(super) fn streams(loaded: &Loaded) -> impl Iterator<Item = &Attached> {
    let by_id: BTreeMap<JobId, &Attached> =
        loaded.pinned.iter().filter_map(|pinned| pinned.stream()).map(|stream| (stream.row.stream, stream)).collect();
    by_id.into_values()
}

async fn unpin(ctx: &Ctx, loaded: &Loaded) -> anyhow::Result<()> {
    for owner in pinned(loaded) {
        retention::unpin(ctx.table.as_ref(), owner, &reader(ctx)).await?;
    }
    Ok(())
}

/// Every shard that a cut holds.
pub(super) fn shards(loaded: &Loaded) -> Vec<ShardKey> {
    sinks_first(loaded).concat()
}

/// Shards, stage by stage, each before those that it reads from: those of a stage may be read in any order.
fn sinks_first(loaded: &Loaded) -> Vec<Vec<ShardKey>> {
    let of = |wanted: &dyn Fn(&Stage) -> bool| {
        let stages = loaded.topology.stages.iter().filter(|stage| wanted(stage));
        stages.flat_map(|stage| loaded.topology.shards(stage.id)).collect()
    };
    let aggregates = loaded.plan.pipelines.iter().map(|pipeline| pipeline.aggregates.len()).max().unwrap_or(0);
    let mut shards: Vec<Vec<ShardKey>> = vec![of(&|stage| stage.role == Role::Publish)];
    shards.extend((0..aggregates).rev().map(|number| of(&|stage| stage.role == Role::Merge && stage.aggregate == number)));
    shards.push(of(&|stage| stage.role == Role::Lane));
    shards.push(streams(loaded).flat_map(|stream| stream.row.shards()).collect());
    shards
}

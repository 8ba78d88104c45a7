//! `weir replay`: one batch of a job's shard again, from its recipe, beside what was committed.
//!
//! Heads are read as one cut, and the past is pinned while the batch runs (G2). Never: claims a shard, or writes anything but that pin.

mod shown;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::str::FromStr;

use clap::Args;
use weir_coordinator::retention;
use weir_model::decide::oldest_replayable;
use weir_model::{Epoch, ShardId, ShardKey, StageId};
use weir_state::Kind;
use weir_state::manifest::entries_left;

use super::{Common, named};
use crate::context::Ctx;
use crate::job::Loaded;
use crate::query::{Cut, until_interrupted};
use crate::topology::{Role, Stage};
use crate::worker::WorkerError;
use crate::worker::rerun::{self, Past};

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Name of the job
    job: String,
    /// The shard as weir status names it, or STAGE/SHARD
    #[arg(long, value_name = "SHARD")]
    shard: ShardName,
    /// Number of the commit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    epoch: u64,
    /// Rows to show of each input and output
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
    #[command(flatten)]
    common: Common,
}

/// A shard of some job: `s001-00000` or `1/0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ShardName(StageId, ShardId);

impl FromStr for ShardName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.strip_prefix('s').unwrap_or(text).split_once(['-', '/']);
        let parsed = numbers.and_then(|(stage, shard)| Some(Self(StageId(stage.parse().ok()?), ShardId(shard.parse().ok()?))));
        parsed.ok_or_else(|| "a shard is named as in weir status, s001-00000, or by stage and number, 1/0".to_owned())
    }
}

/// Runs the batch again and prints it.
///
/// - Requests: the heads, the shard's manifests, what the batch and those since the checkpoint before it read.
///
/// # Errors
/// No such job, shard or epoch; an epoch whose past was deleted; a batch that makes something else than what was committed.
pub(super) async fn replay(args: &ReplayArgs) -> anyhow::Result<()> {
    let (opened, loaded) = named::open_to_pin(&args.common.config()?, &args.job).await?;
    let stage = find(&loaded, args.shard)?;
    let shard = ShardKey::new(loaded.job, stage.id, args.shard.1);
    let cut = Cut::take(&opened.ctx, &loaded).await?;
    let told = until_interrupted(tell(&opened.ctx, &loaded, &cut, (shard, stage.role), args)).await;
    let (text, differs) = cut.let_go(&opened.ctx, &loaded, told).await?;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    differs.map_or(Ok(()), |differs| Err(differs.into()))
}

/// The stage of a shard that the job has.
fn find(loaded: &Loaded, ShardName(stage, shard): ShardName) -> anyhow::Result<&Stage> {
    let found = loaded.topology.stages.iter().find(|known| known.id == stage);
    let found = found.filter(|stage| loaded.topology.shards(stage.id).iter().any(|known| known.shard == shard));
    found.ok_or_else(|| {
        let described = |stage: &Stage| {
            let shards = loaded.topology.shards(stage.id);
            let names = [shards.first(), shards.last().filter(|_| shards.len() > 1)];
            let names: Vec<String> = names.into_iter().flatten().map(ToString::to_string).collect();
            format!("{} ({})", names.join(" to "), shown::role(stage.role))
        };
        let known: Vec<String> = loaded.topology.stages.iter().map(described).collect();
        anyhow::anyhow!("job {} has no shard {}/{}: it has {}", loaded.name, stage, shard, known.join(", "))
    })
}

/// What there is to say, and the error of a batch that makes something else than what was committed.
async fn tell(
    ctx: &Ctx,
    loaded: &Loaded,
    cut: &Cut,
    (shard, role): (ShardKey, Role),
    args: &ReplayArgs,
) -> anyhow::Result<(String, Option<WorkerError>)> {
    let (head, epoch) = (cut.head(shard)?, Epoch(args.epoch));
    let last = head.epoch;
    anyhow::ensure!(last > Epoch(0), "shard {shard} has committed nothing yet");
    anyhow::ensure!(epoch <= last, "shard {shard} has not committed epoch {epoch}: its last is {last}");
    let entries = entries_left(ctx.objects.as_ref(), head).await?;
    let past = Past { head, entries: &entries, upstream: cut.heads() };
    let entry = past.entry(epoch);
    let rerun = match (role, entry) {
        (Role::Publish, entry) => return Ok((shown::publisher(head, epoch, entry), None)),
        (Role::Lane, Some(entry)) => rerun::lane(ctx, loaded, past, entry, args.rows).await,
        (Role::Merge, Some(entry)) => rerun::merge(ctx, loaded, past, entry, args.rows).await,
        (Role::Lane | Role::Merge, None) => Err(WorkerError::Gone { shard, after: epoch }),
    };
    match (rerun, entry) {
        (Ok(rerun), Some(entry)) => {
            let text = shown::batch(loaded, (head, role), entry, &rerun)?;
            Ok((text, rerun.differs))
        }
        (Err(error), _) if is_gone(&error) => Err(out_of_reach(ctx, past, role, epoch).await?.unwrap_or_else(|| error.into())),
        (Err(error), _) => Err(error.into()),
        (Ok(_), None) => anyhow::bail!("shard {shard}: epoch {epoch} has no entry"),
    }
}

/// Whether something that was committed is not there.
fn is_gone(error: &WorkerError) -> bool {
    match error {
        WorkerError::Gone { .. } => true,
        WorkerError::State(error) => error.kind() == Kind::Missing,
        _ => false,
    }
}

/// Which epochs can still be replayed; `None` if `epoch` is one of them: then what is gone should be there.
async fn out_of_reach(ctx: &Ctx, past: Past<'_>, role: Role, epoch: Epoch) -> anyhow::Result<Option<anyhow::Error>> {
    let mut floors = BTreeMap::new();
    for owner in past.upstream.keys().map(|shard| shard.job) {
        if let std::collections::btree_map::Entry::Vacant(place) = floors.entry(owner) {
            place.insert(retention::read(ctx.table.as_ref(), owner).await?);
        }
    }
    let floor = |shard: ShardKey| floors.get(&shard.job).map(|row| row.floor(&shard.to_string())).unwrap_or_default();
    let (shard, last) = (past.head.shard, past.head.epoch);
    Ok(match oldest_replayable(past.head, past.entries, role == Role::Merge, floor) {
        Some(oldest) if oldest <= epoch => None,
        Some(oldest) => Some(anyhow::anyhow!(
            "epoch {epoch} of shard {shard} can no longer be replayed, what it needs was deleted: the oldest that can is {oldest}, the last {last}"
        )),
        None => Some(anyhow::anyhow!(
            "epoch {epoch} of shard {shard} can no longer be replayed, what it needs was deleted: so was that of all epochs up to the last, {last}"
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_named_as_status_does_or_by_its_numbers() {
        let name = ShardName(StageId(1), ShardId(12));
        assert_eq!(["s001-00012", "1/12", "001-12"].map(str::parse), [Ok(name), Ok(name), Ok(name)]);
        for wrong in ["", "1", "s1", "x/1", "1/", "1/2/3", "-1/2", "70000/1"] {
            assert!(wrong.parse::<ShardName>().is_err(), "{wrong}");
        }
    }
}

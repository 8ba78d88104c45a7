//! `weir partials`: the Parquet files that hold a job's open windows, or copies of them.
//!
//! A running job deletes what its shards no longer need, so a list says what was there when it was made. Copies are taken under a pin
//! (G2): written before the heads are read, let go of when all is copied. The pin bears the name of this process; a collector takes it
//! back when the process has died with it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;
use weir_coordinator::{claim, jobs};
use weir_model::job::DesiredState;
use weir_model::{SegmentKind, ShardKey};
use weir_plan::AggregateStage;
use weir_state::manifest::{Entries, entries_between};

use super::{Common, named};
use crate::job::Loaded;
use crate::open::Opened;
use crate::query::{Cut, until_interrupted};
use crate::topology::Stage;

#[derive(Debug, Args)]
pub(super) struct PartialsArgs {
    /// Name of the job.
    job: String,
    /// Copy the files to this folder, made if missing, and list the copies
    #[arg(long, value_name = "DIR")]
    copy: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn partials(args: &PartialsArgs) -> anyhow::Result<()> {
    match &args.copy {
        Some(folder) => copy(args, folder).await,
        None => list(args).await,
    }
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
async fn list(args: &PartialsArgs) -> anyhow::Result<()> {
    let config = args.common.config()?;
    let (opened, loaded) = named::open(&config, &args.job).await?;
    let root = config.store.strip_prefix("file://").unwrap_or(&config.store);
    for object in open_partials(&opened, &loaded).await? {
        println!("{root}/{object}");
    }
    if jobs::row(opened.ctx.table.as_ref(), loaded.job).await?.desired == DesiredState::Running {
        eprintln!("note: if the job runs it may delete these files before they are read: --copy DIR gives copies that stay");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
async fn copy(args: &PartialsArgs, folder: &Path) -> anyhow::Result<()> {
    let (opened, loaded) = named::open_to_pin(&args.common.config()?, &args.job).await?;
    let cut = Cut::take(&opened.ctx, &loaded).await?;
    let copied = until_interrupted(copy_all(&opened, &loaded, folder)).await;
    let copied = cut.let_go(&opened.ctx, &loaded, copied).await;
    for copy in copied.with_context(|| format!("the copies in {} are not complete", folder.display()))? {
        println!("{}", copy.display());
    }
    Ok(())
}

async fn copy_all(opened: &Opened, loaded: &Loaded, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).with_context(|| format!("folder {}", folder.display()))?;
    let mut copies = Vec::new();
    for object in open_partials(opened, loaded).await? {
        let bytes = opened.ctx.objects.get(&ObjectPath::from(object.as_str())).await?.bytes().await?;
        // Names of objects are unique whatever folder they lie in.
        let copy = folder.join(object.rsplit('/').next().unwrap_or(&object));
        std::fs::write(&copy, bytes).with_context(|| format!("file {}", copy.display()))?;
        copies.push(copy);
    }
    Ok(copies)
}

/// A shard's checkpoint, and the exchange segments that it has not folded into one.
async fn open_partials(opened: &Opened, loaded: &Loaded) -> anyhow::Result<Vec<String>> {
    let mut objects = Vec::new();
    let windows: Vec<&Stage> = loaded.topology.stages.iter().filter(|stage| has_windows(loaded, stage)).collect();
    anyhow::ensure!(!windows.is_empty(), "job {} has no windows: none of its results waits for a watermark", loaded.name);
    for stage in windows {
        for shard in loaded.topology.shards(stage.id) {
            objects.extend(of_shard(opened, loaded, shard).await?);
        }
    }
    objects.sort();
    objects.dedup();
    Ok(objects)
}

/// Whether the partials of a stage are of windows; those of a table by key take each other's place.
fn has_windows(loaded: &Loaded, stage: &Stage) -> bool {
    loaded.aggregate(stage.id).is_some_and(AggregateStage::is_window)
}

async fn of_shard(opened: &Opened, loaded: &Loaded, shard: ShardKey) -> anyhow::Result<Vec<String>> {
    let table = opened.ctx.table.as_ref();
    let (head, _) = claim::read_head(table, shard).await?;
    let checkpoint = head.checkpoint.iter().flat_map(|checkpoint| &checkpoint.objects);
    let mut objects: Vec<String> = checkpoint.map(|object| object.object.clone()).collect();
    for from in loaded.topology.upstream_of(shard) {
        let (upstream, _) = claim::read_head(table, from).await?;
        let after = head.restart_point(from, false);
        let Entries::Found(entries) = entries_between(opened.ctx.objects.as_ref(), &upstream, after, upstream.epoch).await?
        else {
            anyhow::bail!("the job moved on while it was read: try again");
        };
        let exchange = entries.iter().filter_map(|entry| entry.segment(SegmentKind::Exchange));
        objects.extend(exchange.filter(|segment| segment.rows_for(shard.shard) > 0).map(|segment| segment.object.clone()));
    }
    Ok(objects)
}

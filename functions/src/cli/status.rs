//! `weir status` and `weir partials`: what a store holds, from the table's rows.

use std::fmt::Write;

use weir_coordinator::jobs;
use weir_model::decide::{OwnerLiveness, is_given_up};
use weir_model::{Activity, Head, SegmentKind, ShardKey};
use weir_state::manifest::{Entries, entries_between};

use super::live::{count, shown_time};
use super::named;
use crate::config::Config;
use crate::job::{self, Loaded};
use crate::open::{self, Opened};
use crate::topology::Role;

/// Prints every job and shard.
#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
pub(super) async fn status(config: &Config) -> anyhow::Result<()> {
    let opened = open::open_to_look(config).await?;
    let found = jobs::list(opened.ctx.table.as_ref()).await?;
    if found.is_empty() {
        println!("no jobs in {}; start one with: weir run JOB.sql", config.store);
    }
    for (name, id) in found {
        let row = jobs::row(opened.ctx.table.as_ref(), id).await?;
        println!("{name}  {:?}  id {id}", row.desired);
        let loaded = match job::open(&opened.ctx, id).await {
            Ok(loaded) => loaded,
            Err(error) => {
                println!("  cannot be shown: {error}");
                continue;
            }
        };
        let heads = jobs::heads(opened.ctx.table.as_ref(), &loaded.topology.all_shards()).await?;
        print!("{}", table(&opened, &loaded, &heads)?);
    }
    Ok(())
}

fn table(opened: &Opened, loaded: &Loaded, heads: &[Head]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "  {:<12} {:<8} {:>8} {:>5} {:<20} {:>15} {:>15} {:>8} {:>8}  state",
        "shard", "role", "epoch", "gen", "watermark", "rows in", "rows out", "late", "dead"
    )?;
    for head in heads {
        let role = match loaded.topology.stage(head.shard.stage).role {
            Role::Lane => "lane",
            Role::Merge => "merge",
            Role::Publish => "publish",
        };
        let given_up = is_given_up(head, opened.ctx.clock.now_micros());
        let state = match (&head.owner, head.activity) {
            (_, Activity::Closed) => "closed".to_owned(),
            _ if given_up => "its workers die: weir run tries again".to_owned(),
            (None, _) => "free".to_owned(),
            (Some(owner), _) => match opened.ctx.liveness.of(owner.id) {
                OwnerLiveness::Alive => "held".to_owned(),
                OwnerLiveness::Dead => "its holder is gone".to_owned(),
                OwnerLiveness::Unknown => "leased".to_owned(),
            },
        };
        let stats = &head.stats;
        writeln!(
            text,
            "  {:<12} {role:<8} {:>8} {:>5} {:<20} {:>15} {:>15} {:>8} {:>8}  {state}",
            head.shard.to_string(),
            head.epoch.0,
            head.generation.0,
            shown_time(head.watermark),
            count(stats.rows_in),
            count(stats.rows_out),
            stats.rows_late,
            stats.rows_dead,
        )?;
    }
    Ok(text)
}

/// Prints the files that hold the partials of open windows: a shard's checkpoint, and the exchange segments it has not folded into one.
#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
pub(super) async fn partials(config: &Config, name: &str) -> anyhow::Result<()> {
    let (opened, loaded) = named::open(config, name).await?;
    let root = config.store.strip_prefix("file://").unwrap_or(&config.store);
    for object in open_partials(&opened, &loaded).await? {
        println!("{root}/{object}");
    }
    Ok(())
}

async fn open_partials(opened: &Opened, loaded: &Loaded) -> anyhow::Result<Vec<String>> {
    let mut objects = Vec::new();
    for stage in loaded.topology.stages.iter().filter(|stage| stage.role == Role::Merge) {
        for shard in loaded.topology.shards(stage.id) {
            objects.extend(of_shard(opened, loaded, shard).await?);
        }
    }
    objects.sort();
    objects.dedup();
    Ok(objects)
}

async fn of_shard(opened: &Opened, loaded: &Loaded, shard: ShardKey) -> anyhow::Result<Vec<String>> {
    let (head, _) = weir_coordinator::claim::read_head(opened.ctx.table.as_ref(), shard).await?;
    let checkpoint = head.checkpoint.iter().flat_map(|checkpoint| &checkpoint.objects);
    let mut objects: Vec<String> = checkpoint.map(|object| object.object.clone()).collect();
    for from in loaded.topology.upstream_of(shard) {
        let (upstream, _) = weir_coordinator::claim::read_head(opened.ctx.table.as_ref(), from).await?;
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

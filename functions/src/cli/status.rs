//! `weir status`: what a store holds, from the table's rows.

mod hot;

use std::fmt::Write;

use weir_coordinator::jobs;
use weir_model::decide::{OwnerLiveness, is_given_up};
use weir_model::head::Owner;
use weir_model::{Activity, Head, OwnerId};

use super::live::{count, shown_time};
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
        for sentence in hot::sentences(&opened.ctx, &loaded, &heads).await {
            println!("  {sentence}");
        }
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
            (None | Some(Owner { id: OwnerId::NOBODY, .. }), _) => "free".to_owned(),
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

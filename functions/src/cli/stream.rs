//! `weir stream create | list | close`: streams, which requests are appended to and jobs read.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use weir_coordinator::{jobs, retention, streams};
use weir_model::Activity;
use weir_model::stream::StreamRow;

use super::live::count;
use super::{Common, in_script, read_script};
use crate::context::Ctx;
use crate::open;
use crate::stream::{attach, ingest_seams, name_of};

/// What to do with streams.
#[derive(Debug, Subcommand)]
pub(super) enum StreamCommand {
    /// Makes the streams that a script reads, so that they can be fed before the job starts
    ///
    /// One for each table with 'connector' = 'http'; those that are there stay as they are.
    Create {
        /// The script.
        script: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Lists the streams, their rows, and the jobs that hold their past
    List(Common),
    /// Ends a stream: it takes nothing any more, and the jobs that read it end when they have read all of it
    Close {
        /// Name of the stream.
        stream: String,
        #[command(flatten)]
        common: Common,
    },
}

pub(super) async fn stream(command: &StreamCommand) -> anyhow::Result<()> {
    match command {
        StreamCommand::Create { script, common } => create(script, common).await,
        StreamCommand::List(common) => list(common).await,
        StreamCommand::Close { stream, common } => close(stream, common).await,
    }
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
async fn create(script: &Path, common: &Common) -> anyhow::Result<()> {
    let sql = read_script(script)?;
    let plan = weir_plan::compile(&sql).await.map_err(|error| in_script(script, &error))?;
    let opened = open::open(&common.config()?).await?;
    let mut found = 0;
    for source in plan.pipelines.iter().map(|pipeline| &pipeline.source) {
        let Some(name) = name_of(source) else { continue };
        let row = attach(&opened.ctx, source, name).await?.row;
        println!("{}: {} lanes", row.name, row.lanes);
        found += 1;
    }
    anyhow::ensure!(found > 0, "{}: no table of it has 'connector' = 'http'", script.display());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
async fn list(common: &Common) -> anyhow::Result<()> {
    let opened = open::open_to_look(&common.config()?).await?;
    let rows = streams::list(opened.ctx.table.as_ref()).await?;
    if rows.is_empty() {
        println!("no streams; make those of a script with: weir stream create JOB.sql");
    }
    for row in rows {
        println!("{}", line(&opened.ctx, &row).await?);
    }
    Ok(())
}

async fn line(ctx: &Ctx, row: &StreamRow) -> anyhow::Result<String> {
    let heads = jobs::heads(ctx.table.as_ref(), &row.shards()).await?;
    let rows: u64 = heads.iter().map(|head| head.stats.rows_in).sum();
    let readers = retention::read(ctx.table.as_ref(), row.stream).await?.pins.len();
    let state = match heads.iter().all(|head| head.activity == Activity::Closed) {
        true => "closed",
        false if row.closed => "closing: close it again",
        false => "open",
    };
    let (rows, lanes) = (count(rows), row.lanes);
    Ok(format!("{:<24} {rows:>15} rows  {lanes:>2} lanes  read by {readers} jobs  {state}", row.name))
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
async fn close(name: &str, common: &Common) -> anyhow::Result<()> {
    let opened = open::open(&common.config()?).await?;
    let row = streams::close(opened.ctx.table.as_ref(), name).await?;
    let row = row.ok_or_else(|| anyhow::anyhow!("there is no stream {name}: weir stream list shows those that are there"))?;
    weir_ingest::close_lanes(&ingest_seams(&opened.ctx), &row).await.map_err(anyhow::Error::msg)?;
    println!("{name} is closed");
    Ok(())
}

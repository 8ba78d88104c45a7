//! `weir replay-rows`: late rows and dead letters into a stream again, each once however often the command is killed and repeated (X3).
//!
//! ```text
//! heads --> lists of what was set aside --> parts of 1,000 rows --> where, not taken before, decoded anew --> the stream's lanes
//!                                                                   \_ a key per part and time says which of its rows were taken _/
//! ```
//! What was set aside stays: the stream takes a copy, and the table remembers for ever that it did.
//! Never: reads or moves a lane of the job itself.

mod aside;
mod condition;
mod feed;
mod fit;
mod part;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use weir_coordinator::streams;
use weir_ingest::{Appender, FoldSettings};
use weir_model::stream::StreamRow;

use super::live::count;
use super::ticker::Ticker;
use super::{Common, named};
use crate::context::Ctx;
use crate::job::Loaded;
use crate::kept::Stream;
use crate::query::until_interrupted;
use crate::stream::ingest_seams;
use aside::Aside;
use condition::Condition;
use feed::{Feeder, Tally, Way};
use fit::Fit;

#[derive(Debug, Args)]
pub(super) struct ReplayRowsArgs {
    /// Name of the job that set the rows aside
    job: String,
    /// Its late rows only
    #[arg(long, group = "kind")]
    late: bool,
    /// Its dead letters only
    #[arg(long, group = "kind")]
    dead: bool,
    /// The INSERT that set them aside, by its sink's name; needed where several did
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// The stream that takes them
    #[arg(long, value_name = "STREAM")]
    into: String,
    /// Only rows for which this holds, over the columns that weir late or weir dead prints
    #[arg(long = "where", value_name = "SQL", requires = "kind")]
    only: Option<String>,
    /// Count and show the first rows; nothing is written
    #[arg(long)]
    dry_run: bool,
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    common: Common,
}

impl ReplayRowsArgs {
    fn kinds(&self) -> &'static [Stream] {
        match (self.late, self.dead) {
            (true, _) => &[Stream::Late],
            (_, true) => &[Stream::Dead],
            (false, false) => &[Stream::Late, Stream::Dead],
        }
    }
}

/// Feeds what a job set aside to a stream.
///
/// - Requests: the heads, their lists, one or two per segment; per part of 1,000 rows one read of the table, and its share of a commit.
///   Memory: a few segments.
///
/// # Errors
/// No such job, sink or stream; rows that do not fit the stream; a condition that cannot be understood; rows that can still not be read,
/// after all others were taken.
pub(super) async fn replay_rows(args: &ReplayRowsArgs) -> anyhow::Result<()> {
    let (opened, loaded) = named::open_to_pin(&args.common.config()?, &args.job).await?;
    let ctx = &opened.ctx;
    let stream = find_stream(ctx, &args.into).await?;
    let columns = weir_ingest::read_schema(&ingest_seams(ctx), &stream).await?;
    let (mut unreadable, mut found) = (0, 0);
    for kind in args.kinds() {
        let Some(aside) = aside::find(ctx, &loaded, *kind, args.sink.as_deref()).await? else { continue };
        found += aside.rows;
        unreadable += feed(ctx, &loaded, args, &aside, (&stream, &columns)).await?;
    }
    if found == 0 {
        let kinds: Vec<&str> = args.kinds().iter().map(|kind| kind.noun()).collect();
        eprintln!("{}: no {}", args.job, kinds.join(" and no "));
    }
    let job = &args.job;
    anyhow::ensure!(
        unreadable == 0,
        "{} rows can still not be read by the columns of stream {}\nhelp: mend them by hand (weir dead {job} | jq -r .raw > mend.json; weir ingest), or leave them out with --where",
        count(unreadable),
        args.into
    );
    Ok(())
}

async fn find_stream(ctx: &Ctx, name: &str) -> anyhow::Result<StreamRow> {
    if let Some(row) = streams::find(ctx.table.as_ref(), name).await? {
        return Ok(row);
    }
    let known = streams::list(ctx.table.as_ref()).await?;
    let names: Vec<&str> = known.iter().map(|row| row.name.as_str()).collect();
    let there = if names.is_empty() { "there are none yet".to_owned() } else { format!("there are {}", names.join(", ")) };
    anyhow::bail!("there is no stream {name}; {there}\nhelp: weir stream create JOB.sql makes those that a script reads")
}

/// Feeds the rows of one kind; returns how many of them cannot be read.
async fn feed(
    ctx: &Ctx,
    loaded: &Loaded,
    args: &ReplayRowsArgs,
    aside: &Aside,
    (stream, columns): (&StreamRow, &SchemaRef),
) -> anyhow::Result<u64> {
    let only = args.only.as_deref().map(|sql| Condition::new(sql, &aside.columns)).transpose()?;
    let fit = Fit::new(loaded, aside, stream, columns)?;
    let way = match args.dry_run {
        true => Way::Nowhere,
        false => {
            Way::Into(Appender::start(&ingest_seams(ctx), stream.clone(), SchemaRef::clone(columns), FoldSettings::default()))
        }
    };
    let feeder = Feeder { ctx, stream, fit, only, way };
    let fed = until_interrupted(feed_parts(&feeder, aside, args.quiet)).await;
    if let Way::Into(appender) = feeder.way {
        appender.leave().await;
    }
    let (tally, elapsed) = fed?;
    if !args.quiet {
        report(args, aside, &tally, elapsed)?;
    }
    Ok(tally.unreadable)
}

#[expect(clippy::disallowed_methods, reason = "a command measures its own time for a person")]
async fn feed_parts(feeder: &Feeder<'_>, aside: &Aside, quiet: bool) -> anyhow::Result<(Tally, Duration)> {
    let began = Instant::now();
    let mut ticker = Ticker::new(!quiet && std::io::stderr().is_terminal());
    let mut all = Tally::default();
    let mut tallies = std::pin::pin!(feeder.feed(aside));
    let fed = async {
        while let Some(tally) = tallies.try_next().await? {
            all.add(tally);
            ticker.show(began.elapsed(), || format!("{} of {} {}", count(all.rows), count(aside.rows), aside.kind.noun()));
        }
        anyhow::Ok(())
    }
    .await;
    ticker.end();
    fed?;
    Ok((all, began.elapsed()))
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
fn report(args: &ReplayRowsArgs, aside: &Aside, tally: &Tally, elapsed: Duration) -> anyhow::Result<()> {
    let (into, noun, sink) = (&args.into, aside.kind.noun(), &aside.sink);
    if args.dry_run {
        println!("{into}: would take {} of {} {noun} of {sink}", count(tally.fed), count(tally.rows));
        if !tally.first.is_empty() {
            println!("{}", pretty_format_batches(&tally.first)?);
        }
    } else {
        let seconds = elapsed.as_secs_f64();
        println!("{into}: took {} of {} {noun} of {sink} in {seconds:.1} s", count(tally.fed), count(tally.rows));
    }
    let beside = [
        (tally.before, "were taken before"),
        (tally.left_out, "are left out by --where"),
        (tally.unreadable, "cannot be read by its columns"),
    ];
    for (rows, what) in beside.into_iter().filter(|(rows, _)| *rows > 0) {
        println!("  {} {what}", count(rows));
    }
    for reason in &tally.reasons {
        println!("    {reason}");
    }
    Ok(())
}

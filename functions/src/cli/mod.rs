//! The command line: `weir run | submit | explain | cost | status | serve | ingest | stream | query | partials | late | dead | replay-rows |
//! replay | table | test | generate | bench`.

mod bench;
mod cost;
mod generate;
mod ingest;
mod kept;
mod live;
mod named;
mod partials;
mod query;
mod replay;
mod replay_rows;
mod run;
mod serve;
mod settings;
mod status;
mod stream;
mod table;
mod test;
mod ticker;
mod token;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::context::Stop;
use crate::kept::Stream;
pub(crate) use settings::{Common, Running, check_environment};

/// Stateful stream processing without a cluster.
///
/// Write Flink-style SQL in a file and run it. Events, state and results are Parquet files in a folder (--store); one small table
/// (--coordination) makes each step exactly once. Stop it with Ctrl-C or kill it: run it again and it goes on where it stopped.
#[derive(Debug, Parser)]
#[command(name = "weir", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a job until its input ends; run again to go on where it stopped
    ///
    /// Several processes may run the same job on the same store: they share its shards and take over from each other.
    Run(run::RunArgs),
    /// Creates a job and leaves it to functions that watch the table
    ///
    /// What is deployed to AWS Lambda runs it. `weir status` shows how far it is.
    Submit(run::SubmitArgs),
    /// Shows what a script becomes: stages, exchange keys, state, watermark, guarantee, and what is refused
    Explain {
        /// The script.
        script: PathBuf,
    },
    /// Runs cases of rows in, event time and rows expected: every NAME.test.toml of a folder
    ///
    /// Each case runs on the real engine with stores in memory and a clock of its own, at several parallelisms, without and with
    /// crashes. The job's own connectors are not opened: nothing outside is read or written.
    #[command(after_help = TEST_EXAMPLE)]
    Test(test::TestArgs),
    /// Shows the jobs of a store and how far each shard is
    Status(Common),
    /// Takes rows by HTTP into streams, which jobs read: CREATE TABLE .. WITH ('connector' = 'http')
    ///
    /// An answer of 200 means that the rows are durable. POST rows to /v1/streams/STREAM/rows; /openapi.json describes the rest.
    #[command(after_help = SERVE_EXAMPLE)]
    Serve(serve::ServeArgs),
    /// Sends a file or standard input to a stream of a server, each row once
    #[command(after_help = INGEST_EXAMPLE)]
    Ingest(ingest::IngestArgs),
    /// Makes, lists and closes streams
    #[command(subcommand)]
    Stream(stream::StreamCommand),
    /// Answers SQL over results, open windows, tables by key, late rows, dead letters and streams
    ///
    /// Reads what is committed, as one consistent cut, while the job runs or after it ended. Tables are named SCHEMA.TABLE, or
    /// "JOB".SCHEMA.TABLE where the store has several jobs; without a schema it is a table of results.
    #[command(after_help = QUERY_EXAMPLE)]
    Query(query::QueryArgs),
    /// Lists the Parquet files that hold the partials of a job's open windows, for any engine to read
    ///
    /// A job that runs deletes such files once it no longer needs them: --copy DIR gives copies that stay.
    #[command(after_help = PARTIALS_EXAMPLE)]
    Partials(partials::PartialsArgs),
    /// Prints the rows that came after their window took rows, one JSON object a line
    ///
    /// They are in no result; `weir status` counts them. Reads what is committed, while the job runs or after it ended. Each line has
    /// the source's columns as the job reads them; rows are ordered by shard, epoch and place in it.
    #[command(after_help = LATE_EXAMPLE)]
    Late {
        /// Name of the job.
        job: String,
        #[command(flatten)]
        common: Common,
    },
    /// Prints the rows that could not be decoded or have no place in time, one JSON object a line
    ///
    /// They are in no result; `weir status` counts them. Each line has `source` (the file, or the lane of a row that was decoded),
    /// `offset` (of its first byte in the decoded file, or null), `reason`, and `raw`, the row as it came. Works while the job runs
    /// and after it ended.
    #[command(after_help = DEAD_EXAMPLE)]
    Dead {
        /// Name of the job.
        job: String,
        #[command(flatten)]
        common: Common,
    },
    /// Feeds late rows and dead letters to a stream again, each once however often this is killed and repeated
    ///
    /// For after a fix: the stream is that of a job that takes the rows now. Without --late or --dead it feeds both. Late rows go by
    /// the names of their columns. Of dead letters the row as it came is decoded anew by the stream's columns, CSV by their order; what
    /// still cannot be read is named and stays where it is. A stream remembers for ever what it took, whatever --where said; what was
    /// set aside is kept as it was. To have the rows in a file instead: weir late JOB > rows.json; weir dead JOB | jq -r .raw.
    #[command(name = "replay-rows", after_help = REPLAY_ROWS_EXAMPLE)]
    ReplayRows(replay_rows::ReplayRowsArgs),
    /// Runs one batch of a job again from its recipe, and tells what it read, made and changed
    ///
    /// Compares the digest of what it made with the one committed; exits with 1 if they differ. Nothing is written: the job may run
    /// meanwhile. What a job no longer needs is deleted, and with it the batches that need it.
    #[command(after_help = REPLAY_EXAMPLE)]
    Replay(replay::ReplayArgs),
    /// Makes or looks at a coordination table in DynamoDB
    ///
    /// Credentials, region and endpoint are found as every AWS tool finds them: AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL_DYNAMODB.
    #[command(subcommand)]
    Table(table::TableCommand),
    /// Makes input files: plays of songs (the example's), or Nexmark bids
    Generate(generate::GenerateArgs),
    /// Measures throughput and requests against the same SQL as one plain DataFusion batch; or latency, or recovery
    Bench(bench::BenchArgs),
    /// Turns counted requests, bytes and function seconds into money
    #[command(after_help = COST_EXAMPLE)]
    Cost(cost::CostArgs),
    /// Serves one invocation given as JSON on the socket that is standard input (used by --invoke process)
    #[command(hide = true)]
    Invoke,
}

const TEST_EXAMPLE: &str = "Example: plays.test.toml, beside job.sql; docs/testing.md tells the rest
  job = \"job.sql\"

  [[step]]
  rows.plays = '''
  {\"song_id\": 1, \"user_id\": 7, \"play_score\": 0.5, \"etime\": \"2026-01-01 00:00:01\"}
  '''

  [[step]]
  advance = \"2026-01-01 00:00:10\"
  expect.hot = '''
  {\"window_start\": \"2026-01-01 00:00:00\", \"song_id\": 1, \"plays\": 1, \"score\": 0.5}
  '''";

const SERVE_EXAMPLE: &str = "Example: a job fed by HTTP
  weir run job.sql &
  weir serve &
  curl -H 'content-type: application/json' -d '{\"song_id\": 1}' http://127.0.0.1:8080/v1/streams/plays/rows";

const INGEST_EXAMPLE: &str = "Examples
  weir ingest plays < plays.json
  weir ingest plays plays.csv --csv-header --server https://ingest.example.com --token-file token";

const COST_EXAMPLE: &str = "Example: a million events, with the quantities that weir bench prints
  weir cost --events 1e6 --puts 0.65 --gets 0.11 --write-units 11.2 --read-units 1.5 --function-seconds 0.2";

const QUERY_EXAMPLE: &str = "Examples: what there is to ask; results; windows that are still open; why rows were refused
  weir query
  weir query 'SELECT song_id, sum(plays) FROM hot GROUP BY song_id ORDER BY 2 DESC LIMIT 10'
  weir query 'SELECT * FROM live.hot WHERE song_id = 7' --follow
  weir query 'SELECT reason, count(*) FROM dead.hot GROUP BY reason' --format csv > reasons.csv
  weir query --serve & psql -h 127.0.0.1 -p 5433 weir weir";

const PARTIALS_EXAMPLE: &str = "Example: the open windows of a job that runs
  weir partials hot_songs --copy now
  duckdb -c \"SELECT song_id, sum(plays__count) FROM 'now/*.parquet' GROUP BY song_id\"";

const LATE_EXAMPLE: &str = "Example: count the late plays of each song
  weir late hot_songs | jq .song_id | sort | uniq -c";

const DEAD_EXAMPLE: &str = "Examples: what is wrong, and how often; the rows themselves, to mend them
  weir dead hot_songs | jq -r .reason | sort | uniq -c
  weir dead hot_songs | jq -r .raw > mend.json";

const REPLAY_ROWS_EXAMPLE: &str =
    "Example: song_id was declared BIGINT and some rows have a text; mended.sql declares it STRING and reads stream mended
  weir stream create mended.sql
  weir replay-rows hot_songs --dead --into mended --dry-run
  weir replay-rows hot_songs --dead --into mended --where \"reason LIKE '%song_id%'\"
  weir run mended.sql

A job whose windows have fired finds late rows late again: feed them to a job of its own (docs/replay.md).";

const REPLAY_EXAMPLE: &str = "Example: which commits there are, and why the last of a merge shard gave what it did
  weir status
  weir replay hot_songs --shard s001-00000 --epoch 12 --rows 5";

/// Parses the command line and runs it.
///
/// # Errors
/// What the user must be told; the process exits with 1.
pub fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| "warn".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    check_environment()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(execute(cli.command))
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => run::run(&args).await,
        Command::Submit(args) => run::submit(&args).await,
        Command::Explain { script } => {
            let sql = read_script(&script)?;
            let plan = weir_plan::compile(&sql).await.map_err(|error| in_script(&script, &error))?;
            crate::job::ScriptSettings::new(&plan.options)?;
            print!("{}", weir_plan::explain(&plan));
            Ok(())
        }
        Command::Test(args) => test::test(&args).await,
        Command::Status(common) => status::status(&common.config()?).await,
        Command::Serve(args) => serve::serve(&args).await,
        Command::Ingest(args) => ingest::ingest(&args).await,
        Command::Stream(command) => stream::stream(&command).await,
        Command::Query(args) => query::query(&args).await,
        Command::Partials(args) => partials::partials(&args).await,
        Command::Late { job, common } => kept::print(&common.config()?, &job, Stream::Late).await,
        Command::Dead { job, common } => kept::print(&common.config()?, &job, Stream::Dead).await,
        Command::ReplayRows(args) => replay_rows::replay_rows(&args).await,
        Command::Replay(args) => replay::replay(&args).await,
        Command::Table(command) => table::table(&command).await,
        Command::Generate(args) => generate::generate(&args),
        Command::Bench(args) => bench::bench(&args).await,
        Command::Cost(args) => cost::cost(&args),
        Command::Invoke => {
            let stop = Stop::default();
            tokio::spawn(run::leave_when_asked(stop.clone()));
            crate::host::serve_invocation(stop).await.context("an event of weir run --invoke process on standard input")
        }
    }
}

/// An error with its causes, but for those that it tells already.
#[must_use]
pub fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

pub(crate) fn read_script(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("script {}", path.display()))
}

/// A compile error with the script's name, so that editors can jump to the place.
pub(crate) fn in_script(path: &Path, error: &dyn std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{}: {error}", path.display())
}

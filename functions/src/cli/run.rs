//! `weir run`: creates or opens the job, serves it, shows how it goes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::serve::{Beside, Serving};
use super::{Common, Running, in_script, live, read_script};
use crate::config::Config;
use crate::context::Stop;
use crate::host::{self, Outcome};
use crate::job::{self, JobError, Loaded, ScriptSettings};
use crate::open::{self, Opened};

/// What to run.
#[derive(Debug, Args)]
struct Script {
    /// The script.
    script: PathBuf,
    /// Name of the job [default: SET 'pipeline.name', else the script's file name]
    #[arg(long, env = "WEIR_NAME")]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    #[command(flatten)]
    script: Script,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    running: Running,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    script: Script,
    /// Also take rows of the job's streams by HTTP at this address, as weir serve does
    #[arg(long, env = "WEIR_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    serving: Serving,
    /// Print nothing but errors
    #[arg(long, short, env = "WEIR_QUIET", value_parser = FalseyValueParser::new())]
    quiet: bool,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    running: Running,
}

impl RunArgs {
    /// The file's settings and what the flags and the environment say.
    pub(super) fn settings(&self) -> anyhow::Result<Config> {
        let mut config = self.common.config()?;
        self.running.apply(&mut config);
        self.serving.apply(&mut config);
        config.listen = self.listen.or(config.listen);
        config.quiet |= self.quiet;
        config.name = self.script.name.clone().or(config.name);
        Ok(config)
    }
}

/// Exit code of a run that was ended at once.
const ENDED_AT_ONCE: i32 = 130;

/// Ctrl-C or SIGTERM commits and leaves; a second one leaves at once, which loses nothing either.
pub(super) async fn leave_when_asked(stop: Stop) {
    let Ok(mut terminated) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else { return };
    loop {
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => if pressed.is_err() { return },
            _ = terminated.recv() => {}
        }
        if stop.requested() {
            std::process::exit(ENDED_AT_ONCE);
        }
        stop.request();
    }
}

/// A job that is there, and where.
struct Prepared {
    config: Config,
    opened: Opened,
    loaded: Arc<Loaded>,
}

/// Creates the script's job, or opens it if it is there.
async fn prepare(script: &Script, mut config: Config, running: &Running) -> anyhow::Result<Prepared> {
    let sql = read_script(&script.script)?;
    let plan = weir_plan::compile(&sql).await.map_err(|error| in_script(&script.script, &error))?;
    let settings = ScriptSettings::new(&plan.options)?;
    config.commit_interval = settings.commit_interval.unwrap_or(config.commit_interval);
    running.apply(&mut config);
    let in_memory = config.store == "memory:" || config.places().coordination() == "memory:";
    anyhow::ensure!(
        config.invoke == crate::config::Invoke::Thread || !in_memory,
        "--invoke process needs a store that processes share: --store file://DIR and --coordination sqlite://FILE or dynamodb://TABLE"
    );
    let opened = open::open(&config).await?;
    let stem = script.script.file_stem().and_then(|stem| stem.to_str()).unwrap_or("job");
    let name = script.name.clone().or(settings.name).or_else(|| config.name.clone()).unwrap_or_else(|| stem.to_owned());
    let loaded = job::open_or_create(&opened.ctx, &name, &sql, config.parallelism(), config.key_groups).await;
    let loaded = Arc::new(loaded.map_err(|error| match error {
        JobError::Plan(error) => in_script(&script.script, &error),
        other => other.into(),
    })?);
    if let Some(warning) = ignored_parallelism(&config, &loaded) {
        eprintln!("warning: {warning}");
    }
    Ok(Prepared { config, opened, loaded })
}

/// What to tell who asks for another parallelism than the job has.
fn ignored_parallelism(config: &Config, loaded: &Loaded) -> Option<String> {
    let (name, has) = (&loaded.name, loaded.topology.parallelism);
    let asked = config.parallelism.filter(|asked| *asked != has)?;
    Some(format!(
        "job {name} has parallelism {has} since it was created; {asked} is ignored: to change it run the script as another job, with --name {name}-2"
    ))
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
pub(super) async fn submit(args: &SubmitArgs) -> anyhow::Result<()> {
    let Prepared { loaded, .. } = prepare(&args.script, args.common.config()?, &args.running).await?;
    println!("{}  id {}  {} shards", loaded.name, loaded.job, loaded.topology.all_shards().len());
    Ok(())
}

pub(super) async fn run(args: &RunArgs) -> anyhow::Result<()> {
    let Prepared { config, opened, loaded } = prepare(&args.script, args.settings()?, &args.running).await?;
    let stop = opened.ctx.stop.clone();
    tokio::spawn(leave_when_asked(stop));
    let beside = match config.listen {
        Some(listen) => Some(Beside::start(&opened.ctx, listen, &config).await?),
        None => None,
    };
    let shown = (!config.quiet).then(|| live::show(&opened, &loaded));
    let outcome = host::run(&opened.ctx, &loaded, &config).await;
    if let Some(beside) = beside {
        beside.end().await;
    }
    if let Some(shown) = shown {
        shown.end().await;
    }
    let outcome = outcome?;
    if !config.quiet {
        live::summary(&opened, &loaded, outcome == Outcome::Finished).await?;
    }
    Ok(())
}

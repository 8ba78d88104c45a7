//! `weir run`: creates or opens the job, serves it, shows how it goes.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{Common, Running, in_script, live, read_script};
use crate::context::Stop;
use crate::host::{self, Outcome};
use crate::job::{self, JobError, ScriptSettings};
use crate::open;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The script.
    script: PathBuf,
    /// Name of the job [default: SET 'pipeline.name', else the script's file name]
    #[arg(long, env = "WEIR_NAME")]
    name: Option<String>,
    /// Print nothing but errors.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    running: Running,
}

/// Exit code of a run that was ended at once.
const ENDED_AT_ONCE: i32 = 130;

/// Ctrl-C or SIGTERM commits and leaves; a second one leaves at once, which loses nothing either.
async fn leave_when_asked(stop: Stop) {
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

pub(super) async fn run(args: &RunArgs) -> anyhow::Result<()> {
    let sql = read_script(&args.script)?;
    let plan = weir_plan::compile(&sql).await.map_err(|error| in_script(&args.script, &error))?;
    let settings = ScriptSettings::new(&plan.options)?;
    let mut config = args.common.config()?;
    config.commit_interval = settings.commit_interval.unwrap_or(config.commit_interval);
    args.running.apply(&mut config);
    let in_memory = config.store == "memory:" || config.coordination() == "memory:";
    anyhow::ensure!(
        config.invoke == crate::config::Invoke::Thread || !in_memory,
        "--invoke process needs a store that processes share: --store file://DIR and --coordination sqlite://FILE or dynamodb://TABLE"
    );
    let opened = open::open(&config).await?;
    let stem = args.script.file_stem().and_then(|stem| stem.to_str()).unwrap_or("job");
    let name = args.name.clone().or(settings.name).unwrap_or_else(|| stem.to_owned());
    let loaded = job::open_or_create(&opened.ctx, &name, &sql, config.parallelism(), config.key_groups).await;
    let loaded = Arc::new(loaded.map_err(|error| match error {
        JobError::Plan(error) => in_script(&args.script, &error),
        other => other.into(),
    })?);
    let stop = opened.ctx.stop.clone();
    tokio::spawn(leave_when_asked(stop));
    let shown = (!args.quiet).then(|| live::show(&opened, &loaded));
    let outcome = host::run(&opened.ctx, &loaded, &config).await;
    if let Some(shown) = shown {
        shown.end().await;
    }
    let outcome = outcome?;
    if !args.quiet {
        live::summary(&opened, &loaded, outcome == Outcome::Finished).await?;
    }
    Ok(())
}

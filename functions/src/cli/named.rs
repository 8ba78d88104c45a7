//! A job by the name that the user gives it.

use weir_coordinator::jobs;

use crate::config::Config;
use crate::job::{self, Loaded};
use crate::open::{self, Opened};

/// Opens the store and the job `name` in it.
///
/// # Errors
/// The store cannot be opened, or holds no such job: then the nearest name is shown.
pub(super) async fn open(config: &Config, name: &str) -> anyhow::Result<(Opened, Loaded)> {
    find(open::open_to_look(config).await?, config, name).await
}

/// As [`open`], to pin what is looked at.
///
/// # Errors
/// As [`open`].
pub(super) async fn open_to_pin(config: &Config, name: &str) -> anyhow::Result<(Opened, Loaded)> {
    find(open::open_to_pin(config).await?, config, name).await
}

async fn find(opened: Opened, config: &Config, name: &str) -> anyhow::Result<(Opened, Loaded)> {
    let found = jobs::list(opened.ctx.table.as_ref()).await?;
    let Some((_, id)) = found.iter().find(|(known, _)| known == name) else {
        let near = weir_plan::nearest(name, found.iter().map(|(known, _)| known.as_str()));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        anyhow::bail!("no job {name:?} in {}{hint}", config.store);
    };
    let loaded = job::open(&opened.ctx, *id).await?;
    Ok((opened, loaded))
}

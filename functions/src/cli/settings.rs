//! Settings as flags and environment variables. Each of them is also a key of `weir.toml` ([`Config`]): the flag's name is the key, the
//! variable is `WEIR_` and the key in capitals. A test walks all flags of `weir run`, so that no form can be forgotten.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory as _};

use super::Cli;
use crate::config::{Config, Durability, Invoke, parse_bytes, parse_duration};

/// Where things are and how hard they hold. Each flag is also a key of `weir.toml` and an environment variable.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Objects: memory:, file://DIR or s3://BUCKET/PREFIX [default: file://weir-data]
    #[arg(long, env = "WEIR_STORE", value_name = "ADDRESS", overrides_with = "store")]
    store: Option<String>,
    /// Coordination table: memory:, sqlite://FILE or dynamodb://TABLE [default: coordination.sqlite in the store's folder]
    #[arg(long, env = "WEIR_COORDINATION", value_name = "ADDRESS")]
    coordination: Option<String>,
    /// Settings file [default: weir.toml, if it is there]
    #[arg(long, env = "WEIR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Common {
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        if let Some(path) = &self.config {
            anyhow::ensure!(path.exists(), "settings file {} does not exist", path.display());
        }
        let mut config = Config::load(self.config.as_deref().unwrap_or(Path::new("weir.toml")))?;
        if let Some(store) = &self.store {
            config.store.clone_from(store);
        }
        if self.coordination.is_some() {
            config.coordination.clone_from(&self.coordination);
        }
        Ok(config)
    }
}

/// How a job runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct Running {
    /// Shards of every stage; fixed when the job is created [default: the machine's cores]
    #[arg(long, env = "WEIR_PARALLELISM", value_name = "N")]
    parallelism: Option<u16>,
    /// Longest time from reading a row to committing it, as 50ms or 1s [default: 1s]
    #[arg(long, env = "WEIR_COMMIT_INTERVAL", value_name = "TIME", value_parser = parse_duration)]
    commit_interval: Option<Duration>,
    /// fsync: a commit survives a power cut; process: it survives the death of the process [default: fsync]
    #[arg(long, env = "WEIR_DURABILITY", value_name = "HOW")]
    durability: Option<Durability>,
    /// Memory for state (half), caches and read-ahead, as 512MiB; what is larger goes to the spill folder [default: 1GiB]
    #[arg(long, env = "WEIR_MEMORY", value_name = "SIZE", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Folder for state that is larger than the memory [default: the system's for temporary files]
    #[arg(long, env = "WEIR_SPILL_FOLDER", value_name = "DIR")]
    spill_folder: Option<PathBuf>,
    /// Where each invocation runs: in a thread with a warm cache, or in a fresh process [default: thread]
    #[arg(long, env = "WEIR_INVOKE", value_name = "WHERE")]
    invoke: Option<Invoke>,
    /// Key groups, the smallest units of state that move; fixed when the job is created [default: 720]
    #[arg(long, env = "WEIR_KEY_GROUPS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    key_groups: Option<u16>,
    /// How long others leave the shards of a process alone that says nothing [default: 10s]
    #[arg(long, env = "WEIR_LEASE", value_name = "TIME", value_parser = parse_duration)]
    lease: Option<Duration>,
}

impl Running {
    /// Whether a commit interval is asked for, which wins over the script's.
    pub(crate) fn has_commit_interval(&self) -> bool {
        self.commit_interval.is_some()
    }

    pub(crate) fn apply(&self, config: &mut Config) {
        config.parallelism = self.parallelism.or(config.parallelism);
        config.commit_interval = self.commit_interval.unwrap_or(config.commit_interval);
        config.durability = self.durability.unwrap_or(config.durability);
        config.memory = self.memory.unwrap_or(config.memory);
        config.spill_folder = self.spill_folder.clone().or_else(|| config.spill_folder.take());
        config.invoke = self.invoke.unwrap_or(config.invoke);
        config.key_groups = self.key_groups.unwrap_or(config.key_groups);
        config.lease = self.lease.unwrap_or(config.lease);
    }
}

/// What the name of each of our variables begins with.
const PREFIX: &str = "WEIR_";
/// Variables that are no flag's: the token itself, the log, and what only functions, scripts and tests read.
const OTHER_VARIABLES: [&str; 6] =
    ["WEIR_TOKEN", "WEIR_AUTH", "WEIR_LOG", "WEIR_WORKER_FUNCTION", "WEIR_DISPATCH_QUEUE", "WEIR_UPDATE_GOLDENS"];
/// Beginnings of the names that scripts and tests have for theirs.
const OTHER_PREFIXES: [&str; 9] = [
    "WEIR_TEST_",
    "WEIR_SIM_",
    "WEIR_MINIO_",
    "WEIR_DYNAMODB_",
    "WEIR_SEAWEEDFS_",
    "WEIR_CACHE",
    "WEIR_DATA",
    "WEIR_USER",
    "WEIR_COUNT_",
];

/// What is wrong with a variable that nobody reads.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unread {
    /// Its name is nearly that of one that is read: a misspelt setting.
    Misspelt { name: String, near: String },
    /// It may be somebody else's.
    Unknown(String),
}

/// Refuses a misspelt `WEIR_*` variable, and warns of others that nobody reads: a setting that is not taken must be seen.
///
/// # Errors
/// A sentence that names the variable and the nearest right one.
pub(crate) fn check_environment() -> anyhow::Result<()> {
    for name in std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()) {
        match unread(&name) {
            Some(Unread::Misspelt { name, near }) => anyhow::bail!("unknown environment variable {name}: did you mean {near}?"),
            Some(Unread::Unknown(name)) => {
                tracing::warn!("environment variable {name} is no setting: weir run --help tells them")
            }
            None => {}
        }
    }
    Ok(())
}

fn unread(name: &str) -> Option<Unread> {
    let key = name.strip_prefix(PREFIX)?;
    if OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let known = variables();
    if known.contains(name) {
        return None;
    }
    // What all of them begin with must not make them alike.
    let keys = known.iter().filter_map(|name| name.strip_prefix(PREFIX));
    Some(match weir_plan::nearest(key, keys) {
        Some(near) => Unread::Misspelt { name: name.to_owned(), near: format!("{PREFIX}{near}") },
        None => Unread::Unknown(name.to_owned()),
    })
}

/// Every variable that a command reads.
fn variables() -> BTreeSet<String> {
    let mut found: BTreeSet<String> = OTHER_VARIABLES.iter().map(|name| (*name).to_owned()).collect();
    let mut commands = vec![Cli::command()];
    while let Some(command) = commands.pop() {
        let of_flags = command.get_arguments().filter_map(clap::Arg::get_env);
        found.extend(of_flags.map(|name| name.to_string_lossy().into_owned()));
        commands.extend(command.get_subcommands().cloned());
    }
    found
}

#[cfg(test)]
mod tests;

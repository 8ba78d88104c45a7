//! Settings of a run: data with defaults; a configuration file, environment variables and flags say the same things.
//!
//! Order of precedence: flag, environment (`WEIR_` + the key in capitals), `SET` in the script, `weir.toml`, default. Unknown keys are
//! errors.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
pub use weir_seams::Durability;
use weir_seams::Places;
pub use weir_seams::text::{parse_bytes, parse_duration};

/// Where an invocation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Invoke {
    /// A thread of the local host, with a warm cache.
    #[default]
    Thread,
    /// A fresh process each time: nothing is kept between invocations.
    Process,
}

/// Settings of a run. Times and sizes in text form (`1s`, `50ms`, `512MiB`) in files and flags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    /// Objects: `memory:`, `file://DIR` or `s3://BUCKET/PREFIX`.
    pub store: String,
    /// Coordination table: `memory:`, `sqlite://FILE` or `dynamodb://TABLE`; by default beside the objects.
    pub coordination: Option<String>,
    /// Shards of every stage; fixed when the job is created. Default: the machine's cores.
    pub parallelism: Option<u16>,
    /// Longest time from reading a row to committing it.
    #[serde(with = "duration_text")]
    pub commit_interval: Duration,
    /// How hard a commit holds.
    pub durability: Durability,
    /// Memory for state, caches and read-ahead of this process, in bytes.
    #[serde(with = "bytes_text")]
    pub memory: u64,
    /// Folder for state that is past the memory; by default the system's for temporary files.
    pub spill_folder: Option<PathBuf>,
    /// Where invocations run.
    pub invoke: Invoke,
    /// Key groups of the job; fixed when the job is created.
    pub key_groups: u16,
    /// How long others leave a silent owner's shards alone.
    #[serde(with = "duration_text")]
    pub lease: Duration,
    /// Name of the job; by default the script's.
    pub name: Option<String>,
    /// Prints nothing but errors.
    pub quiet: bool,
    /// Where rows of streams are taken by HTTP.
    pub listen: Option<SocketAddr>,
    /// File with the token that requests must bear. The token itself is no setting: it stands in a file or in `WEIR_TOKEN`.
    pub token_file: Option<PathBuf>,
    /// Least time between two commits of a stream.
    #[serde(with = "duration_text")]
    pub fold_interval: Duration,
    /// Longest body of a request, in bytes.
    #[serde(with = "bytes_text")]
    pub body_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: "file://weir-data".to_owned(),
            coordination: None,
            parallelism: None,
            commit_interval: Duration::from_secs(1),
            durability: Durability::Fsync,
            memory: 1 << 30,
            spill_folder: None,
            invoke: Invoke::Thread,
            key_groups: weir_model::key_group::KEY_GROUPS_DEFAULT,
            lease: Duration::from_secs(10),
            name: None,
            quiet: false,
            listen: None,
            token_file: None,
            fold_interval: Duration::from_millis(10),
            body_max: 32 << 20,
        }
    }
}

/// A setting that does not parse.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there but cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a configuration.
    #[error("{path}: {message}")]
    Invalid {
        /// The file.
        path: String,
        /// What the parser says, with line and column.
        message: String,
    },
}

impl Config {
    /// Where objects and the table are.
    #[must_use]
    pub fn places(&self) -> Places {
        Places { store: self.store.clone(), coordination: self.coordination.clone(), durability: self.durability }
    }

    /// Reads `path`; the defaults where there is no such file.
    ///
    /// # Errors
    /// [`ConfigError`] naming the file and the place in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| ConfigError::Invalid { path: shown, message: error.to_string() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Unreadable { path: shown, source }),
        }
    }

    /// Shards of every stage.
    #[must_use]
    pub fn parallelism(&self) -> u16 {
        let cores = || std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX));
        self.parallelism.unwrap_or_else(cores).clamp(1, self.key_groups)
    }
}

macro_rules! text_form {
    ($module:ident, $type:ty, $parse:path, $show:expr) => {
        mod $module {
            use serde::{Deserialize, Deserializer, Serializer};

            pub(super) fn serialize<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                let show: fn(&$type) -> String = $show;
                serializer.serialize_str(&show(value))
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let text = String::deserialize(deserializer)?;
                $parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_form!(duration_text, std::time::Duration, super::parse_duration, |value| format!("{}us", value.as_micros()));
text_form!(bytes_text, u64, super::parse_bytes, |value| value.to_string());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = toml::from_str::<Config>("comit-interval = \"1s\"").expect_err("misspelt");
        assert!(error.to_string().contains("comit-interval"), "{error}");
    }

    #[test]
    fn settings_survive_a_round_trip() {
        let config = Config { commit_interval: Duration::from_millis(50), ..Config::default() };
        let text = serde_json::to_string(&config).expect("serialises");
        assert_eq!(serde_json::from_str::<Config>(&text).expect("parses"), config);
    }
}

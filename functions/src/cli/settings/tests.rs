//! Every setting in each of its forms.

use std::collections::BTreeMap;

use clap::Parser as _;

use super::*;

/// Flags of `weir run` that are no settings: where the settings are, and what clap adds.
const NO_SETTINGS: [&str; 2] = ["config", "help"];

/// A value of each key, as text, that is not the default.
fn samples() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("store", "memory:"),
        ("coordination", "memory:"),
        ("parallelism", "3"),
        ("commit-interval", "70ms"),
        ("durability", "process"),
        ("memory", "77MiB"),
        ("spill-folder", "spilled"),
        ("invoke", "process"),
        ("key-groups", "12"),
        ("lease", "3s"),
        ("name", "songs"),
        ("quiet", "true"),
        ("listen", "127.0.0.1:9"),
        ("token-file", "token"),
        ("fold-interval", "5ms"),
        ("body-max", "1MiB"),
    ])
}

fn run_command() -> clap::Command {
    Cli::command().find_subcommand("run").expect("weir run").clone()
}

fn keys() -> BTreeSet<String> {
    let value = serde_json::to_value(Config::default()).expect("settings are data");
    value.as_object().expect("keys").keys().cloned().collect()
}

/// As a file would have it: numbers and booleans bare, the rest quoted.
fn of_file(key: &str, value: &str) -> Config {
    let bare = value.parse::<u16>().is_ok() || value.parse::<bool>().is_ok();
    let value = if bare { value.to_owned() } else { format!("{value:?}") };
    toml::from_str(&format!("{key} = {value}")).expect("a known key")
}

fn of_flag(key: &str, value: &str) -> Config {
    let flag = if value == "true" { format!("--{key}") } else { format!("--{key}={value}") };
    let cli = Cli::try_parse_from(["weir", "run", "job.sql", "--config=/dev/null", &flag]).expect("a known flag");
    let super::super::Command::Run(args) = cli.command else { panic!("weir run") };
    args.settings().expect("settings")
}

#[test]
fn every_flag_of_run_is_a_key_and_an_environment_variable() {
    let command = run_command();
    let flags = command.get_arguments().filter_map(|arg| arg.get_long().map(|long| (long, arg)));
    let mut found = BTreeSet::new();
    for (flag, arg) in flags.filter(|(flag, _)| !NO_SETTINGS.contains(flag)) {
        let variable = format!("WEIR_{}", flag.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(variable.as_str()), "--{flag}");
        found.insert(flag.to_owned());
    }
    assert_eq!(found, keys(), "flags of weir run and keys of weir.toml");
}

#[test]
fn a_setting_means_the_same_as_flag_and_as_key() {
    let samples = samples();
    assert_eq!(samples.keys().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>(), keys());
    for (key, value) in samples {
        let changed = of_file(key, value);
        assert_ne!(changed, Config::default(), "{key} of a file");
        assert_eq!(of_flag(key, value), changed, "--{key}");
    }
}

#[test]
fn a_misspelt_variable_is_told_from_one_that_is_somebody_elses() {
    let misspelt = Unread::Misspelt { name: "WEIR_COMIT_INTERVAL".to_owned(), near: "WEIR_COMMIT_INTERVAL".to_owned() };
    assert_eq!(unread("WEIR_COMIT_INTERVAL"), Some(misspelt));
    assert_eq!(unread("WEIR_OUR_TEAMS_BUCKET"), Some(Unread::Unknown("WEIR_OUR_TEAMS_BUCKET".to_owned())));
    for known in ["WEIR_STORE", "WEIR_TOKEN", "WEIR_SERVER", "WEIR_LOG", "WEIR_SIM_SEEDS", "WEIR_MINIO_PORT", "PATH"] {
        assert_eq!(unread(known), None, "{known}");
    }
}

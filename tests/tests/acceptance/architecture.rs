//! The house's arrows point one way, and few binaries link DataFusion.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Which of our crates each crate may use.
const ARROWS: [(&str, &[&str]); 10] = [
    ("weir-model", &[]),
    ("weir-plan", &["weir-model"]),
    ("weir-state", &["weir-model"]),
    ("weir-coordinator", &["weir-model"]),
    ("weir-connectors", &["weir-model"]),
    ("weir-engine", &["weir-model", "weir-plan", "weir-state"]),
    ("weir-seams", &["weir-model", "weir-state", "weir-coordinator"]),
    ("weir-ingest", &["weir-model", "weir-state", "weir-coordinator", "weir-connectors", "weir-seams"]),
    ("weir-dispatcher", &["weir-model", "weir-state", "weir-coordinator", "weir-seams"]),
    (
        "weir-functions",
        &[
            "weir-model",
            "weir-plan",
            "weir-state",
            "weir-coordinator",
            "weir-connectors",
            "weir-engine",
            "weir-seams",
            "weir-ingest",
        ],
    ),
];
const WITHOUT_DATAFUSION: [&str; 7] =
    ["weir-model", "weir-state", "weir-coordinator", "weir-connectors", "weir-seams", "weir-ingest", "weir-dispatcher"];

/// Binaries that are built for the query engine: each costs minutes of linking and a hundred megabytes.
const WITH_DATAFUSION: [&str; 3] = ["acceptance", "weir", "weir-worker"];

fn metadata() -> serde_json::Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

fn name(value: &serde_json::Value) -> String {
    value["name"].as_str().unwrap_or_default().to_owned()
}

fn dependencies() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let normal = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().expect("dependencies");
        all.iter().filter(|dependency| dependency["kind"].is_null()).map(name).collect()
    };
    packages.iter().map(|package| (name(package), normal(package))).collect()
}

#[test]
fn arrows_between_crates_point_one_way() {
    let found = dependencies();
    for (name, allowed) in ARROWS {
        let ours = found[name].iter().filter(|dependency| dependency.starts_with("weir-"));
        let wrong: Vec<_> = ours.filter(|dependency| !allowed.contains(&dependency.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not use {wrong:?}");
    }
}

#[test]
fn what_needs_no_query_engine_does_not_link_it() {
    let found = dependencies();
    for name in WITHOUT_DATAFUSION {
        assert!(!found[name].iter().any(|dependency| dependency.starts_with("datafusion")), "{name} must not use DataFusion");
    }
}

/// Whether a crate of ours uses DataFusion, itself or by another.
fn links_datafusion(found: &BTreeMap<String, Vec<String>>, name: &str) -> bool {
    let below = found.get(name).into_iter().flatten();
    below.into_iter().any(|dependency| dependency.starts_with("datafusion") || links_datafusion(found, dependency))
}

#[test]
fn three_binaries_link_the_query_engine_and_no_more() {
    let (found, metadata) = (dependencies(), metadata());
    let kind = |target: &serde_json::Value| target["kind"][0].as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().expect("packages").iter();
    let targets = packages
        .filter(|package| links_datafusion(&found, &name(package)))
        .flat_map(|package| package["targets"].as_array().expect("targets"))
        .filter(|target| ["bin", "test", "example"].contains(&kind(target).as_str()));
    assert_eq!(targets.map(name).collect::<BTreeSet<_>>(), BTreeSet::from(WITH_DATAFUSION.map(str::to_owned)));
}

//! Names the build by what its results follow from (R6): the sources of the crates that compute them, the versions they are built with,
//! and the compiler's. No version control is asked, so an archive of the sources gives the same name as a clone.
//!
//! It stands in this crate because this crate is compiled anew whenever one of those sources changes anyhow.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};
use std::io::{Result, Write};
use std::path::{Path, PathBuf};

/// What a batch's result and digest depend on, seen from the workspace's folder.
const PARTS: [&str; 8] =
    ["model/src", "plan/src", "state/src", "connectors/src", "engine/src", "functions/src", "Cargo.lock", "rust-toolchain.toml"];

fn main() -> Result<()> {
    let here = std::env::current_dir()?;
    let root = here.parent().unwrap_or(&here);
    let mut out = std::io::stdout();
    // Made with fixed keys: the same files give the same number.
    let mut hasher = DefaultHasher::new();
    for part in PARTS.map(|part| root.join(part)).iter().filter(|part| part.exists()) {
        writeln!(out, "cargo:rerun-if-changed={}", part.display())?;
        for file in files(part)? {
            let name = file.strip_prefix(root).unwrap_or(&file);
            hasher.write(name.to_string_lossy().as_bytes());
            hasher.write(&std::fs::read(&file)?);
        }
    }
    writeln!(out, "cargo:rustc-env=WEIR_SOURCES={:016x}", hasher.finish())
}

/// The file itself, or all files in the folder, sorted.
fn files(path: &Path) -> Result<BTreeSet<PathBuf>> {
    if path.is_file() {
        return Ok(BTreeSet::from([path.to_owned()]));
    }
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(path)? {
        found.extend(files(&entry?.path())?);
    }
    Ok(found)
}

//! Frozen formats of the vocabulary, as files that are checked in: what one build writes, every later one reads.
//!
//! | file in `tests/golden` | holds |
//! | --- | --- |
//! | `key-groups-1.tsv` | canonical bytes and key groups of keys of every kind |
//! | `head-1.json`, `head-1-new.json` | a head with everything in it, and one that nobody has claimed |
//! | `entries-1.json` | a commit entry of each role |
//! | `retention-1.json`, `layout-1*.json`, `job-1.json`, `name-1.json` | the other rows of the table |
//!
//! A difference is a format that has changed: restore it, or raise its version, keep the old file and let
//! `WEIR_UPDATE_GOLDENS=1 cargo test -p weir-model golden` write the new one.

use std::path::Path;

mod key_groups;
mod rows;

/// Compares `text` with the file `name` of this crate's `tests/golden`, or writes it if `WEIR_UPDATE_GOLDENS` is 1. Returns the
/// file's text.
fn golden(name: &str, text: &str) -> String {
    let folder = Path::new("tests/golden");
    let file = folder.join(name);
    if std::env::var("WEIR_UPDATE_GOLDENS").is_ok_and(|value| value == "1") {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    let kept = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}; WEIR_UPDATE_GOLDENS=1 writes it", file.display()));
    assert_eq!(text, kept, "{} is frozen: a change needs a new version of its format", file.display());
    kept
}

//! What several tests of this crate need.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use weir_model::{
    Activity, CommitEntry, CommitId, Epoch, Generation, Ids, Inputs, Offset, Recipe, RowGroupRef, SegmentKind, SegmentRef,
    ShardId, Watermark,
};

/// Ids 1, 2, 3 ..
#[derive(Debug, Default)]
pub(crate) struct SequentialIds(AtomicU64);

impl Ids for SequentialIds {
    fn next_u128(&self) -> u128 {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// A commit of epoch `epoch` that names `objects`.
pub(crate) fn entry(epoch: u64, objects: &[(SegmentKind, &str)]) -> CommitEntry {
    let group = RowGroupRef { index: 0, receiver: ShardId(0), rows: 1 };
    let segment = |(kind, object): &(SegmentKind, &str)| SegmentRef {
        kind: *kind,
        object: (*object).to_owned(),
        bytes: 100,
        footer_bytes: 50,
        groups: vec![group.clone()],
    };
    CommitEntry {
        commit: CommitId(u128::from(epoch)),
        epoch: Epoch(epoch),
        generation: Generation(1),
        segments: objects.iter().map(segment).collect(),
        watermark: Watermark(0),
        activity: Activity::Active,
        recipe: Recipe {
            inputs: Inputs::Reference { from: Offset::default(), upto: Offset { split: 0, at: epoch } },
            watermark_before: Watermark::NONE,
            watermark_after: Watermark(0),
            now_micros: 0,
            early: false,
            as_rows: false,
            plan: 1,
            build: "test".to_owned(),
            digest: 0,
        },
    }
}

/// Compares `text` with the file `name` of this crate's `tests/golden`, or writes it if `WEIR_UPDATE_GOLDENS` is 1. Returns the
/// file's text.
pub(crate) fn golden(name: &str, text: &str) -> String {
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

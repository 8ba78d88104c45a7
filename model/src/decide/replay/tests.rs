use std::collections::BTreeMap;

use super::*;
use crate::entry::Activity;
use crate::head::CheckpointRef;
use crate::ids::{CommitId, Generation, JobId, ShardId, StageId};
use crate::recipe::{InputCut, Recipe};
use crate::time::Watermark;

const LANE: ShardKey = ShardKey::new(JobId(1), StageId(0), ShardId(0));
const MERGE: ShardKey = ShardKey::new(JobId(1), StageId(1), ShardId(0));

fn object(name: &str) -> SegmentRef {
    SegmentRef { kind: SegmentKind::Checkpoint, object: name.to_owned(), bytes: 1, footer_bytes: 1, groups: Vec::new() }
}

/// Epoch `epoch` read epoch `epoch` of the lane and names these objects.
fn entry(epoch: u64, objects: &[&str]) -> CommitEntry {
    let cut = InputCut { from: LANE, after: Epoch(epoch - 1), upto: Epoch(epoch), watermark: Watermark(0) };
    CommitEntry {
        commit: CommitId(u128::from(epoch)),
        epoch: Epoch(epoch),
        generation: Generation(1),
        segments: objects.iter().map(|name| object(name)).collect(),
        watermark: Watermark(0),
        activity: Activity::Active,
        recipe: Recipe {
            inputs: Inputs::Segments(vec![cut]),
            watermark_before: Watermark(0),
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

/// Ten epochs; the checkpoints of 3, 6 and 9 have `a`, `a` and `b`, `c`.
fn shard() -> (Head, Vec<CommitEntry>) {
    let names = |epoch| match epoch {
        3 => vec!["a"],
        6 => vec!["b"],
        9 => vec!["c", "a", "b"],
        _ => Vec::new(),
    };
    let entries: Vec<CommitEntry> = (1..=10).map(|epoch| entry(epoch, &names(epoch))).collect();
    let mut head = Head::new(MERGE);
    head.epoch = Epoch(10);
    head.checkpoint = Some(checkpoint(9, &["c"]));
    (head, entries)
}

fn checkpoint(epoch: u64, objects: &[&str]) -> CheckpointRef {
    let objects = objects.iter().map(|name| object(name)).collect();
    CheckpointRef { epoch: Epoch(epoch), objects, inputs: BTreeMap::new(), watermark: Watermark(0) }
}

fn told(snapshots: &[Snapshot]) -> Vec<(u64, Vec<&str>)> {
    snapshots.iter().map(|snapshot| (snapshot.epoch.0, names(snapshot))).collect()
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.objects.iter().map(|object| object.object.as_str()).collect()
}

#[test]
fn earlier_checkpoints_follow_from_what_entries_name() {
    let (head, entries) = shard();
    assert_eq!(told(&snapshots(&head, &entries)), [(0, vec![]), (3, vec!["a"]), (6, vec!["a", "b"]), (9, vec!["c"])]);
    assert_eq!(told(&snapshots(&head, &entries[3..])), [(6, vec!["a", "b"]), (9, vec!["c"])], "older entries are gone");
    assert_eq!(told(&snapshots(&head, &entries[9..])), [(9, vec!["c"])]);
}

#[test]
fn a_state_that_became_empty_is_a_snapshot_without_objects() {
    let (mut head, mut entries) = shard();
    entries.push(entry(11, &["c"]));
    entries.push(entry(12, &[]));
    (head.epoch, head.checkpoint) = (Epoch(12), Some(checkpoint(12, &[])));
    let found = snapshots(&head, &entries);
    assert_eq!(told(&found)[3..], [(9, vec!["c"]), (11, vec![]), (12, vec![])]);
}

#[test]
fn a_shard_without_a_checkpoint_begins_with_nothing() {
    let mut head = Head::new(MERGE);
    assert_eq!(told(&snapshots(&head, &[])), [(0, vec![])]);
    head.epoch = Epoch(2);
    assert_eq!(told(&snapshots(&head, &[entry(1, &[]), entry(2, &[])])), [(0, vec![])]);
    assert_eq!(told(&snapshots(&head, &[entry(2, &[])])), []);
    assert_eq!(told(&snapshots(&head, &[])), [], "its entries are gone");
}

#[test]
fn the_oldest_batch_needs_a_snapshot_and_its_input() {
    let (head, entries) = shard();
    let oldest = |own: u64, lane: u64, entries: &[CommitEntry]| {
        let floor = |shard| if shard == MERGE { Epoch(own) } else { Epoch(lane) };
        oldest_replayable(&head, entries, true, floor).map(|epoch| epoch.0)
    };
    assert_eq!(oldest(0, 0, &entries), Some(1));
    assert_eq!(oldest(3, 3, &entries[3..]), Some(7), "which epoch the checkpoint before 6 is of went with its entry");
    assert_eq!(oldest(6, 6, &entries[5..]), Some(7), "entry 9 keeps the objects of the checkpoint of 6");
    assert_eq!(oldest(9, 9, &entries), Some(10), "nothing keeps them any more");
    assert_eq!(oldest(9, 9, &entries[9..]), Some(10));
    assert_eq!(oldest(9, 10, &entries[9..]), None, "its input fell");
}

#[test]
fn a_batch_without_state_needs_its_input_alone() {
    let (head, entries) = shard();
    assert_eq!(oldest_replayable(&head, &entries, false, |_| Epoch(4)), Some(Epoch(5)));
    assert_eq!(oldest_replayable(&head, &entries, false, |_| Epoch(10)), None);
}

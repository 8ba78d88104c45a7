use std::collections::VecDeque;
use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use weir_model::head::CheckpointRef;
use weir_model::retention::Pin;
use weir_model::{Generation, ObjectId, SegmentKind, ShardId, ShardKey, StageId, Watermark};

use super::*;
use crate::counting::Hooked;
use crate::faulty::{After, Fault, Faults};
use crate::paths::{Folder, object};
use crate::store::put;
use crate::testing::{SequentialIds, entry};

const JOB: JobId = JobId(1);

fn shard(stage: u16) -> ShardKey {
    ShardKey::new(JOB, StageId(stage), ShardId(0))
}

fn data(id: u128, stage: u16, generation: u64) -> String {
    object(Folder::Data, ObjectId(id), shard(stage), Generation(generation))
}

fn floors(floors: &[(ShardKey, u64)]) -> Retention {
    let mut row = Retention::new();
    row.floors.extend(floors.iter().map(|(shard, epoch)| (shard.to_string(), Epoch(*epoch))));
    row
}

async fn all(store: &dyn ObjectStore) -> BTreeSet<String> {
    store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap()
}

/// Stores what `head` names and what `entries` name; spills the entries up to `spilled` one manifest per two entries.
async fn shard_with(store: &dyn ObjectStore, head: &mut Head, entries: Vec<CommitEntry>, spilled: usize) {
    for segment in entries.iter().flat_map(|entry| &entry.segments) {
        put(store, &segment.object, "rows".into()).await.unwrap();
    }
    let ids = SequentialIds::default();
    for two in entries[..spilled].chunks(2) {
        let encoded = manifest::encode(&ids, head, two.to_vec()).unwrap();
        put(store, &encoded.reference.object, encoded.bytes.into()).await.unwrap();
        head.manifest = Some(encoded.reference);
    }
    head.epoch = entries.last().unwrap().epoch;
    head.recent = VecDeque::from(entries[spilled..].to_vec());
}

fn head_of(stage: u16, generation: u64) -> Head {
    let mut head = Head::new(shard(stage));
    head.generation = Generation(generation);
    head
}

/// Epochs 1 to 8 of stage 0, one exchange object each, 1 to 6 spilled into three manifests.
async fn eight_epochs(store: &dyn ObjectStore) -> Head {
    let mut head = head_of(0, 1);
    let entries = (1..=8).map(|epoch| entry(epoch, &[(SegmentKind::Exchange, &data(u128::from(epoch), 0, 1))])).collect();
    shard_with(store, &mut head, entries, 6).await;
    head
}

#[tokio::test]
async fn what_lies_at_or_below_the_floor_goes_and_nothing_above_it() {
    for floor in 0..=8 {
        let store = InMemory::new();
        let head = eight_epochs(&store).await;
        let before = all(&store).await;
        let collected = collect_below(&store, std::slice::from_ref(&head), &floors(&[(shard(0), floor)])).await.unwrap();
        let left = all(&store).await;
        assert_eq!(collected.deleted, (before.len() - left.len()) as u64);
        for epoch in 1..=8u64 {
            assert_eq!(left.contains(&data(u128::from(epoch), 0, 1)), epoch > floor, "epoch {epoch}, floor {floor}");
        }
        let manifests = left.iter().filter(|name| name.contains("/manifest/")).count() as u64;
        assert_eq!(manifests, 3 - floor.min(6) / 2, "floor {floor}");
        let found = manifest::entries_between(&store, &head, Epoch(floor), Epoch(8)).await.unwrap();
        assert!(matches!(found, manifest::Entries::Found(entries) if entries.len() as u64 == 8 - floor));
        collect_below(&store, &[head], &floors(&[(shard(0), floor)])).await.unwrap();
        assert_eq!(all(&store).await, left, "twice is once");
    }
}

#[tokio::test]
async fn an_object_that_a_shard_still_needs_stays_whoever_else_has_let_it_go() {
    let store = InMemory::new();
    let shared = data(1, 0, 1);
    let (mut done, mut slow) = (head_of(0, 1), head_of(1, 1));
    shard_with(&store, &mut done, vec![entry(1, &[(SegmentKind::Exchange, &shared)])], 0).await;
    shard_with(&store, &mut slow, vec![entry(1, &[(SegmentKind::Exchange, &shared)])], 0).await;
    let heads = [done, slow];
    assert_eq!(collect_below(&store, &heads, &floors(&[(shard(0), 1)])).await.unwrap().deleted, 0);
    assert_eq!(collect_below(&store, &heads, &floors(&[(shard(0), 1), (shard(1), 1)])).await.unwrap().deleted, 1);
}

/// Epochs 1 to 8 of stage 0: a late row in the first, a dead one in the second, a checkpoint in the third; 1 to 6 spilled.
async fn rows_that_stay(store: &dyn ObjectStore) -> (Head, [String; 3]) {
    let mut head = head_of(0, 1);
    let (late, dead, state) = (data(101, 0, 1), data(102, 0, 1), object(Folder::State, ObjectId(103), shard(0), Generation(1)));
    let checkpoint = entry(3, &[(SegmentKind::Checkpoint, &state)]);
    head.checkpoint = Some(CheckpointRef {
        epoch: Epoch(3),
        objects: checkpoint.segments.clone(),
        inputs: BTreeMap::new(),
        watermark: Watermark::NONE,
    });
    let mut entries = vec![entry(1, &[(SegmentKind::Late, &late)]), entry(2, &[(SegmentKind::Dead, &dead)]), checkpoint];
    entries.extend((4..=8).map(|epoch| entry(epoch, &[])));
    let list = kept::encode(&SequentialIds::default(), &head, &entries[..6]).unwrap().unwrap();
    put(store, &list.reference.object, list.bytes.into()).await.unwrap();
    shard_with(store, &mut head, entries, 6).await;
    head.kept = Some(list.reference);
    (head, [late, dead, state])
}

#[tokio::test]
async fn the_checkpoint_in_use_and_late_and_dead_rows_stay_though_their_manifests_go() {
    let store = InMemory::new();
    let (head, rows) = rows_that_stay(&store).await;
    collect_below(&store, std::slice::from_ref(&head), &floors(&[(shard(0), 8)])).await.unwrap();
    let stay: BTreeSet<String> = rows.into_iter().chain([head.kept.clone().unwrap().object]).collect();
    assert_eq!(all(&store).await, stay);
}

#[tokio::test]
async fn rows_that_stay_are_no_orphans_when_their_manifests_are_gone() {
    let store = InMemory::new();
    let (mut head, _) = rows_that_stay(&store).await;
    let row = floors(&[(shard(0), 8)]);
    collect_below(&store, std::slice::from_ref(&head), &row).await.unwrap();
    head.generation = Generation(2);
    let left = all(&store).await;
    let named = collect_below(&store, std::slice::from_ref(&head), &row).await.unwrap().named;
    assert_eq!(orphans(&store, JOB, std::slice::from_ref(&head), &named).await.unwrap(), Unnamed::default());
    assert_eq!(all(&store).await, left);
    head.kept = None;
    assert_eq!(orphans(&store, JOB, &[head], &named).await.unwrap().lost.len(), 3, "both rows and their list");
}

#[tokio::test]
async fn an_orphan_goes_only_when_its_maker_can_no_longer_commit_it() {
    let store = InMemory::new();
    let mut head = head_of(0, 3);
    shard_with(&store, &mut head, vec![entry(1, &[(SegmentKind::Exchange, &data(1, 0, 1))])], 0).await;
    let old_checkpoint = object(Folder::State, ObjectId(2), shard(0), Generation(2));
    let unread_manifest = object(Folder::Manifest, ObjectId(3), shard(0), Generation(2));
    let strangers = [
        data(4, 0, 3),
        data(5, 9, 1),
        crate::paths::plan(JOB, 1),
        format!("{}/notes.txt", crate::paths::job(JOB)),
        object(Folder::Data, ObjectId(6), ShardKey::new(JobId(2), StageId(0), ShardId(0)), Generation(1)),
    ];
    for name in strangers.iter().chain([&old_checkpoint, &unread_manifest]) {
        put(&store, name, "x".into()).await.unwrap();
    }
    let named = [named_by(&store, &head, Epoch(0), Past::Free).await.unwrap()];
    let mut found = orphans(&store, JOB, std::slice::from_ref(&head), &named).await.unwrap();
    found.lost.sort();
    assert_eq!(found.lost, [unread_manifest, old_checkpoint]);
    let pinned = orphans(&store, JOB, &[], &named).await.unwrap();
    assert_eq!(pinned, Unnamed::default(), "a pinned shard's head is not given");

    assert!(!found.unfinished.is_empty() && found.unfinished.iter().all(|(at, _)| *at == shard(0)), "{found:?}");
    // Claimed, and judged again.
    head.generation = head.generation.next();
    let candidates: Vec<String> = found.unfinished.into_iter().map(|(_, object)| object).collect();
    let judged = judge(&store, &[head], &named, candidates.clone()).await.unwrap();
    assert_eq!(judged, Unnamed { lost: candidates, unfinished: Vec::new() });
}

#[tokio::test]
async fn deleting_goes_on_after_a_crash_at_any_request() {
    for request in 1.. {
        let inner = Arc::new(InMemory::new());
        let head = eight_epochs(inner.as_ref()).await;
        let row = floors(&[(shard(0), 7)]);
        let fault = if request % 2 == 0 { Fault::NotDone } else { Fault::Unheard };
        let faulty =
            Hooked::new(Arc::clone(&inner) as Arc<dyn ObjectStore>, Arc::new(Faults::nth(request, fault, After::Crashed)));
        let crashed = collect_below(&faulty, std::slice::from_ref(&head), &row).await.is_err();
        assert_eq!(crashed, faulty.hook().injected() > 0);
        collect_below(inner.as_ref(), &[head], &row).await.unwrap();
        let left = all(inner.as_ref()).await;
        assert_eq!(left, BTreeSet::from([data(8, 0, 1)]), "after a crash at request {request}");
        if !crashed {
            break;
        }
    }
}

#[tokio::test]
async fn a_manifest_that_is_missing_above_the_floor_is_told() {
    let store = InMemory::new();
    let head = eight_epochs(&store).await;
    store.delete(&Path::from(head.manifest.clone().unwrap().object)).await.unwrap();
    assert_eq!(named_by(&store, &head, Epoch(2), Past::Free).await.unwrap_err().kind(), Kind::Missing);
    assert!(named_by(&store, &head, Epoch(6), Past::Free).await.is_ok(), "it fell whole, and so did everything below");
}

#[tokio::test]
async fn a_checkpoint_that_was_replaced_stays_while_the_past_is_pinned() {
    let store = InMemory::new();
    let mut head = head_of(1, 1);
    let state = |id| object(Folder::State, ObjectId(id), shard(1), Generation(1));
    let (old, new) = (state(1), state(2));
    let entries = vec![entry(1, &[(SegmentKind::Checkpoint, &old)]), entry(2, &[(SegmentKind::Checkpoint, &new)])];
    let objects = entries[1].segments.clone();
    head.checkpoint = Some(CheckpointRef { epoch: Epoch(2), objects, inputs: BTreeMap::new(), watermark: Watermark::NONE });
    shard_with(&store, &mut head, entries, 0).await;
    let mut row = floors(&[(shard(1), 1)]);
    row.pins.insert("reader".to_owned(), Pin { everything: true, ..Pin::default() });
    collect_below(&store, std::slice::from_ref(&head), &row).await.unwrap();
    assert_eq!(all(&store).await, BTreeSet::from([old, new.clone()]), "a reader may have read the head before");
    row.pins.clear();
    collect_below(&store, &[head], &row).await.unwrap();
    assert_eq!(all(&store).await, BTreeSet::from([new]));
}

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::golden;
use crate::head::{CheckpointRef, HEAD_FORMAT, InputState, KeptRef, PendingPublish, PublishState};
use crate::job::{DesiredState, JOB_FORMAT, JobRow, NameRow};
use crate::layout::{LAYOUT_FORMAT, Layout, ShardLayout};
use crate::retention::{Pin, RETENTION_FORMAT, Retention};
use crate::{
    Activity, CommitEntry, CommitId, Epoch, Generation, Head, Incarnation, InputCut, Inputs, JobId, KeyGroupRange, ManifestRef,
    Offset, Owner, OwnerId, Recipe, RowGroupRef, SegmentKind, SegmentRef, ShardId, ShardKey, ShardStats, StageId, Watermark,
};

const JOB: JobId = JobId(0x0123_4567_89ab_cdef);
/// 2026-01-01 00:00:00 UTC.
const NEW_YEAR: i64 = 1_767_225_600_000_000;

/// Compares the row's JSON with its file, and the row with what the file says.
fn frozen<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, row: &T) {
    let kept = golden(name, &(serde_json::to_string_pretty(row).unwrap() + "\n"));
    assert_eq!(&serde_json::from_str::<T>(&kept).unwrap(), row, "{name}");
    let compact = serde_json::to_vec(row).unwrap();
    assert_eq!(&serde_json::from_slice::<T>(&compact).unwrap(), row, "{name} as it is stored");
}

fn shard(stage: u16, shard: u32) -> ShardKey {
    ShardKey::new(JOB, StageId(stage), ShardId(shard))
}

fn segment(kind: SegmentKind, id: u8, receivers: &[(u32, u32)]) -> SegmentRef {
    let group = |(index, (receiver, rows)): (u16, &(u32, u32))| RowGroupRef { index, receiver: ShardId(*receiver), rows: *rows };
    SegmentRef {
        kind,
        object: format!("jobs/{JOB}/data/{id:02x}/{:032x}-s000-00001-0000000003.parquet", 0x019b_0000 + u32::from(id)),
        bytes: 70_000 + u64::from(id),
        footer_bytes: 900,
        groups: (0..).zip(receivers).map(group).collect(),
    }
}

fn recipe(inputs: Inputs, before: Watermark, after: Watermark) -> Recipe {
    Recipe {
        inputs,
        watermark_before: before,
        watermark_after: after,
        now_micros: NEW_YEAR + 1,
        early: false,
        as_rows: false,
        plan: 1,
        build: "0.1.0+x86_64".to_owned(),
        digest: 0xfeed_face_cafe_beef,
    }
}

fn entry(epoch: u64, activity: Activity, segments: Vec<SegmentRef>, recipe: Recipe) -> CommitEntry {
    let commit = CommitId(0x019b_7777_0000_7000_8000_0000_0000_0000 + u128::from(epoch));
    let watermark = recipe.watermark_after;
    CommitEntry { commit, epoch: Epoch(epoch), generation: Generation(3), segments, watermark, activity, recipe }
}

fn reference() -> Inputs {
    Inputs::Reference { from: Offset { split: 0, at: 0 }, upto: Offset { split: 2, at: 4_096 } }
}

fn cuts() -> Inputs {
    let cut = |lane, watermark| InputCut { from: shard(0, lane), after: Epoch(4), upto: Epoch(9), watermark };
    Inputs::Segments(vec![cut(0, Watermark(NEW_YEAR)), cut(1, Watermark::INFINITY)])
}

/// A lane at work, a lane without rows, a merge shard, a publisher that is done: every kind of segment, input and activity.
fn entries() -> Vec<CommitEntry> {
    let lane = vec![
        segment(SegmentKind::Exchange, 1, &[(0, 12), (1, 7)]),
        segment(SegmentKind::Behind, 2, &[(1, 1)]),
        segment(SegmentKind::Dead, 3, &[(0, 5)]),
    ];
    let merge = vec![
        segment(SegmentKind::Output, 4, &[(0, 100)]),
        segment(SegmentKind::Late, 5, &[(0, 3)]),
        segment(SegmentKind::Checkpoint, 6, &[(0, 65_536), (0, 17)]),
    ];
    let time = Watermark(NEW_YEAR);
    vec![
        entry(1, Activity::Active, lane, recipe(reference(), Watermark::NONE, time)),
        entry(2, Activity::Idle, vec![], recipe(reference(), time, time)),
        entry(3, Activity::Active, merge, recipe(cuts(), time, Watermark(NEW_YEAR + 10_000_000))),
        entry(4, Activity::Closed, vec![], recipe(cuts(), time, Watermark::INFINITY)),
    ]
}

fn inputs(epoch: u64) -> BTreeMap<String, InputState> {
    let state = |watermark, activity| InputState { epoch: Epoch(epoch), watermark, activity };
    let first = state(Watermark(NEW_YEAR), Activity::Active);
    BTreeMap::from([(shard(0, 0).to_string(), first), (shard(0, 1).to_string(), state(Watermark::NONE, Activity::Idle))])
}

fn checkpoint() -> CheckpointRef {
    CheckpointRef {
        epoch: Epoch(3),
        objects: vec![
            segment(SegmentKind::Checkpoint, 6, &[(0, 65_536), (0, 17)]),
            segment(SegmentKind::Checkpoint, 7, &[(0, 1)]),
        ],
        inputs: inputs(8),
        watermark: Watermark(NEW_YEAR),
    }
}

fn publish() -> PublishState {
    let pending = PendingPublish {
        number: 2,
        file: "s002-00000-000002.parquet".to_owned(),
        bytes_before: 4_096,
        rows_before: 40,
        upto: inputs(10),
        rows: 60,
    };
    PublishState { file_number: 2, file_bytes: 4_096, file_rows: 40, pending: Some(pending) }
}

fn manifest() -> ManifestRef {
    ManifestRef {
        object: format!("jobs/{JOB}/manifest/08/{:032x}-s001-00012-0000000002.json", 0x019b_0008),
        first: Epoch(1),
        last: Epoch(2),
        bytes: 2_048,
    }
}

fn stats() -> ShardStats {
    ShardStats {
        rows_in: 1,
        rows_out: 2,
        bytes_in: 3,
        bytes_out: 4,
        rows_late: 5,
        rows_dead: 6,
        rows_dropped: 7,
        events: u64::MAX,
    }
}

fn kept() -> KeptRef {
    KeptRef { object: format!("jobs/{JOB}/kept/0a/0000000000000000000000000000000a-s001-00012-0000000003.json"), bytes: 321 }
}

/// No shard has all of it at once; each field is here so that none can change unseen.
fn head() -> Head {
    let recent = VecDeque::from(entries());
    Head {
        format: HEAD_FORMAT,
        shard: shard(1, 12),
        generation: Generation(3),
        owner: Some(Owner { id: OwnerId(0x019b_7777_0000_7000_8000_0000_0000_00aa), lease_until_micros: NEW_YEAR + 30_000_000 }),
        claims_since_commit: 1,
        epoch: Epoch(4),
        last_commit: recent.back().map(|entry| entry.commit),
        inputs: inputs(9),
        source: Some(Offset { split: 2, at: 4_096 }),
        ledger: vec![segment(SegmentKind::Ledger, 8, &[])],
        recent,
        manifest: Some(manifest()),
        kept: Some(kept()),
        watermark: Watermark(NEW_YEAR),
        activity: Activity::Active,
        act_at: Some(Watermark(NEW_YEAR + 10_000_000)),
        checkpoint: Some(checkpoint()),
        replayed_bytes: 123_456,
        now_micros: NEW_YEAR + 1,
        publish: Some(publish()),
        stats: stats(),
    }
}

#[test]
fn heads_are_golden() {
    frozen("head-1.json", &head());
    frozen("head-1-new.json", &Head::new(shard(0, 0)));
}

#[test]
fn commit_entries_are_golden() {
    frozen("entries-1.json", &entries());
}

#[test]
fn the_retention_row_is_golden() {
    let needs = BTreeMap::from([(shard(0, 0).to_string(), Epoch(5)), (shard(1, 0).to_string(), Epoch(1))]);
    let pins = [("query-1", Pin { needs, everything: false }), ("query-2", Pin { needs: BTreeMap::new(), everything: true })];
    let row = Retention {
        format: RETENTION_FORMAT,
        pins: pins.into_iter().map(|(reader, pin)| (reader.to_owned(), pin)).collect(),
        floors: BTreeMap::from([(shard(0, 0).to_string(), Epoch(4))]),
    };
    frozen("retention-1.json", &row);
}

#[test]
fn the_layout_row_is_golden() {
    let shard = |number, start, end, parents: &[u32]| ShardLayout {
        shard: ShardId(number),
        range: KeyGroupRange { start, end },
        parents: parents.iter().copied().map(ShardId).collect(),
    };
    let shards = vec![shard(2, 0, 360, &[0]), shard(3, 360, 720, &[0, 1])];
    frozen("layout-1.json", &Layout { format: LAYOUT_FORMAT, key_groups: 720, shards });
    frozen("layout-1-first.json", &Layout::keyed(720, 2));
}

#[test]
fn the_job_and_name_rows_are_golden() {
    let job = |desired| JobRow {
        format: JOB_FORMAT,
        job: JOB,
        name: "hot söngs".to_owned(),
        incarnation: Incarnation(1),
        plan: format!("jobs/{JOB}/plan/000001.json"),
        plan_version: 1,
        sql_digest: 0xfeed_face_cafe_beef,
        desired,
        stages: 3,
        created_micros: NEW_YEAR,
    };
    frozen("job-1.json", &[DesiredState::Running, DesiredState::Finished].map(job));
    frozen("name-1.json", &NameRow { job: JOB });
}

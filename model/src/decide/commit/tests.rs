use super::*;
use crate::decide::{plan_spill, spill};
use crate::head::{HEAD_BYTES_SPILL, ManifestRef};
use crate::ids::{CommitId, Generation, JobId, OwnerId, ShardId, ShardKey, StageId};
use crate::recipe::{InputCut, Recipe};

fn shard(stage: u16, shard: u32) -> ShardKey {
    ShardKey::new(JobId(1), StageId(stage), ShardId(shard))
}

fn head() -> Head {
    Head { generation: Generation(2), ..Head::new(shard(1, 0)) }
}

/// The next batch of a merge shard: consumes `upto` of one upstream shard and moves the watermark there.
fn advance(head: &Head, upto: u64, watermark: i64) -> Advance {
    let from = shard(0, 0);
    let cut = InputCut { from, after: head.input(from).epoch, upto: Epoch(upto), watermark: Watermark(watermark) };
    let recipe = Recipe {
        inputs: Inputs::Segments(vec![cut]),
        watermark_before: head.watermark,
        watermark_after: Watermark(watermark),
        now_micros: 100,
        early: false,
        as_rows: false,
        plan: 1,
        build: "test".to_owned(),
        digest: 0,
    };
    let entry = CommitEntry {
        commit: CommitId(u128::from(head.epoch.0) + 1),
        epoch: head.epoch.next(),
        generation: head.generation,
        segments: Vec::new(),
        watermark: Watermark(watermark),
        activity: Activity::Active,
        recipe,
    };
    let input = InputState { epoch: Epoch(upto), watermark: Watermark(watermark), activity: Activity::Active };
    Advance {
        entry,
        inputs: BTreeMap::from([(from.to_string(), input)]),
        source: None,
        act_at: None,
        checkpoint: None,
        publish: None,
        stats: ShardStats { rows_in: 3, ..ShardStats::default() },
        owner: Some(Owner { id: OwnerId(1), lease_until_micros: 5 }),
    }
}

fn committed(head: &Head, upto: u64, watermark: i64) -> Head {
    decide_commit(head, advance(head, upto, watermark)).unwrap()
}

fn refusal(head: &Head, change: impl FnOnce(&mut Advance)) -> CommitRefusal {
    let mut advance = advance(head, 2, 20);
    change(&mut advance);
    decide_commit(head, advance).unwrap_err()
}

#[test]
fn a_commit_advances_everything_at_once() {
    let next = committed(&committed(&head(), 1, 10), 2, 20);
    assert_eq!((next.epoch, next.watermark, next.now_micros), (Epoch(2), Watermark(20), 100));
    assert_eq!(next.input(shard(0, 0)).epoch, Epoch(2));
    assert_eq!(next.last_commit, Some(CommitId(2)));
    assert_eq!(next.stats.rows_in, 6);
    assert_eq!(next.recent.len(), 2);
}

#[test]
fn a_commit_ends_the_count_of_claims_and_a_checkpoint_the_count_of_replayed_bytes() {
    let head = Head { claims_since_commit: 3, replayed_bytes: 9, ..head() };
    let mut advance = advance(&head, 1, 10);
    let checkpoint = CheckpointRef { epoch: Epoch(1), objects: Vec::new(), inputs: BTreeMap::new(), watermark: Watermark(10) };
    advance.checkpoint = Some(checkpoint);
    let next = decide_commit(&head, advance).unwrap();
    assert_eq!((next.claims_since_commit, next.replayed_bytes), (0, 0));
    assert_eq!(committed(&head, 1, 10).replayed_bytes, 9);
}

#[test]
fn a_batch_that_would_break_an_invariant_is_refused() {
    let head = committed(&head(), 1, 10);
    assert!(matches!(refusal(&head, |a| a.entry.epoch = Epoch(5)), CommitRefusal::Epoch { .. }));
    assert_eq!(refusal(&head, |a| a.entry.generation = Generation(1)), CommitRefusal::Generation);
    assert!(matches!(refusal(&head, |a| a.entry.watermark = Watermark(9)), CommitRefusal::Watermark { .. }));
    assert!(matches!(refusal(&head, |a| a.entry.recipe.watermark_before = Watermark(9)), CommitRefusal::Recipe { .. }));
    assert_eq!(refusal(&head, |a| a.entry.recipe.now_micros = 99), CommitRefusal::Now);
}

#[test]
fn a_closed_shard_stays_closed() {
    let head = Head { activity: Activity::Closed, ..head() };
    assert_eq!(refusal(&head, |_| ()), CommitRefusal::Reopened);
    let mut advance = advance(&head, 1, 1);
    advance.entry.activity = Activity::Closed;
    assert!(decide_commit(&head, advance).is_ok());
}

#[test]
fn a_cut_that_does_not_continue_the_positions_is_refused() {
    let head = committed(&head(), 1, 10);
    let cut = |a: &mut Advance, after, upto| {
        let Inputs::Segments(cuts) = &mut a.entry.recipe.inputs else { return };
        (cuts[0].after, cuts[0].upto) = (Epoch(after), Epoch(upto));
    };
    assert!(matches!(refusal(&head, |a| cut(a, 0, 2)), CommitRefusal::Position { .. }), "epoch 1 would be counted twice");
    assert!(matches!(refusal(&head, |a| cut(a, 1, 3)), CommitRefusal::Position { .. }), "epoch 3 would be counted again");
    assert!(matches!(refusal(&head, |a| a.entry.recipe.inputs = Inputs::Segments(vec![])), CommitRefusal::Position { .. }));
    assert!(matches!(refusal(&head, |a| a.inputs.clear()), CommitRefusal::Position { .. }));
    let back = |a: &mut Advance| a.inputs.values_mut().for_each(|input| input.watermark = Watermark(9));
    assert!(matches!(refusal(&head, back), CommitRefusal::Position { .. }));
}

#[test]
fn a_read_that_does_not_continue_the_lanes_place_is_refused() {
    let at = |at| Offset { split: 0, at };
    let lane = Head { source: Some(at(5)), ..head() };
    let read = |from, upto, place| {
        let mut a = advance(&lane, 0, 10);
        a.entry.recipe.inputs = Inputs::Reference { from: at(from), upto: at(upto) };
        (a.source, a.inputs) = (place, BTreeMap::new());
        decide_commit(&lane, a).map(|head| head.source)
    };
    assert_eq!(read(5, 7, Some(at(7))), Ok(Some(at(7))));
    assert_eq!(read(5, 5, None), Ok(Some(at(5))));
    for (from, upto, place) in [(4, 7, Some(at(7))), (6, 7, Some(at(7))), (5, 7, Some(at(8))), (5, 7, None), (5, 4, Some(at(4)))]
    {
        assert_eq!(read(from, upto, place), Err(CommitRefusal::Source), "{from} {upto} {place:?}");
    }
}

#[test]
fn a_publishers_positions_move_when_its_target_has_the_rows() {
    let mut publisher = Head { publish: Some(PublishState::default()), ..head() };
    for upto in [0, 1] {
        let mut a = advance(&publisher, upto, 10);
        a.entry.recipe.inputs = Inputs::Segments(vec![]);
        publisher = decide_commit(&publisher, a).unwrap();
    }
    assert_eq!(publisher.input(shard(0, 0)).epoch, Epoch(1));
}

#[test]
fn a_checkpoint_lies_between_the_last_one_and_the_batch() {
    let at = |epoch| {
        let inputs = BTreeMap::new();
        Some(CheckpointRef { epoch: Epoch(epoch), objects: Vec::new(), inputs, watermark: Watermark::NONE })
    };
    let head = Head { checkpoint: at(1), ..committed(&head(), 1, 10) };
    assert!(matches!(refusal(&head, |a| a.checkpoint = at(0)), CommitRefusal::Checkpoint { .. }));
    assert!(matches!(refusal(&head, |a| a.checkpoint = at(3)), CommitRefusal::Checkpoint { .. }));
    let mut a = advance(&head, 2, 20);
    a.checkpoint = at(2);
    assert_eq!(decide_commit(&head, a).unwrap().checkpoint, at(2));
}

/// Commits as a writer does: spill first where the plan says so.
fn commit_and_spill(head: &Head, build: &str) -> Result<Head, CommitRefusal> {
    let count = plan_spill(head);
    let reference = |first: Epoch, last: Epoch| ManifestRef { object: "m".to_owned(), first, last, bytes: 1 };
    let spilled = match (head.recent.front(), head.recent.get(count.wrapping_sub(1))) {
        (Some(first), Some(last)) => spill(head, count, reference(first.epoch, last.epoch), None),
        _ => head.clone(),
    };
    let mut a = advance(&spilled, spilled.epoch.0 + 1, 10);
    a.entry.recipe.build = build.to_owned();
    decide_commit(&spilled, a)
}

#[test]
fn a_head_that_spills_never_outgrows_its_row() {
    for size in [1, 2_000, HEAD_BYTES_SPILL + 1, 50_000] {
        let mut head = head();
        let build = "x".repeat(size);
        for epoch in 1..100 {
            head = commit_and_spill(&head, &build).unwrap_or_else(|refusal| panic!("{size} {epoch}: {refusal}"));
            assert!(head.recent.len() <= RECENT_COMMITS_MAX);
            let known = head.manifest.as_ref().map(|m| m.last.next()).unwrap_or(Epoch(1));
            assert_eq!(head.recent.front().map(|entry| entry.epoch), Some(known), "no epoch between the manifest and the head");
        }
    }
}

#[test]
fn a_full_head_refuses_another_commit() {
    let mut head = head();
    for epoch in 1..=RECENT_COMMITS_MAX as u64 {
        head = committed(&head, epoch, 10);
    }
    assert_eq!(decide_commit(&head, advance(&head, 17, 10)), Err(CommitRefusal::Full));
    assert_eq!(plan_spill(&head), RECENT_COMMITS_MAX / 2);
}

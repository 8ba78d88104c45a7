//! Scripted faults around one commit (T5): what happened and what was heard, apart.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use weir_model::decide::{Advance, OwnerLiveness, decide_commit};
use weir_model::head::Owner;
use weir_model::time::Sleep;
use weir_model::{Activity, CommitEntry, Epoch, Inputs, JobId, Offset, OwnerId, Recipe, ShardId, ShardStats, StageId, Watermark};

use super::*;
use crate::claim::{ClaimOutcome, claim};
use crate::counting::{CountingTable, Fault, Faults};
use crate::{MemoryTable, jobs};

#[derive(Debug)]
struct NoWaiting;

impl Clock for NoWaiting {
    fn now_micros(&self) -> i64 {
        0
    }
    fn monotonic_micros(&self) -> i64 {
        0
    }
    fn sleep(&self, _duration: std::time::Duration) -> Sleep {
        Box::pin(std::future::ready(()))
    }
}

pub(crate) struct NoManifests;

#[async_trait]
impl ManifestLookup for NoManifests {
    async fn has(&self, _head: &Head, _commit: CommitId) -> Result<bool, StoreError> {
        Ok(false)
    }
}

#[derive(Debug, Default)]
struct Script(Mutex<VecDeque<Fault>>);

impl Faults for Script {
    fn next(&self) -> Fault {
        self.0.lock().unwrap().pop_front().unwrap_or(Fault::None)
    }
    fn read_fails(&self) -> bool {
        false
    }
}

pub(crate) fn shard() -> ShardKey {
    ShardKey::new(JobId(1), StageId(0), ShardId(0))
}

async fn table() -> Arc<MemoryTable> {
    let table = Arc::new(MemoryTable::new());
    let write = Write::Put { key: keys::head(shard()), condition: Condition::Absent, body: encode(&Head::new(shard())).unwrap() };
    assert_eq!(table.transact(vec![write]).await.unwrap(), TransactOutcome::Applied);
    table
}

async fn claimed(table: &dyn CoordinationStore, owner: u128) -> Claim {
    let owner = Owner { id: OwnerId(owner), lease_until_micros: 0 };
    match claim(table, shard(), &owner, 0, |_| OwnerLiveness::Dead).await.unwrap() {
        ClaimOutcome::Claimed(claim) => *claim,
        other => panic!("not claimed: {other:?}"),
    }
}

pub(crate) fn next(claim: &Claim, id: CommitId) -> Head {
    let head = &claim.head;
    let recipe = Recipe {
        inputs: Inputs::Reference { from: Offset::default(), upto: Offset::default() },
        watermark_before: head.watermark,
        watermark_after: Watermark(5),
        now_micros: 0,
        early: false,
        as_rows: false,
        plan: 1,
        build: "test".into(),
        digest: 0,
    };
    let entry = CommitEntry {
        commit: id,
        epoch: head.epoch.next(),
        generation: head.generation,
        segments: vec![],
        watermark: Watermark(5),
        activity: Activity::Active,
        recipe,
    };
    let advance = Advance {
        entry,
        inputs: BTreeMap::new(),
        source: None,
        act_at: None,
        checkpoint: None,
        publish: None,
        stats: ShardStats::default(),
        owner: None,
    };
    decide_commit(head, advance).unwrap()
}

async fn commit_under(faults: &[Fault]) -> (CommitOutcome, Head) {
    let table = table().await;
    let claim = claimed(table.as_ref(), 1).await;
    let script = Arc::new(Script(Mutex::new(faults.iter().copied().collect())));
    let faulty = CountingTable::new(Arc::<MemoryTable>::clone(&table), Arc::default()).with_faults(script);
    let head = next(&claim, CommitId(7));
    let outcome = commit(&faulty, &NoWaiting, &NoManifests, vec![(claim, head)], CommitId(7)).await.unwrap();
    (outcome, jobs::heads(table.as_ref(), &[shard()]).await.unwrap().remove(0))
}

#[tokio::test]
async fn a_commit_lands_once_whatever_is_lost() {
    use Fault::{AnswerLost, None, Refused, RequestLost};
    for faults in
        [&[None][..], &[AnswerLost], &[RequestLost], &[RequestLost, AnswerLost], &[Refused, RequestLost, RequestLost, AnswerLost]]
    {
        let (outcome, head) = commit_under(faults).await;
        assert!(matches!(outcome, CommitOutcome::Committed(_)), "{faults:?}");
        assert_eq!((head.epoch, head.last_commit), (Epoch(1), Some(CommitId(7))), "{faults:?}");
    }
}

#[tokio::test]
async fn a_commit_is_fenced_when_a_newer_generation_exists() {
    let table = table().await;
    let zombie = claimed(table.as_ref(), 1).await;
    let heir = claimed(table.as_ref(), 2).await;
    let head = next(&zombie, CommitId(7));
    let outcome = commit(table.as_ref(), &NoWaiting, &NoManifests, vec![(zombie, head)], CommitId(7)).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Fenced { by: Generation(2), .. }));
    let head = next(&heir, CommitId(8));
    let outcome = commit(table.as_ref(), &NoWaiting, &NoManifests, vec![(heir, head)], CommitId(8)).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)));
}

#[tokio::test]
async fn a_live_holder_is_left_alone_and_a_dead_one_taken_over_at_once() {
    let table = table().await;
    let owner = |id| Owner { id: OwnerId(id), lease_until_micros: 1_000 };
    let alive = |_| OwnerLiveness::Alive;
    assert!(matches!(claim(table.as_ref(), shard(), &owner(1), 0, alive).await.unwrap(), ClaimOutcome::Claimed(_)));
    assert!(matches!(
        claim(table.as_ref(), shard(), &owner(2), 10, alive).await.unwrap(),
        ClaimOutcome::Held { by: OwnerId(1), .. }
    ));
    let dead = |_| OwnerLiveness::Dead;
    assert!(matches!(claim(table.as_ref(), shard(), &owner(2), 10, dead).await.unwrap(), ClaimOutcome::Claimed(_)));
    let idle_for_long = claim(table.as_ref(), shard(), &owner(3), 2_000, alive).await.unwrap();
    assert!(matches!(idle_for_long, ClaimOutcome::Held { by: OwnerId(2), until_micros: 2_000 }));
    let unknown = |_| OwnerLiveness::Unknown;
    assert!(matches!(claim(table.as_ref(), shard(), &owner(3), 2_000, unknown).await.unwrap(), ClaimOutcome::Claimed(_)));
}

#[tokio::test]
async fn a_shard_that_was_handed_on_is_nobodys() {
    let table = table().await;
    let handed = claimed(table.as_ref(), 1).await;
    crate::hand_on(table.as_ref(), vec![handed], 5).await.unwrap();
    let (head, _) = read_head(table.as_ref(), shard()).await.unwrap();
    assert_eq!(head.owner, Some(Owner { id: OwnerId::NOBODY, lease_until_micros: 5 }));
    let next = Owner { id: OwnerId(2), lease_until_micros: 1_000 };
    let alive_but_nobody = |id| if id == OwnerId::NOBODY { OwnerLiveness::Dead } else { OwnerLiveness::Alive };
    let taken = claim(table.as_ref(), shard(), &next, 5, alive_but_nobody).await.unwrap();
    assert!(matches!(taken, ClaimOutcome::Claimed(_)));
}

#[tokio::test]
async fn a_fence_ends_what_was_under_way_and_leaves_the_shard_free() {
    let table = table().await;
    let zombie = claimed(table.as_ref(), 1).await;
    let alive = crate::fence(table.as_ref(), shard(), 0, |_| OwnerLiveness::Alive).await.unwrap();
    assert!(matches!(alive, ClaimOutcome::Held { by: OwnerId(1), .. }));
    let dead = crate::fence(table.as_ref(), shard(), 0, |_| OwnerLiveness::Dead).await.unwrap();
    assert!(matches!(dead, ClaimOutcome::Claimed(_)));
    let head = next(&zombie, CommitId(7));
    let outcome = commit(table.as_ref(), &NoWaiting, &NoManifests, vec![(zombie, head)], CommitId(7)).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Fenced { by: Generation(2), .. }));
    assert_eq!(read_head(table.as_ref(), shard()).await.unwrap().0.owner, None);
}

#[tokio::test]
async fn shards_of_a_fenced_commit_that_nobody_has_taken_are_handed_on() {
    let table = table().await;
    let other = ShardKey { shard: ShardId(1), ..shard() };
    let head = encode(&Head::new(other)).unwrap();
    let write = Write::Put { key: keys::head(other), condition: Condition::Absent, body: head };
    assert_eq!(table.transact(vec![write]).await.unwrap(), TransactOutcome::Applied);
    let zombie = claimed(table.as_ref(), 1).await;
    let owner = Owner { id: OwnerId(1), lease_until_micros: 100 };
    let ClaimOutcome::Claimed(kept) = claim(table.as_ref(), other, &owner, 0, |_| OwnerLiveness::Dead).await.unwrap() else {
        panic!("it is free")
    };
    let heir = claimed(table.as_ref(), 2).await;
    let id = CommitId(7);
    let advances = vec![(zombie.clone(), next(&zombie, id)), (*kept.clone(), next(&kept, id))];
    let outcome = commit(table.as_ref(), &NoWaiting, &NoManifests, advances, id).await.unwrap();
    let CommitOutcome::Fenced { shard: fenced, claims, .. } = outcome else { panic!("the heir has taken a shard") };
    assert_eq!((fenced, claims.len()), (shard(), 2));
    crate::hand_on(table.as_ref(), claims, 50).await.unwrap();
    let heads = jobs::heads(table.as_ref(), &[shard(), other]).await.unwrap();
    assert_eq!(heads[0], heir.head, "the heir's shard is left alone");
    assert_eq!(heads[1].owner.as_ref().map(|owner| owner.lease_until_micros), Some(50));
    assert_eq!(heads[1].claims_since_commit, 0);
}

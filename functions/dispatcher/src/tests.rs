//! Against a table in memory and an outbox that remembers what it was told.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use weir_coordinator::claim::read_head;
use weir_coordinator::{Claim, ClaimOutcome, Condition, CountingTable, MemoryTable, TableCounts, Write, claim, keys, release};
use weir_model::decide::{OwnerLiveness, VANISHED_MAX};
use weir_model::head::Owner;
use weir_model::job::{DesiredState, JOB_FORMAT, JobRow};
use weir_model::layout::Layout;
use weir_model::routes::{ROUTES_FORMAT, Route, Spread};
use weir_model::time::Sleep;
use weir_model::{Activity, Generation, Incarnation, OwnerId, ShardId, StageId};

use super::*;

const JOB: JobId = JobId(1);

/// A clock that stands until it is set, in seconds.
#[derive(Debug, Default)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now_micros(&self) -> i64 {
        self.0.load(Ordering::Relaxed) * 1_000_000
    }
    fn monotonic_micros(&self) -> i64 {
        self.now_micros()
    }
    fn sleep(&self, _: Duration) -> Sleep {
        Box::pin(std::future::ready(()))
    }
}

#[derive(Debug, Default)]
struct Remembering {
    calls: Mutex<Vec<Vec<ShardKey>>>,
    looks: Mutex<Vec<(Look, Duration)>>,
    calls_fail: AtomicBool,
}

#[async_trait]
impl Outbox for Remembering {
    async fn call(&self, invocation: &Invocation) -> Result<(), OutboxError> {
        if self.calls_fail.load(Ordering::Relaxed) {
            return Err(OutboxError { what: "worker".to_owned(), message: "throttled".to_owned() });
        }
        self.calls.lock().await.push(invocation.shards.clone());
        Ok(())
    }
    async fn look_after(&self, look: &Look, after: Duration) -> Result<(), OutboxError> {
        self.looks.lock().await.push((look.clone(), after));
        Ok(())
    }
}

/// Two lanes, each with its merge shard in one slot, and a publisher.
struct World {
    table: Arc<MemoryTable>,
    clock: Arc<SetClock>,
    outbox: Arc<Remembering>,
    dispatcher: Dispatcher,
    reads: Arc<TableCounts>,
}

fn key(stage: u16, shard: u32) -> ShardKey {
    ShardKey::new(JOB, StageId(stage), ShardId(shard))
}

impl World {
    async fn new() -> Self {
        let table = Arc::new(MemoryTable::new());
        let route = |from, to, from_shards, to_shards| Route {
            from: JOB,
            from_stage: StageId(from),
            from_shards,
            to_stage: StageId(to),
            to_shards,
            spread: Spread::All,
        };
        let slots = vec![vec![key(0, 0), key(1, 0)], vec![key(0, 1), key(1, 1)], vec![key(2, 0)]];
        let routes = RoutesRow { format: ROUTES_FORMAT, job: JOB, routes: vec![route(0, 1, 2, 2), route(1, 2, 2, 1)], slots };
        let row = JobRow {
            format: JOB_FORMAT,
            job: JOB,
            name: "job".to_owned(),
            incarnation: Incarnation(1),
            plan: "plan".to_owned(),
            plan_version: 1,
            sql_digest: 0,
            desired: DesiredState::Running,
            stages: 3,
            created_micros: 0,
        };
        let layouts = [(StageId(0), Layout::unkeyed(8, 2))];
        let shards: Vec<ShardKey> = routes.slots.concat();
        let new = jobs::NewJob { row: &row, layouts: &layouts, routes: &routes, shards: &shards, holds: &[] };
        let _created = jobs::create(table.as_ref(), &new).await.unwrap();
        let (clock, outbox) = (Arc::new(SetClock::default()), Arc::new(Remembering::default()));
        let reads = Arc::new(TableCounts::default());
        let counting = Arc::new(CountingTable::new(Arc::clone(&table) as _, Arc::clone(&reads)));
        let dispatcher = Dispatcher::new(counting, Arc::clone(&clock) as _, Arc::clone(&outbox) as _);
        Self { table, clock, outbox, dispatcher, reads }
    }

    async fn handle(&self, event: Event) -> Vec<Vec<ShardKey>> {
        self.dispatcher.handle(event).await.unwrap();
        std::mem::take(&mut *self.outbox.calls.lock().await)
    }

    async fn changed(&self, shard: ShardKey, epoch: u64) -> Vec<Vec<ShardKey>> {
        let changed = Changed { epoch: Epoch(epoch), ..self.change(shard).await };
        self.handle(Event { changed: vec![changed], ..Event::default() }).await
    }

    /// What the stream says of a head as it stands.
    async fn change(&self, shard: ShardKey) -> Changed {
        let (head, _) = read_head(self.table.as_ref(), shard).await.unwrap();
        let holding = head.owner.map_or(Holding::Free, |owner| Holding::Until { micros: owner.lease_until_micros });
        Changed { shard, epoch: head.epoch, holding }
    }

    /// The heads of a slot have changed.
    async fn changed_slot(&self, slot: &[ShardKey]) -> Vec<Vec<ShardKey>> {
        let mut changed = Vec::new();
        for shard in slot {
            changed.push(self.change(*shard).await);
        }
        self.handle(Event { changed, ..Event::default() }).await
    }

    async fn write(&self, shard: ShardKey, change: impl FnOnce(&mut Head)) {
        let (mut head, version) = read_head(self.table.as_ref(), shard).await.unwrap();
        change(&mut head);
        let (key, body) = (keys::head(shard), serde_json::to_vec(&head).unwrap().into());
        let _ = self.table.transact(vec![Write::Put { key, condition: Condition::VersionIs(version), body }]).await.unwrap();
    }

    fn at(&self, second: i64) {
        self.clock.0.store(second, Ordering::Relaxed);
    }

    async fn armed(&self) -> Vec<(usize, Duration)> {
        self.outbox.looks.lock().await.iter().map(|(look, after)| (look.slot, *after)).collect()
    }

    async fn look(&self) -> Vec<Vec<ShardKey>> {
        let (look, _) = self.outbox.looks.lock().await.pop().expect("a look is armed");
        self.handle(Event { looks: vec![look], ..Event::default() }).await
    }

    /// A worker comes for a slot, does nothing, and lets go.
    async fn visit(&self, slot: &[ShardKey]) {
        release(self.table.as_ref(), self.claim(slot, 0).await).await.unwrap();
    }

    async fn claim(&self, slot: &[ShardKey], until: i64) -> Vec<Claim> {
        let mut claims = Vec::new();
        for shard in slot {
            let owner = Owner { id: OwnerId(7), lease_until_micros: until };
            match claim(self.table.as_ref(), *shard, &owner, 0, |_| OwnerLiveness::Dead).await.unwrap() {
                ClaimOutcome::Claimed(claim) => claims.push(*claim),
                other => panic!("{other:?}"),
            }
        }
        claims
    }
}

#[tokio::test]
async fn a_new_job_is_called_and_each_call_is_followed_up() {
    let world = World::new().await;
    let calls = world.handle(Event { created: vec![JOB], ..Event::default() }).await;
    assert_eq!(calls, [vec![key(0, 0), key(1, 0)], vec![key(0, 1), key(1, 1)], vec![key(2, 0)]]);
    assert_eq!(world.outbox.looks.lock().await.len(), 3);
}

#[tokio::test]
async fn a_call_that_was_lost_is_made_again_and_one_that_was_heard_is_not() {
    let world = World::new().await;
    for slot in [vec![key(0, 0), key(1, 0)], vec![key(0, 1), key(1, 1)], vec![key(2, 0)]] {
        world.visit(&slot).await;
    }
    // The publisher reads what merge shard 0 says in its epoch 1.
    assert_eq!(world.changed(key(1, 0), 1).await, [vec![key(2, 0)]]);
    world.at(20);
    // In the table the merge shard has said nothing: what is looked at is what is there.
    assert!(world.look().await.is_empty());
    assert_eq!(world.changed(key(1, 0), 2).await, [vec![key(2, 0)]]);
    world.visit(&[key(2, 0)]).await;
    world.at(40);
    assert!(world.look().await.is_empty());
}

#[tokio::test]
async fn what_is_doubled_calls_once() {
    let world = World::new().await;
    let created = || Event { created: vec![JOB], ..Event::default() };
    assert_eq!(world.handle(created()).await.len(), 3);
    assert!(world.handle(created()).await.is_empty(), "the calls are under way");
    world.at(20);
    let looks: Vec<Look> = world.outbox.looks.lock().await.drain(..).map(|(look, _)| look).collect();
    assert_eq!(looks.len(), 3);
    let doubled = Event { looks: [looks.clone(), looks].concat(), ..Event::default() };
    assert_eq!(world.handle(doubled).await.len(), 3, "nobody came: each is called again, once");
    assert_eq!(world.outbox.looks.lock().await.len(), 3);
}

#[tokio::test]
async fn a_slot_under_a_lease_is_looked_at_when_it_is_over_and_armed_once() {
    let world = World::new().await;
    let _claims = world.claim(&[key(2, 0)], 10_000_000).await;
    for epoch in 1..=5 {
        let calls = world.changed(key(1, 0), epoch).await;
        assert!(!calls.contains(&vec![key(2, 0)]));
    }
    let looks = world.outbox.looks.lock().await.clone();
    let of_publisher: Vec<_> = looks.iter().filter(|(look, _)| look.slot == 2).collect();
    assert_eq!(of_publisher.len(), 1, "{looks:?}");
    assert_eq!(of_publisher[0].1, Duration::from_secs(11));
    // Its holder never came back.
    world.at(11);
    world.outbox.looks.lock().await.retain(|(look, _)| look.slot == 2);
    assert_eq!(world.look().await, [vec![key(2, 0)]]);
}

#[tokio::test]
async fn what_left_with_more_to_do_is_called_at_once() {
    let world = World::new().await;
    let claims = world.claim(&[key(0, 0), key(1, 0)], 10_000_000).await;
    weir_coordinator::hand_on(world.table.as_ref(), claims, 0).await.unwrap();
    let calls = world.changed(key(0, 0), 0).await;
    assert!(calls.contains(&vec![key(0, 0), key(1, 0)]), "{calls:?}");
}

const SECOND: i64 = 1_000_000;
const PUBLISHER: usize = 2;

fn publisher() -> Vec<ShardKey> {
    vec![key(2, 0)]
}

/// Every slot was held once; a call of the publisher for the first epoch of merge shard 0 is under way.
async fn publisher_called() -> World {
    let world = World::new().await;
    for slot in [vec![key(0, 0), key(1, 0)], vec![key(0, 1), key(1, 1)], publisher()] {
        world.visit(&slot).await;
    }
    world.write(key(1, 0), |head| head.epoch = Epoch(1)).await;
    assert_eq!(world.changed(key(1, 0), 1).await, [publisher()]);
    world
}

#[tokio::test]
async fn a_lease_that_ends_long_before_the_next_look_gets_a_look_of_its_own() {
    let world = publisher_called().await;
    let _claims = world.claim(&publisher(), 3 * SECOND).await;
    assert!(world.changed_slot(&publisher()).await.is_empty());
    assert_eq!(world.armed().await, [(PUBLISHER, Duration::from_secs(15)), (PUBLISHER, Duration::from_secs(4))]);
    world.at(4);
    assert_eq!(world.look().await, [publisher()], "its holder died");
}

#[tokio::test]
async fn what_came_while_the_lease_ran_calls_as_soon_as_the_slot_is_let_go_of() {
    let world = publisher_called().await;
    let claims = world.claim(&publisher(), 10 * SECOND).await;
    world.changed_slot(&publisher()).await;
    // Its worker has looked upstream for the last time, and lets go without a word.
    world.write(key(1, 0), |head| head.epoch = Epoch(2)).await;
    assert!(world.changed(key(1, 0), 2).await.is_empty());
    release(world.table.as_ref(), claims).await.unwrap();
    assert_eq!(world.changed_slot(&publisher()).await, [publisher()]);
    world.visit(&publisher()).await;
    assert!(world.changed_slot(&publisher()).await.is_empty(), "whoever came has seen all there is");
}

#[tokio::test]
async fn a_look_that_comes_early_is_followed_by_another() {
    let world = World::new().await;
    let _claims = world.claim(&publisher(), 10 * SECOND).await;
    world.changed(key(1, 0), 1).await;
    world.outbox.looks.lock().await.retain(|(look, _)| look.slot == PUBLISHER);
    world.at(9);
    assert!(world.look().await.is_empty());
    assert_eq!(world.armed().await, [(PUBLISHER, Duration::from_micros(2_000_001))]);
    world.at(11);
    assert_eq!(world.look().await, [publisher()]);
}

#[tokio::test]
async fn a_call_that_could_not_be_made_is_made_when_the_event_comes_again() {
    let world = World::new().await;
    world.visit(&publisher()).await;
    world.outbox.calls_fail.store(true, Ordering::Relaxed);
    let event =
        || Event { changed: vec![Changed { shard: key(1, 0), epoch: Epoch(1), holding: Holding::Free }], ..Event::default() };
    assert!(world.dispatcher.handle(event()).await.is_err());
    world.outbox.calls_fail.store(false, Ordering::Relaxed);
    assert!(world.handle(event()).await.contains(&publisher()));
    // The same of a look: one that failed is no repeat when its message comes again.
    world.at(20);
    let (look, _) = world.outbox.looks.lock().await.iter().rfind(|(look, _)| look.slot == PUBLISHER).unwrap().clone();
    world.write(key(1, 0), |head| head.epoch = Epoch(1)).await;
    world.outbox.calls_fail.store(true, Ordering::Relaxed);
    let looks = || Event { looks: vec![look.clone()], ..Event::default() };
    assert!(world.dispatcher.handle(looks()).await.is_err());
    world.outbox.calls_fail.store(false, Ordering::Relaxed);
    assert_eq!(world.handle(looks()).await, [publisher()]);
    assert!(world.handle(looks()).await.is_empty());
}

#[tokio::test]
async fn a_row_that_cannot_be_read_holds_up_no_other_slot() {
    let world = World::new().await;
    let strange = Write::Put { key: keys::head(key(1, 0)), condition: Condition::Exists, body: b"{}".to_vec().into() };
    let _ = world.table.transact(vec![strange]).await.unwrap();
    let calls = world.handle(Event { created: vec![JOB], ..Event::default() }).await;
    assert_eq!(calls, [vec![key(0, 1), key(1, 1)], publisher()]);
}

#[tokio::test]
async fn a_job_whose_last_worker_died_before_it_finished_it_is_finished_by_another() {
    let world = World::new().await;
    for shard in [key(0, 0), key(1, 0), key(0, 1), key(1, 1)] {
        world.write(shard, |head| head.activity = Activity::Closed).await;
    }
    assert!(world.changed_slot(&[key(0, 0), key(1, 0)]).await.iter().all(|slot| *slot == publisher()));
    world.visit(&publisher()).await;
    world.write(key(2, 0), |head| head.activity = Activity::Closed).await;
    world.outbox.looks.lock().await.clear();
    assert!(world.changed_slot(&publisher()).await.is_empty(), "its worker is at it");
    assert_eq!(world.armed().await, [(0, Duration::from_secs(15))]);
    world.at(15);
    assert_eq!(world.look().await, [[key(0, 0), key(1, 0)]]);
    jobs::finish(world.table.as_ref(), JOB).await.unwrap();
    world.at(30);
    assert!(world.look().await.is_empty());
    assert!(world.armed().await.is_empty(), "and nobody looks any more");
}

#[tokio::test]
async fn a_shard_of_which_every_worker_died_is_called_no_more() {
    let world = publisher_called().await;
    world
        .write(key(2, 0), |head| {
            head.owner = Some(Owner { id: OwnerId(7), lease_until_micros: 5 * SECOND });
            head.claims_since_commit = VANISHED_MAX;
            head.generation = Generation(9);
        })
        .await;
    world.at(16);
    assert!(world.look().await.is_empty());
    assert!(world.changed(key(1, 0), 2).await.is_empty());
    // Somebody ran it where it could be watched.
    world.write(key(2, 0), |head| head.claims_since_commit = 0).await;
    assert_eq!(world.changed_slot(&publisher()).await, [publisher()]);
}

#[tokio::test]
async fn commits_under_a_lease_that_is_looked_at_read_no_heads() {
    let world = World::new().await;
    let held = [key(0, 0), key(1, 0), key(0, 1), key(1, 1)];
    let _claims = world.claim(&held, 10 * SECOND).await;
    world.changed_slot(&held).await;
    let before = world.reads.reads.load(Ordering::Relaxed);
    for epoch in 1..=10 {
        // News for the merge shards of both slots.
        assert!(world.changed(key(0, 0), epoch).await.is_empty());
    }
    assert_eq!(world.reads.reads.load(Ordering::Relaxed), before);
    world.at(2);
    world.changed(key(0, 1), 1).await;
    assert_eq!(world.reads.reads.load(Ordering::Relaxed), before + 2, "slot 0 was not heard of for a while");
}

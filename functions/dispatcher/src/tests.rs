//! Against a table in memory and an outbox that remembers what it was told.

use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use weir_coordinator::{ClaimOutcome, MemoryTable, claim, release};
use weir_model::decide::OwnerLiveness;
use weir_model::head::Owner;
use weir_model::job::{DesiredState, JOB_FORMAT, JobRow};
use weir_model::layout::Layout;
use weir_model::routes::{ROUTES_FORMAT, Route, Spread};
use weir_model::time::Sleep;
use weir_model::{Incarnation, OwnerId, ShardId, StageId};

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
}

#[async_trait]
impl Outbox for Remembering {
    async fn call(&self, invocation: &Invocation) -> Result<(), OutboxError> {
        self.calls.lock().await.push(invocation.shards.clone());
        Ok(())
    }
    async fn look_after(&self, look: &Look, after: Duration) -> Result<Duration, OutboxError> {
        self.looks.lock().await.push((look.clone(), after));
        Ok(after)
    }
}

/// Two lanes, each with its merge shard in one slot, and a publisher.
struct World {
    table: Arc<MemoryTable>,
    clock: Arc<SetClock>,
    outbox: Arc<Remembering>,
    dispatcher: Dispatcher,
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
        let _created = jobs::create(table.as_ref(), &row, &layouts, &routes, &shards).await.unwrap();
        let (clock, outbox) = (Arc::new(SetClock::default()), Arc::new(Remembering::default()));
        let shared: (Arc<dyn CoordinationStore>, Arc<dyn Clock>, Arc<dyn Outbox>) =
            (Arc::clone(&table) as _, Arc::clone(&clock) as _, Arc::clone(&outbox) as _);
        let dispatcher = Dispatcher::new(shared.0, shared.1, shared.2);
        Self { table, clock, outbox, dispatcher }
    }

    async fn handle(&self, event: Event) -> Vec<Vec<ShardKey>> {
        self.dispatcher.handle(event).await.unwrap();
        std::mem::take(&mut *self.outbox.calls.lock().await)
    }

    async fn changed(&self, shard: ShardKey, epoch: u64) -> Vec<Vec<ShardKey>> {
        self.handle(Event { changed: vec![Changed { shard, epoch: Epoch(epoch) }], ..Event::default() }).await
    }

    async fn look(&self) -> Vec<Vec<ShardKey>> {
        let (look, _) = self.outbox.looks.lock().await.pop().expect("a look is armed");
        self.handle(Event { looks: vec![look], ..Event::default() }).await
    }

    /// A worker comes for a slot, does nothing, and lets go.
    async fn visit(&self, slot: &[ShardKey]) {
        release(self.table.as_ref(), self.claim(slot, 0).await).await.unwrap();
    }

    async fn claim(&self, slot: &[ShardKey], until: i64) -> Vec<weir_coordinator::Claim> {
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
    world.clock.0.store(20, Ordering::Relaxed);
    // In the table the merge shard has said nothing: what is looked at is what is there.
    assert!(world.look().await.is_empty());
    assert_eq!(world.changed(key(1, 0), 2).await, [vec![key(2, 0)]]);
    world.visit(&[key(2, 0)]).await;
    world.clock.0.store(40, Ordering::Relaxed);
    assert!(world.look().await.is_empty());
}

#[tokio::test]
async fn what_is_doubled_calls_once() {
    let world = World::new().await;
    let created = || Event { created: vec![JOB], ..Event::default() };
    assert_eq!(world.handle(created()).await.len(), 3);
    assert!(world.handle(created()).await.is_empty(), "the calls are under way");
    world.clock.0.store(20, Ordering::Relaxed);
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
    world.clock.0.store(11, Ordering::Relaxed);
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

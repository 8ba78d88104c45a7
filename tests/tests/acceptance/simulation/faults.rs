//! Storage calls that fail, that let others come between, and that a process does not survive.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use weir_coordinator::counting::{Fault, Faults};
use weir_coordinator::{
    Changes, CoordinationStore, CountingTable, Item, ItemKey, MemoryTable, StoreError, TransactOutcome, Write,
};
use weir_state::{Hook, Hooked, Op};

use super::world::Dice;

/// When storage calls fail.
#[derive(Debug)]
pub(super) enum FaultPlan {
    /// Each with a chance of one in this many, drawn from the dice.
    Random { dice: Arc<Dice>, one_in: u64 },
    /// Exactly the n-th call, in one of the ways; 0 = never.
    Nth { calls: AtomicU64, n: u64, way: u64 },
}

impl FaultPlan {
    pub(super) fn never() -> Arc<Self> {
        Self::nth(0, 0)
    }

    pub(super) fn nth(n: u64, way: u64) -> Arc<Self> {
        Arc::new(Self::Nth { calls: AtomicU64::new(0), n, way })
    }

    /// Whether the call that fails was reached.
    pub(super) fn was_met(&self) -> bool {
        match self {
            Self::Random { .. } => false,
            Self::Nth { calls, n, .. } => calls.load(Ordering::Relaxed) >= *n,
        }
    }

    /// 0: no fault; 1: it did not happen; 2: it happened, nobody hears; 3: it did not happen, nobody hears.
    fn draw(&self) -> u64 {
        match self {
            Self::Random { dice, one_in } => {
                if dice.below(*one_in) == 0 {
                    1 + dice.below(3)
                } else {
                    0
                }
            }
            Self::Nth { calls, n, way } => {
                if calls.fetch_add(1, Ordering::Relaxed) + 1 == *n {
                    *way
                } else {
                    0
                }
            }
        }
    }
}

#[derive(Debug)]
struct ObjectFaults {
    plan: Arc<FaultPlan>,
    lost: Mutex<bool>,
}

fn injected() -> object_store::Error {
    object_store::Error::Generic { store: "simulated", source: "injected fault".into() }
}

impl Hook for ObjectFaults {
    fn before(&self, _op: Op, _object: &ObjectPath) -> object_store::Result<()> {
        match self.plan.draw() {
            1 | 3 => Err(injected()),
            2 => {
                *self.lost.lock().expect("lock") = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn after(&self, _op: Op, _object: &ObjectPath, _bytes: u64) -> object_store::Result<()> {
        if std::mem::take(&mut *self.lost.lock().expect("lock")) { Err(injected()) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct TableFaults(Arc<FaultPlan>);

impl Faults for TableFaults {
    fn next(&self) -> Fault {
        match self.0.draw() {
            1 => Fault::Refused,
            2 => Fault::AnswerLost,
            3 => Fault::RequestLost,
            _ => Fault::None,
        }
    }

    fn read_fails(&self) -> bool {
        matches!(self.0.draw(), 1 | 3)
    }
}

/// Objects with the faults of `plan`.
pub(super) fn faulty_objects(objects: &Arc<InMemory>, plan: &Arc<FaultPlan>) -> Arc<dyn ObjectStore> {
    let faults = ObjectFaults { plan: Arc::clone(plan), lost: Mutex::new(false) };
    Arc::new(Hooked::new(Arc::clone(objects) as _, Arc::new(faults)))
}

/// The table with the faults of `plan`, and with room for others between what a call asks and what it answers.
pub(super) fn faulty_table(table: &Arc<MemoryTable>, plan: &Arc<FaultPlan>) -> Arc<dyn CoordinationStore> {
    let between = Arc::new(Between(Arc::clone(table)));
    Arc::new(CountingTable::new(between, Arc::default()).with_faults(Arc::new(TableFaults(Arc::clone(plan)))))
}

/// A table that takes its time.
#[derive(Debug)]
struct Between(Arc<MemoryTable>);

#[async_trait]
impl CoordinationStore for Between {
    async fn get(&self, key: &ItemKey) -> Result<Option<Item>, StoreError> {
        tokio::task::yield_now().await;
        self.0.get(key).await
    }

    async fn query(&self, partition: &str) -> Result<Vec<Item>, StoreError> {
        tokio::task::yield_now().await;
        self.0.query(partition).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<TransactOutcome, StoreError> {
        tokio::task::yield_now().await;
        let outcome = self.0.transact(writes).await;
        tokio::task::yield_now().await;
        outcome
    }

    fn changes(&self) -> Changes {
        self.0.changes()
    }
}

/// On which side of its last storage call a process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Before,
    After,
}

/// What unwinds a process that was killed. Unlike an error, no code of the process ever sees it.
struct Killed;

/// Processes, one after another, of which one is killed at the n-th storage call of all.
#[derive(Debug)]
pub(super) struct Life {
    n: u64,
    moment: Moment,
    calls: AtomicU64,
    due: AtomicBool,
    dead: AtomicBool,
}

impl Life {
    pub(super) fn until(n: u64, moment: Moment) -> Arc<Self> {
        Arc::new(Self { n, moment, calls: AtomicU64::new(0), due: AtomicBool::new(false), dead: AtomicBool::new(false) })
    }

    /// Storage calls so far.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The next process starts.
    pub(super) fn begin(&self) {
        self.due.store(false, Ordering::Relaxed);
        self.dead.store(false, Ordering::Relaxed);
    }

    /// Whether that is how a process ended.
    pub(super) fn is_kill(payload: &(dyn Any + Send)) -> bool {
        payload.is::<Killed>()
    }

    fn before(&self) {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if self.dead.load(Ordering::Relaxed) || (call == self.n && self.moment == Moment::Before) {
            self.die();
        }
        if call == self.n {
            self.due.store(true, Ordering::Relaxed);
        }
    }

    fn after(&self) {
        if self.dead.load(Ordering::Relaxed) || self.due.swap(false, Ordering::Relaxed) {
            self.die();
        }
    }

    /// Unwinds the task that makes the call; the others of the process unwind at theirs, which are never carried out.
    fn die(&self) -> ! {
        self.dead.store(true, Ordering::Relaxed);
        std::panic::resume_unwind(Box::new(Killed))
    }
}

impl Hook for Life {
    fn before(&self, _op: Op, _object: &ObjectPath) -> object_store::Result<()> {
        self.before();
        Ok(())
    }

    fn after(&self, _op: Op, _object: &ObjectPath, _bytes: u64) -> object_store::Result<()> {
        self.after();
        Ok(())
    }
}

pub(super) fn mortal_objects(objects: &Arc<InMemory>, life: &Arc<Life>) -> Arc<dyn ObjectStore> {
    Arc::new(Hooked::new(Arc::clone(objects) as _, Arc::clone(life)))
}

/// The table as a mortal process sees it.
#[derive(Debug)]
pub(super) struct MortalTable(pub(super) Arc<MemoryTable>, pub(super) Arc<Life>);

#[async_trait]
impl CoordinationStore for MortalTable {
    async fn get(&self, key: &ItemKey) -> Result<Option<Item>, StoreError> {
        self.1.before();
        let answer = self.0.get(key).await;
        self.1.after();
        answer
    }

    async fn query(&self, partition: &str) -> Result<Vec<Item>, StoreError> {
        self.1.before();
        let answer = self.0.query(partition).await;
        self.1.after();
        answer
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<TransactOutcome, StoreError> {
        self.1.before();
        let outcome = self.0.transact(writes).await;
        self.1.after();
        outcome
    }

    fn changes(&self) -> Changes {
        self.0.changes()
    }
}

//! Faults for crash enumeration and simulation: a hook that makes chosen requests fail.
//!
//! *Did it happen* and *did the caller hear* are drawn apart: the lost answer is the case that finds bugs.
//!
//! | | the caller hears of success | the caller hears of an error |
//! | --- | --- | --- |
//! | it happened | no fault | [`Fault::Unheard`] |
//! | it did not happen | never: no store lies | [`Fault::NotDone`] |

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use object_store::path::Path;
use object_store::{Error, Result};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::counting::{Hook, Hooked, Op};

/// A store with faults.
pub type FaultyStore = Hooked<Faults>;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It never reaches the store.
    NotDone,
    /// It is carried out and the answer is lost. A listing, which changes nothing, is [`Fault::NotDone`].
    Unheard,
}

/// The error that the caller of a failed request sees. It does not say which fault it was: real ones do not either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("injected fault at request {request}: {op:?} {object}")]
pub struct InjectedFault {
    /// Number of the request, from 1.
    pub request: u64,
    /// Its kind.
    pub op: Op,
    /// Its object.
    pub object: String,
}

/// How long the store stays away after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum After {
    /// The next request is carried out.
    Recovers,
    /// Nothing is carried out any more: the process is as good as dead.
    Crashed,
}

/// Which requests fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Never,
    Nth { request: u64, fault: Fault, after: After },
    Seeded { seed: u64, per_thousand: u32 },
}

/// Decides which requests fail. The same plan and order of requests give the same faults.
#[derive(Debug)]
pub struct Faults {
    plan: Plan,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: u64,
    faults: u64,
    /// Requests under way whose answer will be lost.
    unheard: BTreeMap<(Op, String), u64>,
}

impl Faults {
    /// No faults; still counts requests.
    #[must_use]
    pub fn never() -> Self {
        Self::of(Plan::Never)
    }

    /// Fails the `request`-th request, counted from 1. For crash enumeration: 1, 2, 3 .. until a run meets no fault.
    #[must_use]
    pub fn nth(request: u64, fault: Fault, after: After) -> Self {
        Self::of(Plan::Nth { request, fault, after })
    }

    /// Fails about `per_thousand` of a thousand requests, half of them unheard.
    #[must_use]
    pub fn seeded(seed: u64, per_thousand: u32) -> Self {
        Self::of(Plan::Seeded { seed, per_thousand })
    }

    fn of(plan: Plan) -> Self {
        Self { plan, state: Mutex::default() }
    }

    /// Requests seen.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    /// Faults injected, requests after a crash not counted.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.lock().faults
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, request: u64) -> Option<Fault> {
        match self.plan {
            Plan::Never => None,
            Plan::Nth { request: nth, fault, .. } => (request == nth).then_some(fault),
            Plan::Seeded { seed, per_thousand } => {
                let drawn = xxh3_64_with_seed(&request.to_le_bytes(), seed);
                let fault = if drawn & 1 == 0 { Fault::NotDone } else { Fault::Unheard };
                ((drawn >> 1) % 1000 < u64::from(per_thousand)).then_some(fault)
            }
        }
    }

    fn is_crashed(&self, request: u64) -> bool {
        matches!(self.plan, Plan::Nth { request: nth, after: After::Crashed, .. } if request > nth)
    }
}

impl Hook for Faults {
    fn before(&self, op: Op, object: &Path) -> Result<()> {
        let mut state = self.lock();
        state.requests += 1;
        let request = state.requests;
        if self.is_crashed(request) {
            return Err(failed(request, op, object));
        }
        let Some(fault) = self.draw(request) else { return Ok(()) };
        state.faults += 1;
        if fault == Fault::NotDone || op == Op::List {
            return Err(failed(request, op, object));
        }
        state.unheard.insert((op, object.to_string()), request);
        Ok(())
    }

    fn after(&self, op: Op, object: &Path, _bytes: u64) -> Result<()> {
        match self.lock().unheard.remove(&(op, object.to_string())) {
            Some(request) => Err(failed(request, op, object)),
            None => Ok(()),
        }
    }
}

fn failed(request: u64, op: Op, object: &Path) -> Error {
    Error::Generic { store: "faulty", source: Box::new(InjectedFault { request, op, object: object.to_string() }) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use object_store::{ObjectStore, ObjectStoreExt};

    use super::*;

    fn store(faults: Faults) -> (Arc<InMemory>, FaultyStore) {
        let inner = Arc::new(InMemory::new());
        (Arc::clone(&inner), FaultyStore::new(inner as Arc<dyn ObjectStore>, Arc::new(faults)))
    }

    #[tokio::test]
    async fn what_happened_and_what_was_heard_are_two_things() {
        for (fault, happened) in [(Fault::NotDone, false), (Fault::Unheard, true)] {
            let (inner, store) = store(Faults::nth(2, fault, After::Recovers));
            store.put(&Path::from("a"), "1".into()).await.unwrap();
            let error = store.put(&Path::from("b"), "2".into()).await.unwrap_err();
            assert!(error.to_string().contains("request 2: Put b"), "{error}");
            assert_eq!(inner.head(&Path::from("b")).await.is_ok(), happened);
            store.put(&Path::from("c"), "3".into()).await.unwrap();
            assert_eq!((store.hook().requests(), store.hook().injected()), (3, 1));
        }
    }

    #[tokio::test]
    async fn a_delete_may_happen_unheard_too() {
        let (inner, store) = store(Faults::nth(2, Fault::Unheard, After::Recovers));
        store.put(&Path::from("a"), "1".into()).await.unwrap();
        assert!(store.delete(&Path::from("a")).await.is_err());
        assert!(inner.head(&Path::from("a")).await.is_err());
    }

    #[tokio::test]
    async fn after_a_crash_nothing_is_carried_out() {
        let (inner, store) = store(Faults::nth(1, Fault::Unheard, After::Crashed));
        for name in ["a", "b", "c"] {
            assert!(store.put(&Path::from(name), "1".into()).await.is_err());
        }
        assert!(inner.head(&Path::from("a")).await.is_ok());
        assert!(inner.head(&Path::from("b")).await.is_err());
        assert_eq!(store.hook().injected(), 1);
    }

    #[tokio::test]
    async fn a_seed_gives_the_same_faults_again() {
        let run = async |seed| {
            let (_, store) = store(Faults::seeded(seed, 200));
            let mut heard = Vec::new();
            for number in 0..200 {
                heard.push(store.put(&Path::from(format!("{number}")), "1".into()).await.is_ok());
            }
            heard
        };
        let first = run(7).await;
        assert_eq!(first, run(7).await);
        assert_ne!(first, run(8).await);
        let failed = first.iter().filter(|heard| !**heard).count();
        assert!((20..60).contains(&failed), "{failed}");
    }
}

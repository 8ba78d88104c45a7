//! Clock functions read the recipe, not a clock (R1): `NOW`, `CURRENT_TIMESTAMP` and the like are ours, volatile so that nothing
//! folds them at plan time, and see the one instant of the batch that runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The instant that clock functions of one plan see, microseconds UTC. Set before each batch by whoever runs it.
#[derive(Debug, Clone, Default)]
pub struct BatchClock(Arc<AtomicI64>);

impl BatchClock {
    /// Sets the instant of the next batch.
    pub fn set(&self, now_micros: i64) {
        self.0.store(now_micros, Ordering::Relaxed);
    }

    /// The instant of the batch that runs.
    #[must_use]
    pub fn now_micros(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl PartialEq for BatchClock {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for BatchClock {}

impl std::hash::Hash for BatchClock {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

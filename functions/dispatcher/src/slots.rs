//! What this process remembers of slots: bounded, and forgotten without harm.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use weir_model::JobId;
use weir_model::decide::SlotMemory;

/// A slot of a job, by its place in the routes.
pub(crate) type Slot = (JobId, usize);

/// Slots remembered.
const SLOTS_MAX: usize = 4_096;

/// Memories by slot.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<HashMap<Slot, SlotMemory>>);

impl Slots {
    /// Asks or tells the memory of a slot.
    pub(crate) fn with<T>(&self, slot: Slot, now_micros: i64, act: impl FnOnce(&mut SlotMemory) -> T) -> T {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= SLOTS_MAX && !slots.contains_key(&slot) {
            slots.retain(|_, memory| !memory.is_stale(now_micros));
        }
        if slots.len() >= SLOTS_MAX && !slots.contains_key(&slot) {
            slots.clear();
        }
        act(slots.entry(slot).or_default())
    }
}

/// An instant so much later.
pub(crate) fn after(micros: i64, duration: Duration) -> i64 {
    micros.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}

/// The time from one instant to another; none if that is over.
pub(crate) fn between(from: i64, to: i64) -> Duration {
    Duration::from_micros(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

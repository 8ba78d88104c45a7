//! Whose turn it is: slots, which are busy, and when each may be served again.

use std::sync::{Mutex, PoisonError};

use weir_model::ShardKey;

use crate::worker::WorkerError;

/// A slot's state.
#[derive(Debug)]
struct Slot {
    shards: Vec<ShardKey>,
    busy: bool,
    done: bool,
    not_before_micros: i64,
    failures: u32,
}

/// All slots of a job in this process.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Mutex<Vec<Slot>>,
    /// Threads that serve them.
    threads: usize,
    error: Mutex<Option<WorkerError>>,
}

/// What a server does next.
#[derive(Debug)]
pub(super) enum Turn {
    /// Serve these shards; then say how it went.
    Serve(usize, Vec<ShardKey>),
    /// Everything that is left is busy or not due.
    Wait,
    /// Nothing is left.
    AllDone,
}

impl Slots {
    pub(super) fn new(slots: Vec<Vec<ShardKey>>, threads: usize) -> Self {
        let fresh = |shards| Slot { shards, busy: false, done: false, not_before_micros: i64::MIN, failures: 0 };
        Self { slots: Mutex::new(slots.into_iter().map(fresh).collect()), threads, error: Mutex::new(None) }
    }

    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    pub(super) fn len(&self) -> usize {
        self.with(|slots| slots.len())
    }

    pub(super) fn next(&self, now_micros: i64) -> Turn {
        if self.finished() {
            return Turn::AllDone;
        }
        self.with(|slots| {
            let due = |slot: &Slot| !slot.busy && !slot.done && slot.not_before_micros <= now_micros;
            // The one that has waited longest.
            let next = slots.iter().enumerate().filter(|(_, slot)| due(slot)).min_by_key(|(_, slot)| slot.not_before_micros);
            let Some(index) = next.map(|(index, _)| index) else { return Turn::Wait };
            slots[index].busy = true;
            Turn::Serve(index, slots[index].shards.clone())
        })
    }

    pub(super) fn done(&self, index: usize) {
        self.with(|slots| slots[index].done = true);
    }

    pub(super) fn again(&self, index: usize, not_before_micros: i64) {
        self.with(|slots| slots[index].failures = 0);
        self.retry(index, not_before_micros);
    }

    /// As [`again`](Self::again), after a failure.
    pub(super) fn retry(&self, index: usize, not_before_micros: i64) {
        self.with(|slots| {
            slots[index].busy = false;
            slots[index].not_before_micros = not_before_micros;
        });
    }

    /// Counts a failure in a row.
    pub(super) fn failed(&self, index: usize) -> u32 {
        self.with(|slots| {
            slots[index].failures += 1;
            slots[index].failures
        })
    }

    /// Ends the run with the first error.
    pub(super) fn give_up(&self, error: WorkerError) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub(super) fn take_error(&self) -> Option<WorkerError> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn finished(&self) -> bool {
        let failed = self.error.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        failed || self.with(|slots| slots.iter().all(|slot| slot.done))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<Slot>) -> T) -> T {
        act(&mut self.slots.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

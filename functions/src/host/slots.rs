//! Whose turn it is: slots, which are busy, when each may be served again, and which are left to another process.

use std::sync::{Mutex, PoisonError};

use weir_model::ShardKey;

use crate::worker::WorkerError;

/// Time after which a slot that is being served is taken to be held: until then somebody may only be asking for it.
const HELD_AFTER_MICROS: i64 = 200_000;
/// How long slots are left alone that were given up for another process.
pub(super) const LEFT_ALONE_MICROS: i64 = 500_000;
/// How long the slots of one round of yielding have to hear of it.
const ROUND_MICROS: i64 = 1_000_000;
/// Doublings of the time to the next round, where nobody takes what is yielded.
const ROUND_DOUBLINGS_MAX: u32 = 9;

/// A slot's state.
#[derive(Debug)]
struct Slot {
    shards: Vec<ShardKey>,
    busy: bool,
    /// Since when one invocation after another has served it.
    served_since: Option<i64>,
    done: bool,
    /// Its shards are about to be left to another process.
    yielding: bool,
    not_before_micros: i64,
    failures: u32,
}

impl Slot {
    fn is_held(&self, now_micros: i64) -> bool {
        !self.yielding && self.served_since.is_some_and(|since| now_micros - since >= HELD_AFTER_MICROS)
    }
}

/// When slots are yielded. Whoever takes part may want none of them: it serves other jobs.
#[derive(Debug)]
struct Yielding {
    participants: usize,
    rounds: u32,
    round_until: i64,
    next_round: i64,
}

/// All slots of a job in this process.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Mutex<Vec<Slot>>,
    /// Threads that serve them.
    threads: usize,
    yielding: Mutex<Yielding>,
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
        let fresh = |shards| Slot {
            shards,
            busy: false,
            served_since: None,
            done: false,
            yielding: false,
            not_before_micros: i64::MIN,
            failures: 0,
        };
        Self {
            slots: Mutex::new(slots.into_iter().map(fresh).collect()),
            threads,
            yielding: Mutex::new(Yielding { participants: 1, rounds: 0, round_until: i64::MIN, next_round: i64::MIN }),
            error: Mutex::new(None),
        }
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
            slots[index].served_since.get_or_insert(now_micros);
            Turn::Serve(index, slots[index].shards.clone())
        })
    }

    /// Whether `index` is to be left to another process: only what this one holds beyond its share of `participants`, and ever less
    /// often while nobody takes what is left.
    pub(super) fn yields(&self, index: usize, participants: usize, now_micros: i64) -> bool {
        if participants <= 1 {
            return false;
        }
        let is_round = self.is_round(participants, now_micros);
        self.with(|slots| {
            let open = slots.iter().filter(|slot| !slot.done).count();
            let held = slots.iter().filter(|slot| slot.is_held(now_micros)).count();
            slots[index].yielding |= is_round && held > open.div_ceil(participants);
            slots[index].yielding
        })
    }

    fn is_round(&self, participants: usize, now_micros: i64) -> bool {
        let mut yielding = self.yielding.lock().unwrap_or_else(PoisonError::into_inner);
        if participants != yielding.participants {
            *yielding = Yielding { participants, rounds: 0, round_until: i64::MIN, next_round: now_micros };
        }
        if now_micros >= yielding.next_round {
            yielding.rounds = (yielding.rounds + 1).min(ROUND_DOUBLINGS_MAX);
            yielding.round_until = now_micros + ROUND_MICROS;
            yielding.next_round = yielding.round_until + (ROUND_MICROS << yielding.rounds);
        }
        now_micros < yielding.round_until
    }

    pub(super) fn done(&self, index: usize) {
        self.with(|slots| slots[index].done = true);
    }

    /// It has more to do: the next invocation goes on with it.
    pub(super) fn go_on(&self, index: usize, now_micros: i64) {
        self.with(|slots| {
            slots[index].failures = 0;
            slots[index].busy = false;
            slots[index].not_before_micros = now_micros;
        });
    }

    /// It is let go of, and asked for again from `not_before_micros` on.
    pub(super) fn again(&self, index: usize, not_before_micros: i64) {
        self.with(|slots| slots[index].failures = 0);
        self.retry(index, not_before_micros);
    }

    /// As [`again`](Self::again), after a failure.
    pub(super) fn retry(&self, index: usize, not_before_micros: i64) {
        self.with(|slots| {
            let slot = &mut slots[index];
            (slot.busy, slot.served_since, slot.yielding) = (false, None, false);
            slot.not_before_micros = not_before_micros;
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// Three slots, all served since 0.
    fn serving() -> Slots {
        let slots = Slots::new(vec![Vec::new(); 3], 3);
        (0..3).for_each(|index| assert!(matches!(slots.next(0), Turn::Serve(found, _) if found == index)));
        slots
    }

    fn yielded(slots: &Slots, participants: usize, now: i64) -> usize {
        (0..3).filter(|index| slots.yields(*index, participants, now)).count()
    }

    #[test]
    fn only_what_is_held_beyond_the_share_is_left_to_another_process() {
        assert_eq!(yielded(&serving(), 1, SECOND), 0);
        assert_eq!(yielded(&serving(), 2, SECOND), 1);
        assert_eq!(yielded(&serving(), 3, SECOND), 2);
        assert_eq!(yielded(&serving(), 9, SECOND), 2, "everybody has one");
        assert_eq!(yielded(&serving(), 2, HELD_AFTER_MICROS - 1), 0, "who only asks holds nothing");
    }

    #[test]
    fn one_invocation_after_another_holds_a_slot_until_it_is_let_go_of() {
        let slots = serving();
        for now in [50_000, 100_000, 150_000] {
            slots.go_on(0, now);
            assert!(matches!(slots.next(now), Turn::Serve(0, _)));
        }
        assert!(slots.yields(0, 2, HELD_AFTER_MICROS));
        assert!(slots.yields(0, 2, HELD_AFTER_MICROS + 2 * ROUND_MICROS), "until it has been let go of");
        slots.again(0, SECOND + LEFT_ALONE_MICROS);
        assert!(matches!(slots.next(SECOND), Turn::Wait));
        assert!(matches!(slots.next(SECOND + LEFT_ALONE_MICROS), Turn::Serve(0, _)));
        assert_eq!(yielded(&slots, 2, SECOND + LEFT_ALONE_MICROS), 0, "who only asks holds nothing");
    }

    #[test]
    fn what_nobody_takes_is_yielded_ever_less_often() {
        let slots = serving();
        let mut times = Vec::new();
        for now in (1..1_000).map(|second| second * SECOND) {
            for index in (0..3).filter(|index| slots.yields(*index, 2, now)).collect::<Vec<_>>() {
                times.push(now / SECOND);
                slots.again(index, now);
                assert!(matches!(slots.next(now), Turn::Serve(..)), "nobody took it");
            }
        }
        assert_eq!(times, [1, 4, 9, 18, 35, 68, 133, 262, 519]);
        assert_eq!(yielded(&slots, 3, 1_001 * SECOND), 2, "somebody new may want its share at once");
    }
}

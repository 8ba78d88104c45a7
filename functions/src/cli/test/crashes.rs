//! Where the processes of a run die: at a storage call drawn from the seed, which happens unheard or not at all.
//!
//! A process that is dead goes on only as far as nobody sees: each of its further calls fails. Whoever plays drops it then.

use std::sync::atomic::{AtomicU64, Ordering};

use object_store::path::Path;
use weir_coordinator::counting::{Fault, Faults};
use weir_state::{Hook, Op};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Processes that die in each step; the next one lives on.
const DEATHS_PER_STEP: u32 = 4;
/// Storage calls of a process that dies: from a claim to some rounds.
const CALLS_MAX: u64 = 48;

/// One process's life, in storage calls.
#[derive(Debug)]
pub(super) struct Life {
    /// The call at which it dies.
    last: u64,
    /// Whether that call is carried out.
    carried_out: bool,
    calls: AtomicU64,
}

impl Life {
    pub(super) const fn endless() -> Self {
        Self { last: u64::MAX, carried_out: false, calls: AtomicU64::new(0) }
    }

    pub(super) fn is_over(&self) -> bool {
        self.calls.load(Ordering::Relaxed) >= self.last
    }

    /// Number of the next call.
    fn call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn dead() -> object_store::Error {
    object_store::Error::Generic { store: "test", source: "the process is dead".into() }
}

impl Hook for Life {
    fn before(&self, _op: Op, _object: &Path) -> object_store::Result<()> {
        let call = self.call();
        if call < self.last || call == self.last && self.carried_out { Ok(()) } else { Err(dead()) }
    }

    fn after(&self, _op: Op, _object: &Path, _bytes: u64) -> object_store::Result<()> {
        if self.is_over() { Err(dead()) } else { Ok(()) }
    }
}

impl Faults for Life {
    fn next(&self) -> Fault {
        let call = self.call();
        match call == self.last && self.carried_out {
            true => Fault::AnswerLost,
            false if call < self.last => Fault::None,
            false => Fault::RequestLost,
        }
    }

    fn read_fails(&self) -> bool {
        self.call() >= self.last
    }
}

/// Draws the lives of a run's processes.
#[derive(Debug)]
pub(super) struct Crashes {
    seed: Option<u64>,
    drawn: u64,
    left: u32,
}

impl Crashes {
    /// - `seed`: `None` lets every process live.
    pub(super) const fn new(seed: Option<u64>) -> Self {
        Self { seed, drawn: 0, left: 0 }
    }

    /// A step begins, with deaths of its own; `false` if nobody dies in this run.
    pub(super) const fn begin_step(&mut self) -> bool {
        self.left = DEATHS_PER_STEP;
        self.seed.is_some()
    }

    /// The life of the next process.
    pub(super) fn next_life(&mut self) -> Life {
        let (Some(seed), true) = (self.seed, self.left > 0) else { return Life::endless() };
        self.left -= 1;
        self.drawn += 1;
        let drawn = xxh3_64_with_seed(&self.drawn.to_le_bytes(), seed);
        Life { last: 1 + (drawn >> 1) % CALLS_MAX, carried_out: drawn & 1 == 0, calls: AtomicU64::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_dies_at_its_last_call_and_stays_dead() {
        for carried_out in [true, false] {
            let life = Life { last: 2, carried_out, calls: AtomicU64::new(0) };
            assert_eq!(life.next(), Fault::None);
            assert!(!life.is_over());
            assert_eq!(life.next(), if carried_out { Fault::AnswerLost } else { Fault::RequestLost });
            assert!(life.is_over() && life.read_fails() && life.before(Op::Put, &Path::from("a")).is_err());
            assert_eq!(life.next(), Fault::RequestLost);
        }
        let life = Life { last: 1, carried_out: true, calls: AtomicU64::new(0) };
        assert!(life.before(Op::Put, &Path::from("a")).is_ok(), "it is carried out");
        assert!(life.after(Op::Put, &Path::from("a"), 1).is_err(), "and nobody hears of it");
    }

    #[test]
    fn a_seed_draws_the_same_lives_again() {
        let lives = |seed| {
            let mut crashes = Crashes::new(seed);
            assert_eq!(crashes.begin_step(), seed.is_some());
            (0..6).map(|_| crashes.next_life().last).collect::<Vec<_>>()
        };
        assert_eq!(lives(Some(1)), lives(Some(1)));
        assert_ne!(lives(Some(1)), lives(Some(2)));
        assert!(lives(Some(1))[..4].iter().all(|last| (1..=CALLS_MAX).contains(last)));
        assert_eq!(lives(Some(1))[4..], [u64::MAX; 2], "the job must end some day");
        assert_eq!(lives(None), [u64::MAX; 6]);
    }
}

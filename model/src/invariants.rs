//! The invariants, by id, in one registry that property tests, simulation and the console share.
//!
//! [`check_invariant!`](crate::check_invariant) asserts in builds with assertions and counts in those without.

use std::sync::atomic::{AtomicU64, Ordering};

/// What must always hold. The names are those of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Invariant {
    /// After generation g+1 is committed, no write of generation g commits.
    Fn1,
    /// Each input row is counted exactly once: in a result, the late stream or the dead letters.
    Eo1,
    /// A published record is named by exactly one committed epoch; every committed one is published in the end.
    Eo2,
    /// Checkpoint + replay gives, bit for bit, the state the live shard had at that epoch.
    Rp1,
    /// A committed watermark never moves back.
    Wm1,
    /// No key group ever has two shards that can commit.
    Rs1,
    /// Nothing that a committed head, pin or restart point can reach is deleted.
    Gc1,
    /// Positions in a consistent cut never pass the upstream epoch in the same cut.
    Cc1,
}

impl Invariant {
    /// Every invariant with its id and sentence.
    pub const ALL: [(Self, &'static str, &'static str); 8] = [
        (Self::Fn1, "FN-1", "after generation g+1 is committed, no write of generation g commits"),
        (Self::Eo1, "EO-1", "each input row is counted exactly once"),
        (Self::Eo2, "EO-2", "a published record is named by exactly one committed epoch"),
        (Self::Rp1, "RP-1", "checkpoint + replay gives the live state bit for bit"),
        (Self::Wm1, "WM-1", "a committed watermark never moves back"),
        (Self::Rs1, "RS-1", "no key group ever has two shards that can commit"),
        (Self::Gc1, "GC-1", "nothing that can still be reached is deleted"),
        (Self::Cc1, "CC-1", "positions never pass the upstream epoch of the same cut"),
    ];

    /// Its id as written in the protocol.
    #[must_use]
    pub const fn id(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

static VIOLATIONS: [AtomicU64; Invariant::ALL.len()] = [const { AtomicU64::new(0) }; Invariant::ALL.len()];

/// Violations of `invariant` seen by this process.
#[must_use]
pub fn violations(invariant: Invariant) -> u64 {
    VIOLATIONS[invariant as usize].load(Ordering::Relaxed)
}

/// Records a violation. Called by [`check_invariant!`](crate::check_invariant) only.
pub fn record_violation(invariant: Invariant) {
    VIOLATIONS[invariant as usize].fetch_add(1, Ordering::Relaxed);
}

/// Checks an invariant: counts a violation, and panics in builds with assertions, where going on would write bad state.
#[macro_export]
macro_rules! check_invariant {
    ($invariant:ident, $holds:expr, $($context:tt)+) => {{
        let holds: bool = $holds;
        if !holds {
            $crate::invariants::record_violation($crate::invariants::Invariant::$invariant);
        }
        debug_assert!(holds, "{} violated: {}", $crate::invariants::Invariant::$invariant.id(), format_args!($($context)+));
    }};
}

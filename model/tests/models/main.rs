//! The protocol, explored: each model calls the real `decide_*` functions and draws apart what happened and what was heard.
//!
//! A rule that was found broken in an earlier draft is kept as a *flaw*: a variant of the model that the checker must refute. A model
//! without a flaw must be explored to the end ([`dispatch`], which is too large, to a number of steps) without a counterexample, and must
//! have met the situations it is about.
//!
//! | model | rules | invariants |
//! | --- | --- | --- |
//! | [`commit`] | C1, C2, T4, T5 | FN-1, EO-1, RP-1, WM-1 |
//! | [`orphans`] | C3, G1, G4, T6 | GC-1 |
//! | [`retention`] | G2, G3 | GC-1 |
//! | [`publisher`] | X5 | EO-2 |
//! | [`dispatch`] | C1, C6 | every epoch is seen in the end, at once where the slot is free, soon after a lease where its holder died |
//! | [`windows`] | C4, R3, W1, W2 | EO-1, WM-1 |
#![allow(clippy::cast_possible_truncation, reason = "the models count to three")]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a model that cannot go on has failed")]

#[cfg(test)]
mod commit;
#[cfg(test)]
mod dispatch;
mod orphans;
#[cfg(test)]
mod publisher;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod windows;
#[cfg(test)]
mod world;

//! End to end, through the public API and the real binary: results equal a batch engine's, whatever is killed, lost or split.

mod architecture;
mod bad_input;
mod equality;
mod following;
mod foreign;
mod killing;
mod nexmark;
mod simulation;
mod sql;
mod support;

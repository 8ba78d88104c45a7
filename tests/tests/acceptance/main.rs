//! End to end, through the public API and the real binary: results equal a batch engine's, whatever is killed, lost or split.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests watch real processes, in real time")]
#![allow(clippy::print_stdout, reason = "tests print what they counted")]

mod allocations;
mod architecture;
mod background;
mod bad_input;
mod bounded;
mod broken;
mod creating;
mod early;
mod equality;
mod following;
mod foreign;
mod ingest;
mod ingest_real;
mod killing;
mod lambda;
mod network;
mod nexmark;
mod odd_rows;
mod postgres;
mod processes;
mod put_back;
mod query;
mod random_queries;
mod real_parts;
mod replay;
mod replay_rows;
mod simulation;
mod skew;
mod sleeping;
mod snapshots;
mod sql;
mod support;
mod test_command;
mod updating;
mod watched;

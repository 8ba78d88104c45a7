//! What runs: the worker's handler, the local host around it, the collector, and the command line.
//!
//! ```text
//! host (threads or processes) --Invocation--> worker::handle --> rounds --> commits
//!        |-- collector: floors, deletion            ^
//!        `-- change feed of the table --------------'
//! ```
pub mod worker;

pub mod host;
pub mod job;
pub mod lambda;
pub mod topology;

pub mod changelog;
pub mod collector;
pub mod connect;
pub mod dead_letter;

pub mod config;
pub mod context;
pub mod cost;
mod kept;
pub mod open;
mod pins;
mod query;

pub mod progress;
mod recent;
pub mod stream;
pub mod trace;

pub mod cli;

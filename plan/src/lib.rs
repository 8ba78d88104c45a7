//! Flink-style SQL text to a checked plan and its stages.
//!
//! Why: the optimised *logical* plan is cut into stages here, so that every stage's shape follows from the text alone.
//! Never: I/O, execution, or a plan that silently means something else than what was written: what nobody plans is refused with
//! its place and the nearest supported form.
//!
//! ```text
//! text -> parse -> catalog -> logical plan -> optimise -> cut -> Pipeline { source, input fragment, aggregates, sink }
//! ```
pub mod changes;
pub mod job;

pub mod clock;
mod error;
mod explain;

mod aggregates;
mod catalog;
mod compile;
mod cut;
mod duration;
mod fragment;
mod functions;
mod meaning;
mod parse;
mod relations;
mod rules;
mod suggest;
mod ttl;
mod types;
mod window_assign;

pub use changes::{Changes, OP_COLUMN, Op};
pub use clock::BatchClock;
pub use compile::{compile, compile_to_look};
pub use error::PlanError;
pub use explain::explain;
pub use fragment::FragmentInput;
pub use job::{
    AggregateSpec, AggregateStage, DistinctSet, Emit, Firing, Fragment, Grouping, JobPlan, OnError, Pipeline, Retracted, Rowtime,
    Sees, SetBit, SinkTable, SourceTable, Told,
};
pub use suggest::nearest;

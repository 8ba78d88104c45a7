//! Sinks: where results become visible outside.
//!
//! | connector | guarantee |
//! | --- | --- |
//! | `filesystem` | exactly once: a step is named by a commit, carried out by atomic replacement, acknowledged by the next commit |
//! | `print` | at least once: rows committed but not acknowledged are printed again after a crash |
//! | `blackhole` | nothing is kept |
mod files;

pub use files::{FileTarget, Step, StepOutcome};

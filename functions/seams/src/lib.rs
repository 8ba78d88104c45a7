//! What a process of Weir stands on: objects, the table, time and identities, opened by their addresses.
//!
//! Why a crate of its own: every function needs it, and only the worker may link the query engine.
//! Never: decides anything.

mod aws;
pub mod liveness;
mod log;
pub mod places;
mod system;
pub mod text;

pub use liveness::{Liveness, LockedOwners, Part, UnknownLiveness};
pub use log::log_for_machines;
pub use places::{Durability, OpenError, Places};
pub use system::{RandomIds, SystemClock};

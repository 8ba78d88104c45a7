//! The job row and the name row that points to it (T2).

use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, JobId};

/// Version of the job row's encoding; a reader refuses any other.
pub const JOB_FORMAT: u16 = 1;

/// What the user wants of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DesiredState {
    /// Run until its inputs end.
    Running,
    /// All inputs ended and everything was published.
    Finished,
}

/// A running SQL script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// [`JOB_FORMAT`].
    pub format: u16,
    /// The job.
    pub job: JobId,
    /// Name the user gave it; unique in its table.
    pub name: String,
    /// Restart from a savepoint; part of every id shown outside (X2).
    pub incarnation: Incarnation,
    /// Plan object below the store's root.
    pub plan: String,
    /// Version of the plan.
    pub plan_version: u32,
    /// xxh3 of the SQL text: an edited file is refused by name, not silently run.
    pub sql_digest: u64,
    /// Desired state.
    pub desired: DesiredState,
    /// Number of stages, so that every head can be named without a LIST.
    pub stages: u16,
    /// Instant of creation, microseconds UTC.
    pub created_micros: i64,
}

/// Body of the name row: partition key `name`, sort key the job's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRow {
    /// The job that bears the name.
    pub job: JobId,
}

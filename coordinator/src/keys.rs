//! Partition and sort keys: the one place that formats them.

use weir_model::{JobId, ShardKey, StageId};

use crate::store::ItemKey;

/// A shard's head; one partition each, so no row is hot.
#[must_use]
pub fn head(shard: ShardKey) -> ItemKey {
    ItemKey::new(format!("head/{}/{shard}", shard.job), "head")
}

/// The layout of a stage.
#[must_use]
pub fn layout(job: JobId, stage: StageId) -> ItemKey {
    ItemKey::new(format!("job/{job}"), format!("layout/{:03}", stage.0))
}

/// A job's row.
#[must_use]
pub fn job(job: JobId) -> ItemKey {
    ItemKey::new(format!("job/{job}"), "job")
}

/// The row that maps a name to a job.
#[must_use]
pub fn name(name: &str) -> ItemKey {
    ItemKey::new("name", name)
}

/// Pins and floors of a job.
#[must_use]
pub fn retention(job: JobId) -> ItemKey {
    ItemKey::new(format!("retention/{job}"), "retention")
}

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

/// Sort key of a job's routes.
pub const ROUTES: &str = "routes";

/// Who reads from whom in a job.
#[must_use]
pub fn routes(job: JobId) -> ItemKey {
    ItemKey::new(format!("job/{job}"), ROUTES)
}

/// The row that maps a name to a job.
#[must_use]
pub fn name(name: &str) -> ItemKey {
    ItemKey::new("name", name)
}

/// What the partitions of requests begin with.
pub(crate) const REQUESTS: &str = "key/";

/// Partition of all streams.
pub const STREAMS: &str = "stream";

/// A stream, by its name.
#[must_use]
pub fn stream(name: &str) -> ItemKey {
    ItemKey::new(STREAMS, name)
}

/// What the first request under `key` was told; a partition each, since keys are many and come at once.
#[must_use]
pub fn request(stream: JobId, key: &str) -> ItemKey {
    ItemKey::new(format!("{REQUESTS}{stream}/{:032x}", xxhash_rust::xxh3::xxh3_128(key.as_bytes())), "key")
}

/// When a row may be forgotten, seconds since 1970 UTC: only what a request was told ever is (T2).
#[must_use]
pub fn expires_at(key: &ItemKey, body: &[u8]) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Expiring {
        expires_at: i64,
    }
    let is_request = key.partition.starts_with(REQUESTS) && key.sort == "key";
    is_request.then(|| serde_json::from_slice::<Expiring>(body).ok()).flatten().map(|row| row.expires_at)
}

/// Pins and floors of a job.
#[must_use]
pub fn retention(job: JobId) -> ItemKey {
    ItemKey::new(format!("retention/{job}"), "retention")
}

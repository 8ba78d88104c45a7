//! Object names: the one place that formats and parses them.
//!
//! ```text
//! jobs/{job}/data/{hash2}/{id}-{anchor}-{generation}.parquet      exchange, behind, output, late, dead: short-lived
//! jobs/{job}/state/{hash2}/{id}-{anchor}-{generation}.parquet     checkpoints: long-lived
//! jobs/{job}/manifest/{hash2}/{id}-{anchor}-{generation}.json     commits that no longer fit their head
//! jobs/{job}/plan/{version}.json                                  SQL, options, pinned inputs
//! ```
//! Every name but the plan's carries an anchor, the shard and generation that made it (C3): an object that no head names may be
//! deleted once its anchor's generation is below its head's (G1). Two hexadecimal digits of the id's random end spread the load
//! over prefixes.

use weir_model::{Generation, JobId, ObjectId, ShardId, ShardKey, StageId};

/// Folder of an object: how long it lives and what reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// Short-lived rows.
    Data,
    /// Checkpoints.
    State,
    /// Spilled commit entries.
    Manifest,
}

impl Folder {
    const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::State => "state",
            Self::Manifest => "manifest",
        }
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::Data | Self::State => "parquet",
            Self::Manifest => "json",
        }
    }
}

/// Name of an object anchored at `shard` and `generation`.
#[must_use]
pub fn object(folder: Folder, id: ObjectId, shard: ShardKey, generation: Generation) -> String {
    let hash = id.0 & 0xff;
    format!("jobs/{}/{}/{hash:02x}/{id}-{shard}-{:010}.{}", shard.job, folder.name(), generation.0, folder.extension())
}

/// Name of a job's plan.
#[must_use]
pub fn plan(job: JobId, version: u32) -> String {
    format!("jobs/{job}/plan/{version:06}.json")
}

/// Folder of everything a job stores.
#[must_use]
pub fn job(job: JobId) -> String {
    format!("jobs/{job}")
}

/// Shard and generation that made an object; `None` if the name is not one of ours.
#[must_use]
pub fn anchor(name: &str) -> Option<(ShardKey, Generation)> {
    let mut parts = name.split('/');
    if parts.next()? != "jobs" {
        return None;
    }
    let job: JobId = parts.next()?.parse().ok()?;
    let file = parts.nth(2)?;
    let stem = file.rsplit_once('.')?.0;
    let mut fields = stem.split('-').skip(1);
    let stage = fields.next()?.strip_prefix('s')?.parse().ok()?;
    let shard = fields.next()?.parse().ok()?;
    let generation = fields.next()?.parse().ok()?;
    Some((ShardKey::new(job, StageId(stage), ShardId(shard)), Generation(generation)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_is_read_back_from_every_folder() {
        let shard = ShardKey::new(JobId(0xabc), StageId(3), ShardId(12));
        for folder in [Folder::Data, Folder::State, Folder::Manifest] {
            let name = object(folder, ObjectId(0x1234), shard, Generation(7));
            assert_eq!(anchor(&name), Some((shard, Generation(7))), "{name}");
        }
    }

    #[test]
    fn foreign_names_have_no_anchor() {
        for name in ["jobs/x/data/aa/b.parquet", "other", "jobs/0000000000000abc/plan/000001.json"] {
            assert_eq!(anchor(name), None, "{name}");
        }
    }
}

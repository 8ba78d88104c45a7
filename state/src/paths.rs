//! Object names: the one place that formats and parses them.
//!
//! ```text
//! jobs/{job}/data/{hash2}/{id}-{anchor}-{generation}.parquet      exchange, behind, output, late, dead: short-lived
//! jobs/{job}/state/{hash2}/{id}-{anchor}-{generation}.parquet     checkpoints: long-lived
//! jobs/{job}/manifest/{hash2}/{id}-{anchor}-{generation}.json     commits that no longer fit their head
//! jobs/{job}/kept/{hash2}/{id}-{anchor}-{generation}.json         where the late and dead rows of such commits lie
//! jobs/{job}/plan/{version}.json                                  SQL, options, pinned inputs
//! jobs/{stream}/plan/schema-{version}.arrow                       columns of a stream
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
    /// Lists of the late and dead-letter segments of spilled entries: for good.
    Kept,
}

impl Folder {
    const ALL: [Self; 4] = [Self::Data, Self::State, Self::Manifest, Self::Kept];

    const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::State => "state",
            Self::Manifest => "manifest",
            Self::Kept => "kept",
        }
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::Data | Self::State => "parquet",
            Self::Manifest | Self::Kept => "json",
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

/// Name of a stream's columns.
#[must_use]
pub fn schema(stream: JobId, version: u32) -> String {
    format!("jobs/{stream}/plan/schema-{version:06}.arrow")
}

/// Folder of everything a job stores.
#[must_use]
pub fn job(job: JobId) -> String {
    format!("jobs/{job}")
}

/// Shard and generation that made an object; `None` if the name is not one of ours.
#[must_use]
pub fn anchor(name: &str) -> Option<(ShardKey, Generation)> {
    let (folder, id, shard, generation) = parse(name)?;
    // Deletion rests on this: a name that merely resembles ours has no anchor.
    (object(folder, id, shard, generation) == name).then_some((shard, generation))
}

/// Id of an object, which orders objects by the time they were made; `None` if the name is not one of ours.
#[must_use]
pub fn id(name: &str) -> Option<ObjectId> {
    parse(name).map(|(_, id, _, _)| id)
}

fn parse(name: &str) -> Option<(Folder, ObjectId, ShardKey, Generation)> {
    let mut parts = name.strip_prefix("jobs/")?.split('/');
    let job: JobId = parts.next()?.parse().ok()?;
    let folder = parts.next()?;
    let folder = Folder::ALL.into_iter().find(|known| known.name() == folder)?;
    let stem = parts.nth(1)?.strip_suffix(folder.extension())?.strip_suffix('.')?;
    let mut fields = stem.split('-');
    let id = fields.next()?.parse().ok()?;
    let stage = fields.next()?.strip_prefix('s')?.parse().ok()?;
    let shard = fields.next()?.parse().ok()?;
    let generation = fields.next()?.parse().ok()?;
    Some((folder, id, ShardKey::new(job, StageId(stage), ShardId(shard)), Generation(generation)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_is_read_back_from_every_folder() {
        let shard = ShardKey::new(JobId(0xabc), StageId(3), ShardId(12));
        for folder in Folder::ALL {
            let name = object(folder, ObjectId(0x1234), shard, Generation(7));
            assert_eq!(anchor(&name), Some((shard, Generation(7))), "{name}");
            assert_eq!(id(&name), Some(ObjectId(0x1234)));
        }
    }

    #[test]
    fn names_are_frozen() {
        let shard = ShardKey::new(JobId(0xabc), StageId(3), ShardId(12));
        let name = |folder| object(folder, ObjectId(0x1_0000_00f7), shard, Generation(7));
        let file = "f7/000000000000000000000001000000f7-s003-00012-0000000007";
        assert_eq!(name(Folder::Data), format!("jobs/0000000000000abc/data/{file}.parquet"));
        assert_eq!(name(Folder::State), format!("jobs/0000000000000abc/state/{file}.parquet"));
        assert_eq!(name(Folder::Manifest), format!("jobs/0000000000000abc/manifest/{file}.json"));
        assert_eq!(name(Folder::Kept), format!("jobs/0000000000000abc/kept/{file}.json"));
        assert_eq!(plan(JobId(0xabc), 1), "jobs/0000000000000abc/plan/000001.json");
        assert_eq!(schema(JobId(0xabc), 1), "jobs/0000000000000abc/plan/schema-000001.arrow");
    }

    #[test]
    fn foreign_names_have_no_anchor() {
        for name in ["jobs/x/data/aa/b.parquet", "other", "", "jobs/0000000000000abc/plan/000001.json"] {
            assert_eq!(anchor(name), None, "{name}");
        }
        let ours = object(Folder::Data, ObjectId(1), ShardKey::new(JobId(1), StageId(0), ShardId(0)), Generation(1));
        for (from, to) in [
            ("/01/", "/02/"),
            ("data", "rows"),
            (".parquet", ".json"),
            (".parquet", ".parquet/x"),
            ("s000", "s0"),
            ("jobs", "/jobs"),
        ] {
            let name = ours.replace(from, to);
            assert_eq!(anchor(&name), None, "{name}");
        }
    }
}

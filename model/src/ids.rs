//! Identities and numbers with a meaning. All are newtypes: an epoch is never a generation by accident.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident($inner:ty, $width:literal)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $width, "x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = || InvalidId { kind: stringify!($name), text: text.to_owned() };
                if text.len() != $width {
                    return Err(invalid());
                }
                <$inner>::from_str_radix(text, 16).map(Self).map_err(|_| invalid())
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Text that is not the fixed-width hexadecimal form of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: expected fixed-width lower-case hexadecimal")]
pub struct InvalidId {
    /// Name of the id's type.
    pub kind: &'static str,
    /// The text that was refused.
    pub text: String,
}

number! {
    /// Number of a shard's commit. 0 = nothing committed yet; the first commit is 1.
    Epoch(u64)
}
number! {
    /// Number of a shard's ownership. Bumped by every claim; fences all older ones (FN-1).
    Generation(u64)
}
number! {
    /// Number of a job's restart from a savepoint.
    Incarnation(u32)
}
number! {
    /// A stage of a job's plan: the operators between two exchanges. 0 is the first pipeline's source stage.
    StageId(u16)
}
number! {
    /// One stage's contiguous range of key groups (a lane, for a source stage).
    ShardId(u32)
}

hex_id! {
    /// A job, minted once and never re-used (T2). 16 hexadecimal digits.
    JobId(u64, 16)
}
hex_id! {
    /// One attempt to commit; found again after a lost answer (T5). Time-ordered.
    CommitId(u128, 32)
}
hex_id! {
    /// One stored object. Random and time-ordered, so names never collide (C3).
    ObjectId(u128, 32)
}
hex_id! {
    /// One process or function environment that may hold shards.
    OwnerId(u128, 32)
}

impl OwnerId {
    /// Holds nothing and is no process: a head that names it was handed on by its holder.
    pub const NOBODY: Self = Self(0);
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Full name of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardKey {
    /// The job.
    pub job: JobId,
    /// The stage within the job.
    pub stage: StageId,
    /// The shard within the stage.
    pub shard: ShardId,
}

impl ShardKey {
    /// Names a shard.
    #[must_use]
    pub const fn new(job: JobId, stage: StageId, shard: ShardId) -> Self {
        Self { job, stage, shard }
    }
}

/// `s003-00012`: stage and shard, zero-padded so that names sort. The job stands elsewhere in every path.
impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{:03}-{:05}", self.stage.0, self.shard.0)
    }
}

/// Seam: where fresh ids come from. Real: wall clock and OS randomness; simulated: a seeded sequence.
pub trait Ids: Send + Sync + std::fmt::Debug {
    /// 128 bits, unique for ever, ordered by creation time (48 bits of milliseconds first).
    fn next_u128(&self) -> u128;

    /// A fresh commit id.
    fn commit(&self) -> CommitId {
        CommitId(self.next_u128())
    }

    /// A fresh object id.
    fn object(&self) -> ObjectId {
        ObjectId(self.next_u128())
    }

    /// A fresh owner id.
    fn owner(&self) -> OwnerId {
        OwnerId(self.next_u128())
    }

    /// A fresh job id: the random low half.
    fn job(&self) -> JobId {
        JobId(u64::try_from(self.next_u128() & u128::from(u64::MAX)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_through_their_text() {
        let id = ObjectId(0x0123_4567_89ab_cdef);
        assert_eq!(id.to_string().parse::<ObjectId>(), Ok(id));
        assert!("123".parse::<ObjectId>().is_err());
    }

    #[test]
    fn shard_names_sort_by_stage_then_shard() {
        let name = |stage, shard| ShardKey::new(JobId(1), StageId(stage), ShardId(shard)).to_string();
        assert!(name(1, 9) < name(1, 10));
        assert!(name(1, 99999) < name(2, 0));
    }
}

//! Which builds committed and replayed a batch that differs.

/// The builds that ran a batch and replayed it (R6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builds {
    /// The recipe's.
    pub committed: String,
    /// This one.
    pub replayed: String,
}

impl Builds {
    pub(super) fn told(&self) -> String {
        let Self { committed, replayed } = self;
        if committed == replayed {
            return format!(
                "by this same build, {replayed}: its objects or its table were changed; restore them, nothing was written"
            );
        }
        format!("by build {committed}, this is {replayed}: go on with the build that committed it, nothing was written")
    }
}

#[cfg(test)]
mod tests {
    use weir_model::{Epoch, JobId, ShardId, ShardKey, StageId};

    use super::*;
    use crate::job::build;
    use crate::worker::WorkerError;

    fn told(committed: &str) -> String {
        let builds = Builds { committed: committed.to_owned(), replayed: build() };
        let shard = ShardKey::new(JobId(1), StageId(1), ShardId(0));
        WorkerError::Replay { shard, epoch: Epoch(3), found: 1, committed: 2, builds }.to_string()
    }

    #[test]
    fn a_replay_that_differs_names_the_build_that_committed_and_this_one() {
        let said = told("0.0.9+aarch64+0000000000000001");
        assert!(said.contains("by build 0.0.9+aarch64+0000000000000001"), "{said}");
        assert!(said.contains(&build()) && said.contains("go on with the build that committed it"), "{said}");
    }

    #[test]
    fn a_replay_that_differs_within_one_build_blames_what_is_stored() {
        let said = told(&build());
        assert!(said.contains("this same build") && said.contains("restore"), "{said}");
    }

    #[test]
    fn a_build_is_named_by_version_architecture_and_sources() {
        let build = build();
        let parts: Vec<&str> = build.split('+').collect();
        assert_eq!(parts[..2], [env!("CARGO_PKG_VERSION"), std::env::consts::ARCH]);
        assert!(parts[2].len() == 16 && u64::from_str_radix(parts[2], 16).is_ok(), "{build}");
    }
}

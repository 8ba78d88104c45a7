//! Decisions: pure functions on what was read. I/O sits at the rim and only executes them; the models in `tests/models` explore them.
//!
//! | verb | question | rules |
//! | --- | --- | --- |
//! | [`decide_claim`], [`decide_leave`], [`is_given_up`] | may I take this shard, and how do I leave it? | C1, FN-1 |
//! | [`decide_fence`] | may I end what older generations have under way? | FN-1, G1 |
//! | [`decide_commit`] | what is the head after this batch? | EO-1, WM-1, R1, T4 |
//! | [`plan_spill`], [`spill`] | what must leave the head first? | T4 |
//! | [`decide_resolve`] | my answer was lost: did it happen? | T5 |
//! | [`cache_is_valid`] | may I go on from memory? | C2 |
//! | [`decide_run`], [`combined`] | has a merge shard something to say? | C4, W1, W2 |
//! | [`decide_join`], [`found_by_joining`], [`travels_as_rows`] | how does a lane that slept come back? | W1, W2, EO-1 |
//! | [`decide_checkpoint`] | is a snapshot cheaper than replay? | C5 |
//! | [`snapshots`], [`oldest_replayable`] | from where can a past batch be run again? | R1, G3 |
//! | [`decide_dispatch`], [`SlotMemory`] | must a worker be called, or is that on its way? | C6 |
//! | [`decide_floors`], [`decide_pin`], [`decide_orphan`], [`orphans_may_go`] | what may be deleted? | G1, G2, G3 |
//! | [`decide_recovery`] | did the publisher's last step happen? | X5 |
//! | [`decide_skew`] | does this machine's clock agree with the store's? | W3 |
mod cache;
mod checkpoint;
mod claim;
mod commit;
mod dispatch;
mod join;
mod memory;
mod publish;
mod replay;
mod resolve;
mod retention;
mod skew;
mod spill;
mod work;

pub use cache::cache_is_valid;
pub use checkpoint::{CheckpointDecision, CheckpointLimits, ReplayCost, decide_checkpoint};
pub use claim::{
    ClaimDecision, Leaving, OwnerLiveness, VANISHED_MAX, decide_claim, decide_fence, decide_leave, is_given_up, lease_factor,
};
pub use commit::{Advance, CommitRefusal, decide_commit};
pub use dispatch::{Called, Dispatch, decide_dispatch, said_all};
pub use join::{Joined, decide_join, found_by_joining, travels_as_rows};
pub use memory::{Act, LOOK_AFTER, SlotMemory};
pub use publish::{PublishRecovery, decide_recovery};
pub use replay::{Snapshot, oldest_replayable, snapshots};
pub use resolve::{Resolution, decide_resolve};
pub use retention::{Orphan, PinDecision, Reader, decide_floors, decide_orphan, decide_pin, orphans_may_go};
pub use skew::{Skew, Stamp, decide_skew, parse_date};
pub use spill::{plan_spill, spill};
pub use work::{Combined, InputView, QUIET_EPOCHS_MAX, Run, activity_after, combined, decide_run};

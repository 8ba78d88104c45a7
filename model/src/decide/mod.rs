//! Decisions: pure functions on what was read. I/O sits at the rim and only executes them; the models in `tests/` explore them.
//!
//! | verb | question | rules |
//! | --- | --- | --- |
//! | [`decide_claim`] | may I take this shard? | C1, FN-1 |
//! | [`decide_commit`] | what is the head after this batch? | T4, WM-1, R1 |
//! | [`decide_resolve`] | my answer was lost: did it happen? | T5 |
//! | [`cache_is_valid`] | may I go on from memory? | C2 |
//! | [`decide_run`], [`combined`] | has a merge shard something to say? | C4, W1, W2 |
//! | [`decide_floors`], [`decide_orphan`], [`decide_pin`] | what may be deleted? | G1, G2, G3 |
//! | [`decide_recovery`] | did the publisher's last step happen? | X5 |
mod cache;
mod claim;
mod commit;
mod publish;
mod resolve;
mod retention;
mod work;

pub use cache::cache_is_valid;
pub use claim::{ClaimDecision, OwnerLiveness, decide_claim};
pub use commit::{Advance, CommitRefusal, decide_commit, plan_spill, spill};
pub use publish::{PublishRecovery, decide_recovery};
pub use resolve::{Resolution, decide_resolve};
pub use retention::{Orphan, PinDecision, Reader, decide_floors, decide_orphan, decide_pin};
pub use work::{Combined, InputView, Run, combined, decide_run};

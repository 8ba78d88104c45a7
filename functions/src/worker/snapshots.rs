//! The snapshot of a changelog in files: a look after each step of its publisher, work when it pays (docs/decisions/0014).
//!
//! Never: stops a job. A snapshot follows from the changelog, which is whole without it.

use std::collections::BTreeMap;

use weir_connectors::sink::{FileTarget, SnapshotOutcome, Snapshots, Stands};
use weir_model::Head;
use weir_model::head::{InputState, PendingPublish, PublishState};

/// Takes a snapshot if one is due.
///
/// - `head`: of the publisher. - `state`, `acknowledged`: what its target holds, and the step that is not in the head yet.
/// - `closed`: nothing follows.
pub(super) fn keep(
    snapshots: &mut Snapshots,
    target: &FileTarget,
    head: &Head,
    (state, acknowledged): (&PublishState, Option<&PendingPublish>),
    closed: bool,
) {
    let changes = head.stats.rows_out + acknowledged.map_or(0, |step| step.rows);
    // Who held the shard before may have died of it: first something is committed again.
    if head.claims_since_commit > 1 || !snapshots.is_due(changes, closed) {
        return;
    }
    let epoch = |(shard, input): (&String, &InputState)| (shard.clone(), input.epoch.0);
    let mut epochs: BTreeMap<String, u64> = head.inputs.iter().map(epoch).collect();
    epochs.extend(acknowledged.iter().flat_map(|step| &step.upto).map(epoch));
    let stands = Stands { state: state.clone(), changes, epochs, closed };
    match snapshots.take(target, &stands, head.generation) {
        Ok(SnapshotOutcome::Taken { rows }) => tracing::info!(shard = %head.shard, rows, changes, "snapshot of a changelog"),
        // The next commit will find out, too.
        Ok(SnapshotOutcome::Fenced) => {}
        Err(error) => {
            tracing::warn!(shard = %head.shard, %error, "no snapshot was taken, the changelog is whole: it is tried again later")
        }
    }
}

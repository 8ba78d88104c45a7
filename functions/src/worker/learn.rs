//! What a receiver knows of its upstream shards: entries it has not consumed, in the order of their epochs.
//!
//! A committed entry is a fact for ever (C7). Those of shards in the same worker are handed over with their rows, before they are
//! committed, because both are committed by the same transaction or in order; all others are read from heads and manifests.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use weir_model::decide::InputView;
use weir_model::head::InputState;
use weir_model::{Activity, CommitEntry, Epoch, SegmentKind, ShardId, ShardKey};
use weir_state::manifest::{Entries, entries_between};
use weir_state::segment;

use super::WorkerError;
use crate::context::Ctx;

/// Rows of one epoch that were handed over, by kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Handed {
    pub(super) exchange: Vec<(ShardId, Vec<RecordBatch>)>,
    pub(super) behind: Vec<(ShardId, Vec<RecordBatch>)>,
}

/// An epoch on its way to the merge shards of the same worker.
#[derive(Debug, Clone)]
pub(super) struct Fed {
    pub(super) from: ShardKey,
    pub(super) entry: CommitEntry,
    pub(super) rows: Arc<Handed>,
}

/// An entry that was not consumed yet.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) entry: CommitEntry,
    handed: Option<Arc<Handed>>,
}

/// One upstream shard as its receiver sees it.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) shard: ShardKey,
    /// As of the last batch.
    pub(super) consumed: InputState,
    pub(super) unread: VecDeque<Unread>,
    /// In the same worker: its entries are handed over.
    local: bool,
}

impl Upstream {
    pub(super) fn new(shard: ShardKey, consumed: InputState) -> Self {
        Self { shard, consumed, unread: VecDeque::new(), local: false }
    }

    /// Last epoch known.
    fn known(&self) -> Epoch {
        self.unread.back().map_or(self.consumed.epoch, |unread| unread.entry.epoch)
    }

    /// Takes an epoch of the same worker; one that does not follow what is known is read from the head later.
    pub(super) fn hand_over(&mut self, fed: &Fed) {
        if fed.entry.epoch == self.known().next() {
            self.local = true;
            self.unread.push_back(Unread { entry: fed.entry.clone(), handed: Some(Arc::clone(&fed.rows)) });
        }
    }

    /// Reads what was committed since the last epoch known.
    pub(super) async fn learn(&mut self, ctx: &Ctx) -> Result<(), WorkerError> {
        let closed = self.unread.back().map_or(self.consumed.activity, |unread| unread.entry.activity) == Activity::Closed;
        if closed || self.local {
            return Ok(());
        }
        for _ in 0..LEARN_ATTEMPTS {
            let (head, _) = weir_coordinator::claim::read_head(ctx.table.as_ref(), self.shard).await?;
            let after = self.known();
            if head.epoch <= after {
                return Ok(());
            }
            if let Entries::Found(entries) = entries_between(ctx.objects.as_ref(), &head, after, head.epoch).await? {
                self.unread.extend(entries.into_iter().map(|entry| Unread { entry, handed: None }));
                return Ok(());
            }
            // A manifest may fall between reading the head and reading it (G4): the head has moved on then.
        }
        Err(WorkerError::Gone { shard: self.shard, after: self.known() })
    }

    /// What `decide_run` looks at.
    pub(super) fn view(&self, receiver: ShardId) -> InputView {
        let last = self.unread.back().map(|unread| &unread.entry);
        let segments = || self.unread.iter().flat_map(|unread| &unread.entry.segments);
        let share = |bytes: u64, rows: u64, own: u64| (bytes * own).checked_div(rows).unwrap_or(0);
        InputView {
            watermark: last.map_or(self.consumed.watermark, |entry| entry.watermark),
            activity: last.map_or(self.consumed.activity, |entry| entry.activity),
            unread_epochs: self.unread.len() as u64,
            unread_rows: segments().map(|segment| segment.rows_for(receiver)).sum(),
            unread_bytes: segments().map(|segment| share(segment.bytes, segment.rows(), segment.rows_for(receiver))).sum(),
        }
    }
}

/// Times a head is read again when a manifest was missing.
const LEARN_ATTEMPTS: usize = 4;

/// Rows of `kind` that `unread` holds for `receiver`.
pub(super) async fn rows_of(
    ctx: &Ctx,
    unread: &Unread,
    kind: SegmentKind,
    receiver: ShardId,
) -> Result<Vec<RecordBatch>, WorkerError> {
    if let Some(handed) = &unread.handed {
        let groups = if kind == SegmentKind::Behind { &handed.behind } else { &handed.exchange };
        return Ok(groups.iter().filter(|(to, _)| *to == receiver).flat_map(|(_, rows)| rows.clone()).collect());
    }
    match unread.entry.segment(kind) {
        Some(segment) => Ok(segment::read_for(ctx.objects.as_ref(), &ctx.cache, segment, receiver).await?),
        None => Ok(Vec::new()),
    }
}

impl Unread {
    /// An entry whose rows lie in its objects.
    pub(super) fn stored(entry: CommitEntry) -> Self {
        Self { entry, handed: None }
    }
}

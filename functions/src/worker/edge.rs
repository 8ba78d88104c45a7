//! Back-pressure: a lane whose receivers leave too much unread stops reading its source, a merge shard stops running. Joining: one that slept asks how far they are.
//!
//! Only bytes that were committed and not consumed count, so a lane never waits for itself; heads of receivers are read only once the
//! budget is used up, and while it is joining.

use std::collections::VecDeque;

use weir_model::decide::{Joined, found_by_joining};
use weir_model::{CommitEntry, Epoch, Head, SegmentKind, SegmentRef, ShardKey, Watermark};

use super::WorkerError;
use crate::context::Ctx;
use crate::job::Loaded;

/// What a shard has sent and does not know to be consumed.
#[derive(Debug)]
pub(super) struct Edge {
    sender: ShardKey,
    receivers: Vec<Receiver>,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug)]
struct Receiver {
    shard: ShardKey,
    /// Epochs that have rows for it, and about how many bytes.
    unread: VecDeque<(Epoch, u64)>,
}

impl Edge {
    /// - `bytes_max`: budget of the edge; never so small that receivers that still wait for more could use it up.
    /// - `waiting_bytes_max`: what each receiver may leave unread until something fires.
    pub(super) fn new(loaded: &Loaded, head: &Head, bytes_max: u64, waiting_bytes_max: u64) -> Self {
        let stage = loaded.topology.stage(head.shard.stage);
        let shards = stage.downstream.map(|stage| loaded.topology.shards(stage)).unwrap_or_default();
        let receivers: Vec<_> = shards.into_iter().map(|shard| Receiver { shard, unread: VecDeque::new() }).collect();
        let bytes_max = bytes_max.max(waiting_bytes_max.saturating_mul(2 * receivers.len() as u64));
        let mut edge = Self { sender: head.shard, receivers, bytes: 0, bytes_max };
        head.recent.iter().for_each(|entry| edge.sent(entry));
        edge
    }

    /// Counts what an epoch sends downstream.
    pub(super) fn sent(&mut self, entry: &CommitEntry) {
        let sent = |kind| matches!(kind, SegmentKind::Exchange | SegmentKind::Behind | SegmentKind::Output);
        for receiver in &mut self.receivers {
            let segments = entry.segments.iter().filter(|segment| sent(segment.kind));
            let share = |segment: &SegmentRef| {
                (segment.bytes * segment.rows_for(receiver.shard.shard)).checked_div(segment.rows()).unwrap_or(0)
            };
            let bytes: u64 = segments.map(share).sum();
            if bytes > 0 {
                receiver.unread.push_back((entry.epoch, bytes));
                self.bytes += bytes;
            }
        }
    }

    /// Whether the receivers must catch up first.
    ///
    /// # Errors
    /// [`WorkerError::Table`] if their heads cannot be read.
    pub(super) async fn is_full(&mut self, ctx: &Ctx) -> Result<bool, WorkerError> {
        if self.bytes <= self.bytes_max {
            return Ok(false);
        }
        for receiver in self.receivers.iter_mut().filter(|receiver| !receiver.unread.is_empty()) {
            let (head, _) = weir_coordinator::claim::read_head(ctx.table.as_ref(), receiver.shard).await?;
            let consumed = head.input(self.sender).epoch;
            while receiver.unread.front().is_some_and(|(epoch, _)| *epoch <= consumed) {
                self.bytes -= receiver.unread.pop_front().map_or(0, |(_, bytes)| bytes);
            }
        }
        Ok(self.bytes > self.bytes_max)
    }

    /// The watermark that the lane finds if it has been joining since an epoch (W2); `None` while a receiver may move on without it.
    ///
    /// # Errors
    /// [`WorkerError::Table`] if their heads cannot be read.
    pub(super) async fn found_by_joining(&self, ctx: &Ctx, since: Epoch) -> Result<Option<Watermark>, WorkerError> {
        let mut receivers = Vec::with_capacity(self.receivers.len());
        for receiver in &self.receivers {
            let (head, _) = weir_coordinator::claim::read_head(ctx.table.as_ref(), receiver.shard).await?;
            receivers.push(Joined { taken: head.input(self.sender).epoch, watermark: head.watermark });
            if found_by_joining(since, receivers.iter().copied()).is_none() {
                return Ok(None);
            }
        }
        Ok(found_by_joining(since, receivers))
    }
}

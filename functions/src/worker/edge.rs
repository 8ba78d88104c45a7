//! Back-pressure: a lane whose receivers leave too much unread stops reading its source.
//!
//! Only bytes that were committed and not consumed count, so a lane never waits for itself; heads of receivers are read only once the
//! budget is used up.

use std::collections::VecDeque;

use weir_model::{CommitEntry, Epoch, Head, SegmentKind, ShardKey};

use super::WorkerError;
use crate::context::Ctx;
use crate::job::Loaded;

/// What a lane has sent and does not know to be consumed.
#[derive(Debug)]
pub(super) struct Edge {
    lane: ShardKey,
    receivers: Vec<ShardKey>,
    unread: VecDeque<(Epoch, u64)>,
    bytes: u64,
    bytes_max: u64,
}

impl Edge {
    /// - `bytes_max`: budget of the edge; never so small that receivers that still wait for more could use it up.
    /// - `waiting_bytes_max`: what each receiver may leave unread until something fires.
    pub(super) fn new(loaded: &Loaded, head: &Head, bytes_max: u64, waiting_bytes_max: u64) -> Self {
        let stage = loaded.topology.stage(head.shard.stage);
        let receivers = stage.downstream.map(|stage| loaded.topology.shards(stage)).unwrap_or_default();
        let bytes_max = bytes_max.max(waiting_bytes_max.saturating_mul(2 * receivers.len() as u64));
        let mut edge = Self { lane: head.shard, receivers, unread: VecDeque::new(), bytes: 0, bytes_max };
        head.recent.iter().for_each(|entry| edge.sent(entry));
        edge
    }

    /// Counts what an epoch sends downstream.
    pub(super) fn sent(&mut self, entry: &CommitEntry) {
        let sent = |kind: &SegmentKind| matches!(kind, SegmentKind::Exchange | SegmentKind::Behind | SegmentKind::Output);
        let bytes = entry.segments.iter().filter(|segment| sent(&segment.kind)).map(|segment| segment.bytes).sum();
        if bytes > 0 && !self.receivers.is_empty() {
            self.unread.push_back((entry.epoch, bytes));
            self.bytes += bytes;
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
        let mut consumed = Epoch(u64::MAX);
        for receiver in &self.receivers {
            let (head, _) = weir_coordinator::claim::read_head(ctx.table.as_ref(), *receiver).await?;
            consumed = consumed.min(head.input(self.lane).epoch);
        }
        while self.unread.front().is_some_and(|(epoch, _)| *epoch <= consumed) {
            self.bytes -= self.unread.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        Ok(self.bytes > self.bytes_max)
    }
}

//! A round: what one pass over a worker's shards wants to store and commit, in one transaction.

use std::collections::BTreeMap;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use weir_model::decide::{Advance, decide_commit};
use weir_model::head::{CheckpointRef, InputState, PublishState};
use weir_model::{
    Activity, CommitEntry, CommitId, Generation, Head, Inputs, Offset, Recipe, SegmentKind, SegmentRef, ShardId, ShardKey,
    ShardStats, Watermark,
};
use weir_state::paths::{self, Folder};
use weir_state::{SegmentMeta, manifest, segment};

use super::WorkerError;
use super::claiming::owner;
use crate::context::Ctx;
use crate::job::{Loaded, build};

/// Objects to store and heads to advance.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) id: CommitId,
    /// Whether heads of others may say more than they did.
    pub(super) looks: bool,
    pub(super) uploads: Vec<(String, Bytes)>,
    pub(super) heads: Vec<Head>,
}

/// What a shard's batch did, before it becomes an entry.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) published: Published,
    pub(super) inputs_read: Inputs,
    pub(super) inputs: BTreeMap<String, InputState>,
    pub(super) source: Option<Offset>,
    pub(super) watermark: Watermark,
    pub(super) activity: Activity,
    pub(super) now_micros: i64,
    pub(super) early: bool,
    pub(super) as_rows: bool,
    pub(super) act_at: Option<Watermark>,
    pub(super) checkpoint: Option<CheckpointRef>,
    pub(super) publish: Option<PublishState>,
    pub(super) stats: ShardStats,
}

/// Segments of one shard's batch.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) segments: Vec<SegmentRef>,
    /// What the head names no more: named once again by the entry that replaces it, so that it falls with this entry.
    pub(super) replaced: Vec<SegmentRef>,
    digests: Vec<u64>,
}

impl Published {
    /// One digest of everything published, in order; 0 where nothing was.
    pub(super) fn digest(&self) -> u64 {
        if self.digests.is_empty() {
            return 0;
        }
        let bytes: Vec<u8> = self.digests.iter().flat_map(|digest| digest.to_be_bytes()).collect();
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Stores what the offsets of the batch mean; not part of its digest, since a replay reads segments only (R4).
    pub(super) fn add_ledger(&mut self, round: &mut Round, ctx: &Ctx, maker: Maker, ledger: Bytes) -> SegmentRef {
        let object = paths::object(Folder::State, ctx.ids.object(), maker.shard, maker.generation);
        let bytes = ledger.len() as u64;
        let reference =
            SegmentRef { kind: SegmentKind::Ledger, object: object.clone(), bytes, footer_bytes: 0, groups: Vec::new() };
        self.segments.push(reference.clone());
        round.uploads.push((object, ledger));
        reference
    }

    /// Encodes rows for their receivers; nothing is stored where there are none.
    pub(super) fn add(
        &mut self,
        round: &mut Round,
        ctx: &Ctx,
        maker: Maker,
        kind: SegmentKind,
        schema: &SchemaRef,
        groups: &[(ShardId, Vec<RecordBatch>)],
    ) -> Result<(), WorkerError> {
        if groups.is_empty() {
            return Ok(());
        }
        let meta = SegmentMeta { kind, plan: maker.plan };
        let encoded = segment::encode(schema, meta, groups)?;
        let object = paths::object(Folder::Data, ctx.ids.object(), maker.shard, maker.generation);
        self.digests.push(encoded.digest);
        self.segments.push(SegmentRef {
            kind,
            object: object.clone(),
            bytes: encoded.bytes.len() as u64,
            footer_bytes: encoded.footer_bytes,
            groups: encoded.groups,
        });
        round.uploads.push((object, encoded.bytes));
        Ok(())
    }
}

/// Anchor of what a batch makes (C3), and the plan it ran.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maker {
    pub(super) shard: ShardKey,
    pub(super) generation: Generation,
    pub(super) plan: u32,
}

impl Maker {
    pub(super) fn new(head: &Head, loaded: &Loaded) -> Self {
        Self { shard: head.shard, generation: head.generation, plan: loaded.plan_version }
    }
}

impl Round {
    pub(super) fn new(ctx: &Ctx, looks: bool) -> Self {
        Self { id: ctx.ids.commit(), looks, uploads: Vec::new(), heads: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Advances `head` by `batch` and takes the new head into the round. Returns the entry.
    pub(super) fn advance(
        &mut self,
        ctx: &Ctx,
        loaded: &Loaded,
        head: &mut Head,
        batch: Batch,
    ) -> Result<CommitEntry, WorkerError> {
        let entry = CommitEntry {
            commit: self.id,
            epoch: head.epoch.next(),
            generation: head.generation,
            watermark: batch.watermark,
            activity: batch.activity,
            recipe: Recipe {
                inputs: batch.inputs_read,
                watermark_before: head.watermark,
                watermark_after: batch.watermark,
                now_micros: batch.now_micros,
                early: batch.early,
                as_rows: batch.as_rows,
                plan: loaded.plan_version,
                build: build(),
                digest: batch.published.digest(),
            },
            segments: [batch.published.segments, batch.published.replaced].concat(),
        };
        let (from, objects) = manifest::spilled(ctx.ids.as_ref(), head)?;
        self.uploads.extend(objects);
        let advance = Advance {
            entry: entry.clone(),
            inputs: batch.inputs,
            source: batch.source,
            act_at: batch.act_at,
            checkpoint: batch.checkpoint,
            publish: batch.publish,
            stats: batch.stats,
            // With this commit nobody has vanished any more.
            owner: Some(owner(ctx, 0)),
        };
        let next = decide_commit(&from, advance).map_err(|refusal| WorkerError::Refused { shard: head.shard, refusal })?;
        *head = next.clone();
        self.heads.push(next);
        Ok(entry)
    }
}

//! The state of a merge shard at a cut, for who only looks: no claim, nothing written, nothing left behind.

use std::collections::BTreeMap;

use datafusion::arrow::array::RecordBatch;
use weir_engine::{MergeOperator, Moment};
use weir_model::{Activity, Head, ShardKey, Watermark};
use weir_plan::AggregateStage;
use weir_state::manifest::{Entries, entries_between};

use super::WorkerError;
use super::learn::Unread;
use super::merge::{epoch_input, fold, fresh_operator};
use super::replay::rebuild;
use crate::context::Ctx;
use crate::job::Loaded;

/// What a merge shard of a pipeline's last aggregate has not said yet.
#[derive(Debug, Default)]
pub(crate) struct Unsaid {
    /// What it would say if all that is committed upstream were folded and every window closed now; of a table by key, the present result
    /// of each key. Columns of the operator's output.
    pub(crate) results: Vec<RecordBatch>,
    /// Rows on their way to it that came too late.
    pub(crate) late: Vec<RecordBatch>,
}

/// Rebuilds the state of `head` and folds what `upstream` has committed since. Cost: that of a cold load.
///
/// - `upstream`: heads as read after `head`; what each has committed must not be deleted meanwhile (a pin).
///
/// # Errors
/// [`WorkerError`]; [`WorkerError::Gone`] of a job that is finished and whose past was deleted.
pub(crate) async fn unsaid(
    ctx: &Ctx,
    loaded: &Loaded,
    head: &Head,
    upstream: &BTreeMap<ShardKey, Head>,
) -> Result<Unsaid, WorkerError> {
    let is_window = loaded.aggregate(head.shard.stage).is_some_and(AggregateStage::is_window);
    if head.activity == Activity::Closed && is_window {
        return Ok(Unsaid::default());
    }
    let mut operator = fresh_operator(ctx, loaded, head.shard).await?;
    rebuild(ctx, loaded, head, &mut operator).await?;
    // What is forgotten by now is no present result.
    operator.set_now(head.now_micros.max(ctx.clock.now_micros()));
    let late = catch_up(ctx, &mut operator, head, upstream).await?;
    let results = if is_window {
        fire_all(&mut operator).await?
    } else {
        // What the catching up changes is part of what follows.
        operator.fire(Moment { after: head.watermark, early: false }).await?;
        operator.into_present().await?
    };
    Ok(Unsaid { results, late })
}

async fn catch_up(
    ctx: &Ctx,
    operator: &mut MergeOperator,
    head: &Head,
    upstream: &BTreeMap<ShardKey, Head>,
) -> Result<Vec<RecordBatch>, WorkerError> {
    let mut input = Vec::new();
    for (shard, from) in upstream {
        let after = head.input(*shard).epoch;
        let Entries::Found(entries) = entries_between(ctx.objects.as_ref(), from, after, from.epoch.max(after)).await? else {
            return Err(WorkerError::Gone { shard: *shard, after });
        };
        for entry in entries {
            input.push(epoch_input(ctx, &Unread::stored(entry), head.shard.shard).await?);
        }
    }
    fold(operator, &input, head.watermark).await
}

/// Results come in parts of a bounded number of rows.
async fn fire_all(operator: &mut MergeOperator) -> Result<Vec<RecordBatch>, WorkerError> {
    let mut results = operator.fire(Moment::END).await?;
    while operator.is_due(Watermark::INFINITY) {
        results.extend(operator.fire(Moment::END).await?);
    }
    Ok(results)
}

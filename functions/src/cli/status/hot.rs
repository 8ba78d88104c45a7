//! Hot keys: those that have a large part of the rows that lanes have sent of late.
//!
//! A look, no counter: the partials of the last commits lie in the store anyway and say of how many rows they were made, so naming hot keys
//! costs a job nothing. A hot key does not slow the job either: a lane sends one row of it per commit and window, however many it read.
//! Where no aggregate counts all rows, nobody knows; what was deleted meanwhile is left out.

use std::collections::HashMap;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use weir_model::{Head, SegmentKind, ShardId};
use weir_plan::{AggregateSpec, AggregateStage};
use weir_state::segment;

use crate::context::Ctx;
use crate::job::Loaded;
use crate::topology::Role;

/// Part of the rows from which on a key is named.
const PERCENT_MIN: u64 = 10;
/// Keys that are named of one INSERT.
const NAMED_MAX: usize = 8;
/// Partials that are read of one lane, newest first.
const LANE_BYTES_MAX: u64 = 2 << 20;

/// A sentence for each hot key of the job.
///
/// - `heads`: of its shards. - Requests: one or two for each of the last commits of each lane, up to 2 MiB.
pub(super) async fn sentences(ctx: &Ctx, loaded: &Loaded, heads: &[Head]) -> Vec<String> {
    let mut found = Vec::new();
    for stage in loaded.topology.stages.iter().filter(|stage| stage.role == Role::Lane) {
        let pipeline = &loaded.plan.pipelines[stage.pipeline];
        let Some(mut counted) = pipeline.aggregates.first().and_then(Counted::new) else { continue };
        for head in heads.iter().filter(|head| head.shard.stage == stage.id) {
            read(ctx, head, &mut counted).await;
        }
        let sink = &pipeline.sink.name;
        let sentence =
            |(key, percent): (String, u64)| format!("hot key of {sink}: {key} has {percent} % of the rows of the last commits");
        found.extend(counted.hot().into_iter().map(sentence));
    }
    found
}

async fn read(ctx: &Ctx, head: &Head, counted: &mut Counted) {
    let mut bytes = 0;
    for segment in head.recent.iter().rev().filter_map(|entry| entry.segment(SegmentKind::Exchange)) {
        // The newest is always read.
        if bytes > 0 && bytes + segment.bytes > LANE_BYTES_MAX {
            return;
        }
        bytes += segment.bytes;
        let receivers: Vec<ShardId> = segment.groups.iter().map(|group| group.receiver).collect();
        let rows = segment::read_for_all(ctx.objects.as_ref(), &ctx.cache, segment, &receivers).await;
        for (_, batch) in rows.unwrap_or_default() {
            if let Err(error) = counted.add(&batch) {
                tracing::debug!(shard = %head.shard, %error, "partials are left out");
            }
        }
    }
}

/// Rows by key, as partials count them.
#[derive(Debug)]
struct Counted {
    keys: Vec<String>,
    /// What the name of the counting column begins with.
    rows: String,
    by_key: HashMap<String, u64>,
}

impl Counted {
    /// `None` without a key, or an aggregate that counts all rows: COUNT(*) reads the pane, which is never NULL.
    fn new(aggregate: &AggregateStage) -> Option<Self> {
        let counts = |spec: &&AggregateSpec| {
            spec.function.name() == "count" && spec.filter.is_none() && spec.distinct.is_none() && spec.args == [0]
        };
        let rows = aggregate.aggregates.iter().find(counts)?;
        let keys: Vec<String> = aggregate.keys.iter().map(|key| key.name().clone()).collect();
        (!keys.is_empty()).then(|| Self { keys, rows: format!("{}__", rows.name), by_key: HashMap::new() })
    }

    /// - `partials`: rows of `engine::PaneShape::partial_schema`.
    fn add(&mut self, partials: &RecordBatch) -> Result<(), ArrowError> {
        let options = FormatOptions::default().with_null("NULL");
        let mut columns = Vec::new();
        for key in &self.keys {
            let column = partials.column_by_name(key).ok_or_else(|| ArrowError::SchemaError(format!("no column {key}")))?;
            columns.push((key, ArrayFormatter::try_new(column.as_ref(), &options)?));
        }
        let is_count = |name: &str| name.starts_with(&self.rows);
        let count = partials.schema_ref().fields().iter().position(|field| is_count(field.name()));
        let count = count.and_then(|place| partials.column(place).as_primitive_opt::<Int64Type>());
        let counts = count.ok_or_else(|| ArrowError::SchemaError(format!("no column {}count", self.rows)))?;
        for (row, count) in counts.values().iter().enumerate() {
            let key: Vec<String> = columns.iter().map(|(name, column)| format!("{name} = {}", column.value(row))).collect();
            *self.by_key.entry(key.join(", ")).or_default() += u64::try_from(*count).unwrap_or_default();
        }
        Ok(())
    }

    /// Hot keys with their parts of all rows in percent, the hottest first.
    fn hot(self) -> Vec<(String, u64)> {
        let all = self.by_key.values().sum::<u64>().max(1);
        let part = |(key, rows): (String, u64)| (key, rows * 100 / all);
        let mut hot: Vec<(String, u64)> =
            self.by_key.into_iter().map(part).filter(|(_, percent)| *percent >= PERCENT_MIN).collect();
        hot.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        hot.truncate(NAMED_MAX);
        hot
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn partials(keys: &[(i64, Option<&str>, i64)]) -> RecordBatch {
        let songs: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.iter().map(|key| key.0)));
        let places: ArrayRef = Arc::new(keys.iter().map(|key| key.1).collect::<StringArray>());
        let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.iter().map(|key| key.2)));
        RecordBatch::try_from_iter([("song", songs), ("place", places), ("plays__count", counts)]).unwrap()
    }

    #[test]
    fn keys_with_a_tenth_of_the_rows_are_hot_whatever_commits_they_came_in() {
        let keys = vec!["song".to_owned(), "place".to_owned()];
        let mut counted = Counted { keys, rows: "plays__".to_owned(), by_key: HashMap::new() };
        counted.add(&partials(&[(17, Some("home"), 40), (1, Some("home"), 9), (2, None, 5)])).unwrap();
        counted.add(&partials(&[(2, None, 15), (17, Some("home"), 20), (17, Some("away"), 9), (4, None, 2)])).unwrap();
        let expected = [("song = 17, place = home", 60), ("song = 2, place = NULL", 20)];
        assert_eq!(counted.hot(), expected.map(|(key, percent)| (key.to_owned(), percent)));
    }

    #[test]
    fn partials_without_the_column_are_an_error_and_not_counted() {
        let mut counted = Counted { keys: vec!["song".to_owned()], rows: "score__".to_owned(), by_key: HashMap::new() };
        assert!(counted.add(&partials(&[(1, None, 1)])).is_err());
        assert!(counted.hot().is_empty());
    }
}

//! A changelog applied by key is the aggregate of all rows so far, however they are cut; a restored shard gives the same bits.

use std::collections::BTreeMap;

use datafusion::arrow::array::{Array, Float64Array, Int64Array};
use datafusion::arrow::datatypes::{Float64Type, Int8Type, Int64Type};
use futures::executor::block_on;
use weir_model::Watermark;

use super::*;
use crate::{CheckpointPass, Extent, LaneOperator, MergeOperator, Moment, StateBudget};

const KEY_GROUPS: u16 = 720;

mod chained;
mod forgetting;
mod spilling;

/// A job over `plays (song, score)` into `sink`.
fn pipeline(sink: &str, query: &str) -> Pipeline {
    scripted("", sink, query)
}

fn scripted(settings: &str, sink: &str, query: &str) -> Pipeline {
    let script = format!(
        "{settings}
         CREATE TABLE plays (song BIGINT, score DOUBLE) WITH ('connector' = 'plays');
         CREATE TABLE best ({sink};
         INSERT INTO best {query};"
    );
    block_on(weir_plan::compile(&script)).unwrap_or_else(|error| panic!("{error}")).pipelines.remove(0)
}

const UPSERTS: &str = "song BIGINT, n BIGINT, total DOUBLE, PRIMARY KEY (song) NOT ENFORCED) WITH ('connector' = 'filesystem')";
const RETRACTIONS: &str = "song BIGINT, n BIGINT, total DOUBLE) WITH ('connector' = 'print')";
const TOTALS: &str = "SELECT song, COUNT(*), SUM(score) FROM plays GROUP BY song";
const DISTINCT_TOTALS: &str = "SELECT song, COUNT(DISTINCT score), SUM(score) FROM plays GROUP BY song";

struct Shard {
    lane: LaneOperator,
    merge: MergeOperator,
}

impl Shard {
    fn new(pipeline: &Pipeline) -> Self {
        Self::within(pipeline, usize::MAX)
    }

    /// A shard that may hold so many bytes.
    fn within(pipeline: &Pipeline, bytes_max: usize) -> Self {
        let budget = StateBudget { bytes_max, ..StateBudget::default() };
        let merge = block_on(MergeOperator::new(pipeline, 0, KEY_GROUPS, budget)).expect("it plans");
        let lane = block_on(LaneOperator::new(pipeline, KEY_GROUPS, Watermark::NONE)).expect("it plans");
        Self { lane, merge: merge.expect("it has an aggregate") }
    }

    /// One commit of a lane and one of its receiver.
    fn commit(&mut self, rows: &[(Option<i64>, f64)]) -> RecordBatch {
        let songs = Int64Array::from_iter(rows.iter().map(|(song, _)| *song));
        let scores = Float64Array::from_iter_values(rows.iter().map(|(_, score)| *score));
        let columns: [ArrayRef; 2] = [Arc::new(songs), Arc::new(scores)];
        let schema = Arc::clone(self.lane.source_schema());
        let used = schema.fields().iter().map(|field| Arc::clone(&columns[usize::from(field.name() == "score")])).collect();
        let batch = RecordBatch::try_new(schema, used).expect("rows of the job's columns");
        block_on(self.lane.push(batch, i64::MAX)).expect("rows are taken");
        for partial in self.lane.finish().expect("an epoch ends").partials {
            self.merge.merge(&partial).expect("partials fold");
        }
        let given = block_on(self.merge.fire(Moment { after: Watermark::NONE, early: false })).expect("results are given");
        concat_batches(self.merge.output_schema(), &given).expect("batches of one schema")
    }

    fn checkpoint(&mut self, extent: Extent) -> Vec<RecordBatch> {
        let mut pass: CheckpointPass = self.merge.begin_checkpoint(extent);
        std::iter::from_fn(|| self.merge.checkpoint(&mut pass).expect("the state is given")).collect()
    }
}

/// Rows of a changelog of (song, count, total): what happened, and to what.
fn log(rows: &RecordBatch) -> Vec<(i8, Option<i64>, i64, f64)> {
    let ops = rows.column(0).as_primitive::<Int8Type>();
    let songs = rows.column(1).as_primitive::<Int64Type>();
    let counts = rows.column(2).as_primitive::<Int64Type>();
    let totals = rows.column(3).as_primitive::<Float64Type>();
    (0..rows.num_rows())
        .map(|row| (ops.value(row), songs.is_valid(row).then(|| songs.value(row)), counts.value(row), totals.value(row)))
        .collect()
}

const INSERT: i8 = Op::Insert as i8;
const BEFORE: i8 = Op::UpdateBefore as i8;
const AFTER: i8 = Op::UpdateAfter as i8;
const DELETE: i8 = Op::Delete as i8;

fn draw(seed: u64) -> u64 {
    let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Rows of commit `number`; songs repeat within and over commits, some are NULL, scores do not add up exactly.
fn rows(number: u64, count: u64) -> Vec<(Option<i64>, f64)> {
    (0..count)
        .map(|row| {
            let drawn = draw((number << 32) | row);
            let song = (!drawn.is_multiple_of(13)).then(|| i64::try_from(drawn % (50 + number * 10)).expect("small"));
            (song, drawn as f64 / 3e17)
        })
        .collect()
}

#[test]
fn a_changelog_applied_by_key_is_the_aggregate_of_all_rows() {
    let mut shard = Shard::new(&pipeline(UPSERTS, TOTALS));
    let mut applied: BTreeMap<Option<i64>, (i64, f64)> = BTreeMap::new();
    let mut expected: BTreeMap<Option<i64>, (i64, f64)> = BTreeMap::new();
    for number in 0..40 {
        let rows = rows(number, 300);
        for (song, score) in &rows {
            let sums = expected.entry(*song).or_default();
            *sums = (sums.0 + 1, sums.1 + score);
        }
        for (op, song, count, total) in log(&shard.commit(&rows)) {
            let earlier = applied.insert(song, (count, total));
            assert_eq!(op, if earlier.is_some() { AFTER } else { INSERT }, "song {song:?}");
        }
        assert_eq!(applied.len(), expected.len());
        for (song, (count, total)) in &expected {
            let found = applied[song];
            assert!(found.0 == *count && (found.1 - total).abs() <= 1e-9 * total.abs(), "song {song:?}: {found:?}");
        }
    }
    assert_eq!(shard.merge.groups(), expected.len());
}

#[test]
fn a_restored_shard_goes_on_with_the_same_bits() {
    let job = pipeline(UPSERTS, TOTALS);
    let mut live = Shard::new(&job);
    let mut objects: Vec<Vec<RecordBatch>> = Vec::new();
    for number in 0..30 {
        live.commit(&rows(number, 200));
        if number % 7 == 3 {
            let extent = if objects.is_empty() { Extent::Whole } else { Extent::Changed };
            let stored = live.checkpoint(extent);
            let count: usize = stored.iter().map(RecordBatch::num_rows).sum();
            assert!(count > 0 && live.merge.changed() == Some(0));
            assert!(extent == Extent::Whole || count < live.merge.groups(), "{count} rows of a part");
            objects.push(stored);
        }
        if number % 7 == 5 && !objects.is_empty() {
            // What came since the last checkpoint is replayed.
            let mut restored = Shard::new(&job);
            objects.iter().flatten().for_each(|rows| restored.merge.restore(rows).expect("rows of a checkpoint"));
            for missed in number - 1..=number {
                restored.commit(&rows(missed, 200));
            }
            assert_eq!(live.merge.groups(), restored.merge.groups());
            assert_eq!(live.commit(&rows(1_000, 500)), restored.commit(&rows(1_000, 500)), "commit {number}");
            live = restored;
            objects = vec![live.checkpoint(Extent::Whole)];
        }
    }
    let mut restored = Shard::new(&job);
    let whole = live.checkpoint(Extent::Whole);
    let groups: Vec<u16> = whole
        .iter()
        .flat_map(|rows| rows.column(0).as_primitive::<datafusion::arrow::datatypes::UInt16Type>().values().to_vec())
        .collect();
    assert!(groups.is_sorted(), "rows of a checkpoint are sorted by key group");
    whole.iter().for_each(|rows| restored.merge.restore(rows).expect("rows of a checkpoint"));
    assert_eq!(live.checkpoint(Extent::Whole), restored.checkpoint(Extent::Whole));
}

#[test]
fn a_sink_that_takes_retractions_gets_each_result_back_as_it_was() {
    let mut shard = Shard::new(&pipeline(RETRACTIONS, TOTALS));
    let (one, two) = (Some(1), Some(2));
    assert_eq!(log(&shard.commit(&[(one, 0.5), (two, 4.0)])), [(INSERT, one, 1, 0.5), (INSERT, two, 1, 4.0)]);
    assert_eq!(log(&shard.commit(&[(two, 1.0), (two, 1.0)])), [(BEFORE, two, 1, 4.0), (AFTER, two, 3, 6.0)]);
    assert_eq!(
        log(&shard.commit(&[(one, 1.0), (None, 3.0)])),
        [(BEFORE, one, 1, 0.5), (AFTER, one, 2, 1.5), (INSERT, None, 1, 3.0)],
        "groups that had a result come first"
    );
}

#[test]
fn a_condition_on_the_result_inserts_and_deletes() {
    let query = "SELECT song, COUNT(*), SUM(score) FROM plays GROUP BY song HAVING SUM(score) > 0";
    let mut shard = Shard::new(&pipeline(UPSERTS, query));
    let one = Some(1);
    assert!(log(&shard.commit(&[(one, -1.0)])).is_empty(), "it does not hold yet");
    assert_eq!(log(&shard.commit(&[(one, 3.0)])), [(INSERT, one, 2, 2.0)]);
    assert_eq!(log(&shard.commit(&[(one, 1.0)])), [(AFTER, one, 3, 3.0)]);
    assert_eq!(log(&shard.commit(&[(one, -5.0)])), [(DELETE, one, 3, 3.0)]);
    assert!(log(&shard.commit(&[(one, -1.0)])).is_empty(), "it was deleted before");
}

#[test]
fn a_group_without_a_value_has_no_sum_whatever_others_have() {
    let query = "SELECT song, COUNT(*), SUM(score) FILTER (WHERE score > 0) FROM plays GROUP BY song";
    let mut shard = Shard::new(&pipeline(UPSERTS, query));
    let sums = |rows: RecordBatch| {
        let songs = rows.column(1).as_primitive::<Int64Type>().values().to_vec();
        songs.into_iter().zip(rows.column(3).as_primitive::<Float64Type>()).collect::<BTreeMap<_, _>>()
    };
    let first = sums(shard.commit(&[(Some(1), 2.0), (Some(2), -1.0), (Some(3), -1.0)]));
    assert_eq!(first, BTreeMap::from([(1, Some(2.0)), (2, None), (3, None)]));
    let second = sums(shard.commit(&[(Some(4), -1.0), (Some(2), -1.0), (Some(3), 4.0)]));
    assert_eq!(second, BTreeMap::from([(4, None), (2, None), (3, Some(4.0))]));
    let third = sums(shard.commit(&[(Some(5), 1.0), (Some(4), -1.0), (Some(2), 7.0)]));
    assert_eq!(third, BTreeMap::from([(5, Some(1.0)), (4, None), (2, Some(7.0))]));
}

#[test]
fn what_does_not_change_is_not_said_again() {
    let query = "SELECT song, MAX(song), MAX(score) FROM plays GROUP BY song";
    let mut shard = Shard::new(&pipeline(UPSERTS, query));
    assert_eq!(shard.commit(&[(Some(1), 5.0), (Some(2), 1.0)]).num_rows(), 2);
    assert_eq!(shard.commit(&[(Some(1), 4.0), (Some(2), 1.0)]).num_rows(), 0);
    let whole = shard.checkpoint(Extent::Whole);
    assert_eq!(shard.commit(&[(Some(1), 5.0), (Some(2), 2.0)]).num_rows(), 1);
    assert_eq!((shard.merge.changed(), whole[0].num_rows()), (Some(1), 2));
}

#[test]
fn distinct_rows_are_given_once_and_only_added() {
    let job = pipeline("song BIGINT) WITH ('connector' = 'filesystem')", "SELECT DISTINCT song FROM plays");
    let mut shard = Shard::new(&job);
    let given = |rows: RecordBatch| rows.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    assert_eq!(given(shard.commit(&[(Some(3), 0.0), (None, 0.0), (Some(3), 1.0)])), [Some(3), None]);
    assert_eq!(given(shard.commit(&[(Some(3), 0.0), (Some(4), 0.0), (None, 0.0)])), [Some(4)]);
}

#[test]
fn one_result_for_all_rows_needs_no_key() {
    let job = pipeline("n BIGINT, total DOUBLE) WITH ('connector' = 'print')", "SELECT COUNT(*), SUM(score) FROM plays");
    let mut shard = Shard::new(&job);
    let counts = |rows: &RecordBatch| rows.column(1).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(counts(&shard.commit(&[(None, 1.0)])), [1]);
    assert_eq!(counts(&shard.commit(&[(None, 1.0), (Some(1), 2.0)])), [1, 3]);
    let mut restored = Shard::new(&job);
    shard.checkpoint(Extent::Whole).iter().for_each(|rows| restored.merge.restore(rows).expect("rows of a checkpoint"));
    assert_eq!(shard.commit(&[(None, 1.0)]), restored.commit(&[(None, 1.0)]));
}

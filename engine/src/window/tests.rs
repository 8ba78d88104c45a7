//! A shard that spills gives the same bits as one that does not, whatever it is asked and when.

use datafusion::arrow::array::{Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
use futures::executor::block_on;

use super::*;
use crate::LaneOperator;

const KEY_GROUPS: u16 = 720;
const JOB: &str = "
CREATE TABLE plays (song BIGINT, name STRING, score DOUBLE, etime TIMESTAMP(3), WATERMARK FOR etime AS etime)
  WITH ('connector' = 'plays');
CREATE TABLE best (window_start TIMESTAMP(3), song BIGINT, n BIGINT, total DOUBLE, mean DOUBLE,
  spread DOUBLE, spread_2 DOUBLE, together DOUBLE, alike DOUBLE, first_name STRING)
  WITH ('connector' = 'blackhole');
INSERT INTO best
SELECT window_start, song, COUNT(*), SUM(score), AVG(score), VAR_SAMP(score), STDDEV_POP(score), COVAR_SAMP(score, song),
  CORR(score, song), MIN(name)
FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND))
GROUP BY window_start, window_end, song;";

fn pipeline() -> Pipeline {
    block_on(weir_plan::compile(JOB)).expect("the job compiles").pipelines.remove(0)
}

/// Rows whose doubles do not add up exactly, over windows `0..windows`.
fn rows(schema: &SchemaRef, seed: u64, count: usize, windows: u64) -> RecordBatch {
    let draw = |row: usize, field: u64| {
        let mut z = (seed << 40) ^ ((row as u64) << 8) ^ field;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let songs = Int64Array::from_iter((0..count).map(|row| (draw(row, 1) % 17 != 0).then(|| (draw(row, 2) % 5_000) as i64)));
    let names = StringArray::from_iter((0..count).map(|row| Some(format!("name {}", draw(row, 3) % 1_000))));
    let scores = Float64Array::from_iter((0..count).map(|row| Some(draw(row, 4) as f64 / 3e17)));
    let times = (0..count).map(|row| (draw(row, 5) % (windows * 10_000)) as i64);
    let columns: Vec<ArrayRef> =
        vec![Arc::new(songs), Arc::new(names), Arc::new(scores), Arc::new(TimestampMillisecondArray::from_iter_values(times))];
    RecordBatch::try_new(Arc::clone(schema), columns).expect("rows of the job's columns")
}

fn merge(bytes_max: usize) -> WindowOperator {
    let budget = StateBudget { bytes_max, ..StateBudget::default() };
    block_on(WindowOperator::new(&pipeline(), KEY_GROUPS, budget)).expect("it plans").expect("it has a window")
}

/// Partials of epochs whose watermark stays behind every row, and the rows that travel as rows.
fn epochs(count: u64) -> Vec<crate::LaneEpoch> {
    (0..count)
        .map(|epoch| {
            // Odd lanes are far ahead: all their rows travel as rows.
            let watermark = if epoch % 3 == 2 { Watermark(i64::MAX / 2) } else { Watermark::NONE };
            let mut lane = block_on(LaneOperator::new(&pipeline(), KEY_GROUPS, watermark)).expect("it plans");
            let batch = rows(&Arc::clone(lane.source_schema()), epoch, 20_000, 4);
            block_on(lane.push(batch, i64::MAX)).expect("rows are taken");
            lane.finish().expect("an epoch ends")
        })
        .collect()
}

fn fold(operator: &mut WindowOperator, epoch: &crate::LaneEpoch) {
    for partial in &epoch.partials {
        operator.merge(partial).expect("partials fold");
    }
    if let Some(behind) = &epoch.behind {
        assert!(block_on(operator.merge_behind(behind, Watermark::NONE)).expect("rows fold").is_none(), "none is late");
    }
}

fn checkpoint(operator: &mut WindowOperator) -> RecordBatch {
    let mut pass = PanePass::default();
    let mut parts = Vec::new();
    while let Some(rows) = operator.checkpoint(&mut pass).expect("the state is given") {
        parts.push(rows);
    }
    datafusion::arrow::compute::concat_batches(operator.partial_schema(), &parts).expect("parts of one schema")
}

fn fired(operator: &mut WindowOperator, after: Watermark) -> RecordBatch {
    let batches = block_on(operator.fire(Moment { after, early: false })).expect("it fires");
    datafusion::arrow::compute::concat_batches(operator.output_schema(), &batches).expect("batches of one schema")
}

#[test]
fn a_shard_that_fires_in_parts_cuts_at_the_same_rows_wherever_its_panes_lie() {
    let epochs = epochs(3);
    let (mut whole, mut held, mut spilling) = (merge(usize::MAX), merge(usize::MAX), merge(0));
    for operator in [&mut whole, &mut held, &mut spilling] {
        epochs.iter().for_each(|epoch| fold(operator, epoch));
    }
    assert!(spilling.spilled_panes() > 0);
    let all = fired(&mut whole, Watermark::INFINITY);
    let mut parts = Vec::new();
    // A divisor and a number that is none of the rows of a pane; the sizes of buckets are neither.
    for (rows_max, watermark) in [(4_000, Watermark(20_000_000)), (7_777, Watermark::INFINITY)] {
        (held.fired_rows_max, spilling.fired_rows_max) = (rows_max, rows_max);
        while held.is_due(watermark) {
            assert!(spilling.is_due(watermark));
            let part = fired(&mut held, watermark);
            assert_eq!(part, fired(&mut spilling, watermark));
            assert!(part.num_rows() == rows_max || !held.is_due(watermark), "{} rows", part.num_rows());
            parts.push(part);
            assert_eq!((held.act_at(), held.is_firing()), (spilling.act_at(), spilling.is_firing()));
        }
        assert!(!spilling.is_due(watermark) && !held.is_firing());
    }
    let parts = datafusion::arrow::compute::concat_batches(all.schema_ref(), &parts).expect("parts of one schema");
    assert_eq!(parts, all);
    assert_eq!((held.open_panes(), spilling.open_panes(), spilling.bytes()), (0, 0, 0));
}

#[test]
fn a_shard_that_spills_gives_the_same_bits() {
    let epochs = epochs(9);
    for budget in [0, 200 << 10, 2 << 20] {
        let (mut held, mut spilling) = (merge(usize::MAX), merge(budget));
        for (number, epoch) in epochs.iter().enumerate() {
            fold(&mut held, epoch);
            fold(&mut spilling, epoch);
            assert!(budget > 1 << 20 || spilling.spilled_panes() > 0, "budget {budget}: nothing was spilled");
            if number == 4 {
                assert_eq!(checkpoint(&mut held), checkpoint(&mut spilling), "budget {budget}");
            }
            if number == 6 {
                let watermark = Watermark(20_000_000);
                let rows = fired(&mut held, watermark);
                assert_eq!(rows, fired(&mut spilling, watermark), "budget {budget}");
                assert!(rows.num_rows() > 9_000);
            }
        }
        assert_eq!(held.act_at(), spilling.act_at());
        assert_eq!(fired(&mut held, Watermark::INFINITY), fired(&mut spilling, Watermark::INFINITY));
        assert_eq!((spilling.open_panes(), spilling.bytes()), (0, 0));
    }
}

#[test]
fn a_restored_shard_goes_on_with_the_same_bits() {
    let epochs = epochs(4);
    let (mut live, mut restored) = (merge(usize::MAX), merge(100 << 10));
    epochs[..2].iter().for_each(|epoch| fold(&mut live, epoch));
    restored.merge(&checkpoint(&mut live)).expect("a checkpoint folds");
    for epoch in &epochs[2..] {
        fold(&mut live, epoch);
        fold(&mut restored, epoch);
    }
    assert_eq!(checkpoint(&mut live), checkpoint(&mut restored));
}

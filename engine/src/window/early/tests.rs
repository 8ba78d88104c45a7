//! The last result of each group is that of a window that fires once, whatever was given before; where the panes lie and how often the shard
//! is restored changes no bit.

use std::collections::BTreeMap;

use datafusion::arrow::array::{Int64Array, TimestampMillisecondArray};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::Int64Type;
use futures::executor::block_on;
use weir_plan::Pipeline;

use super::*;
use crate::{LaneOperator, StateBudget};

const KEY_GROUPS: u16 = 720;
const SECOND: i64 = 1_000_000;

/// Rows and scores of a song.
const ALL: &str = "COUNT(*), SUM(score)";
/// The same of the scores that differ.
const DIFFERENT: &str = "COUNT(DISTINCT score), SUM(DISTINCT score)";

fn pipeline(lateness: &str, emit: &str) -> Pipeline {
    pipeline_of(ALL, lateness, emit)
}

/// - `lateness`: of the source. - `emit`: after the query, HAVING too.
fn pipeline_of(aggregates: &str, lateness: &str, emit: &str) -> Pipeline {
    let sql = format!(
        "CREATE TABLE plays (song BIGINT, score BIGINT, etime TIMESTAMP(3), WATERMARK FOR etime AS etime)
           WITH ('connector' = 'plays'{lateness});
         CREATE TABLE best (window_start TIMESTAMP(3), song BIGINT, n BIGINT, total BIGINT, why STRING,
           PRIMARY KEY (window_start, song) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'best', 'format' = 'json');
         INSERT INTO best SELECT window_start, song, {aggregates}, FIRING()
         FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, song {emit};"
    );
    block_on(weir_plan::compile(&sql)).expect("the job compiles").pipelines.remove(0)
}

const LATENESS: &str = ", 'allowed-lateness' = '20 s'";
const EVERY: &str = "EMIT EVERY INTERVAL '1' SECOND";

fn operator(pipeline: &Pipeline, bytes_max: usize) -> WindowOperator {
    let budget = StateBudget { bytes_max, ..StateBudget::default() };
    block_on(WindowOperator::new(pipeline, KEY_GROUPS, budget)).expect("it plans").expect("it has a window")
}

/// Rows `(song, score, second)` as a lane at `watermark` hands them on.
fn epoch(pipeline: &Pipeline, watermark: Watermark, rows: &[(i64, i64, i64)]) -> crate::LaneEpoch {
    let mut lane = block_on(LaneOperator::new(pipeline, KEY_GROUPS, watermark)).expect("it plans");
    let column = |at: fn(&(i64, i64, i64)) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(at))) };
    let times = TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.2 * 1_000));
    let columns = vec![column(|row| row.0), column(|row| row.1), Arc::new(times) as ArrayRef];
    let batch = RecordBatch::try_new(Arc::clone(lane.source_schema()), columns).expect("rows of the job's columns");
    block_on(lane.push(batch, i64::MAX)).expect("rows are taken");
    lane.finish().expect("an epoch ends")
}

/// Folds an epoch; returns how many of its rows came too late.
fn fold(operator: &mut WindowOperator, epoch: &crate::LaneEpoch, before: Watermark) -> usize {
    epoch.partials.iter().for_each(|partial| operator.merge(partial).expect("partials fold"));
    let behind = epoch.behind.as_ref().map(|behind| block_on(operator.merge_behind(behind, before)).expect("rows fold"));
    behind.flatten().map_or(0, |late| late.num_rows())
}

fn fire(operator: &mut WindowOperator, after: i64, early: bool) -> RecordBatch {
    let moment = Moment { after: Watermark(after), early };
    let given = block_on(operator.fire(moment)).expect("it fires");
    concat_batches(operator.output_schema(), &given).expect("batches of one schema")
}

/// `op window-second song n total why` of each row, sorted.
fn shown(rows: &RecordBatch) -> Vec<String> {
    let number = |column: usize, row: usize| rows.column(column).as_primitive::<Int64Type>().value(row);
    let starts = rows.column(1).as_primitive::<datafusion::arrow::datatypes::TimestampMillisecondType>();
    let why = rows.column(5).as_string::<i32>();
    let op = |row: usize| Op::ALL[rows.column(0).as_primitive::<Int8Type>().value(row) as usize].sign();
    let line = |row| {
        format!(
            "{} {} {} {} {} {}",
            op(row),
            starts.value(row) / 1_000,
            number(2, row),
            number(3, row),
            number(4, row),
            why.value(row)
        )
    };
    let mut lines: Vec<String> = (0..rows.num_rows()).map(line).collect();
    lines.sort();
    lines
}

#[test]
fn open_windows_give_what_has_changed_and_closed_ones_everything() {
    let pipeline = pipeline("", EVERY);
    let mut operator = operator(&pipeline, usize::MAX);
    fold(&mut operator, &epoch(&pipeline, Watermark::NONE, &[(1, 5, 0), (2, 7, 1), (1, 1, 12)]), Watermark::NONE);
    assert!(operator.has_news());
    assert_eq!(shown(&fire(&mut operator, 0, true)), ["+I 0 1 1 5 early", "+I 0 2 1 7 early", "+I 10 1 1 1 early"]);
    assert!(!operator.has_news());
    assert_eq!(fire(&mut operator, 0, true).num_rows(), 0, "nothing has changed");
    fold(&mut operator, &epoch(&pipeline, Watermark::NONE, &[(2, 1, 2), (3, 1, 13)]), Watermark::NONE);
    assert_eq!(fire(&mut operator, 0, false).num_rows(), 0, "nobody asked");
    assert_eq!(
        shown(&fire(&mut operator, 10 * SECOND, true)),
        ["+I 10 3 1 1 early", "+U 0 1 1 5 on-time", "+U 0 2 2 8 on-time"],
        "a window that closes gives all of its groups, and only the others are early"
    );
    assert_eq!(shown(&fire(&mut operator, i64::MAX, false)), ["+U 10 1 1 1 on-time", "+U 10 3 1 1 on-time"]);
    assert_eq!(operator.open_panes(), 0);
}

#[test]
fn a_value_counts_once_however_often_its_window_gives_results() {
    let pipeline = pipeline_of(DIFFERENT, "", EVERY);
    let mut operator = operator(&pipeline, usize::MAX);
    let mut after = |rows: &[(i64, i64, i64)], watermark: i64| {
        fold(&mut operator, &epoch(&pipeline, Watermark::NONE, rows), Watermark::NONE);
        shown(&fire(&mut operator, watermark, true))
    };
    assert_eq!(after(&[(1, 5, 0), (1, 5, 1), (2, 7, 1)], 0), ["+I 0 1 1 5 early", "+I 0 2 1 7 early"]);
    assert_eq!(after(&[(2, 7, 2), (2, 1, 2)], 0), ["+U 0 2 2 8 early"]);
    assert_eq!(after(&[(1, 5, 2)], 10 * SECOND), ["+U 0 1 1 5 on-time", "+U 0 2 2 8 on-time"]);
}

#[test]
fn a_row_within_the_allowed_lateness_gives_its_result_anew_and_one_beyond_it_is_late() {
    let pipeline = pipeline(LATENESS, "");
    let mut operator = operator(&pipeline, usize::MAX);
    fold(&mut operator, &epoch(&pipeline, Watermark::NONE, &[(1, 5, 0), (2, 7, 1)]), Watermark::NONE);
    assert_eq!(operator.act_at(), Some(Watermark(10 * SECOND)));
    let on_time = fire(&mut operator, 12 * SECOND, false);
    assert_eq!(shown(&on_time), ["+I 0 1 1 5 on-time", "+I 0 2 1 7 on-time"]);
    assert_eq!(
        (operator.open_panes(), operator.act_at()),
        (1, Some(Watermark(30 * SECOND))),
        "it stays until it takes no rows any more"
    );

    let behind = epoch(&pipeline, Watermark(12 * SECOND), &[(1, 1, 3), (9, 1, 4), (8, 1, -10)]);
    assert_eq!(fold(&mut operator, &behind, Watermark(12 * SECOND)), 0);
    let late = ["+I -10 8 1 1 late", "+I 0 9 1 1 late", "+U 0 1 2 6 late"];
    assert_eq!(shown(&fire(&mut operator, 12 * SECOND, false)), late, "a window that had no rows is late too");
    assert_eq!(fire(&mut operator, 29 * SECOND, false).num_rows(), 0);

    let behind = epoch(&pipeline, Watermark(30 * SECOND), &[(1, 1, 3), (1, 1, 11)]);
    assert_eq!(fold(&mut operator, &behind, Watermark(30 * SECOND)), 1, "30 s are the end of the first window's lateness");
    assert_eq!(shown(&fire(&mut operator, 30 * SECOND, false)), ["+I 10 1 1 1 late"]);
    assert_eq!(operator.open_panes(), 1, "the first has gone");
}

/// Numbers that follow from `seed` alone.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((self.0 >> 33) % end).expect("a small number")
    }
}

fn restored(pipeline: &Pipeline, from: &mut WindowOperator, watermark: i64) -> WindowOperator {
    let mut fresh = operator(pipeline, usize::MAX);
    let mut pass = PanePass::default();
    while let Some(rows) = from.checkpoint(&mut pass).expect("the state is given") {
        fresh.merge(&rows).expect("it is taken back");
    }
    fresh.stand_at(Watermark(watermark));
    fresh
}

/// Newest row of each key.
fn apply(table: &mut BTreeMap<String, String>, rows: &RecordBatch) {
    for line in shown(rows) {
        let (key, value) = line[3..].match_indices(' ').nth(1).map(|(at, _)| line[3..].split_at(at)).expect("two key columns");
        let value = value.rsplit_once(' ').expect("why").0.to_owned();
        let before = if line.starts_with("-D") { table.remove(key) } else { table.insert(key.to_owned(), value) };
        assert_eq!(before.is_none(), line.starts_with("+I"), "{line}");
    }
}

const ODD: &str = "HAVING COUNT(*) % 2 = 1";

#[test]
fn a_result_that_no_longer_meets_the_condition_is_taken_back() {
    let pipeline = pipeline(LATENESS, &format!("{ODD} {EVERY}"));
    let mut operator = operator(&pipeline, usize::MAX);
    let mut after = |rows: &[(i64, i64, i64)], watermark: i64| {
        let before = Watermark(watermark.min(0));
        fold(&mut operator, &epoch(&pipeline, Watermark::NONE, rows), before);
        shown(&fire(&mut operator, watermark, true))
    };
    assert_eq!(after(&[(1, 5, 0), (2, 7, 1), (2, 7, 1)], 0), ["+I 0 1 1 5 early"]);
    assert_eq!(after(&[(1, 5, 0)], 0), ["-D 0 1 2 10 early"]);
    assert_eq!(after(&[], 0), Vec::<String>::new(), "it was taken back once");
    assert_eq!(after(&[(1, 1, 0), (2, 1, 1), (2, 1, 1)], 0), ["+I 0 1 3 11 early"], "the other one never met it");
    assert_eq!(after(&[(3, 1, 2)], 10 * SECOND), ["+I 0 3 1 1 on-time", "+U 0 1 3 11 on-time"], "all that meet it");
    assert_eq!(after(&[(2, 1, 2), (3, 1, 2)], 11 * SECOND), ["+I 0 2 5 17 late", "-D 0 3 2 2 late"]);
}

#[test]
fn neither_disk_nor_restores_nor_what_was_given_before_change_the_results() {
    let ways =
        [("", EVERY, 1 << 19), (LATENESS, "", 1 << 19), (LATENESS, EVERY, 1 << 19), ("", EVERY, 40), (LATENESS, EVERY, 40)];
    let ways = ways.into_iter().flat_map(|way| [(way, ""), (way, ODD)]);
    let ways = ways.flat_map(|way| [(way, ALL), (way, DIFFERENT)]);
    for (seed, (((lateness, emit, rows_max), having), aggregates)) in ways.enumerate() {
        let mut draw = Draw(seed as u64);
        let pipeline = pipeline_of(aggregates, lateness, &format!("{having} {emit}"));
        let (mut held, mut spilling, mut moving) =
            (operator(&pipeline, usize::MAX), operator(&pipeline, 0), operator(&pipeline, usize::MAX));
        for operator in [&mut held, &mut spilling, &mut moving] {
            operator.fired_rows_max = rows_max;
        }
        let (mut table, mut expected) = (BTreeMap::new(), BTreeMap::<(i64, i64), Vec<i64>>::new());
        let mut watermark = 0;
        let (mut spilled, mut moved) = (0, 0);
        for step in 0..60 {
            let rows: Vec<_> =
                (0..300).map(|_| (draw.below(200), draw.below(9), watermark / SECOND + draw.below(40) - 15)).collect();
            let taken =
                |second: i64| second.div_euclid(10) * 10 + 10 + if lateness.is_empty() { 0 } else { 20 } > watermark / SECOND;
            for (song, score, second) in rows.iter().filter(|row| taken(row.2)) {
                expected.entry((second.div_euclid(10) * 10, *song)).or_default().push(*score);
            }
            let epoch = epoch(&pipeline, Watermark(watermark), &rows);
            let after = if step == 59 { i64::MAX } else { watermark + draw.below(8) * SECOND };
            let early = draw.below(3) == 0;
            let too_late = [&mut held, &mut spilling, &mut moving].map(|operator| fold(operator, &epoch, Watermark(watermark)));
            assert_eq!(too_late, [rows.iter().filter(|row| !taken(row.2)).count(); 3]);
            spilled += spilling.spilled_panes();
            loop {
                let given = [&mut held, &mut spilling, &mut moving].map(|operator| fire(operator, after, early));
                assert_eq!(given[0], given[1], "seed {seed}, step {step}");
                assert_eq!(given[0], given[2], "seed {seed}, step {step}");
                apply(&mut table, &given[0]);
                if !held.is_firing() {
                    break;
                }
            }
            watermark = after;
            if !moving.is_firing() && draw.below(4) == 0 {
                // A checkpoint is taken of all three: whoever goes on from rows has the bits of whoever is restored from them.
                for operator in [&mut held, &mut spilling] {
                    let mut pass = PanePass::default();
                    while operator.checkpoint(&mut pass).expect("the state is given").is_some() {}
                }
                moving = restored(&pipeline, &mut moving, watermark);
                moving.fired_rows_max = rows_max;
                moved += 1;
            }
        }
        assert!(spilled > 0 && moved > 0, "neither disk nor restores were tried");
        let given = expected.into_iter().filter(|(_, scores)| having.is_empty() || scores.len() % 2 == 1);
        let line = |((start, song), mut scores): ((i64, i64), Vec<i64>)| {
            if aggregates == DIFFERENT {
                scores.sort_unstable();
                scores.dedup();
            }
            (format!("{start} {song}"), format!(" {} {}", scores.len(), scores.iter().sum::<i64>()))
        };
        let expected: BTreeMap<String, String> = given.map(line).collect();
        assert_eq!(table, expected, "seed {seed}");
        assert_eq!([held.open_panes(), spilling.open_panes(), moving.open_panes()], [0; 3]);
    }
}

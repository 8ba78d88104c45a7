//! DISTINCT aggregates are those of each group's set of values, however the rows are cut, stored and restored.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::arrow::array::{Float64Array, Int64Array, TimestampMillisecondArray};
use datafusion::arrow::datatypes::{Int8Type, Int64Type, UInt8Type, UInt16Type, UInt64Type};
use futures::executor::block_on;
use weir_model::Watermark;
use weir_plan::{Op, Pipeline};

use super::*;
use crate::{CheckpointPass, Extent, LaneOperator, MergeOperator, StateBudget};

const KEY_GROUPS: u16 = 720;

/// Results: song, count, distinct listeners, those of high scores, distinct scores of listeners below 30, their sum.
const CALLS: &str = "COUNT(*), COUNT(DISTINCT who), COUNT(DISTINCT who) FILTER (WHERE score > 0), COUNT(DISTINCT score)
  FILTER (WHERE who < 30), SUM(DISTINCT score) FILTER (WHERE who < 30)";
const COLUMNS: &str = "song BIGINT, n BIGINT, people BIGINT, fans BIGINT, scores BIGINT, total DOUBLE";
const KEYED: &str = "PRIMARY KEY (song) NOT ENFORCED) WITH ('connector' = 'filesystem')";
const WINDOW: &str = "TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND))";

fn pipeline(sink: &str, query: &str) -> Pipeline {
    let script = format!(
        "CREATE TABLE plays (song BIGINT, who BIGINT, score DOUBLE, etime TIMESTAMP(3), WATERMARK FOR etime AS etime)
           WITH ('connector' = 'plays');
         CREATE TABLE best ({sink};
         INSERT INTO best {query};"
    );
    block_on(weir_plan::compile(&script)).unwrap_or_else(|error| panic!("{error}")).pipelines.remove(0)
}

fn updating() -> Pipeline {
    pipeline(&format!("{COLUMNS}, {KEYED}"), &format!("SELECT song, {CALLS} FROM plays GROUP BY song"))
}

fn windowed() -> Pipeline {
    let query = format!("SELECT song, {CALLS} FROM {WINDOW} GROUP BY window_start, window_end, song");
    pipeline(&format!("{COLUMNS}) WITH ('connector' = 'blackhole')"), &query)
}

#[derive(Debug, Clone, Copy)]
struct Play {
    song: Option<i64>,
    who: Option<i64>,
    score: Option<f64>,
}

fn play(song: i64, who: i64, score: f64) -> Play {
    Play { song: Some(song), who: Some(who), score: Some(score) }
}

fn draw(seed: u64) -> u64 {
    let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Plays of commit `number`; songs, listeners and scores repeat within and over commits, some are NULL.
fn plays(number: u64, count: u64) -> Vec<Play> {
    let below = |drawn: u64, limit: u64| i64::try_from(drawn % limit).expect("small");
    (0..count)
        .map(|row| {
            let drawn = draw((number << 32) | row);
            Play {
                song: (!drawn.is_multiple_of(13)).then(|| below(drawn, 20 + number)),
                who: (!drawn.is_multiple_of(7)).then(|| below(drawn >> 8, 60)),
                score: (!drawn.is_multiple_of(5)).then(|| ((drawn >> 16) % 40) as f64 / 3.0 - 3.0),
            }
        })
        .collect()
}

struct Shard {
    lane: LaneOperator,
    merge: MergeOperator,
}

impl Shard {
    fn new(pipeline: &Pipeline, bytes_max: usize) -> Self {
        let budget = StateBudget { bytes_max, ..StateBudget::default() };
        let merge = block_on(MergeOperator::new(pipeline, 0, KEY_GROUPS, budget)).expect("it plans");
        let lane = block_on(LaneOperator::new(pipeline, KEY_GROUPS, Watermark::NONE)).expect("it plans");
        Self { lane, merge: merge.expect("it has an aggregate") }
    }

    /// Partials of one epoch of the lane.
    fn partials(&mut self, plays: &[Play]) -> Vec<RecordBatch> {
        let schema = Arc::clone(self.lane.source_schema());
        let column = |name: &str| -> ArrayRef {
            match name {
                "song" => Arc::new(Int64Array::from_iter(plays.iter().map(|play| play.song))),
                "who" => Arc::new(Int64Array::from_iter(plays.iter().map(|play| play.who))),
                "score" => Arc::new(Float64Array::from_iter(plays.iter().map(|play| play.score))),
                _ => Arc::new(TimestampMillisecondArray::from_iter_values(plays.iter().map(|_| 1_000))),
            }
        };
        let columns = schema.fields().iter().map(|field| column(field.name())).collect();
        let batch = RecordBatch::try_new(schema, columns).expect("rows of the job's columns");
        block_on(self.lane.push(batch, i64::MAX)).expect("rows are taken");
        self.lane.finish().expect("an epoch ends").partials
    }

    fn fold(&mut self, plays: &[Play]) {
        for partial in self.partials(plays) {
            self.merge.merge(&partial).expect("partials fold");
        }
    }

    fn fire(&mut self, after: Watermark) -> RecordBatch {
        let given = block_on(self.merge.fire(crate::Moment { after, early: false })).expect("results are given");
        concat_batches(self.merge.output_schema(), &given).expect("batches of one schema")
    }

    /// One commit of a lane and one of its receiver.
    fn commit(&mut self, plays: &[Play]) -> RecordBatch {
        self.fold(plays);
        self.fire(Watermark::NONE)
    }

    fn checkpoint(&mut self, extent: Extent) -> Vec<RecordBatch> {
        let mut pass: CheckpointPass = self.merge.begin_checkpoint(extent);
        std::iter::from_fn(|| self.merge.checkpoint(&mut pass).expect("the state is given")).collect()
    }
}

/// What is counted of one song, and the sum.
type Counts = ([i64; 4], Option<f64>);

#[derive(Default)]
struct Expected {
    n: i64,
    people: BTreeSet<i64>,
    fans: BTreeSet<i64>,
    scores: BTreeSet<u64>,
}

impl Expected {
    fn add(&mut self, play: Play) {
        self.n += 1;
        self.people.extend(play.who);
        self.fans.extend(play.who.filter(|_| play.score.is_some_and(|score| score > 0.0)));
        self.scores.extend(play.score.filter(|_| play.who.is_some_and(|who| who < 30)).map(f64::to_bits));
    }

    fn counts(&self) -> Counts {
        let count = |count: usize| i64::try_from(count).expect("small");
        let total = self.scores.iter().map(|bits| f64::from_bits(*bits)).sum();
        let counts = [self.n, count(self.people.len()), count(self.fans.len()), count(self.scores.len())];
        (counts, (!self.scores.is_empty()).then_some(total))
    }
}

fn expected(plays: impl IntoIterator<Item = Play>) -> BTreeMap<Option<i64>, Counts> {
    let mut songs: BTreeMap<Option<i64>, Expected> = BTreeMap::new();
    plays.into_iter().for_each(|play| songs.entry(play.song).or_default().add(play));
    songs.into_iter().map(|(song, expected)| (song, expected.counts())).collect()
}

/// Results by song; `first` is the place of the song.
fn results(rows: &RecordBatch, first: usize) -> BTreeMap<Option<i64>, Counts> {
    let column = |place: usize| rows.column(first + place).as_primitive::<Int64Type>();
    let songs = column(0).iter();
    let totals = rows.column(first + 5).as_primitive::<Float64Type>().iter();
    let result = |(row, (song, total))| (song, ([1, 2, 3, 4].map(|place| column(place).value(row)), total));
    songs.zip(totals).enumerate().map(result).collect()
}

fn assert_close(found: &BTreeMap<Option<i64>, Counts>, expected: &BTreeMap<Option<i64>, Counts>) {
    assert!(found.keys().eq(expected.keys()));
    for (song, (counts, total)) in expected {
        assert_eq!(found[song].0, *counts, "song {song:?}");
        let differs = found[song].1.zip(*total).map_or(0.0, |(found, total)| found - total);
        assert!(
            found[song].1.is_some() == total.is_some() && differs.abs() < 1e-9,
            "song {song:?}: {:?}, {total:?}",
            found[song].1
        );
    }
}

#[test]
fn a_changelog_applied_by_key_is_the_aggregate_of_each_keys_sets() {
    let mut shard = Shard::new(&updating(), usize::MAX);
    let mut applied = BTreeMap::new();
    let mut all = Vec::new();
    for number in 0..30 {
        let plays = plays(number, 250);
        applied.extend(results(&shard.commit(&plays), 1));
        all.extend(plays);
        assert_close(&applied, &expected(all.iter().copied()));
    }
    let elements = applied.values().map(|(counts, _)| counts[1] + counts[3]).sum::<i64>();
    assert!(
        i64::try_from(shard.merge.groups() - applied.len()).expect("small") >= elements,
        "values without a condition count too"
    );
}

#[test]
fn a_shard_restored_from_parts_goes_on_with_the_same_bits() {
    let job = updating();
    let mut live = Shard::new(&job, usize::MAX);
    let mut objects: Vec<Vec<RecordBatch>> = Vec::new();
    for number in 0..20 {
        live.commit(&plays(number, 200));
        if number % 5 == 3 {
            let extent = if objects.is_empty() { Extent::Whole } else { Extent::Changed };
            let stored = live.checkpoint(extent);
            let count: usize = stored.iter().map(RecordBatch::num_rows).sum();
            assert!(count > 0 && live.merge.changed() == Some(0));
            assert!(extent == Extent::Whole || count < live.merge.groups(), "{count} rows of a part");
            objects.push(stored);
            let mut restored = Shard::new(&job, usize::MAX);
            objects.iter().flatten().for_each(|rows| restored.merge.restore(rows).expect("rows of a checkpoint"));
            assert_eq!(live.merge.groups(), restored.merge.groups());
            for more in [number + 100, number + 200] {
                assert_eq!(live.commit(&plays(more, 300)), restored.commit(&plays(more, 300)), "commit {number}");
            }
            assert_eq!(restored.merge.changed(), live.merge.changed());
            live = restored;
        }
    }
    let whole = live.checkpoint(Extent::Whole);
    for rows in &whole {
        assert!(rows.column(0).as_primitive::<UInt16Type>().values().is_sorted(), "rows are sorted by key group");
    }
    let mut restored = Shard::new(&job, usize::MAX);
    whole.iter().for_each(|rows| restored.merge.restore(rows).expect("rows of a checkpoint"));
    assert_eq!(whole, restored.checkpoint(Extent::Whole));
}

#[test]
fn the_present_results_are_those_of_all_rows() {
    let mut shard = Shard::new(&updating(), usize::MAX);
    let all: Vec<Play> = (0..9).flat_map(|number| plays(number, 100)).collect();
    for part in all.chunks(130) {
        shard.commit(part);
    }
    let schema = Arc::clone(shard.merge.output_schema());
    let present = block_on(shard.merge.into_present()).expect("results are given");
    let present = concat_batches(&schema, &present).expect("batches of one schema");
    assert!(present.column(0).as_primitive::<Int8Type>().values().iter().all(|op| *op == Op::Insert as i8));
    assert_close(&results(&present, 1), &expected(all));
}

#[test]
fn a_value_that_was_seen_says_nothing_and_one_that_meets_a_new_condition_does() {
    let calls = "COUNT(DISTINCT who), COUNT(DISTINCT who) FILTER (WHERE score > 0)";
    let sink = format!("song BIGINT, people BIGINT, fans BIGINT, {KEYED}");
    let mut shard = Shard::new(&pipeline(&sink, &format!("SELECT song, {calls} FROM plays GROUP BY song")), usize::MAX);
    let mut said = |plays: &[Play]| {
        let rows = shard.commit(plays);
        let columns = [1, 2, 3].map(|column| rows.column(column).as_primitive::<Int64Type>().values().to_vec());
        (0..rows.num_rows()).map(|row| [columns[0][row], columns[1][row], columns[2][row]]).collect::<Vec<_>>()
    };
    assert_eq!(said(&[play(1, 7, -1.0), play(1, 7, -2.0), play(2, 7, 1.0)]), [[1, 1, 0], [2, 1, 1]]);
    assert_eq!(said(&[play(1, 7, 0.0), play(2, 7, 5.0)]), [[0i64; 3]; 0]);
    assert_eq!(said(&[play(1, 7, 1.0), play(2, 7, -5.0)]), [[1, 1, 1]]);
    assert_eq!(said(&[Play { who: None, ..play(2, 0, 1.0) }]), [[0i64; 3]; 0], "NULL is no value");
}

#[test]
fn a_key_without_a_value_has_a_count_of_0_and_no_sum_whatever_others_have() {
    let mut shard = Shard::new(&updating(), usize::MAX);
    let none = |song: i64| Play { who: None, ..play(song, 0, 9.0) };
    let totals = |rows: &RecordBatch| results(rows, 1).into_iter().map(|(song, (counts, total))| (song, (counts[3], total)));
    let of = |rows: &RecordBatch| totals(rows).collect::<BTreeMap<_, _>>();
    let first = of(&shard.commit(&[none(1), play(2, 5, 2.5), none(3)]));
    assert_eq!(first, BTreeMap::from([(Some(1), (0, None)), (Some(2), (1, Some(2.5))), (Some(3), (0, None))]));
    let second = of(&shard.commit(&[none(4), play(3, 5, 4.0), none(1), play(2, 50, 7.0)]));
    let expected = [(Some(1), (0, None)), (Some(2), (1, Some(2.5))), (Some(3), (1, Some(4.0))), (Some(4), (0, None))];
    assert_eq!(second, BTreeMap::from(expected));
}

#[test]
fn zeros_are_one_value_and_so_are_all_that_are_not_a_number() {
    let odd = f64::from_bits(f64::NAN.to_bits() | 1);
    let scores = [0.0, -0.0, f64::NAN, -f64::NAN, odd, 1.0];
    let plays: Vec<Play> = scores.map(|score| play(1, 5, score)).to_vec();
    for job in [updating(), windowed()] {
        let mut shard = Shard::new(&job, usize::MAX);
        plays.chunks(2).for_each(|plays| shard.fold(plays));
        let rows = shard.fire(Watermark::INFINITY);
        let first = rows.num_columns() - 6;
        let (counts, total) = results(&rows, first)[&Some(1)];
        assert!(counts == [6, 1, 1, 3] && total.is_some_and(f64::is_nan), "{counts:?} {total:?}");
    }
}

#[test]
fn a_window_gives_the_aggregates_of_its_sets_wherever_it_lies() {
    let job = windowed();
    let all: Vec<Vec<Play>> = (0..12).map(|number| plays(number, 400)).collect();
    let (mut held, mut spilling, mut restored) =
        (Shard::new(&job, usize::MAX), Shard::new(&job, 0), Shard::new(&job, usize::MAX));
    for (number, plays) in all.iter().enumerate() {
        for shard in [&mut held, &mut spilling, &mut restored] {
            shard.fold(plays);
        }
        if number % 4 == 1 {
            let stored = held.checkpoint(Extent::Whole);
            assert_eq!(stored.iter().map(RecordBatch::num_rows).sum::<usize>(), held.merge.groups());
            restored = Shard::new(&job, usize::MAX);
            stored.iter().for_each(|rows| restored.merge.restore(rows).expect("rows of a checkpoint"));
        }
    }
    assert!(spilling.merge.groups() == 0 && held.merge.groups() > 1_000, "one of them lies on disk");
    let fired = held.fire(Watermark::INFINITY);
    assert_close(&results(&fired, 0), &expected(all.into_iter().flatten()));
    assert_eq!(fired, spilling.fire(Watermark::INFINITY));
    assert_eq!(fired, restored.fire(Watermark::INFINITY));
    assert_eq!(held.merge.open_panes(), 0);
}

#[test]
fn a_lane_sends_each_value_once_and_its_group_first() {
    let mut shard = Shard::new(&updating(), usize::MAX);
    let plays: Vec<Play> = (0..1_000).map(|row| play(row % 3, row % 20, 1.0)).collect();
    let partials = shard.partials(&plays);
    let [rows] = partials.as_slice() else { panic!("one batch, not {}", partials.len()) };
    // Of each song its row, 20 listeners and one score.
    assert_eq!(rows.num_rows(), 3 * (1 + 20 + 1));
    let column = |name: &str| rows.column_by_name(name).unwrap_or_else(|| panic!("a column {name}"));
    let (songs, sets) = (column("song").as_primitive::<Int64Type>(), column(SET_COLUMN).as_primitive::<UInt8Type>());
    let mut known = BTreeSet::new();
    for row in 0..rows.num_rows() {
        let (song, set) = (songs.value(row), sets.value(row));
        assert!(set == 0 || known.contains(&song), "row {row}: an element of song {song} comes before it");
        known.insert(song);
        assert_eq!([1, 2].map(|set| column(&format!("__value_{set}")).is_valid(row)), [set == 1, set == 2]);
    }
    let bits = column(BITS_COLUMN).as_primitive::<UInt64Type>();
    assert!((0..rows.num_rows()).all(|row| bits.is_valid(row) == (sets.value(row) > 0)));
    assert!((0..rows.num_rows()).filter(|row| sets.value(*row) == 1).all(|row| bits.value(row) == 0b11), "both conditions");
}

#[test]
fn one_result_for_all_rows_has_its_sets_too() {
    let job = pipeline("n BIGINT) WITH ('connector' = 'print')", "SELECT COUNT(DISTINCT who) FROM plays");
    let mut shard = Shard::new(&job, usize::MAX);
    let counts = |rows: &RecordBatch| rows.column(1).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(counts(&shard.commit(&[play(1, 1, 0.0), play(2, 1, 0.0)])), [1]);
    assert_eq!(counts(&shard.commit(&[play(1, 1, 1.0), play(1, 2, 1.0), play(1, 3, 1.0)])), [1, 3]);
    let mut restored = Shard::new(&job, usize::MAX);
    shard.checkpoint(Extent::Whole).iter().for_each(|rows| restored.merge.restore(rows).expect("rows of a checkpoint"));
    assert_eq!(shard.commit(&[play(1, 4, 1.0)]), restored.commit(&[play(1, 4, 1.0)]));
}

/// A condition on the result sees each change of a set.
#[test]
fn a_condition_on_distinct_values_inserts() {
    let sink = format!("song BIGINT, people BIGINT, {KEYED}");
    let query = "SELECT song, COUNT(DISTINCT who) FROM plays GROUP BY song HAVING COUNT(DISTINCT who) >= 2";
    let mut shard = Shard::new(&pipeline(&sink, query), usize::MAX);
    let ops = |rows: RecordBatch| rows.column(0).as_primitive::<Int8Type>().values().to_vec();
    assert!(ops(shard.commit(&[play(1, 1, 0.0)])).is_empty());
    assert!(ops(shard.commit(&[play(1, 1, 0.0)])).is_empty());
    assert_eq!(ops(shard.commit(&[play(1, 2, 0.0)])), [Op::Insert as i8]);
    assert_eq!(ops(shard.commit(&[play(1, 3, 0.0), play(1, 4, 0.0)])), [Op::UpdateAfter as i8]);
}

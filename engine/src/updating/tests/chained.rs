//! An aggregate of results that change: after each commit its changelog, applied by key, is the aggregate of the present results, and
//! neither memory nor a restart changes a bit.

use datafusion::arrow::array::StringArray;
use datafusion::arrow::util::display::array_value_to_string;

use super::*;

const SINK: &str =
    "n BIGINT, songs BIGINT, named BIGINT, sum_of BIGINT, least BIGINT, best BIGINT, kinds BIGINT, kinds_sum BIGINT,
    odd BIGINT, PRIMARY KEY (n) NOT ENFORCED) WITH ('connector' = 'filesystem')";
/// How many songs have been played n times, and which.
const BY_PLAYS: &str =
    "SELECT n, COUNT(*), COUNT(song), SUM(song), MIN(song), MAX(song), COUNT(DISTINCT kind), SUM(DISTINCT kind),
       MAX(song) FILTER (WHERE song % 2 = 1)
     FROM (SELECT song, COUNT(*) AS n, MIN(song % 5) AS kind FROM plays GROUP BY song) GROUP BY n";

struct Chain {
    first: Shard,
    second: MergeOperator,
}

impl Chain {
    fn new(pipeline: &Pipeline, bytes_max: usize) -> Self {
        let budget = StateBudget { bytes_max, ..StateBudget::default() };
        let second = block_on(MergeOperator::new(pipeline, 1, KEY_GROUPS, budget)).expect("it plans");
        Self { first: Shard::within(pipeline, bytes_max), second: second.expect("it has two aggregates") }
    }

    /// One commit of each stage.
    fn commit(&mut self, rows: &[(Option<i64>, f64)]) -> RecordBatch {
        let partials = self.first.commit(rows);
        if partials.num_rows() > 0 {
            self.second.merge(&partials).expect("partials fold");
        }
        let given = block_on(self.second.fire(Moment { after: Watermark::NONE, early: false })).expect("results are given");
        concat_batches(self.second.output_schema(), &given).expect("batches of one schema")
    }

    fn checkpoint(&mut self, extent: Extent) -> [Vec<RecordBatch>; 2] {
        let mut pass = self.second.begin_checkpoint(extent);
        let second = std::iter::from_fn(|| self.second.checkpoint(&mut pass).expect("the state is given")).collect();
        [self.first.checkpoint(extent), second]
    }

    fn restore(&mut self, [first, second]: &[Vec<RecordBatch>; 2]) {
        first.iter().for_each(|rows| self.first.merge.restore(rows).expect("rows of a checkpoint"));
        second.iter().for_each(|rows| self.second.restore(rows).expect("rows of a checkpoint"));
    }
}

/// A result: all columns but the key, as text.
type Told = Vec<String>;

/// Takes a changelog whose first columns are `__op` and the key.
fn apply(applied: &mut BTreeMap<i64, Told>, rows: &RecordBatch) {
    let ops = rows.column(0).as_primitive::<Int8Type>();
    let keys = rows.column(1).as_primitive::<Int64Type>();
    for row in 0..rows.num_rows() {
        let told: Told = rows.columns()[2..].iter().map(|column| array_value_to_string(column, row).expect("text")).collect();
        let (op, key) = (ops.value(row), keys.value(row));
        let earlier = if op == DELETE { applied.remove(&key) } else { applied.insert(key, told) };
        assert_eq!(earlier.is_some(), op != INSERT, "key {key}, op {op}");
    }
}

/// What [`BY_PLAYS`] is of the numbers of plays.
fn by_plays(plays: &BTreeMap<Option<i64>, i64>) -> BTreeMap<i64, Told> {
    let mut songs: BTreeMap<i64, Vec<Option<i64>>> = BTreeMap::new();
    plays.iter().for_each(|(song, n)| songs.entry(*n).or_default().push(*song));
    let text = |value: Option<i64>| value.map_or_else(String::new, |value| value.to_string());
    let told = |(n, songs): (i64, Vec<Option<i64>>)| {
        let named: Vec<i64> = songs.iter().copied().flatten().collect();
        let kinds: std::collections::BTreeSet<i64> = named.iter().map(|song| song % 5).collect();
        let sum = |values: &mut dyn Iterator<Item = &i64>| values.copied().reduce(|a, b| a + b);
        let columns = [
            i64::try_from(songs.len()).ok(),
            i64::try_from(named.len()).ok(),
            sum(&mut named.iter()),
            named.iter().min().copied(),
            named.iter().max().copied(),
            i64::try_from(kinds.len()).ok(),
            sum(&mut kinds.iter()),
            named.iter().filter(|song| *song % 2 == 1).max().copied(),
        ];
        (n, columns.map(text).to_vec())
    };
    songs.into_iter().map(told).collect()
}

#[test]
fn an_aggregate_of_changing_results_follows_them() {
    let mut chain = Chain::new(&pipeline(SINK, BY_PLAYS), usize::MAX);
    let (mut plays, mut applied) = (BTreeMap::new(), BTreeMap::new());
    for number in 0..60 {
        let rows = rows(number, 1 + number * 3);
        rows.iter().for_each(|(song, _)| *plays.entry(*song).or_insert(0) += 1);
        apply(&mut applied, &chain.commit(&rows));
        assert_eq!(applied, by_plays(&plays), "commit {number}");
    }
}

#[test]
fn neither_memory_nor_a_restart_changes_what_is_said() {
    let job = pipeline(SINK, BY_PLAYS);
    for seed in 1..4 {
        let mut free = Chain::new(&job, usize::MAX);
        let mut bounded = [1, 20_000].map(|bytes_max| Chain::new(&job, bytes_max));
        let mut objects: Vec<[Vec<RecordBatch>; 2]> = Vec::new();
        for number in 0..50 {
            let rows = rows(seed * 1_000 + number % 20, 40);
            let said = free.commit(&rows);
            for chain in &mut bounded {
                assert_eq!(said, chain.commit(&rows), "seed {seed}, commit {number}");
            }
            if draw(seed ^ number << 8).is_multiple_of(5) {
                let extent = if draw(number).is_multiple_of(3) || objects.is_empty() { Extent::Whole } else { Extent::Changed };
                if extent == Extent::Whole {
                    objects.clear();
                }
                objects.push(free.checkpoint(extent));
                let mut restored = Chain::new(&job, [usize::MAX, 5_000][usize::from(number.is_multiple_of(2))]);
                objects.iter().for_each(|object| restored.restore(object));
                bounded[1] = restored;
                bounded[0].checkpoint(extent);
            }
        }
        assert!(objects.len() > 1, "seed {seed}: only {} checkpoints", objects.len());
    }
}

#[test]
fn a_group_without_rows_leaves_nothing() {
    let mut chain = Chain::new(&pipeline(SINK, BY_PLAYS), usize::MAX);
    // One song is played again and again: each commit empties a group and its sets, and makes another.
    for number in 0..500 {
        chain.commit(&[(Some(1), 0.0)]);
        if number % 10 == 9 {
            let extent = if number % 40 == 39 { Extent::Whole } else { Extent::Changed };
            let [_, second] = chain.checkpoint(extent);
            let rows: usize = second.iter().map(RecordBatch::num_rows).sum();
            // A group, and an element of each of its three sets.
            assert!(extent == Extent::Changed || rows == 4, "{rows} rows of one group");
        }
    }
    assert!(chain.second.groups() < 200, "{} rows are held", chain.second.groups());
}

#[test]
fn sums_of_a_group_that_was_empty_begin_anew() {
    let sink = "n BIGINT, total DOUBLE, PRIMARY KEY (n) NOT ENFORCED) WITH ('connector' = 'filesystem')";
    let query = "SELECT n, SUM(total) FROM (SELECT song, COUNT(*) AS n, SUM(score) AS total FROM plays GROUP BY song) GROUP BY n";
    let mut chain = Chain::new(&pipeline(sink, query), usize::MAX);
    let mut applied = BTreeMap::new();
    // 1e16 + 0.3 - 1e16 is no longer 0.3.
    for rows in [[(Some(1), 1e16)], [(Some(2), 0.3)], [(Some(1), 1.0)], [(Some(2), 1.0)], [(Some(3), 0.3)]] {
        apply(&mut applied, &chain.commit(&rows));
    }
    assert_eq!(applied[&1], ["0.3"]);
}

#[test]
fn distinct_results_come_and_go() {
    let sink = "n BIGINT, PRIMARY KEY (n) NOT ENFORCED) WITH ('connector' = 'filesystem')";
    let mut chain = Chain::new(&pipeline(sink, "SELECT DISTINCT COUNT(*) FROM plays GROUP BY song"), usize::MAX);
    let mut applied = BTreeMap::new();
    let mut after = |rows: &[(Option<i64>, f64)]| {
        apply(&mut applied, &chain.commit(rows));
        applied.keys().copied().collect::<Vec<_>>()
    };
    assert_eq!(after(&[(Some(1), 0.0), (Some(2), 0.0)]), [1]);
    assert_eq!(after(&[(Some(1), 0.0)]), [1, 2]);
    assert_eq!(after(&[(Some(2), 0.0)]), [2]);
}

#[test]
fn one_result_of_all_results_stays_when_there_are_none() {
    let sink = "songs BIGINT, best BIGINT) WITH ('connector' = 'print')";
    let query = "SELECT COUNT(*), MAX(n) FROM (SELECT song, COUNT(*) AS n FROM plays GROUP BY song HAVING COUNT(*) < 3)";
    let mut chain = Chain::new(&pipeline(sink, query), usize::MAX);
    let mut said = |rows: &[(Option<i64>, f64)]| {
        let rows = chain.commit(rows);
        let column = |place: usize| rows.column(place).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
        let ops = rows.column(0).as_primitive::<Int8Type>().values().to_vec();
        ops.into_iter().zip(column(1)).zip(column(2)).map(|((op, songs), best)| (op, songs, best)).collect::<Vec<_>>()
    };
    assert_eq!(said(&[(Some(1), 0.0)]), [(INSERT, Some(1), Some(1))]);
    assert_eq!(said(&[(Some(1), 0.0)]), [(BEFORE, Some(1), Some(1)), (AFTER, Some(1), Some(2))]);
    assert_eq!(said(&[(Some(1), 0.0)]), [(BEFORE, Some(1), Some(2)), (AFTER, Some(0), None)]);
    assert_eq!(said(&[(Some(1), 0.0)]), [], "nothing has changed");
    assert_eq!(said(&[(Some(2), 0.0)]), [(BEFORE, Some(0), None), (AFTER, Some(1), Some(1))]);
}

#[test]
fn one_result_without_rows_is_stored_and_taken_back() {
    let sink = "n BIGINT, times BIGINT, PRIMARY KEY (n) NOT ENFORCED) WITH ('connector' = 'filesystem')";
    let query = "SELECT n, COUNT(*) FROM (
        SELECT COUNT(*) AS n FROM (SELECT song, COUNT(*) AS c FROM plays GROUP BY song HAVING COUNT(*) < 2)) GROUP BY n";
    let job = pipeline(sink, query);
    let third =
        || block_on(MergeOperator::new(&job, 2, KEY_GROUPS, StateBudget::default())).expect("it plans").expect("the third");
    let (mut chain, mut outer, mut applied) = (Chain::new(&job, usize::MAX), third(), BTreeMap::new());
    for (number, song) in [1, 1, 2, 2, 2, 3].into_iter().enumerate() {
        let partials = chain.commit(&[(Some(song), 0.0)]);
        if partials.num_rows() > 0 {
            outer.merge(&partials).expect("partials fold");
        }
        let given = block_on(outer.fire(Moment { after: Watermark::NONE, early: false })).expect("results are given");
        given.iter().for_each(|rows| apply(&mut applied, rows));
        let songs = [1, 0, 1, 0, 0, 1][number];
        assert_eq!(applied, BTreeMap::from([(songs, vec!["1".to_owned()])]), "commit {number}");
        let stored = chain.checkpoint(Extent::Whole);
        chain = Chain::new(&job, usize::MAX);
        chain.restore(&stored);
    }
}

#[test]
fn extremes_of_text_are_found_by_the_text() {
    let sink = "n BIGINT, least STRING, best STRING, PRIMARY KEY (n) NOT ENFORCED) WITH ('connector' = 'filesystem')";
    let query = "SELECT n, MIN(name), MAX(name) FROM (
        SELECT song, COUNT(*) AS n, MIN(CASE WHEN song = 1 THEN '' WHEN song = 2 THEN 'a' ELSE 'ab' END) AS name FROM plays GROUP BY song)
        GROUP BY n";
    let mut chain = Chain::new(&pipeline(sink, query), usize::MAX);
    let texts = |rows: &RecordBatch, column: usize| {
        let texts = rows.column(column).as_any().downcast_ref::<StringArray>().expect("text");
        texts.iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
    };
    let rows = chain.commit(&[(Some(1), 0.0), (Some(2), 0.0), (Some(3), 0.0)]);
    assert_eq!((texts(&rows, 2), texts(&rows, 3)), (vec![Some(String::new())], vec![Some("ab".to_owned())]));
    let rows = chain.commit(&[(Some(1), 0.0), (Some(3), 0.0)]);
    let left = rows.column(1).as_primitive::<Int64Type>().values().iter().position(|n| *n == 1).expect("one is left");
    assert_eq!((texts(&rows, 2)[left].as_deref(), texts(&rows, 3)[left].as_deref()), (Some("a"), Some("a")));
}

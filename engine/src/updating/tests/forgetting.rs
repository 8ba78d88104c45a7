//! Keys of which no row comes for the time to live are forgotten, at the same instant however a run is cut by restores.

use super::*;

const MINUTE: i64 = 60_000_000;
pub(super) const AN_HOUR: &str = "SET 'table.exec.state.ttl' = '1 h';";

impl Shard {
    /// As [`Self::commit`], at an instant.
    pub(super) fn commit_at(&mut self, micros: i64, rows: &[(Option<i64>, f64)]) -> RecordBatch {
        self.merge.set_now(micros);
        self.commit(rows)
    }

    /// As [`Self::checkpoint`], in one batch: none if there is no row.
    fn checkpoint_at_once(&mut self, extent: Extent) -> Vec<RecordBatch> {
        let stored = self.checkpoint(extent);
        let rows = concat_batches(self.merge.state_schema(), &stored).expect("batches of one schema");
        Vec::from_iter((rows.num_rows() > 0).then_some(rows))
    }

    pub(super) fn restore(&mut self, objects: &[Vec<RecordBatch>]) {
        objects.iter().flatten().for_each(|rows| self.merge.restore(rows).expect("rows of a checkpoint"));
    }
}

pub(super) fn row_count(rows: &[RecordBatch]) -> usize {
    rows.iter().map(RecordBatch::num_rows).sum()
}

#[test]
fn a_forgotten_key_starts_anew_and_nothing_is_taken_back() {
    let mut shard = Shard::new(&scripted(AN_HOUR, RETRACTIONS, TOTALS));
    let one = Some(1);
    assert_eq!(log(&shard.commit_at(0, &[(one, 1.0)])), [(INSERT, one, 1, 1.0)]);
    assert_eq!(log(&shard.commit_at(59 * MINUTE, &[(one, 1.0)])), [(BEFORE, one, 1, 1.0), (AFTER, one, 2, 2.0)]);
    let just_in_time = 59 * MINUTE + 60 * MINUTE - 1;
    assert_eq!(log(&shard.commit_at(just_in_time, &[(one, 1.0)])), [(BEFORE, one, 2, 2.0), (AFTER, one, 3, 3.0)]);
    assert_eq!(log(&shard.commit_at(just_in_time + 60 * MINUTE, &[(one, 5.0)])), [(INSERT, one, 1, 5.0)]);
}

#[test]
fn a_value_that_was_forgotten_counts_again() {
    let mut shard = Shard::new(&scripted(AN_HOUR, UPSERTS, DISTINCT_TOTALS));
    let one = Some(1);
    assert_eq!(log(&shard.commit_at(0, &[(one, 1.0), (one, 2.0)])), [(INSERT, one, 2, 3.0)]);
    assert_eq!(log(&shard.commit_at(50 * MINUTE, &[(one, 2.0)])), [(AFTER, one, 2, 5.0)]);
    let mut restored = Shard::new(&scripted(AN_HOUR, UPSERTS, DISTINCT_TOTALS));
    restored.restore(&[shard.checkpoint(Extent::Whole)]);
    for mut shard in [shard, restored] {
        // The song lives, its first value does not.
        let said = log(&shard.commit_at(70 * MINUTE, &[(one, 1.0), (one, 2.0)]));
        assert_eq!(said, [(AFTER, one, 3, 8.0)]);
        assert_eq!(log(&shard.commit_at(140 * MINUTE, &[(one, 4.0)])), [(INSERT, one, 1, 4.0)]);
    }
}

#[test]
fn keys_without_a_time_to_live_are_never_forgotten() {
    for settings in ["", "SET 'table.exec.state.ttl' = '0';"] {
        let mut shard = Shard::new(&scripted(settings, UPSERTS, TOTALS));
        assert_eq!(log(&shard.commit_at(0, &[(Some(1), 1.0)])), [(INSERT, Some(1), 1, 1.0)]);
        assert_eq!(log(&shard.commit_at(i64::MAX, &[(Some(1), 1.0)])), [(AFTER, Some(1), 2, 2.0)]);
        assert_eq!(shard.merge.state_schema(), shard.merge.partial_schema());
    }
}

#[test]
fn a_row_that_changes_nothing_lengthens_a_keys_life() {
    let query = "SELECT song, MAX(song), MAX(score) FROM plays GROUP BY song";
    let mut shard = Shard::new(&scripted(AN_HOUR, UPSERTS, query));
    let ops = |rows: RecordBatch| rows.column(0).as_primitive::<Int8Type>().values().to_vec();
    assert_eq!(ops(shard.commit_at(0, &[(Some(1), 5.0), (Some(2), 5.0)])), [INSERT, INSERT]);
    assert!(ops(shard.commit_at(40 * MINUTE, &[(Some(1), 4.0)])).is_empty());
    let mut restored = Shard::new(&scripted(AN_HOUR, UPSERTS, query));
    restored.restore(&[shard.checkpoint(Extent::Whole)]);
    for mut shard in [shard, restored] {
        let songs = |rows: &RecordBatch| rows.column(1).as_primitive::<Int64Type>().values().to_vec();
        let changes = shard.commit_at(80 * MINUTE, &[(Some(1), 6.0), (Some(2), 6.0)]);
        assert_eq!((songs(&changes), ops(changes)), (vec![1, 2], vec![AFTER, INSERT]));
    }
}

#[test]
fn memory_and_checkpoints_of_forgotten_keys_come_back() {
    const STEP_KEYS: usize = 2_000;
    let job = scripted(AN_HOUR, UPSERTS, TOTALS);
    let mut shard = Shard::new(&job);
    let integer = |number: usize| i64::try_from(number).expect("small");
    let step = |number: usize| (0..STEP_KEYS).map(|key| (Some(integer(number * STEP_KEYS + key)), 1.0)).collect::<Vec<_>>();
    let mut largest = Vec::new();
    for number in 0..120 {
        shard.commit_at(integer(number) * 10 * MINUTE, &step(number));
        largest.push(shard.merge.bytes());
        // Six steps live, and what was forgotten in half an hour before it is swept, once it is half of all.
        assert!(shard.merge.groups() <= 18 * STEP_KEYS, "{} groups after step {number}", shard.merge.groups());
    }
    let (early, late) = (largest[..60].iter().max().expect("steps"), largest[60..].iter().max().expect("steps"));
    assert!(*late <= early + early / 10, "{early} bytes, later {late}");
    let whole = shard.checkpoint(Extent::Whole);
    assert_eq!(row_count(&whole), 6 * STEP_KEYS);
    // One key of the last step lives on, all others are forgotten.
    shard.commit_at(130 * 10 * MINUTE, &[(Some(0), 1.0)]);
    assert_eq!(row_count(&shard.checkpoint(Extent::Changed)), 1);
    let mut restored = Shard::new(&job);
    restored.restore(&[whole]);
    restored.commit_at(130 * 10 * MINUTE, &[(Some(0), 1.0)]);
    assert_eq!(restored.checkpoint(Extent::Whole), shard.checkpoint(Extent::Whole));
    assert_eq!(restored.merge.groups(), 1, "what was forgotten since the checkpoint is swept with the first batch");
}

/// An instant and rows.
pub(super) type Batch = (i64, Vec<(Option<i64>, f64)>);

/// Batches with their instants: pauses are short, about as long as the time to live, or longer.
pub(super) fn batches(seed: u64, count: u64) -> Vec<Batch> {
    let mut now = 0;
    let batch = |number: u64| {
        let drawn = draw((seed << 20) | number);
        let pause = [1, 3, 7, 20, 58, 61, 130][usize::try_from(drawn % 7).expect("small")];
        now += pause * MINUTE / 4 + i64::try_from(drawn % 1_000).expect("small");
        (now, rows(seed * 1_000 + number % 5, 20 + drawn % 200))
    };
    (0..count).map(batch).collect()
}

/// What a run says in each batch, and the objects of its checkpoints: one after every fourth batch, each fifth of them of all.
pub(super) type Said = (Vec<RecordBatch>, Vec<Vec<RecordBatch>>);

/// Runs batches; after those of which `is_cut` says so, a shard restored from the checkpoints and what came since takes over.
pub(super) fn run(shard_of: impl Fn() -> Shard, batches: &[Batch], is_cut: impl Fn(usize) -> bool) -> Said {
    let mut shard = shard_of();
    let (mut said, mut objects, mut since) = (Vec::new(), Vec::<Vec<RecordBatch>>::new(), 0);
    for (number, (now, rows)) in batches.iter().enumerate() {
        said.push(shard.commit_at(*now, rows));
        if number % 4 == 3 {
            let extent = if objects.len().is_multiple_of(5) { Extent::Whole } else { Extent::Changed };
            objects.push(shard.checkpoint_at_once(extent));
            since = number + 1;
        }
        if is_cut(number) {
            shard = shard_of();
            shard.restore(&objects[objects.len().saturating_sub(1) / 5 * 5..]);
            for (replayed, (now, rows)) in batches.iter().enumerate().take(number + 1).skip(since) {
                assert_eq!(shard.commit_at(*now, rows), said[replayed], "batch {replayed} again, after {number}");
            }
        }
    }
    (said, objects)
}

#[test]
fn results_and_checkpoints_do_not_depend_on_how_a_run_is_cut_by_restores() {
    for seed in 0..12 {
        let job = scripted(AN_HOUR, RETRACTIONS, if seed % 3 == 2 { DISTINCT_TOTALS } else { TOTALS });
        let batches = batches(seed, 60);
        let whole = run(|| Shard::new(&job), &batches, |_| false);
        let inserts = whole.0.iter().flat_map(log).filter(|(op, ..)| *op == INSERT).count();
        let songs = whole.0.iter().flat_map(log).map(|(_, song, ..)| song).collect::<std::collections::BTreeSet<_>>().len();
        assert!(inserts > songs, "{inserts} beginnings of {songs} songs: none was forgotten and came again");
        for cuts in [1, 3, 7] {
            let cut = run(|| Shard::new(&job), &batches, |number| draw((seed << 8) | number as u64).is_multiple_of(cuts));
            assert!(whole == cut, "seed {seed}: cut after each {cuts}th batch, other bits");
        }
    }
}

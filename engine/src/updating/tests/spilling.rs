//! How much of the table is in memory changes no bit of results, their order, or checkpoints.

use super::forgetting::{AN_HOUR, batches, row_count, run};
use super::*;

#[test]
fn a_table_that_spills_has_the_bits_of_one_that_does_not() {
    let jobs = [("", TOTALS), (AN_HOUR, TOTALS), ("", DISTINCT_TOTALS), (AN_HOUR, DISTINCT_TOTALS)];
    for (seed, (settings, query)) in (1..).zip(jobs) {
        let job = scripted(settings, RETRACTIONS, query);
        let batches = batches(seed, 50);
        let expected = run(|| Shard::new(&job), &batches, |_| false);
        for bytes_max in [1, 20_000] {
            let found = run(|| Shard::within(&job, bytes_max), &batches, |_| false);
            assert!(expected == found, "seed {seed}: other bits within {bytes_max} bytes");
            let found = run(|| Shard::within(&job, bytes_max), &batches, |number| draw(seed ^ number as u64).is_multiple_of(6));
            assert!(expected == found, "seed {seed}: other bits within {bytes_max} bytes and after restores");
        }
    }
}

#[test]
fn a_table_may_be_many_times_larger_than_its_memory() {
    const KEYS: u64 = 200_000;
    const BYTES_MAX: usize = 1 << 20;
    let job = pipeline(UPSERTS, TOTALS);
    let (mut free, mut bounded) = (Shard::new(&job), Shard::within(&job, BYTES_MAX));
    let commit = |shard: &mut Shard, number: u64| {
        let drawn = (0..20_000).map(|row| draw((number << 32) | row));
        let rows: Vec<_> = drawn.map(|drawn| (Some(i64::try_from(drawn % KEYS).expect("small")), drawn as f64 / 3e17)).collect();
        shard.commit(&rows)
    };
    for number in 0..30 {
        assert_eq!(commit(&mut free, number), commit(&mut bounded, number), "batch {number}");
        assert!(bounded.merge.bytes() <= BYTES_MAX, "{} bytes are held", bounded.merge.bytes());
        assert_eq!((free.merge.groups(), free.merge.changed()), (bounded.merge.groups(), bounded.merge.changed()));
        if number % 10 == 4 {
            let extent = if number == 4 { Extent::Whole } else { Extent::Changed };
            assert_eq!(rows_of(&free.checkpoint(extent)), rows_of(&bounded.checkpoint(extent)), "checkpoint after {number}");
        }
    }
    assert!(free.merge.bytes() > 5 * BYTES_MAX, "{} bytes would fit", free.merge.bytes());
    let whole = free.checkpoint(Extent::Whole);
    assert_eq!(rows_of(&whole), rows_of(&bounded.checkpoint(Extent::Whole)));
    let mut restored = Shard::within(&job, BYTES_MAX);
    restored.restore(&[whole]);
    assert!(restored.merge.bytes() <= BYTES_MAX && row_count(&restored.checkpoint(Extent::Changed)) == 0);
    assert_eq!(commit(&mut free, 100), commit(&mut restored, 100));
}

#[test]
fn a_table_that_is_asked_has_the_bits_of_one_that_is_held() {
    const KEYS: u64 = 30_000;
    const TEN_MINUTES: i64 = 600_000_000;
    let jobs = [("", TOTALS), (AN_HOUR, TOTALS), ("", DISTINCT_TOTALS), (AN_HOUR, DISTINCT_TOTALS)];
    for (seed, (settings, query)) in (1..).zip(jobs) {
        let job = scripted(settings, RETRACTIONS, query);
        let rows = |number: u64, count: u64| -> Vec<(Option<i64>, f64)> {
            let drawn = (0..count).map(|row| draw((seed << 48) | (number << 32) | row));
            let row = |drawn: u64| {
                let key = i64::try_from(drawn % KEYS).expect("small");
                ((key > 0).then_some(key), [0.0, -0.0, 1.5, f64::NAN, 7.25][(drawn >> 40) as usize % 5])
            };
            drawn.map(row).collect()
        };
        let (mut held, mut asked) = (Shard::new(&job), Shard::within(&job, 1 << 18));
        let mut objects = Vec::new();
        for number in 0..24u64 {
            // Enough to fill the buckets, and then a few rows for each.
            let rows = rows(number, if number < 3 { 20_000 } else { 1_500 });
            let now = TEN_MINUTES * i64::try_from(number).expect("small");
            // Arrays are equal if their bytes are: a NaN is itself, and zeros differ by their sign.
            assert!(held.commit_at(now, &rows) == asked.commit_at(now, &rows), "seed {seed}, batch {number}");
            if settings.is_empty() {
                // Else it depends on when forgotten keys were swept.
                assert_eq!(held.merge.changed(), asked.merge.changed(), "seed {seed}, batch {number}");
            }
            if [6, 9, 12].contains(&number) {
                let extent = if number == 6 { Extent::Whole } else { Extent::Changed };
                let (stored, other) = (held.checkpoint(extent), asked.checkpoint(extent));
                assert!(rows_of(&stored) == rows_of(&other), "seed {seed}, checkpoint after {number}");
                objects.push(other);
            }
            if number == 12 {
                asked = Shard::within(&job, 1 << 18);
                asked.merge.set_now(now);
                asked.restore(&objects);
            }
        }
        let (stored, other) = (held.checkpoint(Extent::Whole), asked.checkpoint(Extent::Whole));
        assert!(rows_of(&stored) == rows_of(&other), "seed {seed}");
    }
}

/// Rows of a checkpoint, however they are cut into batches.
fn rows_of(batches: &[RecordBatch]) -> RecordBatch {
    concat_batches(batches[0].schema_ref(), batches).expect("batches of one schema")
}

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use weir_model::{JobId, ShardId, ShardKey, StageId};

use super::super::Step;
use super::*;
use crate::options::TableOptions;

/// Changes of one epoch: key, value, what happened.
fn changes(epoch: i64, changes: &[(i64, i64, &str)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(changes.iter().map(|change| change.0)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(changes.iter().map(|change| change.1)));
    let ops: ArrayRef = Arc::new(StringArray::from_iter_values(changes.iter().map(|change| change.2)));
    let epochs: ArrayRef = Arc::new(Int64Array::from_value(epoch, changes.len()));
    let columns = [("id", ids, false), ("value", values, false), ("op", ops, false), ("epoch", epochs, false)];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn target(folder: &Path, file_bytes: &str) -> FileTarget {
    let options = BTreeMap::from([
        ("path".to_owned(), folder.display().to_string()),
        ("format".to_owned(), "parquet".to_owned()),
        ("sink.rolling-policy.file-size".to_owned(), file_bytes.to_owned()),
        ("sink.snapshot.min-rows".to_owned(), "10".to_owned()),
    ]);
    let shard = ShardKey::new(JobId(1), StageId(2), ShardId(0));
    let target = FileTarget::new(TableOptions { table: "t", options: &options }, changes(0, &[]).schema(), shard, false).unwrap();
    target.keyed_by(vec![0])
}

/// A publisher's way through its steps, and what the table should be.
struct Publisher {
    target: FileTarget,
    generation: Generation,
    state: PublishState,
    changes: u64,
    epoch: i64,
    table: BTreeMap<i64, i64>,
    seed: u64,
}

impl Publisher {
    fn new(folder: &Path, seed: u64) -> Self {
        let (target, generation) = (target(folder, "4 KB"), Generation(1));
        target.prepare(generation).unwrap();
        Self { target, generation, state: PublishState::default(), changes: 0, epoch: 0, table: BTreeMap::new(), seed }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    /// Publishes an epoch that changes each of some keys once.
    fn step(&mut self) {
        self.epoch += 1;
        let count = 1 + self.draw(40);
        let mut keys: Vec<i64> = (0..count).map(|_| self.draw(60).cast_signed()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut said = Vec::new();
        for key in keys {
            let value = self.draw(1_000).cast_signed();
            match (self.table.contains_key(&key), self.draw(4)) {
                (true, 0) => said.push((key, self.table.remove(&key).unwrap(), "-D")),
                (known, _) => {
                    self.table.insert(key, value);
                    said.push((key, value, if known { "+U" } else { "+I" }));
                }
            }
        }
        let rows = changes(self.epoch, &said);
        let Step { number, rows_before, .. } = self.publish(&rows);
        self.state.file_number = number;
        self.state.file_rows = rows_before + rows.num_rows() as u64;
        self.changes += rows.num_rows() as u64;
    }

    fn publish(&mut self, rows: &RecordBatch) -> Step {
        let step = self.target.plan(&self.state, 1, 100);
        let done = self.target.carry_out(&step, std::slice::from_ref(rows), self.generation).unwrap();
        let StepOutcome::Done { bytes_after } = done else { panic!("{done:?}") };
        self.state.file_bytes = bytes_after;
        step
    }

    fn stands(&self, closed: bool) -> Stands {
        let epochs = BTreeMap::from([("s001-00000".to_owned(), self.epoch.cast_unsigned())]);
        Stands { state: self.state.clone(), changes: self.changes, epochs, closed }
    }

    /// Another process takes over.
    fn succeed(&mut self) {
        self.generation = self.generation.next();
        self.target.prepare(self.generation).unwrap();
        self.target.fence_older(self.generation).unwrap();
    }
}

fn rows_of(path: &Path) -> Vec<(i64, i64, String, i64)> {
    let mut rows = Vec::new();
    for batch in builder(path).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        let numbers = |column: usize| batch.column(column).as_primitive::<Int64Type>().values().to_vec();
        let ops = batch.column(2).as_string::<i32>();
        let (ids, values, epochs) = (numbers(0), numbers(1), numbers(3));
        rows.extend((0..batch.num_rows()).map(|row| (ids[row], values[row], ops.value(row).to_owned(), epochs[row])));
    }
    rows
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The table as a reader gets it who knows nothing but the manifest; and how many rows the snapshot has.
fn read(folder: &Path) -> (BTreeMap<i64, i64>, usize) {
    let manifests: Vec<String> = names(&folder.join(FOLDER)).into_iter().filter(|name| name.ends_with(".json")).collect();
    let [manifest] = manifests.as_slice() else { panic!("{manifests:?}") };
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(folder.join(FOLDER).join(manifest)).unwrap()).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let files: Vec<String> = manifest["snapshot"].as_array().unwrap().iter().map(text).collect();
    let snapshot: Vec<_> = files.iter().flat_map(|file| rows_of(&folder.join(file))).collect();
    assert!(snapshot.iter().all(|row| row.2 != "-D"), "a deleted key is in the snapshot");
    assert_eq!(snapshot.len() as u64, manifest["rows"].as_u64().unwrap());
    let (pattern, from) = (text(&manifest["changelog"]), text(&manifest["changelog_from"]));
    let prefix = pattern.strip_suffix("*.parquet").unwrap();
    let rest = names(folder).into_iter().filter(|name| name.starts_with(prefix) && *name >= from);
    let mut newest: BTreeMap<i64, (i64, String, i64)> = BTreeMap::new();
    let count = snapshot.len();
    for (id, value, op, epoch) in snapshot.into_iter().chain(rest.flat_map(|name| rows_of(&folder.join(name)))) {
        if newest.get(&id).is_none_or(|held| held.0 <= epoch) {
            newest.insert(id, (epoch, op, value));
        }
    }
    (newest.into_iter().filter(|(_, row)| row.1 != "-D").map(|(id, row)| (id, row.2)).collect(), count)
}

fn taken(outcome: &SnapshotOutcome) -> u64 {
    match outcome {
        SnapshotOutcome::Taken { rows } => *rows,
        SnapshotOutcome::Fenced => panic!("fenced"),
    }
}

#[test]
fn snapshot_and_rest_are_the_newest_of_each_key_whenever_it_is_taken_and_by_whom() {
    for (seed, partition_bytes) in (0..24).map(|seed| (seed, [PARTITION_BYTES, 400][(seed % 2) as usize])) {
        let folder = tempfile::tempdir().unwrap();
        let mut publisher = Publisher::new(folder.path(), seed);
        let mut snapshots = Snapshots { partition_bytes, ..publisher.target.snapshots().unwrap() };
        for _ in 0..60 {
            publisher.step();
            if publisher.draw(7) == 0 {
                publisher.succeed();
                snapshots = Snapshots { partition_bytes, ..publisher.target.snapshots().unwrap() };
            }
            if publisher.draw(5) == 0 || snapshots.last.is_none() {
                let rows = taken(&snapshots.take(&publisher.target, &publisher.stands(false), publisher.generation).unwrap());
                assert_eq!(rows, publisher.table.len() as u64, "seed {seed}");
            }
            assert_eq!(read(folder.path()).0, publisher.table, "seed {seed}");
        }
        taken(&snapshots.take(&publisher.target, &publisher.stands(true), publisher.generation).unwrap());
        let files = snapshots.last.as_ref().unwrap().latest.snapshot.len();
        assert_eq!(files > 1, partition_bytes == 400, "{files} files");
        assert_eq!(read(folder.path()), (publisher.table.clone(), publisher.table.len()), "seed {seed}");
        publisher.target.leave(publisher.generation);
        assert!(!folder.path().join(super::super::STAGING).exists(), "nothing that was spread is left");
    }
}

#[test]
fn a_snapshot_is_due_when_the_changelog_has_grown_by_as_much_or_nothing_follows() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = Publisher::new(folder.path(), 3);
    let mut snapshots = publisher.target.snapshots().unwrap();
    assert!(
        !snapshots.is_due(9, false) && snapshots.is_due(10, false) && snapshots.is_due(1, true) && !snapshots.is_due(0, true)
    );
    while publisher.changes < 200 {
        publisher.step();
    }
    let rows = taken(&snapshots.take(&publisher.target, &publisher.stands(false), publisher.generation).unwrap());
    assert!(rows > 10, "the table is larger than the least changelog");
    let covered = publisher.changes;
    assert!(!snapshots.is_due(covered + rows - 1, false) && snapshots.is_due(covered + rows, false));
    assert!(!snapshots.is_due(covered, true) && snapshots.is_due(covered + 1, true));
}

#[test]
fn who_comes_after_a_crash_takes_it_anew_and_what_was_half_done_falls() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = Publisher::new(folder.path(), 5);
    let (mut kept, mut half_done) = (Vec::new(), 0);
    std::fs::create_dir_all(folder.path().join(FOLDER)).unwrap();
    for round in 0..4 {
        publisher.step();
        // Dies when its files are there and no manifest names them.
        let dying = publisher.target.snapshots().unwrap();
        let number = dying.last.as_ref().map_or(0, |last| last.latest.number) + 1;
        let inputs = dying.inputs(&publisher.target, &publisher.stands(false)).unwrap();
        let mut writing =
            Writing { target: &publisher.target, generation: publisher.generation, number, files: Vec::new(), rows: 0 };
        writing.newest_of_each_key(&inputs, 400).unwrap().unwrap();
        half_done = writing.files.len();
        assert!(half_done > 0);
        publisher.succeed();
        if round > 0 {
            assert_eq!(read(folder.path()).0, publisher.table, "the manifest before still holds");
        }
        let mut snapshots = publisher.target.snapshots().unwrap();
        taken(&snapshots.take(&publisher.target, &publisher.stands(false), publisher.generation).unwrap());
        assert_eq!(read(folder.path()).0, publisher.table);
        kept.push(snapshots.last.unwrap().latest.snapshot.len());
    }
    let named = kept[2..].iter().sum::<usize>();
    let left = names(&folder.path().join(FOLDER));
    assert_eq!(left.len(), named + half_done + 1, "of crashes only the last one's files may be left: {left:?}");
    let older =
        names(&folder.path().join(FOLDER)).into_iter().filter(|name| name.contains("-000001-") || name.contains("-000002-"));
    assert_eq!(older.count(), 0, "files of the first two numbers");
}

#[test]
fn a_fenced_publisher_changes_no_manifest_and_removes_nothing_that_its_successor_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = Publisher::new(folder.path(), 9);
    publisher.step();
    let mut zombie = publisher.target.snapshots().unwrap();
    taken(&zombie.take(&publisher.target, &publisher.stands(false), Generation(1)).unwrap());
    let its_manifest = zombie.last.clone().unwrap();
    publisher.step();
    publisher.succeed();
    for partition_bytes in [PARTITION_BYTES, 400] {
        let mut zombie = Snapshots { partition_bytes, ..publisher.target.snapshots().unwrap() };
        let before = names(&folder.path().join(FOLDER));
        assert_eq!(zombie.take(&publisher.target, &publisher.stands(false), Generation(1)).unwrap(), SnapshotOutcome::Fenced);
        assert_eq!(names(&folder.path().join(FOLDER)), before);
    }
    let mut heir = publisher.target.snapshots().unwrap();
    for _ in 0..3 {
        publisher.step();
        taken(&heir.take(&publisher.target, &publisher.stands(false), Generation(2)).unwrap());
        // It wakes between its manifest and its deletion.
        publisher.target.remove_older(&its_manifest);
        assert_eq!(read(folder.path()).0, publisher.table);
        for file in
            heir.last.iter().flat_map(|last| [Some(&last.latest), last.previous.as_ref()]).flatten().flat_map(|s| &s.snapshot)
        {
            assert!(folder.path().join(file).exists(), "{file}");
        }
    }
}

#[test]
fn a_manifest_that_cannot_be_read_and_a_changelog_with_a_gap_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = Publisher::new(folder.path(), 11);
    while publisher.state.file_number < 2 {
        publisher.step();
    }
    let mut snapshots = publisher.target.snapshots().unwrap();
    taken(&snapshots.take(&publisher.target, &publisher.stands(false), Generation(1)).unwrap());
    fs::write(publisher.target.manifest_path(), "{\"format\":9}").unwrap();
    let mut snapshots = publisher.target.snapshots().unwrap();
    assert!(snapshots.last.is_none());
    taken(&snapshots.take(&publisher.target, &publisher.stands(false), Generation(1)).unwrap());
    assert_eq!(read(folder.path()).0, publisher.table);

    for file in snapshots.last.iter().flat_map(|last| &last.latest.snapshot) {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    publisher.step();
    taken(&snapshots.take(&publisher.target, &publisher.stands(false), Generation(1)).unwrap());
    assert_eq!(read(folder.path()).0, publisher.table, "a snapshot that somebody removed is made anew");

    let gone = folder.path().join(publisher.target.file_name(0));
    fs::rename(&gone, folder.path().join("elsewhere")).unwrap();
    publisher.step();
    taken(&snapshots.take(&publisher.target, &publisher.stands(false), Generation(1)).unwrap());
    assert_eq!(read(folder.path()).0, publisher.table, "what a snapshot covers is not needed for the next");
    fs::remove_file(publisher.target.manifest_path()).unwrap();
    let mut snapshots = publisher.target.snapshots().unwrap();
    let error = snapshots.take(&publisher.target, &publisher.stands(false), Generation(1)).unwrap_err().to_string();
    assert!(error.contains("-000000.parquet"), "{error}");
    assert!(!snapshots.is_due(publisher.changes, false), "it is not tried with every step");
}

#[test]
fn a_reader_of_an_earlier_place_gets_the_snapshot_of_that_place_or_the_changelog() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = Publisher::new(folder.path(), 13);
    let (mut places, mut sizes) = (Vec::new(), Vec::new());
    let mut snapshots = publisher.target.snapshots().unwrap();
    for _ in 0..3 {
        publisher.step();
        sizes.push(taken(&snapshots.take(&publisher.target, &publisher.stands(false), Generation(1)).unwrap()));
        places.push(publisher.state.clone());
    }
    publisher.step();
    places.push(publisher.state.clone());
    let read = |place: &PublishState| {
        let latest = publisher.target.latest(place).unwrap();
        latest.growing.iter().map(|rows| rows.num_rows() as u64).sum::<u64>()
    };
    // The first snapshot is gone; there are the second and the third.
    let of_snapshot = [0, sizes[1], sizes[2], sizes[2]];
    let expected: Vec<u64> = places.iter().zip(of_snapshot).map(|(place, rows)| place.file_rows + rows).collect();
    assert_eq!(places.iter().map(read).collect::<Vec<_>>(), expected);
}

#[test]
fn there_is_one_zero_one_nan_and_one_null_among_keys() {
    let keys: ArrayRef =
        Arc::new(Float64Array::from(vec![Some(0.0), Some(-0.0), Some(f64::NAN), Some(-f64::NAN), None, None, Some(1.0)]));
    let ops: ArrayRef = Arc::new(StringArray::from(vec!["+I", "+U", "+I", "+U", "+I", "-D", "+I"]));
    let epochs: ArrayRef = Arc::new(Int64Array::from_iter_values(1..8));
    let batch = RecordBatch::try_from_iter([("k", keys), ("op", ops), ("epoch", epochs)]).unwrap();
    let mut newest = Newest::new(&batch.schema(), vec![0]).unwrap();
    newest.take(&batch).unwrap();
    let sorted = newest.sorted().unwrap();
    let epochs: Vec<i64> = sorted[0].column(2).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(epochs, [2, 7, 4]);
}

#[test]
fn what_others_have_taken_the_place_of_is_let_go_of() {
    let mut newest = Newest::new(&changes(0, &[]).schema(), vec![0]).unwrap();
    let said: Vec<(i64, i64, &str)> = (0..100).map(|key| (key, key, "+U")).collect();
    for epoch in 0..3_000 {
        newest.take(&changes(epoch, &said)).unwrap();
    }
    let held: usize = newest.batches.iter().map(RecordBatch::num_rows).sum();
    assert!(held <= 200 + 65_536 + 100, "{held} rows are held for 100 keys");
    let sorted = newest.sorted().unwrap();
    assert!(sorted[0].column(3).as_primitive::<Int64Type>().values().iter().all(|epoch| *epoch == 2_999));
}

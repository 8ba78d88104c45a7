use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use weir_model::{JobId, ShardId, StageId};

use super::*;

fn rows(from: i64, to: i64) -> RecordBatch {
    RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from_iter_values(from..to)) as ArrayRef)]).unwrap()
}

fn target(folder: &Path, format: &str) -> FileTarget {
    let target = target_of(folder, format, ShardKey::new(JobId(1), StageId(2), ShardId(0)));
    target.prepare(Generation(1)).unwrap();
    target
}

fn target_of(folder: &Path, format: &str, shard: ShardKey) -> FileTarget {
    let options = BTreeMap::from([
        ("connector".to_owned(), "filesystem".to_owned()),
        ("path".to_owned(), folder.display().to_string()),
        ("format".to_owned(), format.to_owned()),
    ]);
    FileTarget::new(TableOptions { table: "t", options: &options }, rows(0, 1).schema(), shard, true).unwrap()
}

/// Ids in all files of a folder, by file name.
fn published(folder: &Path, format: &str) -> Vec<i64> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    let mut ids = Vec::new();
    for file in files {
        let bytes = bytes::Bytes::from(fs::read(file).unwrap());
        if format == "parquet" {
            let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
            for batch in reader {
                ids.extend(batch.unwrap().column(0).as_primitive::<Int64Type>().values());
            }
        } else {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            ids.extend(text.lines().map(|line| line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<i64>().unwrap()));
        }
    }
    ids
}

fn done(outcome: StepOutcome) -> u64 {
    match outcome {
        StepOutcome::Done { bytes_after } => bytes_after,
        other => panic!("{other:?}"),
    }
}

/// Size of a file of the target; `None` if it does not exist.
fn size(target: &FileTarget, file: &str) -> Option<u64> {
    fs::metadata(target.folder.join(file)).map(|metadata| metadata.len()).ok()
}

#[test]
fn steps_grow_one_file_and_a_repeated_step_adds_nothing() {
    for format in ["json", "csv", "parquet"] {
        let folder = tempfile::tempdir().unwrap();
        let target = target(folder.path(), format);
        let mut state = PublishState::default();
        for step_rows in [rows(0, 3), rows(3, 5), rows(5, 9)] {
            let step = target.plan(&state, 1, 100);
            let file_rows = step.rows_before + step_rows.num_rows() as u64;
            let once = done(target.carry_out(&step, std::slice::from_ref(&step_rows), Generation(1)).unwrap());
            let again = done(target.carry_out(&step, &[step_rows], Generation(1)).unwrap());
            assert_eq!(once, again, "{format}");
            state = PublishState { file_number: step.number, file_bytes: once, file_rows, ..state };
        }
        assert_eq!(published(folder.path(), format), (0..9).collect::<Vec<_>>(), "{format}");
    }
}

#[test]
fn a_zombie_changes_nothing_after_its_successor_has_fenced_it() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path(), "json");
    let step = target.plan(&PublishState::default(), 1, 10);
    target.prepare(Generation(2)).unwrap();
    target.fence_older(Generation(2)).unwrap();
    assert_eq!(target.carry_out(&step, &[rows(0, 1)], Generation(1)).unwrap(), StepOutcome::Fenced);
    assert!(!folder.path().join(&step.file).exists());
    done(target.carry_out(&step, &[rows(0, 1)], Generation(2)).unwrap());
}

#[test]
fn a_file_that_somebody_else_changed_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path(), "csv");
    let step = target.plan(&PublishState::default(), 1, 10);
    fs::write(folder.path().join(&step.file), "mine").unwrap();
    assert_eq!(target.carry_out(&step, &[rows(0, 1)], Generation(1)).unwrap(), StepOutcome::TargetChanged);
    assert_eq!(target.plan_new(step.number).number, 1);
}

#[test]
fn a_large_file_is_followed_by_the_next_number_unless_the_step_is_large_too() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path(), "csv");
    let state = PublishState { file_number: 4, file_bytes: 2 << 20, ..PublishState::default() };
    assert_eq!(target.plan(&state, 1, 1_000).number, 5);
    assert_eq!(target.plan(&state, 1, 1 << 20).number, 4);
    // Packed, a row takes what the rows before it take, whatever it takes in memory.
    let packed = PublishState { file_rows: 1_000_000, ..state.clone() };
    assert_eq!(target.plan(&packed, 1_000, 1 << 20).number, 5);
    assert_eq!(target.plan(&packed, 200_000, 1 << 20).number, 4);
    let full = PublishState { file_bytes: 200 << 20, ..state };
    assert_eq!(target.plan(&full, 1, 1 << 30).number, 5);
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let options = BTreeMap::from([("path".to_owned(), file.display().to_string()), ("format".to_owned(), "csv".to_owned())]);
    let shard = ShardKey::new(JobId(1), StageId(2), ShardId(0));
    let target = FileTarget::new(TableOptions { table: "t", options: &options }, rows(0, 1).schema(), shard, false).unwrap();
    let error = target.prepare(Generation(1)).unwrap_err().to_string();
    assert!(error.contains("file") && error.contains("run again"), "{error}");
}

/// Where a process may die within a step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Crash {
    Never,
    BeforeStaging,
    StagedHalf,
    StagedWhole,
    Renamed,
}

/// Carries out as much of a step as a process does that dies at `crash`.
fn carry_out_until(crash: Crash, target: &FileTarget, step: &Step, rows: &[RecordBatch], generation: Generation) {
    let path = target.folder.join(&step.file);
    let staged = target.staging_of(generation).join(&step.file);
    let (old, mut new) = (File::open(&path).ok(), tempfile::NamedTempFile::new().unwrap());
    let bytes = old.as_ref().map_or(0, |old| old.metadata().unwrap().len());
    encode::append(target.format, &target.schema, old.as_ref().zip(Some(bytes)), rows, new.as_file_mut()).unwrap();
    let new = fs::read(new.path()).unwrap();
    let stage = |bytes: usize| target.stage(&staged, |to| to.write_all(&new[..bytes])).unwrap();
    match crash {
        Crash::BeforeStaging => {}
        Crash::StagedHalf => assert!(stage(new.len() / 2) > 0),
        Crash::StagedWhole => assert!(stage(new.len()) > 0),
        Crash::Renamed | Crash::Never => {
            assert_eq!(stage(new.len()), new.len() as u64);
            target.reveal(&staged, &path).unwrap();
        }
    }
}

#[test]
fn whoever_comes_after_a_crash_finishes_the_step_and_every_row_is_there_once() {
    for format in ["json", "csv", "parquet"] {
        for crash in [Crash::Never, Crash::BeforeStaging, Crash::StagedHalf, Crash::StagedWhole, Crash::Renamed] {
            for crash_at in 0..3 {
                let folder = tempfile::tempdir().unwrap();
                let target = target(folder.path(), format);
                let (mut state, mut generation) = (PublishState::default(), Generation(1));
                for number in 0..3 {
                    let step_rows = [rows(number * 10, number * 10 + 10)];
                    let step = target.plan(&state, 1, 100);
                    if number == crash_at {
                        carry_out_until(crash, &target, &step, &step_rows, generation);
                        generation = generation.next();
                        target.prepare(generation).unwrap();
                        target.fence_older(generation).unwrap();
                    }
                    let bytes = done(target.carry_out(&step, &step_rows, generation).unwrap());
                    assert_eq!(size(&target, &step.file), Some(bytes));
                    state =
                        PublishState { file_number: step.number, file_bytes: bytes, file_rows: step.rows_before + 10, ..state };
                }
                target.leave(generation);
                assert_eq!(
                    published(folder.path(), format),
                    (0..30).collect::<Vec<_>>(),
                    "{format} {crash:?} at step {crash_at}"
                );
                assert!(!folder.path().join(STAGING).exists(), "the folder is left tidy");
            }
        }
    }
}

#[test]
fn a_late_contender_does_not_give_a_zombie_its_folder_back() {
    let folder = tempfile::tempdir().unwrap();
    let of = |owner| target_of(folder.path(), "json", ShardKey::new(JobId(1), StageId(2), ShardId(0))).owned_by(OwnerId(owner));
    let (zombie, heir, contender) = (of(1), of(2), of(3));
    zombie.prepare(Generation(2)).unwrap();
    let step = zombie.plan(&PublishState::default(), 1, 10);
    heir.prepare(Generation(3)).unwrap();
    heir.fence_older(Generation(3)).unwrap();
    // It saw generation 1, and will lose the claim of generation 2.
    contender.prepare(Generation(2)).unwrap();
    assert_eq!(zombie.carry_out(&step, &[rows(0, 1)], Generation(2)).unwrap(), StepOutcome::Fenced);
    assert_eq!(size(&heir, &step.file), None);
    let next = of(4);
    next.prepare(Generation(4)).unwrap();
    next.fence_older(Generation(4)).unwrap();
    assert!(!contender.staging_of(Generation(2)).exists(), "the next owner clears up after it");
}

#[test]
fn a_full_disk_leaves_the_target_as_it_was_and_the_step_to_be_tried_again() {
    for format in ["csv", "json", "parquet"] {
        let folder = tempfile::tempdir().unwrap();
        let target = target(folder.path(), format);
        let first = target.plan(&PublishState::default(), 1, 10);
        let bytes = done(target.carry_out(&first, &[rows(0, 3)], Generation(1)).unwrap());
        let second = target.plan(&PublishState { file_bytes: bytes, file_rows: 3, ..PublishState::default() }, 1, 10);
        assert_eq!(second.file, first.file, "{format}");
        // A device that is always full takes the staging file's place.
        let staged = target.staging_of(Generation(1)).join(&second.file);
        std::os::unix::fs::symlink("/dev/full", &staged).unwrap();
        let error = target.carry_out(&second, &[rows(3, 5)], Generation(1)).unwrap_err().to_string();
        assert!(error.contains("free some space and run again"), "{format}: {error}");
        assert_eq!(published(folder.path(), format), [0, 1, 2]);
        done(target.carry_out(&second, &[rows(3, 5)], Generation(1)).unwrap());
        assert_eq!(published(folder.path(), format), [0, 1, 2, 3, 4]);
    }
}

#[test]
fn a_sink_folder_that_vanished_is_an_error_not_a_fence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sink");
    let target = target(&path, "json");
    let step = target.plan(&PublishState::default(), 1, 10);
    fs::remove_dir_all(&path).unwrap();
    let error = target.carry_out(&step, &[rows(0, 1)], Generation(1)).unwrap_err().to_string();
    assert!(error.contains("sink") && error.contains("run again"), "{error}");
}

#[test]
fn stages_that_share_a_folder_never_share_a_file_or_a_fence() {
    let folder = tempfile::tempdir().unwrap();
    let of = |stage| target_of(folder.path(), "json", ShardKey::new(JobId(1), StageId(stage), ShardId(0)));
    let (one, other) = (of(2), of(5));
    one.prepare(Generation(1)).unwrap();
    other.prepare(Generation(7)).unwrap();
    other.fence_older(Generation(7)).unwrap();
    let (step, other_step) = (one.plan(&PublishState::default(), 1, 10), other.plan(&PublishState::default(), 1, 10));
    assert_ne!(step.file, other_step.file);
    done(one.carry_out(&step, &[rows(0, 1)], Generation(1)).unwrap());
    done(other.carry_out(&other_step, &[rows(1, 2)], Generation(7)).unwrap());
}

#[test]
fn nested_columns_are_refused_for_csv_with_the_remedy() {
    let nested = DataType::Struct(vec![Field::new("a", DataType::Int64, true)].into());
    let schema = Arc::new(Schema::new(vec![Field::new("r", nested, true)]));
    let options = BTreeMap::from([("path".to_owned(), "/tmp".to_owned()), ("format".to_owned(), "csv".to_owned())]);
    let shard = ShardKey::new(JobId(1), StageId(2), ShardId(0));
    let error = FileTarget::new(TableOptions { table: "t", options: &options }, schema, shard, false).unwrap_err().to_string();
    assert!(error.contains("column r") && error.contains("'parquet'"), "{error}");
}

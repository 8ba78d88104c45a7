//! Snapshots: the newest row of each key of a changelog, beside it, named by a manifest (docs/decisions/0014).
//!
//! ```text
//! part-0 part-1 .. part-7 | part-8 ..    the changelog: only ever grows
//! \_ newest of each key _/  \_ rest _/    the table = the newest of each key in snapshot and rest
//!        _latest/*.parquet
//! ```
//! A snapshot follows from the one before and the changelog since. It is written as any file of the sink is: staged in the folder of the
//! generation and renamed, so a fenced publisher changes nothing (see [`super`]). Files are immutable, the manifest takes the place of
//! the one before, and files fall when the second manifest after theirs is there: who reads by a manifest has until then.
//! The manifest is all that is known of a snapshot: no head names it, so a crash at any place costs only the work.
//!
//! Never: a file of the changelog is changed or removed. Deletion is by number, below the manifest's own: a publisher that was fenced
//! between manifest and deletion removes nothing that its successor names.
//! Memory: keys are spread over partitions of about [`PARTITION_BYTES`], at most [`PARTITIONS_MAX`], one at a time.

mod manifest;
mod newest;
mod spread;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use weir_model::Generation;
use weir_model::head::PublishState;

use super::{FileTarget, StepOutcome, unwritable};
use crate::encode;
use crate::files::Format;
use crate::source::SourceError;
pub(super) use manifest::{Covers, FOLDER, Manifest, Snapshot};
use newest::Newest;

/// Uncompressed bytes of a partition.
pub(super) const PARTITION_BYTES: u64 = 16 << 20;
/// Each is a file, open while rows are spread.
pub(super) const PARTITIONS_MAX: u64 = 128;
/// Folder of the parts below the staging folder of a generation.
const SPREAD: &str = "spread";
/// Changes in a changelog before its first snapshot, where the table does not say: below, the changelog itself is quick to read.
pub(super) const CHANGES_MIN_DEFAULT: u64 = 65_536;
/// Rows that are read at a time.
const BATCH_ROWS: usize = 32_768;

/// Where a changelog stands.
#[derive(Debug, Clone)]
pub struct Stands {
    /// Its files, all acknowledged.
    pub state: PublishState,
    /// Changes in them, from the first.
    pub changes: u64,
    /// Last epoch of each upstream shard whose changes are in them.
    pub epochs: BTreeMap<String, u64>,
    /// Nothing follows.
    pub closed: bool,
}

/// What came of a snapshot. Losing is an outcome.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// The manifest names one of so many rows.
    Taken {
        /// Rows.
        rows: u64,
    },
    /// A newer generation has taken the staging folder away.
    Fenced,
}

/// The snapshots of one publisher's changelog.
#[derive(Debug)]
pub struct Snapshots {
    last: Option<Manifest>,
    changes_min: u64,
    partition_bytes: u64,
    /// After a failure: changes before which it is not tried again.
    not_before: u64,
}

impl FileTarget {
    /// The snapshots beside this changelog; `None` if its rows are no changes by key in Parquet.
    #[must_use]
    pub fn snapshots(&self) -> Option<Snapshots> {
        let keyed = self.key.is_some() && self.format == Format::Parquet;
        keyed.then(|| Snapshots {
            last: self.manifest(),
            changes_min: self.snapshot_changes_min,
            partition_bytes: PARTITION_BYTES,
            not_before: 0,
        })
    }

    /// The manifest as it stands. One that cannot be read counts as none: the next takes its place.
    pub(super) fn manifest(&self) -> Option<Manifest> {
        let path = self.manifest_path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "the manifest of a snapshot cannot be read");
                return None;
            }
        };
        match Manifest::decode(&bytes) {
            Ok(manifest) => Some(manifest),
            Err(why) => {
                tracing::warn!(file = %path.display(), why, "the manifest of a snapshot is not read");
                None
            }
        }
    }

    fn manifest_path(&self) -> PathBuf {
        self.folder.join(FOLDER).join(format!("{}-{}.json", self.shard.job, self.shard))
    }
}

impl Snapshots {
    /// Whether a snapshot is worth its work: the changelog since the last is as long as that one, or nothing follows.
    #[must_use]
    pub fn is_due(&self, changes: u64, closed: bool) -> bool {
        let (covered, rows) = self.last.as_ref().map_or((0, 0), |last| (last.latest.covers.changes, last.latest.rows));
        let since = changes.saturating_sub(covered);
        let long = since >= self.changes_min.max(rows).max(1) && changes >= self.not_before;
        long || closed && since > 0
    }

    /// Writes the newest row of each key as `stands` has it, and the manifest that names it.
    ///
    /// - Cost: the last snapshot and the changelog since, read and sorted by key; twice that where there are several partitions.
    ///
    /// # Errors
    /// [`SourceError`] naming a file that cannot be read or written; the manifest is as before, and it is tried again later.
    pub fn take(&mut self, target: &FileTarget, stands: &Stands, generation: Generation) -> Result<SnapshotOutcome, SourceError> {
        match self.write(target, stands, generation) {
            Err(error) => {
                self.not_before = stands.changes + self.changes_min.max(1);
                // It may be there all the same: its number is not given again.
                self.last = target.manifest();
                // What was begun must not keep a full disk full; only this generation's.
                if let Err(error) = fs::remove_dir_all(target.staging_of(generation).join(SPREAD))
                    && error.kind() != ErrorKind::NotFound
                {
                    tracing::warn!(%error, "parts of a snapshot that came to nothing stay for a while");
                }
                Err(error)
            }
            done => done,
        }
    }

    fn write(&mut self, target: &FileTarget, stands: &Stands, generation: Generation) -> Result<SnapshotOutcome, SourceError> {
        let folder = target.folder.join(FOLDER);
        fs::create_dir_all(&folder).map_err(|error| unwritable(&folder, &error))?;
        let number = self.last.as_ref().map_or(0, |last| last.latest.number) + 1;
        let inputs = self.inputs(target, stands)?;
        let mut writing = Writing { target, generation, number, files: Vec::new(), rows: 0 };
        let Some(()) = writing.newest_of_each_key(&inputs, self.partition_bytes)? else { return Ok(SnapshotOutcome::Fenced) };
        let latest = Snapshot {
            number,
            snapshot: writing.files,
            rows: writing.rows,
            epochs: stands.epochs.clone(),
            covers: Covers { file: stands.state.file_number, rows: stands.state.file_rows, changes: stands.changes },
            changelog_from: target.file_name(stands.state.file_number + u64::from(stands.closed)),
        };
        let rows = latest.rows;
        let manifest = target.manifest_of(latest, self.last.as_ref().map(|last| last.latest.clone()));
        let path = target.manifest_path();
        let bytes = manifest.encode().map_err(|why| SourceError::format(&path.display().to_string(), why))?;
        match target.replace(&path, &bytes, generation)? {
            StepOutcome::Done { .. } => {}
            StepOutcome::Fenced | StepOutcome::TargetChanged => return Ok(SnapshotOutcome::Fenced),
        }
        target.remove_older(&manifest);
        self.last = Some(manifest);
        Ok(SnapshotOutcome::Taken { rows })
    }

    /// The last snapshot, if nobody has removed it, and the files of the changelog that have rows it does not cover, in order.
    fn inputs(&self, target: &FileTarget, stands: &Stands) -> Result<Vec<Input>, SourceError> {
        let state = &stands.state;
        let is_there = |last: &&Snapshot| last.snapshot.iter().all(|file| target.folder.join(file).exists());
        let last = self.last.as_ref().map(|last| &last.latest).filter(is_there);
        let mut inputs = Vec::new();
        for file in last.iter().flat_map(|last| &last.snapshot) {
            inputs.push(Input::open(&target.folder.join(file), u64::MAX)?);
        }
        for number in last.map_or(0, |last| last.covers.file)..=state.file_number {
            // The last may have rows already that nobody has acknowledged.
            let rows = if number == state.file_number { state.file_rows } else { u64::MAX };
            if rows > 0 {
                inputs.push(Input::open(&target.folder.join(target.file_name(number)), rows)?);
            }
        }
        Ok(inputs)
    }
}

/// Rows of a Parquet file, from the first.
#[derive(Debug)]
struct Input {
    path: PathBuf,
    rows_max: u64,
    /// Uncompressed.
    bytes: u64,
}

impl Input {
    fn open(path: &Path, rows_max: u64) -> Result<Self, SourceError> {
        let reader = builder(path)?;
        let groups = reader.metadata().row_groups();
        let bytes = groups.iter().map(|group| u64::try_from(group.total_byte_size()).unwrap_or_default()).sum();
        Ok(Self { path: path.to_owned(), rows_max, bytes })
    }

    /// Gives `take` the rows batch by batch.
    fn each(
        &self,
        target: &FileTarget,
        mut take: impl FnMut(&RecordBatch) -> Result<(), SourceError>,
    ) -> Result<(), SourceError> {
        let failed = |error: ArrowError| SourceError::format(&self.path.display().to_string(), error.to_string());
        let mut left = usize::try_from(self.rows_max).unwrap_or(usize::MAX);
        let reader = builder(&self.path)?.with_batch_size(BATCH_ROWS).build();
        for batch in reader.map_err(|error| failed(error.into()))? {
            let batch = batch.map_err(failed)?;
            let batch = batch.slice(0, batch.num_rows().min(left));
            left -= batch.num_rows();
            take(&RecordBatch::try_new(SchemaRef::clone(&target.schema), batch.columns().to_vec()).map_err(failed)?)?;
        }
        Ok(())
    }
}

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, SourceError> {
    let shown = path.display().to_string();
    let file = File::open(path).map_err(|error| SourceError::format(&shown, error.to_string()))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| SourceError::format(&shown, error.to_string()))
}

/// A snapshot under way.
struct Writing<'a> {
    target: &'a FileTarget,
    generation: Generation,
    number: u64,
    /// Below the sink's folder.
    files: Vec<String>,
    rows: u64,
}

impl Writing<'_> {
    /// `None` once the generation is fenced.
    fn newest_of_each_key(&mut self, inputs: &[Input], partition_bytes: u64) -> Result<Option<()>, SourceError> {
        let bytes: u64 = inputs.iter().map(|input| input.bytes).sum();
        let partitions = bytes.div_ceil(partition_bytes.max(1)).clamp(1, PARTITIONS_MAX);
        let target = self.target;
        if partitions == 1 {
            let mut newest = target.newest()?;
            for input in inputs {
                input.each(target, |batch| newest.take(batch).map_err(|error| target.failed(&error)))?;
            }
            return self.partition(newest);
        }
        let folder = target.staging_of(self.generation).join(SPREAD);
        let Some(mut spread) = spread::Spread::open(target, &folder, partitions)? else { return Ok(None) };
        for input in inputs {
            input.each(target, |batch| spread.take(batch))?;
        }
        for partition in spread.partitions()? {
            let mut newest = target.newest()?;
            partition.each(|batch| newest.take(batch).map_err(|error| target.failed(&error)))?;
            if self.partition(newest)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    fn partition(&mut self, newest: Newest) -> Result<Option<()>, SourceError> {
        let batches = newest.sorted().map_err(|error| self.target.failed(&error))?;
        let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        if rows == 0 {
            return Ok(Some(()));
        }
        let name = self.target.snapshot_name(self.number, self.generation, self.files.len());
        let bytes = encode::encode(Format::Parquet, &self.target.schema, &batches).map_err(|error| self.target.failed(&error))?;
        match self.target.replace(&self.target.folder.join(&name), &bytes, self.generation)? {
            StepOutcome::Done { .. } => {}
            StepOutcome::Fenced | StepOutcome::TargetChanged => return Ok(None),
        }
        self.files.push(name);
        self.rows += rows;
        Ok(Some(()))
    }
}

impl FileTarget {
    fn newest(&self) -> Result<Newest, SourceError> {
        let key = self.key.clone().unwrap_or_default();
        Newest::new(&self.schema, key).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &ArrowError) -> SourceError {
        SourceError::format(&self.folder.join(FOLDER).display().to_string(), error.to_string())
    }

    /// Below the sink's folder. Unique: a number is given once per generation, and named by no manifest before it is written.
    fn snapshot_name(&self, number: u64, generation: Generation, part: usize) -> String {
        format!("{FOLDER}/{}{number:06}-{:010}-{part:03}.parquet", self.staging_prefix(), generation.0)
    }

    fn manifest_of(&self, latest: Snapshot, previous: Option<Snapshot>) -> Manifest {
        let name = |place: &usize| self.schema.field(*place).name().clone();
        let key = self.key.iter().flatten().map(name).collect();
        Manifest::new(key, format!("part-{}*.parquet", self.staging_prefix()), latest, previous)
    }

    /// Removes what neither `manifest` nor the one before it names, of lower numbers alone. What cannot be removed is left to the next.
    fn remove_older(&self, manifest: &Manifest) {
        let prefix = self.staging_prefix();
        let number = |name: &str| name.strip_prefix(&prefix)?.split('-').next()?.parse::<u64>().ok();
        for entry in fs::read_dir(self.folder.join(FOLDER)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let older = number(name).is_some_and(|number| number < manifest.latest.number);
            if older && !manifest.names(&format!("{FOLDER}/{name}")) {
                drop(fs::remove_file(entry.path()));
            }
        }
    }
}

#[cfg(test)]
mod tests;

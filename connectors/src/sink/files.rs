//! Files as a publisher's target, on a local folder (X5).
//!
//! A step appends rows to the file that grows, by writing old and new rows to a staging file and renaming it over the target: a reader
//! sees the file before or after the step, never a part and never a row twice. A file grows while it is small or the step is a good
//! part of it; else the next number begins, so files have sane sizes and write amplification is bounded.
//!
//! The fence against zombies: staging lies in a folder of its own per generation and owner. It is made *before* that generation is
//! claimed, and a new owner removes the folders of all lower ones before it does anything else. A zombie's write or rename then finds
//! no folder, and it never makes one again. The owner is part of the name because a contender that is late (it saw an old generation,
//! slept, and will lose the claim) may still make a folder: it must not be the one a zombie has lost.
//!
//! ```text
//! prepare(g+1) --> claim g+1 --> fence_older(g+1) --> name a step (commit) --> stage --sync--> rename --sync--> acknowledge (commit)
//! ```
//! Never: a look at the table. Whether a step was carried out is seen from the file alone.
//! Invariants: EO-2, T6, X5 (see `model::invariants`).

mod published;
mod snapshot;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use weir_model::decide::{PublishRecovery, decide_recovery};
use weir_model::head::PublishState;
use weir_model::{Generation, OwnerId, ShardKey};

use crate::encode;
use crate::files::{Format, format, local_path};
use crate::options::{OptionsError, TableOptions};
use crate::source::SourceError;
pub use published::{Published, readable};
pub use snapshot::{SnapshotOutcome, Snapshots, Stands};

/// A file below this size grows with every step.
const GROW_BYTES: u64 = 1 << 20;
/// A larger file grows only by steps of at least this part of it.
const GROW_PART: u64 = 8;
/// A file at least this large never grows.
const FILE_BYTES_DEFAULT: u64 = 128 << 20;

/// Known keys: `path`, `format`, the size at which a file is full, and the changes before which a changelog has no snapshot.
const OPTIONS: [&str; 5] = ["connector", "path", "format", "sink.rolling-policy.file-size", SNAPSHOT_MIN];
/// Key of the changes before a snapshot.
const SNAPSHOT_MIN: &str = "sink.snapshot.min-rows";
/// Times a staging folder is made again when its parent vanished meanwhile.
const PREPARE_AGAIN: u32 = 16;
/// Folder in the sink's folder that holds the staging folders; other engines skip names with a dot.
const STAGING: &str = ".weir-staging";

/// A sink folder as one publisher shard sees it.
#[derive(Debug)]
pub struct FileTarget {
    folder: PathBuf,
    staging: PathBuf,
    format: Format,
    schema: SchemaRef,
    shard: ShardKey,
    owner: OwnerId,
    file_bytes_max: u64,
    /// Places of the key's columns, if rows are changes by key.
    key: Option<Vec<usize>>,
    /// Changes before the first snapshot.
    snapshot_changes_min: u64,
    fsync: bool,
}

/// One append to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Number of the file.
    pub number: u64,
    /// Its name in the folder.
    pub file: String,
    /// Its size before the step; 0 if it must not exist.
    pub bytes_before: u64,
    /// Its rows before the step. What a Parquet step is recognised by: encoded anew, a file with more rows may be no larger.
    pub rows_before: u64,
}

/// What came of a step. Losing is an outcome.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// The file has the step's rows and this size.
    Done {
        /// Size after the step.
        bytes_after: u64,
    },
    /// A newer generation has taken the staging folder away.
    Fenced,
    /// Somebody else changed the file: the step's rows must go to a new one.
    TargetChanged,
}

impl FileTarget {
    /// The target of publisher `shard`.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option.
    pub fn new(options: TableOptions<'_>, schema: SchemaRef, shard: ShardKey, fsync: bool) -> Result<Self, OptionsError> {
        options.only(&OPTIONS)?;
        let folder = PathBuf::from(local_path(options)?);
        let format = format(options)?;
        encode::check(format, &schema).map_err(|message| options.error(message))?;
        let file_bytes_max = options.bytes("sink.rolling-policy.file-size")?.unwrap_or(FILE_BYTES_DEFAULT);
        let staging = folder.join(STAGING);
        let snapshot_changes_min = options.number(SNAPSHOT_MIN)?;
        if snapshot_changes_min.is_some() && format != Format::Parquet {
            return Err(
                options.error(format!("'{SNAPSHOT_MIN}': snapshots are Parquet: write 'format' = 'parquet', or leave it out"))
            );
        }
        let snapshot_changes_min = snapshot_changes_min.unwrap_or(snapshot::CHANGES_MIN_DEFAULT);
        let owner = OwnerId(0);
        Ok(Self { folder, staging, format, schema, shard, owner, file_bytes_max, key: None, snapshot_changes_min, fsync })
    }

    /// The same target, whose rows are changes of what has the key at these places; they end in `op` and `epoch`.
    #[must_use]
    pub fn keyed_by(self, key: Vec<usize>) -> Self {
        Self { key: Some(key), ..self }
    }

    /// The same target as `owner` sees it: its staging folders are no other owner's.
    #[must_use]
    pub fn owned_by(self, owner: OwnerId) -> Self {
        Self { owner, ..self }
    }

    /// Makes the folders of `generation`; called before it is claimed.
    ///
    /// # Errors
    /// [`SourceError::Format`] naming a folder that cannot be written.
    pub fn prepare(&self, generation: Generation) -> Result<(), SourceError> {
        let folder = self.staging_of(generation);
        let mut made = fs::create_dir_all(&folder);
        for _ in 0..PREPARE_AGAIN {
            // Another publisher of the folder may take the empty parent away between the two steps of making it.
            if !matches!(&made, Err(error) if error.kind() == ErrorKind::NotFound) {
                break;
            }
            made = fs::create_dir_all(&folder);
        }
        made.map_err(|error| unwritable(&folder, &error))
    }

    /// Takes the folders of older generations away; called right after the claim, before anything else.
    ///
    /// # Errors
    /// [`SourceError::Format`] naming a folder that cannot be written.
    pub fn fence_older(&self, generation: Generation) -> Result<(), SourceError> {
        let prefix = self.staging_prefix();
        let entries = match fs::read_dir(&self.staging) {
            Ok(entries) => entries,
            // A newer generation has come and gone, and took the folder with it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unwritable(&self.staging, &error)),
        };
        for entry in entries {
            let path = entry.map_err(|error| unwritable(&self.staging, &error))?.path();
            let of_older = (path.file_name().and_then(|name| name.to_str()))
                .and_then(|name| name.strip_prefix(&prefix))
                .and_then(|rest| rest.split('-').next())
                .and_then(|digits| digits.parse::<u64>().ok())
                .is_some_and(|older| older < generation.0);
            if of_older {
                remove_folder(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the staging folders of a publisher that has nothing more to do.
    pub fn leave(&self, generation: Generation) {
        drop(fs::remove_dir_all(self.staging_of(generation)));
        // Fails while another publisher of the folder is at work.
        drop(fs::remove_dir(&self.staging));
    }

    /// The next step after `state`, of so many rows that take `bytes` bytes in memory.
    #[must_use]
    pub fn plan(&self, state: &PublishState, rows: u64, bytes: u64) -> Step {
        let size = state.file_bytes;
        // In the file they will take about what those before them take.
        let like_those_before = rows.saturating_mul(size).checked_div(state.file_rows).unwrap_or(bytes);
        let is_good_part = size <= bytes.min(like_those_before).saturating_mul(GROW_PART);
        let grows = size > 0 && size < self.file_bytes_max && (size < GROW_BYTES || is_good_part);
        let next =
            Step { number: state.file_number + 1, file: self.file_name(state.file_number + 1), bytes_before: 0, rows_before: 0 };
        let same = Step {
            number: state.file_number,
            file: self.file_name(state.file_number),
            bytes_before: size,
            rows_before: state.file_rows,
        };
        if grows || size == 0 { same } else { next }
    }

    /// The step that puts rows in a new file, when somebody changed the one they were meant for.
    #[must_use]
    pub fn plan_new(&self, after: u64) -> Step {
        Step { number: after + 1, file: self.file_name(after + 1), bytes_before: 0, rows_before: 0 }
    }

    /// Unique in a folder that several jobs and stages share.
    fn file_name(&self, number: u64) -> String {
        format!("part-{}-{}-{number:06}.{}", self.shard.job, self.shard, self.format.extension())
    }

    /// Carries out a step: idempotent, and without effect once the generation is fenced.
    ///
    /// # Errors
    /// [`SourceError`] naming the file and what is wrong; the target is as before.
    pub fn carry_out(&self, step: &Step, rows: &[RecordBatch], generation: Generation) -> Result<StepOutcome, SourceError> {
        let target = self.folder.join(&step.file);
        let now = match File::open(&target) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(unwritable(&target, &error)),
        };
        let bytes_now = (now.as_ref().map(|file| Ok(file.metadata()?.len())).transpose())
            .map_err(|error: std::io::Error| unwritable(&target, &error))?;
        let (before, size) = match (self.format, &now) {
            (Format::Parquet, Some(found)) => {
                (step.rows_before, Some(parquet_rows(found).map_err(|error| unwritable(&target, &error))?))
            }
            _ => (step.bytes_before, bytes_now),
        };
        let ends_with_step = match &now {
            Some(found) if size > Some(before) => {
                self.ends_with(found, step, rows).map_err(|error| unwritable(&target, &error))?
            }
            _ => false,
        };
        match decide_recovery(before, size, ends_with_step) {
            PublishRecovery::AlreadyDone => Ok(StepOutcome::Done { bytes_after: bytes_now.unwrap_or_default() }),
            PublishRecovery::TargetChanged => Ok(StepOutcome::TargetChanged),
            PublishRecovery::CarryOut => {
                let write = |to: &mut File| encode::append(self.format, &self.schema, now.as_ref().zip(bytes_now), rows, to);
                self.replace_with(&target, generation, write)
            }
        }
    }

    /// Whether `found` is the file after the step: it ends in the step's rows.
    fn ends_with(&self, found: &File, step: &Step, rows: &[RecordBatch]) -> std::io::Result<bool> {
        match self.format {
            Format::Json | Format::Csv => {
                let added = encode::encode(self.format, &self.schema, rows).map_err(encode::arrow_io_error)?;
                if found.metadata()?.len() != step.bytes_before + added.len() as u64 {
                    return Ok(false);
                }
                let mut end = vec![0; added.len()];
                found.read_exact_at(&mut end, step.bytes_before)?;
                Ok(end == added)
            }
            Format::Parquet => parquet_ends_with(found, &self.schema, step.rows_before, rows),
        }
    }

    /// Puts `bytes` in the target's place, or leaves it as it is.
    fn replace(&self, target: &Path, bytes: &[u8], generation: Generation) -> Result<StepOutcome, SourceError> {
        self.replace_with(target, generation, |to| to.write_all(bytes))
    }

    /// Puts what `write` writes in the target's place, or leaves it as it is.
    fn replace_with(
        &self,
        target: &Path,
        generation: Generation,
        write: impl FnOnce(&mut File) -> std::io::Result<()>,
    ) -> Result<StepOutcome, SourceError> {
        let staged = self.staging_of(generation).join(target.file_name().unwrap_or_default());
        let done = self.stage(&staged, write).and_then(|bytes| self.reveal(&staged, target).map(|()| bytes));
        match done {
            Ok(bytes_after) => Ok(StepOutcome::Done { bytes_after }),
            // The sink's own folder gone is not a fence: somebody has to know.
            Err(error)
                if error.kind() == ErrorKind::NotFound && self.folder.exists() && !self.staging_of(generation).exists() =>
            {
                Ok(StepOutcome::Fenced)
            }
            Err(error) => {
                // A part of a file must not keep a full disk full.
                drop(fs::remove_file(&staged));
                Err(unwritable(target, &error))
            }
        }
    }

    /// Writes a staged file; returns its size.
    fn stage(&self, staged: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> std::io::Result<u64> {
        let mut file = File::create(staged)?;
        write(&mut file)?;
        if self.fsync {
            file.sync_all()?;
        }
        Ok(file.metadata()?.len())
    }

    fn reveal(&self, staged: &Path, target: &Path) -> std::io::Result<()> {
        fs::rename(staged, target)?;
        let folder = target.parent().unwrap_or(&self.folder);
        if self.fsync { File::open(folder)?.sync_all() } else { Ok(()) }
    }

    fn staging_prefix(&self) -> String {
        format!("{}-{}-", self.shard.job, self.shard)
    }

    fn staging_of(&self, generation: Generation) -> PathBuf {
        self.staging.join(format!("{}{:010}-{}", self.staging_prefix(), generation.0, self.owner))
    }
}

/// Rows of a Parquet file; `u64::MAX` if it is none, which no step ever leaves.
fn parquet_rows(found: &File) -> std::io::Result<u64> {
    let rows = parquet_reader(found)?.and_then(|reader| u64::try_from(reader.metadata().file_metadata().num_rows()).ok());
    Ok(rows.unwrap_or(u64::MAX))
}

/// `None` if it is no Parquet file: that it cannot be read now says nothing of it.
fn parquet_reader(found: &File) -> std::io::Result<Option<ParquetRecordBatchReaderBuilder<File>>> {
    match ParquetRecordBatchReaderBuilder::try_new(found.try_clone()?).map_err(encode::io_error) {
        Ok(reader) => Ok(Some(reader)),
        Err(error) if error.kind() == ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

fn parquet_ends_with(found: &File, schema: &SchemaRef, rows_before: u64, rows: &[RecordBatch]) -> std::io::Result<bool> {
    let Some(reader) = parquet_reader(found)? else { return Ok(false) };
    let wanted = concat_batches(schema, rows).map_err(encode::arrow_io_error)?;
    let rows = u64::try_from(reader.metadata().file_metadata().num_rows()).ok();
    if rows != Some(rows_before + wanted.num_rows() as u64) {
        return Ok(false);
    }
    let reader = reader.with_offset(usize::try_from(rows_before).unwrap_or(usize::MAX)).build().map_err(encode::io_error)?;
    let conform =
        |batch: Result<RecordBatch, ArrowError>| RecordBatch::try_new(SchemaRef::clone(schema), batch?.columns().to_vec());
    let last = reader.map(conform).collect::<Result<Vec<_>, _>>().and_then(|last| concat_batches(schema, &last));
    Ok(last.map_err(encode::arrow_io_error)? == wanted)
}

fn remove_folder(path: &Path) -> Result<(), SourceError> {
    // The zombie may add a file while its folder is emptied; its next attempt then finds none.
    for _ in 0..16 {
        match fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            Err(error) => return Err(unwritable(path, &error)),
        }
    }
    Err(SourceError::format(
        &path.display().to_string(),
        "another process keeps writing there: is an old run of this job still alive?",
    ))
}

fn unwritable(path: &Path, error: &std::io::Error) -> SourceError {
    let remedy = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space and run again: nothing was lost",
        ErrorKind::InvalidData => {
            "this format cannot hold the rows, or the file is no longer what it was: move it away and run again"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "let this user write there, or choose another 'path'",
        _ => "put it right and run again: the job goes on where it stopped",
    };
    SourceError::format(&path.display().to_string(), format!("{error}: {remedy}"))
}

#[cfg(test)]
mod tests;

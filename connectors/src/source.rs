//! What a lane needs of a source: rows in a replayable order, each batch with the place to go on from.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use weir_model::{Offset, Watermark};

/// Longest part of a bad row that is kept.
pub const RAW_BYTES_MAX: usize = 64 << 10;

/// A source, opened by each of its lanes.
#[async_trait]
pub trait Source: Send + Sync + std::fmt::Debug {
    /// Whether every lane ends some day. A source that does not say may go on for ever.
    fn bounded(&self) -> bool {
        false
    }

    /// What is read, for people.
    fn describe(&self) -> String {
        format!("{self:?}")
    }

    /// Opens the rows of lane `lane` of `lanes`, from `from` on.
    ///
    /// - `projection`: declared columns to read, ascending; none at all still gives right row counts.
    ///
    /// Splits are dealt round-robin: split `i` belongs to lane `i mod lanes`, so that all lanes move through time together. The rows
    /// and their order do not depend on where reading was resumed.
    ///
    /// # Errors
    /// [`SourceError`].
    async fn open(&self, lane: u32, lanes: u32, from: Offset, projection: &[usize])
    -> Result<Box<dyn SourceReader>, SourceError>;

    /// As [`Source::open`], with the parts of the ledger that readers of this lane gave, in order; sources that learn nothing on their
    /// way need none.
    ///
    /// # Errors
    /// [`SourceError`].
    async fn open_with_ledger(
        &self,
        lane: u32,
        lanes: u32,
        from: Offset,
        ledger: &[Bytes],
        projection: &[usize],
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        let _ = ledger;
        self.open(lane, lanes, from, projection).await
    }
}

/// A lane's rows.
#[async_trait]
pub trait SourceReader: Send + std::fmt::Debug {
    /// The next rows.
    ///
    /// # Errors
    /// [`SourceError`]; the reader must not be used after one.
    async fn next(&mut self) -> Result<Pull, SourceError>;

    /// What later offsets mean, if that has changed since it was last asked for: a commit that names an offset must keep it.
    ///
    /// - `whole`: a part that replaces all earlier ones, instead of what came since the last.
    fn ledger(&mut self, whole: bool) -> Option<Bytes> {
        let _ = whole;
        None
    }

    /// Cuts a batch at `place`, where an earlier reader of the same rows did. For sources whose batches depend on when they are read;
    /// those of others end there by themselves.
    fn end_at(&mut self, place: Offset) {
        let _ = place;
    }
}

/// What a reader has.
#[derive(Debug)]
pub enum Pull {
    /// Rows, or a place without any.
    Rows(SourceBatch),
    /// Event time without rows: none before it comes any more. Its end is [`Pull::End`]'s alone to say.
    Advanced {
        /// How far it is.
        to: Watermark,
        /// Where to go on.
        upto: Offset,
    },
    /// Nothing now.
    Later,
    /// Nothing ever again.
    End,
}

/// Rows and the place after them.
#[derive(Debug)]
pub struct SourceBatch {
    /// The projected columns.
    pub batch: RecordBatch,
    /// Where to go on.
    pub upto: Offset,
    /// Source bytes they took.
    pub bytes: u64,
    /// Rows that could not be decoded.
    pub bad: Vec<BadRow>,
}

/// A row that could not be decoded, with its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// File or generator.
    pub source: String,
    /// Byte offset of its first byte in the decoded file.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
    /// Its bytes, at most [`RAW_BYTES_MAX`].
    pub raw: Bytes,
}

/// A source that cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A pinned file has changed: its rows would not be those that earlier commits counted.
    #[error(
        "file {file} changed while the job was reading it: put its old bytes back and run again, or start a new job under another name"
    )]
    Changed {
        /// The file.
        file: String,
    },
    /// A large pinned file was written anew, perhaps with the same bytes: only whoever wrote it knows.
    #[error(
        "file {file} was written anew while the job was reading it: if its bytes are the old ones, say so with touch -d '{modified}' '{file}' and run again; else put them back, or start a new job under another name"
    )]
    Rewritten {
        /// The file.
        file: String,
        /// The pinned version's modification time, as `touch -d` takes it.
        modified: String,
    },
    /// A pinned file is gone.
    #[error("file {file} is gone while the job was reading it: put it back and run again, the job goes on where it stopped")]
    Vanished {
        /// The file.
        file: String,
    },
    /// The store does not answer.
    #[error("reading {file}: {source}")]
    Store {
        /// The file.
        file: String,
        /// What the store says.
        source: object_store::Error,
    },
    /// A file is not of the declared format or columns.
    #[error("file {file}: {message}")]
    Format {
        /// The file.
        file: String,
        /// What does not fit, and what to do.
        message: String,
    },
    /// A server does not answer, or asks to try again.
    #[error("{place} does not answer: {message}")]
    Away {
        /// The server and what in it.
        place: String,
        /// What went wrong.
        message: String,
    },
    /// A server refuses what it is given.
    #[error("{place}: {message}")]
    Refused {
        /// The server and what in it.
        place: String,
        /// What it says, and what to do.
        message: String,
    },
    /// Arrow refused.
    #[error("decoding: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

impl SourceError {
    pub(crate) fn store(file: &str, source: object_store::Error) -> Self {
        match source {
            object_store::Error::NotFound { .. } => Self::Vanished { file: file.to_owned() },
            object_store::Error::Precondition { .. } | object_store::Error::NotModified { .. } => {
                Self::Changed { file: file.to_owned() }
            }
            source => Self::Store { file: file.to_owned(), source },
        }
    }

    pub(crate) fn format(file: &str, message: impl Into<String>) -> Self {
        Self::Format { file: file.to_owned(), message: message.into() }
    }
}

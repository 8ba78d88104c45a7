//! What can go wrong with stored objects, and what to do about it.

use arrow::error::ArrowError;
use parquet::errors::ParquetError;


/// An object that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The object store said no, or did not say.
    #[error("object {object}: {source}")]
    Store {
        /// The object or folder.
        object: String,
        /// What the store says.
        source: object_store::Error,
    },
    /// The object's bytes are not what its reference says.
    #[error("object {object} is damaged or not ours: {message}")]
    Corrupt {
        /// The object.
        object: String,
        /// What does not fit.
        message: String,
    },
    /// Parquet refused to write or read.
    #[error("parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// Arrow refused to build a batch.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
    /// A key column of a type that has no canonical bytes.
    #[error("a key of type {0} cannot be hashed to a key group: cast it to a string, number, date or timestamp")]
    KeyType(arrow::datatypes::DataType),
    /// A store address that is not understood, or a folder that cannot be used.
    #[error("{0}")]
    Address(String),
}

/// What the caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Try again: nothing is wrong but the moment.
    Retry,
    /// The object is gone: re-read the head (G4).
    Missing,
    /// Stop: going on would build on damage.
    Corrupt,
    /// The request itself is wrong.
    Invalid,
}

impl StateError {
    /// An error of the store about `object`.
    pub(crate) fn store(object: impl Into<String>, source: object_store::Error) -> Self {
        Self::Store { object: object.into(), source }
    }

    /// What to do.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store { source: object_store::Error::NotFound { .. }, .. } => Kind::Missing,
            Self::Store { .. } => Kind::Retry,
            Self::Corrupt { .. } | Self::Parquet(_) | Self::Arrow(_) => Kind::Corrupt,
            Self::KeyType(_) | Self::Address(_) => Kind::Invalid,
        }
    }
}

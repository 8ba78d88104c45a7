//! What can go wrong with stored objects, and what to do about it.

use arrow::datatypes::DataType;
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
    /// The object was written in a format that this build does not know.
    #[error("object {object} has {what} format {found}, this build reads {known}: use the build that wrote it")]
    UnknownFormat {
        /// The object.
        object: String,
        /// Segment or manifest.
        what: &'static str,
        /// Its format.
        found: String,
        /// The format of this build.
        known: String,
    },
    /// The object's columns are not those of the plan that reads it.
    #[error("object {object} has {found} where the plan has {expected}: it was written by another version of the job")]
    SchemaMismatch {
        /// The object.
        object: String,
        /// What the plan has: a column, or how many.
        expected: String,
        /// What the object has.
        found: String,
    },
    /// A column of a type that a segment cannot hold.
    #[error("column {column} cannot be stored: Parquet does not hold the type {data_type}; cast it to another one")]
    Unstorable {
        /// The column.
        column: String,
        /// Its type, or the nested one that stands in the way.
        data_type: DataType,
    },
    /// Rows of a key group that no shard of the layout owns (RS-1).
    #[error("key group {group} belongs to no shard of the layout")]
    NoReceiver {
        /// The key group.
        group: u16,
    },
    /// Parquet refused to write.
    #[error("parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// Arrow refused to build a batch.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
    /// A key column of a type that has no canonical bytes.
    #[error("a key of type {0} cannot be hashed to a key group: cast it to a string, number, date or timestamp")]
    KeyType(DataType),
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
    /// What a store says of one object.
    pub fn store(object: impl Into<String>, source: object_store::Error) -> Self {
        Self::Store { object: object.into(), source }
    }

    /// What to do.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store { source, .. } => kind_of_store(source),
            Self::Corrupt { .. } | Self::NoReceiver { .. } | Self::Parquet(_) | Self::Arrow(_) => Kind::Corrupt,
            Self::UnknownFormat { .. }
            | Self::SchemaMismatch { .. }
            | Self::Unstorable { .. }
            | Self::KeyType(_)
            | Self::Address(_) => Kind::Invalid,
        }
    }
}

/// Anything that is not known to be final may pass: retries are bounded by the caller.
fn kind_of_store(error: &object_store::Error) -> Kind {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => Kind::Missing,
        Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::UnknownConfigurationKey { .. } => Kind::Invalid,
        _ => Kind::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_object_is_looked_for_elsewhere_and_a_slow_store_is_asked_again() {
        let missing = object_store::Error::NotFound { path: "a".to_owned(), source: "gone".into() };
        let slow = object_store::Error::Generic { store: "s", source: "time-out".into() };
        let denied = object_store::Error::PermissionDenied { path: "a".to_owned(), source: "no".into() };
        let kinds = [missing, slow, denied].map(|source| StateError::store("a", source).kind());
        assert_eq!(kinds, [Kind::Missing, Kind::Retry, Kind::Invalid]);
    }
}

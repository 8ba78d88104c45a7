//! Versioned JSON objects: manifests and lists. An object is read only if its size is the one that was committed and its format is known.

use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::StateError;

/// What is stored as a versioned JSON object; it has a field `format`.
pub(crate) trait Json: Serialize + DeserializeOwned {
    /// What a user calls it.
    const WHAT: &str;
    /// The one version that this build reads.
    const FORMAT: u16;
}

/// The format stands alone first: another one may have any other fields.
#[derive(Deserialize)]
struct Format {
    format: u16,
}

/// # Errors
/// [`StateError::Corrupt`] if the value has no JSON form.
pub(crate) fn encode<T: Json>(object: &str, value: &T) -> Result<Vec<u8>, StateError> {
    serde_json::to_vec(value).map_err(|error| corrupt(object, &error.to_string()))
}

/// # Errors
/// [`StateError::Store`] (kind `Missing` if it is gone: G4), [`StateError::UnknownFormat`], [`StateError::Corrupt`].
pub(crate) async fn read<T: Json>(store: &dyn ObjectStore, object: &str, committed_bytes: u64) -> Result<T, StateError> {
    let failed = |error| StateError::store(object, error);
    let bytes = store.get(&Path::from(object)).await.map_err(failed)?.bytes().await.map_err(failed)?;
    decode(object, committed_bytes, &bytes)
}

pub(crate) fn decode<T: Json>(object: &str, committed_bytes: u64, bytes: &[u8]) -> Result<T, StateError> {
    if bytes.len() as u64 != committed_bytes {
        return Err(corrupt(object, &format!("{committed_bytes} bytes were committed, {} are there", bytes.len())));
    }
    let found: Format = serde_json::from_slice(bytes).map_err(|error| corrupt(object, &error.to_string()))?;
    if found.format != T::FORMAT {
        let (found, known) = (found.format.to_string(), T::FORMAT.to_string());
        return Err(StateError::UnknownFormat { object: object.to_owned(), what: T::WHAT, found, known });
    }
    serde_json::from_slice(bytes).map_err(|error| corrupt(object, &error.to_string()))
}

pub(crate) fn corrupt(object: &str, message: &str) -> StateError {
    StateError::Corrupt { object: object.to_owned(), message: message.to_owned() }
}

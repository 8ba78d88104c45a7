//! One file at one version: what a pin holds, and reading on condition of it.
//!
//! A store's version tag is cheap to compare with, but a local file's is made of inode, modification time and size: the very same
//! bytes, put back after somebody moved or overwrote them, have another. So a pin also holds what the bytes are known by:
//!
//! | file | known by | put back, it is read on if |
//! | --- | --- | --- |
//! | up to 1 MiB | xxh3-128 of size and all bytes | the bytes are the same |
//! | larger | the same of its size, its first and last 64 KiB and 16 blocks of 4 KiB between them | these are the same, and the modification time |
//!
//! Hashing a large file whole would read everything once more before the job's first row. Bytes between the samples are vouched for by
//! the modification time alone, so whoever puts a large file back without its time is told how to say that it is the same.
//!
//! What is guaranteed: a range comes from a file that had the pinned tag, or passed that comparison, both before and after the range was
//! read. What is not seen: a large file changed in bytes between the samples, with its size kept and its time set back to the
//! microsecond; and a pin of an earlier build, which has the tag only, never takes other than the tag.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::listing::Compression;
use crate::source::SourceError;

/// Files up to this size are hashed whole.
const WHOLE_BYTES_MAX: u64 = 1 << 20;
/// Bytes hashed at both ends of a larger file.
const END_BYTES: u64 = 64 << 10;
/// Blocks hashed between the ends, and their size.
const BLOCKS: u64 = 16;
const BLOCK_BYTES: u64 = 4 << 10;
/// Times a range is read again because its file got another version meanwhile.
const VERSIONS_MAX: u32 = 4;

/// One file at one version. Persisted in the pinned listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedFile {
    /// Path in the store, encoded as the store writes it.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Version: reads are conditional on it.
    pub e_tag: Option<String>,
    /// Compression.
    pub compression: Compression,
    /// What its bytes are known by under another tag; none in a pin of an earlier build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

/// What a file's bytes are known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Content {
    /// What was hashed.
    pub extent: Extent,
    /// The hash.
    pub hash: ContentHash,
    /// Modification time, microseconds UTC.
    pub modified_micros: i64,
}

/// What of a file was hashed. Persisted; which bytes each means is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// Everything.
    Whole,
    /// Both ends and blocks between them.
    Samples,
}

/// xxh3-128 of a file's size and the bytes of an [`Extent`]; 32 hexadecimal digits in persisted form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash(pub u128);

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> Self {
        format!("{:032x}", hash.0)
    }
}

impl TryFrom<String> for ContentHash {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

impl Extent {
    const fn of(bytes: u64) -> Self {
        if bytes <= WHOLE_BYTES_MAX { Self::Whole } else { Self::Samples }
    }

    /// The ranges of a file of `bytes` bytes, in the order in which they are hashed.
    fn ranges(self, bytes: u64) -> Vec<Range<u64>> {
        match self {
            Self::Whole if bytes == 0 => Vec::new(),
            Self::Whole => std::iter::once(0..bytes).collect(),
            Self::Samples => {
                let (first, last) = (END_BYTES, bytes - END_BYTES - BLOCK_BYTES);
                let blocks = (0..BLOCKS).map(|block| first + (last - first) * block / (BLOCKS - 1));
                let blocks = blocks.map(|start| start..start + BLOCK_BYTES);
                std::iter::once(0..END_BYTES).chain(blocks).chain(std::iter::once(bytes - END_BYTES..bytes)).collect()
            }
        }
    }
}

fn hash(bytes: u64, parts: &[Bytes]) -> ContentHash {
    let mut hasher = Xxh3::new();
    hasher.update(&bytes.to_le_bytes());
    parts.iter().for_each(|part| hasher.update(part));
    ContentHash(hasher.digest128())
}

/// The store that pinned files are read from; remembers which other versions of them were found to be the same.
#[derive(Debug, Clone)]
pub(crate) struct PinnedStore {
    store: Arc<dyn ObjectStore>,
    /// Tags of files that were put back, by path.
    put_back: Arc<Mutex<HashMap<String, String>>>,
}

impl PinnedStore {
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, put_back: Arc::default() }
    }

    pub(crate) fn store(&self) -> &dyn ObjectStore {
        self.store.as_ref()
    }

    /// `file` with what its bytes are known by; the file must still be at its version.
    pub(crate) async fn known(&self, file: PinnedFile) -> Result<PinnedFile, SourceError> {
        match self.look_into(&file).await? {
            Some((content, e_tag)) if e_tag == file.e_tag => Ok(PinnedFile { content: Some(content), ..file }),
            Some(_) | None => Err(changed(&file)),
        }
    }

    /// Reads a range of a file at its pinned version.
    pub(crate) async fn read(&self, file: &PinnedFile, range: Range<u64>) -> Result<Bytes, SourceError> {
        for _ in 0..VERSIONS_MAX {
            let e_tag = self.put_back(file).or_else(|| file.e_tag.clone());
            if let Some(bytes) = self.read_at(file, e_tag, range.clone()).await? {
                return Ok(bytes);
            }
            self.take_back(file).await?;
        }
        Err(changed(file))
    }

    fn put_back(&self, file: &PinnedFile) -> Option<String> {
        self.put_back.lock().unwrap_or_else(PoisonError::into_inner).get(&file.path).cloned()
    }

    /// The range at version `e_tag`; `None` if the file is at another.
    async fn read_at(&self, file: &PinnedFile, e_tag: Option<String>, range: Range<u64>) -> Result<Option<Bytes>, SourceError> {
        let wanted = range.end - range.start;
        let options = GetOptions { if_match: e_tag.clone(), range: Some(range.into()), ..GetOptions::default() };
        let failed = |error| SourceError::store(&shown(&file.path), error);
        let result = match self.store.get_opts(&location(file)?, options).await {
            Err(object_store::Error::Precondition { .. }) => return Ok(None),
            result => result.map_err(failed)?,
        };
        let bytes = result.bytes().await.map_err(failed)?;
        // Somebody may have written into the file while it was read.
        let same = e_tag.is_none() || self.head(file).await?.e_tag == e_tag;
        Ok((same && bytes.len() as u64 == wanted).then_some(bytes))
    }

    /// Takes the file as it is for the pinned one, if that is what its bytes say.
    async fn take_back(&self, file: &PinnedFile) -> Result<(), SourceError> {
        let pinned = file.content.ok_or_else(|| changed(file))?;
        let Some((found, Some(e_tag))) = self.look_into(file).await? else { return Err(changed(file)) };
        if (found.extent, found.hash) != (pinned.extent, pinned.hash) {
            return Err(changed(file));
        }
        if pinned.extent == Extent::Samples && found.modified_micros != pinned.modified_micros {
            return Err(rewritten(file, pinned.modified_micros));
        }
        tracing::info!(file = %shown(&file.path), "put back as it was pinned");
        self.put_back.lock().unwrap_or_else(PoisonError::into_inner).insert(file.path.clone(), e_tag);
        Ok(())
    }

    /// What the file's bytes are known by now, and its tag; `None` if it has another size or is being written.
    async fn look_into(&self, file: &PinnedFile) -> Result<Option<(Content, Option<String>)>, SourceError> {
        let before = self.head(file).await?;
        if before.size != file.bytes {
            return Ok(None);
        }
        let extent = Extent::of(file.bytes);
        let ranges = extent.ranges(file.bytes);
        let parts = self.store.get_ranges(&location(file)?, &ranges).await;
        let parts = parts.map_err(|error| SourceError::store(&shown(&file.path), error))?;
        let after = self.head(file).await?;
        let modified_micros = after.last_modified.timestamp_micros();
        let content = Content { extent, hash: hash(file.bytes, &parts), modified_micros };
        Ok((before.e_tag == after.e_tag).then_some((content, after.e_tag)))
    }

    async fn head(&self, file: &PinnedFile) -> Result<ObjectMeta, SourceError> {
        self.store.head(&location(file)?).await.map_err(|error| SourceError::store(&shown(&file.path), error))
    }
}

fn location(file: &PinnedFile) -> Result<Path, SourceError> {
    // Parsed, not converted: converting would encode what is encoded already.
    Path::parse(&file.path).map_err(|error| SourceError::format(&shown(&file.path), error.to_string()))
}

fn changed(file: &PinnedFile) -> SourceError {
    SourceError::Changed { file: shown(&file.path) }
}

fn rewritten(file: &PinnedFile, modified_micros: i64) -> SourceError {
    let modified = chrono::DateTime::from_timestamp_micros(modified_micros).unwrap_or_default();
    let modified = modified.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    SourceError::Rewritten { file: shown(&file.path), modified }
}

/// A pinned path as people write it.
pub(crate) fn shown(path: &str) -> String {
    format!("/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(count: u64) -> Vec<u8> {
        (0..count).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13).to_le_bytes()[0]).collect()
    }

    async fn pinned(folder: &tempfile::TempDir, count: u64) -> (PinnedStore, PinnedFile, std::path::PathBuf) {
        let local = folder.path().canonicalize().unwrap().join("file");
        std::fs::write(&local, bytes(count)).unwrap();
        let store = PinnedStore::new(super::super::local_store());
        let path = Path::from_absolute_path(&local).unwrap();
        let e_tag = store.store().head(&path).await.unwrap().e_tag;
        let file = PinnedFile { path: path.to_string(), bytes: count, e_tag, compression: Compression::None, content: None };
        let file = store.known(file).await.unwrap();
        (store, file, local)
    }

    /// Another file in the place of the old one, as an editor or a restored backup leaves it.
    fn replace(local: &std::path::Path, bytes: &[u8]) {
        let beside = local.with_extension("new");
        std::fs::write(&beside, bytes).unwrap();
        std::fs::rename(beside, local).unwrap();
    }

    fn set_modified(local: &std::path::Path, micros: i64) {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_micros(micros.try_into().unwrap());
        std::fs::File::options().write(true).open(local).unwrap().set_modified(time).unwrap();
    }

    #[tokio::test]
    async fn a_small_file_is_read_on_once_its_bytes_are_back() {
        let folder = tempfile::tempdir().unwrap();
        let (store, file, local) = pinned(&folder, 1000).await;
        let before = store.read(&file, 10..20).await.unwrap();
        let mut other = bytes(1000);
        other[500] ^= 1;
        replace(&local, &other);
        assert!(matches!(store.read(&file, 10..20).await, Err(SourceError::Changed { .. })));
        std::fs::remove_file(&local).unwrap();
        assert!(matches!(store.read(&file, 10..20).await, Err(SourceError::Vanished { .. })));
        replace(&local, &bytes(1000));
        assert_eq!(store.read(&file, 10..20).await.unwrap(), before);
        replace(&local, &other);
        assert!(matches!(store.read(&file, 10..20).await, Err(SourceError::Changed { .. })), "taken back, and changed again");
    }

    #[tokio::test]
    async fn a_large_file_is_read_on_once_its_bytes_and_its_time_are_back() {
        let folder = tempfile::tempdir().unwrap();
        let (store, file, local) = pinned(&folder, WHOLE_BYTES_MAX + 1).await;
        let modified = file.content.unwrap().modified_micros;
        set_modified(&local, modified + 7);
        let said = store.read(&file, 10..20).await.unwrap_err().to_string();
        assert!(said.contains("touch -d '20") && said.contains("Z' "), "{said}");
        replace(&local, &bytes(file.bytes));
        set_modified(&local, modified);
        assert_eq!(store.read(&file, 10..20).await.unwrap(), bytes(20)[10..]);
        let mut other = bytes(file.bytes);
        other[70] ^= 1;
        replace(&local, &other);
        set_modified(&local, modified);
        assert!(matches!(store.read(&file, 10..20).await, Err(SourceError::Changed { .. })));
    }

    #[tokio::test]
    async fn a_pin_of_an_earlier_build_takes_its_tag_only() {
        let folder = tempfile::tempdir().unwrap();
        let (store, file, local) = pinned(&folder, 100).await;
        let mut json = serde_json::to_value(&file).unwrap();
        json.as_object_mut().unwrap().remove("content");
        let old: PinnedFile = serde_json::from_value(json).unwrap();
        assert_eq!(store.read(&old, 0..100).await.unwrap(), bytes(100));
        replace(&local, &bytes(100));
        assert!(matches!(store.read(&old, 0..100).await, Err(SourceError::Changed { .. })));
    }

    #[test]
    fn what_is_hashed_is_frozen() {
        let large = 10 * WHOLE_BYTES_MAX;
        let ranges = Extent::of(large).ranges(large);
        assert_eq!(ranges.len(), 18);
        assert_eq!(ranges.last(), Some(&(large - END_BYTES..large)));
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{ranges:?}");
        let parts: Vec<Bytes> = vec![Bytes::from(bytes(100)), Bytes::from(bytes(50))];
        assert_eq!(String::from(hash(large, &parts)), "ed8a7c6592f73936e691aa62dd31aa45");
    }
}

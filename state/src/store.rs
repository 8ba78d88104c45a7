//! Opening an object store by its address, and making a local folder durable.
//!
//! A local object counts as stored once its bytes, its name and every new folder above it are on the disk (T6): the commit that names
//! it comes after. Deletions are not synced: one that a power cut undoes is done again.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use weir_model::Clock;

use crate::StateError;

/// Opens `memory:` or `file://DIR`, which is made if missing; a bucket is opened by [`crate::s3::open`].
///
/// - `fsync`: objects of a folder survive a power cut.
///
/// # Errors
/// [`StateError::Address`] naming the address, or the folder and what is wrong with it.
pub fn open(address: &str, fsync: bool) -> std::result::Result<Arc<dyn ObjectStore>, StateError> {
    open_as(address, fsync, Folder::open)
}

/// As [`open`], for a process whose caller has opened the same address a moment ago: a folder is neither tried nor swept again.
///
/// # Errors
/// As [`open`].
pub fn open_checked(address: &str, fsync: bool) -> std::result::Result<Arc<dyn ObjectStore>, StateError> {
    open_as(address, fsync, Folder::open_checked)
}

fn open_as(
    address: &str,
    fsync: bool,
    open_folder: fn(&FsPath, bool) -> io::Result<Folder>,
) -> std::result::Result<Arc<dyn ObjectStore>, StateError> {
    if address == "memory:" {
        return Ok(Arc::new(InMemory::new()));
    }
    match address.strip_prefix("file://") {
        Some(folder) if !folder.is_empty() => {
            Ok(Arc::new(open_folder(FsPath::new(folder), fsync).map_err(|error| unusable(folder, &error))?))
        }
        _ => Err(StateError::Address(format!(
            "store {address:?} is not understood: write memory:, file://DIR or s3://BUCKET/PREFIX"
        ))),
    }
}

fn unusable(folder: &str, error: &io::Error) -> StateError {
    let remedy = "choose a folder this user may write with --store file://DIR";
    StateError::Address(format!("store folder {folder:?} cannot be used: {error}; {remedy}"))
}

/// Stores an object of ours under its name.
///
/// # Errors
/// [`StateError::Store`] naming the object.
pub async fn put(store: &dyn ObjectStore, object: &str, bytes: Bytes) -> std::result::Result<(), StateError> {
    store.put(&Path::from(object), bytes.into()).await.map_err(|error| StateError::store(object, error))?;
    Ok(())
}

/// Times an object is put.
const PUT_ATTEMPTS: u32 = 6;

/// As [`put`], again where it failed: its name is unique, so that is harmless.
///
/// # Errors
/// [`StateError::Store`] naming the object, after bounded attempts.
pub async fn put_again(
    store: &dyn ObjectStore,
    clock: &dyn Clock,
    object: &str,
    bytes: Bytes,
) -> std::result::Result<(), StateError> {
    for attempt in 1..PUT_ATTEMPTS {
        if put(store, object, bytes.clone()).await.is_ok() {
            return Ok(());
        }
        clock.sleep(Duration::from_millis(5 << attempt)).await;
    }
    put(store, object, bytes).await
}

/// A local folder whose objects, with `fsync`, are on the disk when `put` returns.
#[derive(Debug)]
struct Folder {
    inner: LocalFileSystem,
    root: PathBuf,
    fsync: bool,
    /// Folders whose own names are known to be on the disk.
    synced: Arc<Mutex<HashSet<PathBuf>>>,
}

/// What a local write ran into, with the folder that somebody has to look at.
#[derive(Debug, thiserror::Error)]
#[error("store folder {} {what}: {source}", folder.display())]
struct FolderError {
    folder: PathBuf,
    what: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl std::fmt::Display for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Folder({})", self.root.display())
    }
}

impl Folder {
    fn open(folder: &FsPath, fsync: bool) -> io::Result<Self> {
        let made = make_folder(folder)?;
        let root = std::fs::canonicalize(folder)?;
        probe(&root)?;
        sweep(&root)?;
        if fsync {
            // The root's parent always: a process that made the root may have died before it came here.
            for parent in made.iter().filter_map(|made| made.parent()).chain(root.parent()) {
                File::open(if parent.as_os_str().is_empty() { FsPath::new(".") } else { parent })?.sync_all()?;
            }
        }
        Self::open_checked(&root, fsync)
    }

    fn open_checked(folder: &FsPath, fsync: bool) -> io::Result<Self> {
        let root = std::fs::canonicalize(folder)?;
        let inner = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?;
        // The root's own name is on the disk: what is synced below stops there.
        let synced = Arc::new(Mutex::new(HashSet::from([root.clone()])));
        Ok(Self { inner, root, fsync, synced })
    }

    async fn sync(&self, location: &Path) -> Result<()> {
        if !self.fsync {
            return Ok(());
        }
        let file = self.inner.path_to_filesystem(location)?;
        let synced = Arc::clone(&self.synced);
        let work = tokio::task::spawn_blocking(move || sync_object(&file, &synced));
        let done = work.await.map_err(|error| self.refused(io::Error::other(error).into()))?;
        done.map_err(|error| self.refused(error.into()))
    }

    /// Names the folder and what a person can do about it.
    fn refused(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        let what = remedy(io_kind(source.as_ref()));
        Error::Generic { store: "file", source: Box::new(FolderError { folder: self.root.clone(), what, source }) }
    }
}

/// Makes a folder and those above it; returns the ones that were not there, innermost first.
fn make_folder(folder: &FsPath) -> io::Result<Vec<PathBuf>> {
    let missing = folder.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists());
    let missing = missing.map(FsPath::to_owned).collect();
    std::fs::create_dir_all(folder)?;
    Ok(missing)
}

/// Whether files can be made here. Several processes may ask at once: whoever comes second finds the file gone.
fn probe(root: &FsPath) -> io::Result<()> {
    let probe = root.join(".weir-writable");
    std::fs::write(&probe, b"weir")?;
    match std::fs::remove_file(&probe) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Age past which a file that was being written is taken to be left by a dead process. One that is not is written again.
const ABANDONED: Duration = Duration::from_secs(3_600);

/// Removes what processes that were killed while they stored an object left behind: `{object}#{number}`.
fn sweep(folder: &FsPath) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            sweep(&path)?;
            continue;
        }
        let name = entry.file_name();
        let staged =
            name.to_str().and_then(|name| name.rsplit_once('#')).is_some_and(|(_, number)| number.parse::<u64>().is_ok());
        let old =
            || entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED));
        if staged && old() {
            // Another process may sweep the same file.
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(())
}

/// Syncs a file, its folder, and the names of folders above that are not known to be on the disk.
fn sync_object(file: &FsPath, synced: &Mutex<HashSet<PathBuf>>) -> io::Result<()> {
    File::open(file)?.sync_all()?;
    let Some(folder) = file.parent() else { return Ok(()) };
    File::open(folder)?.sync_all()?;
    let is_known = |folder: &FsPath| synced.lock().unwrap_or_else(PoisonError::into_inner).contains(folder);
    let new: Vec<&FsPath> = folder.ancestors().take_while(|above| !is_known(above)).collect();
    for parent in new.iter().filter_map(|new| new.parent()) {
        File::open(parent)?.sync_all()?;
    }
    synced.lock().unwrap_or_else(PoisonError::into_inner).extend(new.into_iter().map(FsPath::to_owned));
    Ok(())
}

fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.filter_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind).last()
}

const fn remedy(kind: Option<io::ErrorKind>) -> &'static str {
    match kind {
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            "is full; free some space and run again, nothing committed is lost"
        }
        Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => "may not be written by this user",
        _ => "cannot be written",
    }
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let result = self.inner.put_opts(location, payload, opts).await.map_err(|error| match error {
            // The caller decides on these.
            Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotImplemented { .. } => error,
            other => self.refused(other.into()),
        })?;
        self.sync(location).await?;
        Ok(result)
    }

    async fn put_multipart_opts(&self, _location: &Path, _opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        // Parts would be acknowledged before they are durable; our objects are small enough for one put.
        Err(Error::NotImplemented { operation: "put_multipart".to_owned(), implementer: self.to_string() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.sync(to).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(folder: &FsPath) -> String {
        format!("file://{}", folder.display())
    }

    #[tokio::test]
    async fn a_folder_gives_back_what_was_put() {
        let folder = tempfile::tempdir().unwrap();
        for fsync in [false, true] {
            let store = open(&address(&folder.path().join("made/anew")), fsync).unwrap();
            for name in ["jobs/a/b.parquet", "jobs/a/c.parquet", "jobs/d/e/f.parquet"] {
                put(store.as_ref(), name, name.into()).await.unwrap();
                assert_eq!(store.get(&Path::from(name)).await.unwrap().bytes().await.unwrap(), name);
            }
        }
    }

    #[tokio::test]
    async fn memory_and_folders_keep_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        for address in ["memory:".to_owned(), address(folder.path())] {
            crate::contract::holds(open(&address, true).unwrap().as_ref(), "tests/contract").await;
        }
    }

    #[test]
    fn what_killed_processes_left_half_written_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("jobs")).unwrap();
        let file = |name: &str, age: Duration| {
            let path = folder.path().join("jobs").join(name);
            std::fs::write(&path, "x").unwrap();
            let modified = std::fs::metadata(&path).unwrap().modified().unwrap() - age;
            File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
            path
        };
        let day = Duration::from_secs(86_400);
        let (left, fresh, object) = (file("a.parquet#1", day), file("b.parquet#1", Duration::ZERO), file("c.parquet", day));
        let _checked = open_checked(&address(folder.path()), false).unwrap();
        assert!(left.exists(), "what the caller has done is not done again");
        open(&address(folder.path()), false).unwrap();
        assert_eq!([left, fresh, object].map(|path| path.exists()), [false, true, true]);
    }

    #[test]
    fn every_new_folder_is_synced_once_and_the_root_is_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let synced = Mutex::new(HashSet::from([root.clone()]));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/file"), b"x").unwrap();
        sync_object(&root.join("a/b/file"), &synced).unwrap();
        let known = synced.into_inner().unwrap();
        assert_eq!(known, HashSet::from([root.clone(), root.join("a"), root.join("a/b")]));
    }

    #[test]
    fn an_address_or_folder_that_cannot_be_used_is_named() {
        for unknown in ["ftp://x", "file://", ""] {
            let error = open(unknown, true).unwrap_err().to_string();
            assert!(error.contains(&format!("{unknown:?}")) && error.contains("file://DIR"), "{error}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        for taken in [file.path().to_owned(), file.path().join("below")] {
            let error = open(&address(&taken), true).unwrap_err().to_string();
            assert!(error.contains(&taken.display().to_string()), "{error}");
        }
    }

    #[tokio::test]
    async fn a_put_that_the_disk_refuses_names_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&address(folder.path()), true).unwrap();
        std::fs::write(folder.path().join("jobs"), b"a file where a folder must be").unwrap();
        let error = put(store.as_ref(), "jobs/a/b", "x".into()).await.unwrap_err().to_string();
        assert!(error.contains("object jobs/a/b") && error.contains(&folder.path().display().to_string()), "{error}");
    }

    #[test]
    fn a_full_disk_and_a_forbidden_folder_are_told_apart() {
        let opened = Folder::open(tempfile::tempdir().unwrap().path(), false).unwrap();
        let told = |kind: io::ErrorKind| opened.refused(io::Error::from(kind).into()).to_string();
        assert!(told(io::ErrorKind::StorageFull).contains("is full; free some space"));
        assert!(told(io::ErrorKind::PermissionDenied).contains("may not be written by this user"));
        // The cause may lie deep in the store's own error.
        let nested = Error::Generic { store: "x", source: Box::new(io::Error::from(io::ErrorKind::StorageFull)) };
        assert!(opened.refused(nested.into()).to_string().contains("is full"));
    }

    #[tokio::test]
    async fn create_if_absent_is_still_an_outcome_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&address(folder.path()), true).unwrap();
        let create = async || store.put_opts(&Path::from("a"), "x".into(), object_store::PutMode::Create.into()).await;
        create().await.unwrap();
        assert!(matches!(create().await, Err(Error::AlreadyExists { .. })));
    }

    #[test]
    fn several_processes_may_open_one_folder_at_once() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| drop(open(&address(folder.path()), false).unwrap())));
            }
        });
    }
}

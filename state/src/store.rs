//! Opening an object store by its address, and making a local folder durable.
//!
//! A local object counts as stored once its bytes, its name and every new folder above it are on the disk (T6): the commit that names
//! it comes after.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};

use crate::StateError;

/// Opens `memory:` or `file://DIR`, which is made if missing.
///
/// - `fsync`: objects of a folder survive a power cut.
///
/// # Errors
/// [`StateError::Address`] naming the address, or the folder and what is wrong with it.
pub fn open(address: &str, fsync: bool) -> std::result::Result<Arc<dyn ObjectStore>, StateError> {
    if address == "memory:" {
        return Ok(Arc::new(InMemory::new()));
    }
    let Some(folder) = address.strip_prefix("file://") else {
        return Err(StateError::Address(format!("store {address:?} is not understood: write memory: or file://DIR")));
    };
    let unusable = |error: &dyn std::fmt::Display| {
        StateError::Address(format!("store folder {folder:?} cannot be used: {error}; choose a folder this user may write with --store file://DIR"))
    };
    std::fs::create_dir_all(folder).map_err(|error| unusable(&error))?;
    let root = std::fs::canonicalize(folder).map_err(|error| unusable(&error))?;
    let probe = root.join(".weir-writable");
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(|error| unusable(&error))?;
    let inner = LocalFileSystem::new_with_prefix(&root).map_err(|error| unusable(&error))?;
    if !fsync {
        return Ok(Arc::new(inner));
    }
    Ok(Arc::new(DurableFolder { inner, root, synced: Arc::default() }))
}

/// A folder whose objects are on the disk when `put` returns.
#[derive(Debug)]
struct DurableFolder {
    inner: LocalFileSystem,
    root: PathBuf,
    /// Folders whose own names are known to be on the disk.
    synced: Arc<Mutex<HashSet<PathBuf>>>,
}

impl std::fmt::Display for DurableFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DurableFolder({})", self.root.display())
    }
}

impl DurableFolder {
    async fn sync(&self, location: &Path) -> Result<()> {
        let file = self.inner.path_to_filesystem(location)?;
        let root = self.root.clone();
        let synced = Arc::clone(&self.synced);
        let work = tokio::task::spawn_blocking(move || sync_object(&file, &root, &synced));
        let generic = |source: Box<dyn std::error::Error + Send + Sync>| Error::Generic { store: "file", source };
        work.await.map_err(|error| generic(error.into()))?.map_err(|error| generic(error.into()))
    }
}

/// Syncs a file, its folder, and the folders above that are new.
fn sync_object(file: &std::path::Path, root: &std::path::Path, synced: &Mutex<HashSet<PathBuf>>) -> std::io::Result<()> {
    File::open(file)?.sync_all()?;
    let Some(folder) = file.parent() else { return Ok(()) };
    File::open(folder)?.sync_all()?;
    if synced.lock().unwrap_or_else(PoisonError::into_inner).contains(folder) {
        return Ok(());
    }
    for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(root)) {
        File::open(above)?.sync_all()?;
    }
    synced.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
    Ok(())
}

#[async_trait]
impl ObjectStore for DurableFolder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let result = self.inner.put_opts(location, payload, opts).await?;
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
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn a_folder_gives_back_what_was_put() {
        let folder = tempfile::tempdir().unwrap();
        for fsync in [false, true] {
            let store = open(&format!("file://{}", folder.path().display()), fsync).unwrap();
            let name = Path::from("jobs/a/b.parquet");
            store.put(&name, "abc".into()).await.unwrap();
            assert_eq!(store.get(&name).await.unwrap().bytes().await.unwrap().as_ref(), b"abc");
        }
    }

    #[test]
    fn an_address_or_folder_that_cannot_be_used_is_named() {
        let unknown = open("ftp://x", true).unwrap_err().to_string();
        assert!(unknown.contains("ftp://x") && unknown.contains("file://DIR"), "{unknown}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let taken = open(&format!("file://{}", file.path().display()), true).unwrap_err().to_string();
        assert!(taken.contains(&file.path().display().to_string()), "{taken}");
    }
}

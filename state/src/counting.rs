//! Decorators over the object-store seam: a hook that sees every request, and one that counts, for cost tables and assertions.
//!
//! Faults for simulation are another hook: [`crate::Faults`]. Hooks stack: `Hooked::new(Arc::new(Hooked::new(store, faults)), counts)`
//! counts the requests that failed too.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};
use serde::{Deserialize, Serialize};

/// Kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Stores an object.
    Put,
    /// Reads an object or a range of it.
    Get,
    /// Lists a prefix.
    List,
    /// Deletes an object.
    Delete,
}

/// Sees every request before and after it happens, and may make it fail.
pub trait Hook: Send + Sync + fmt::Debug + 'static {
    /// Before the request reaches the store: an error means it did not happen.
    ///
    /// # Errors
    /// The fault to inject.
    fn before(&self, op: Op, object: &Path) -> Result<()>;

    /// After the store has answered: an error means it happened but the caller does not hear.
    ///
    /// # Errors
    /// The fault to inject.
    fn after(&self, op: Op, object: &Path, bytes: u64) -> Result<()>;
}

/// An object store with a hook.
#[derive(Debug)]
pub struct Hooked<H> {
    inner: Arc<dyn ObjectStore>,
    hook: Arc<H>,
}

impl<H: Hook> Hooked<H> {
    /// Puts `hook` before `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, hook: Arc<H>) -> Self {
        Self { inner, hook }
    }

    /// The hook.
    pub fn hook(&self) -> &H {
        &self.hook
    }
}

impl<H: Hook> fmt::Display for Hooked<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

#[async_trait]
impl<H: Hook> ObjectStore for Hooked<H> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let bytes = payload.content_length() as u64;
        self.hook.before(Op::Put, location)?;
        let result = self.inner.put_opts(location, payload, opts).await?;
        self.hook.after(Op::Put, location, bytes)?;
        Ok(result)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.hook.before(Op::Put, location)?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.hook.before(Op::Get, location)?;
        let result = self.inner.get_opts(location, options).await?;
        self.hook.after(Op::Get, location, result.range.end - result.range.start)?;
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let before = Arc::clone(&self.hook);
        let after = Arc::clone(&self.hook);
        let checked = locations.map(move |location| location.and_then(|path| before.before(Op::Delete, &path).map(|()| path)));
        let deleted = self.inner.delete_stream(checked.boxed());
        deleted.map(move |result| result.and_then(|path| after.after(Op::Delete, &path, 0).map(|()| path))).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.hook.before(Op::List, prefix.unwrap_or(&Path::default())) {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::once(futures::future::ready(Err(error))).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.hook.before(Op::List, prefix.unwrap_or(&Path::default()))?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.hook.before(Op::Put, to)?;
        self.inner.copy_opts(from, to, options).await?;
        self.hook.after(Op::Put, to, 0)
    }
}

/// Requests so far.
#[derive(Debug, Default)]
pub struct Requests {
    puts: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    bytes_put: AtomicU64,
    bytes_got: AtomicU64,
}

/// A reading of [`Requests`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// Objects stored.
    pub puts: u64,
    /// Reads of objects or ranges.
    pub gets: u64,
    /// Prefixes listed.
    pub lists: u64,
    /// Objects deleted.
    pub deletes: u64,
    /// Bytes stored.
    pub bytes_put: u64,
    /// Bytes read.
    pub bytes_got: u64,
}

impl Requests {
    /// Adds those that another process counted.
    pub fn add(&self, counts: &RequestCounts) {
        let add = |counter: &AtomicU64, n| counter.fetch_add(n, Ordering::Relaxed);
        add(&self.puts, counts.puts);
        add(&self.gets, counts.gets);
        add(&self.lists, counts.lists);
        add(&self.deletes, counts.deletes);
        add(&self.bytes_put, counts.bytes_put);
        add(&self.bytes_got, counts.bytes_got);
    }

    /// Reads all counters.
    #[must_use]
    pub fn counts(&self) -> RequestCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts {
            puts: read(&self.puts),
            gets: read(&self.gets),
            lists: read(&self.lists),
            deletes: read(&self.deletes),
            bytes_put: read(&self.bytes_put),
            bytes_got: read(&self.bytes_got),
        }
    }
}

impl std::ops::Add for RequestCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            puts: self.puts + other.puts,
            gets: self.gets + other.gets,
            lists: self.lists + other.lists,
            deletes: self.deletes + other.deletes,
            bytes_put: self.bytes_put + other.bytes_put,
            bytes_got: self.bytes_got + other.bytes_got,
        }
    }
}

impl Hook for Requests {
    fn before(&self, op: Op, _object: &Path) -> Result<()> {
        let counter = match op {
            Op::Put => &self.puts,
            Op::Get => &self.gets,
            Op::List => &self.lists,
            Op::Delete => &self.deletes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn after(&self, op: Op, _object: &Path, bytes: u64) -> Result<()> {
        match op {
            Op::Put => self.bytes_put.fetch_add(bytes, Ordering::Relaxed),
            Op::Get => self.bytes_got.fetch_add(bytes, Ordering::Relaxed),
            Op::List | Op::Delete => 0,
        };
        Ok(())
    }
}

/// A store that counts.
pub type CountingStore = Hooked<Requests>;

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn every_request_and_its_bytes_are_counted() {
        let store = CountingStore::new(Arc::new(InMemory::new()), Arc::default());
        let name = Path::from("a");
        store.put(&name, "0123456789".into()).await.unwrap();
        assert_eq!(store.get_range(&name, 2..5).await.unwrap().as_ref(), b"234");
        // One request: the ranges are neighbours.
        store.get_ranges(&name, &[0..2, 2..4]).await.unwrap();
        assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 1);
        store.delete(&name).await.unwrap();
        let expected = RequestCounts { puts: 1, gets: 2, lists: 1, deletes: 1, bytes_put: 10, bytes_got: 7 };
        assert_eq!(store.hook().counts(), expected);
        store.hook().add(&expected);
        assert_eq!(store.hook().counts(), expected + expected);
    }
}

//! An S3-compatible bucket as the object store: `s3://BUCKET` or `s3://BUCKET/PREFIX`.
//!
//! The endpoint comes from the environment the AWS way (`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`); region and credentials from the caller:
//! a process has one credential chain, and this crate knows no SDK.
//!
//! Who tries again: a request that met a time-out, a reset, 429 or 5xx is sent again by the client, at most [`RETRIES`] times within
//! [`RETRY_TIME`]; a put that failed even so is repeated by the worker under the same name. Names are unique and never written twice with
//! other bytes, so a put whose answer was lost is harmless to repeat. After that the invocation ends and is called again.
//!
//! Never: a conditional put (the coordination table is the fence), an overwrite, or a LIST but the collector's search for orphans.

mod heard;
mod remedy;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredentialProvider};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, RetryConfig,
};

use weir_model::Clock;
use weir_model::decide::{Skew, decide_skew};

use crate::StateError;
use heard::{Heard, Listening};
use remedy::{remedy, with_remedy};

/// Sendings of a request after the first.
const RETRIES: usize = 5;
/// Time in which they are sent.
const RETRY_TIME: Duration = Duration::from_secs(10);
const CONNECT_TIME: Duration = Duration::from_secs(5);
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// A larger object is put in parts.
const PUT_BYTES_MAX: usize = 16 << 20;
const PART_BYTES: usize = 8 << 20;
/// Parts under way.
const PARTS_IN_FLIGHT: usize = 2;
/// Asked for at the start: whoever answers that it is not there has the bucket.
const PROBE: &str = "weir-probe";

/// Where a bucket is, for messages.
#[derive(Debug, Clone)]
struct Place {
    bucket: String,
    prefix: String,
}

impl Place {
    fn parse(address: &str) -> std::result::Result<Self, StateError> {
        let rest = address.strip_prefix("s3://").unwrap_or_default();
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        if bucket.len() < 3 || !bucket.chars().all(known) {
            let message = format!("store {address:?} is not understood: write s3://BUCKET or s3://BUCKET/PREFIX");
            return Err(StateError::Address(message));
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }
}

/// Region and credentials of the process.
#[derive(Debug, Clone)]
pub struct Access {
    /// `None` leaves it to the environment.
    pub region: Option<String>,
    /// Asked before each request: they may expire.
    pub credentials: AwsCredentialProvider,
}

/// Whether an address is that of a bucket.
#[must_use]
pub fn is_bucket(address: &str) -> bool {
    address.starts_with("s3://")
}

/// A bucket that is opened.
#[derive(Debug)]
pub struct Bucket {
    /// Its objects, below the prefix.
    pub store: Arc<dyn ObjectStore>,
    place: Place,
    heard: Arc<Heard>,
}

/// Opens `s3://BUCKET/PREFIX`. No request is made: see [`Bucket::check`].
///
/// - `clock`: what the store's time is held against.
///
/// # Errors
/// [`StateError::Address`] if the address or the environment is not understood.
pub fn open(address: &str, access: Access, clock: Arc<dyn Clock>) -> std::result::Result<Bucket, StateError> {
    let place = Place::parse(address)?;
    let mut builder = AmazonS3Builder::from_env().with_credentials(access.credentials);
    if let Some(region) = access.region {
        builder = builder.with_region(region);
    }
    open_with(builder, place, clock)
}

fn open_with(builder: AmazonS3Builder, place: Place, clock: Arc<dyn Clock>) -> std::result::Result<Bucket, StateError> {
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(50), max_backoff: Duration::from_secs(2), base: 2.0 };
    // Plain HTTP is spoken only where the endpoint says so.
    let client = ClientOptions::new().with_connect_timeout(CONNECT_TIME).with_timeout(REQUEST_TIME).with_allow_http(true);
    let heard = Arc::new(Heard::new(clock));
    let built = builder
        .with_bucket_name(&place.bucket)
        .with_client_options(client)
        .with_http_connector(Listening(Arc::clone(&heard)))
        .with_retry(RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_TIME })
        .build()
        .map_err(|error| StateError::Address(format!("bucket {}: {error}", place.bucket)))?;
    let store = InParts { inner: built, bucket: place.bucket.clone() };
    let store: Arc<dyn ObjectStore> = match place.prefix.as_str() {
        "" => Arc::new(store),
        prefix => Arc::new(PrefixStore::new(store, prefix)),
    };
    Ok(Bucket { store, place, heard })
}

impl Bucket {
    /// Looks whether the bucket is there and may be read, and whether its store's clock agrees with this machine's (W3). One GET.
    ///
    /// # Errors
    /// [`StateError::Address`] naming the bucket and the remedy.
    pub async fn check(&self) -> std::result::Result<(), StateError> {
        let refused = |why: String| Err(StateError::Address(format!("bucket {}: {why}", self.place.bucket)));
        match self.store.get(&Path::from(PROBE)).await {
            Ok(_) => {}
            Err(Error::NotFound { source, .. }) if !source.to_string().contains("NoSuchBucket") => {}
            Err(error) => return refused(remedy(&error)),
        }
        match self.heard.stamp().map(|stamp| decide_skew(&stamp)) {
            None | Some(Skew::Agrees) => Ok(()),
            Some(skew @ (Skew::Ahead(_) | Skew::Behind(_))) => refused(skew.to_string()),
        }
    }
}

/// Puts large objects in parts: a cut connection costs one part, not all. What it refuses bears its remedy.
#[derive(Debug)]
struct InParts {
    inner: AmazonS3,
    bucket: String,
}

impl InParts {
    fn told(&self, error: Error) -> Error {
        with_remedy(&self.bucket, error)
    }

    async fn put_in_parts(&self, location: &Path, bytes: &Bytes) -> Result<PutResult> {
        let mut upload = self.inner.put_multipart(location).await?;
        let put = put_parts(&mut upload, bytes).await;
        if put.is_err() {
            // Parts that stay are no objects; a lifecycle rule of the bucket takes them away.
            drop(upload.abort().await);
        }
        put
    }
}

impl fmt::Display for InParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

async fn put_parts(upload: &mut Box<dyn MultipartUpload>, bytes: &Bytes) -> Result<PutResult> {
    let parts = (0..bytes.len()).step_by(PART_BYTES).map(|start| bytes.slice(start..bytes.len().min(start + PART_BYTES)));
    let sent = parts.map(|part| upload.put_part(part.into())).collect::<Vec<_>>();
    futures::stream::iter(sent).buffer_unordered(PARTS_IN_FLIGHT).try_collect::<()>().await?;
    upload.complete().await
}

#[async_trait]
impl ObjectStore for InParts {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let put = match payload.content_length() {
            0..=PUT_BYTES_MAX => self.inner.put_opts(location, payload, opts).await,
            _ => self.put_in_parts(location, &payload.into()).await,
        };
        put.map_err(|error| self.told(error))
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await.map_err(|error| self.told(error))
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await.map_err(|error| self.told(error))
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
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;

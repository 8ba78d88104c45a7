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

use crate::StateError;

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

/// Opens `s3://BUCKET/PREFIX`. No request is made: see [`check`].
///
/// # Errors
/// [`StateError::Address`] if the address or the environment is not understood.
pub fn open(address: &str, access: Access) -> std::result::Result<Arc<dyn ObjectStore>, StateError> {
    let place = Place::parse(address)?;
    let mut builder = AmazonS3Builder::from_env().with_credentials(access.credentials);
    if let Some(region) = access.region {
        builder = builder.with_region(region);
    }
    open_with(builder, &place)
}

fn open_with(builder: AmazonS3Builder, place: &Place) -> std::result::Result<Arc<dyn ObjectStore>, StateError> {
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(50), max_backoff: Duration::from_secs(2), base: 2.0 };
    // Plain HTTP is spoken only where the endpoint says so.
    let client = ClientOptions::new().with_connect_timeout(CONNECT_TIME).with_timeout(REQUEST_TIME).with_allow_http(true);
    let built = builder
        .with_bucket_name(&place.bucket)
        .with_client_options(client)
        .with_retry(RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_TIME })
        .build()
        .map_err(|error| StateError::Address(format!("bucket {}: {error}", place.bucket)))?;
    let store = InParts(built);
    Ok(if place.prefix.is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, place.prefix.as_str())) })
}

/// Looks whether the bucket of `store` is there and may be read. One GET.
///
/// # Errors
/// [`StateError::Address`] naming the bucket and the remedy.
pub async fn check(store: &dyn ObjectStore, address: &str) -> std::result::Result<(), StateError> {
    let place = Place::parse(address)?;
    match store.get(&Path::from(PROBE)).await {
        Ok(_) => Ok(()),
        Err(Error::NotFound { source, .. }) if !source.to_string().contains("NoSuchBucket") => Ok(()),
        Err(error) => Err(StateError::Address(format!("bucket {}: {}", place.bucket, remedy(&error)))),
    }
}

/// What a refusal means, and what to do about it. Stores say it in the answer's body.
fn remedy(error: &Error) -> String {
    const KNOWN: [(&str, &str); 10] = [
        ("NoSuchBucket", "there is no such bucket: make it, or name another with --store s3://BUCKET"),
        ("InvalidAccessKeyId", "the access key is not known there: check AWS_ACCESS_KEY_ID and the endpoint"),
        ("SignatureDoesNotMatch", "the secret does not fit the access key: check AWS_SECRET_ACCESS_KEY"),
        ("RequestTimeTooSkewed", "this machine's clock differs too much from the store's: set it (NTP), then run again"),
        ("AccessDenied", "access is denied: the key needs s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket on it"),
        ("PermanentRedirect", "the bucket is in another region: set AWS_REGION"),
        ("incorrectly configured region", "the bucket is in another region: set AWS_REGION"),
        ("AuthorizationHeaderMalformed", "the bucket is in another region: set AWS_REGION"),
        ("StorageFull", "the store is full: free some space and run again; nothing was lost"),
        ("error sending request", "it does not answer: check AWS_ENDPOINT_URL_S3 and the network"),
    ];
    let said = chain(error);
    let known = KNOWN.iter().find(|(sign, _)| said.contains(sign));
    known.map_or_else(|| said.clone(), |(_, remedy)| (*remedy).to_owned())
}

/// An error with all that it stems from.
fn chain(error: &Error) -> String {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = error.source();
    }
    said
}

/// Puts large objects in parts: a cut connection costs one part, not all.
#[derive(Debug)]
struct InParts(AmazonS3);

impl fmt::Display for InParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
        if payload.content_length() <= PUT_BYTES_MAX {
            return self.0.put_opts(location, payload, opts).await;
        }
        let mut upload = self.0.put_multipart(location).await?;
        match put_parts(&mut upload, &payload.into()).await {
            Ok(result) => Ok(result),
            Err(error) => {
                // Parts that stay are no objects; a lifecycle rule of the bucket takes them away.
                drop(upload.abort().await);
                Err(error)
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;

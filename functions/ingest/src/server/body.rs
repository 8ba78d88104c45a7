//! A request's body: read as fast as it comes within its bounds; decompressed within them, off the threads that answer.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Problem;
use crate::appender::Refusal;

/// A body as it was sent, and the room it takes among what waits.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) encoding: Encoding,
    pub(super) room: OwnedSemaphorePermit,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    None,
    Gzip,
    Zstd,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let named = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase());
        match named.as_deref() {
            None | Some("identity") => Ok(Self::None),
            Some("gzip") => Ok(Self::Gzip),
            Some("zstd") => Ok(Self::Zstd),
            Some(other) => Err(Problem::Unsupported(format!("Content-Encoding {other} is not read: send gzip, zstd or none"))),
        }
    }

    /// The body itself, if it has no more than `bytes_max`.
    pub(super) fn decompress(self, bytes: Bytes, bytes_max: usize) -> Result<Bytes, Problem> {
        match self {
            Self::None => Ok(bytes),
            Self::Gzip => limited(flate2::read::MultiGzDecoder::new(bytes.as_ref()), bytes_max),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::new(bytes.as_ref());
                limited(decoder.map_err(|error| Problem::Malformed(format!("zstd: {error}")))?, bytes_max)
            }
        }
    }
}

/// Bounds of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes_max: usize,
    pub(super) patience: Duration,
}

/// Reads `body`; room for it is taken piece by piece, so that what is promised and does not come holds nobody up.
pub(super) async fn read(headers: &HeaderMap, body: Body, bounds: Bounds, waiting: &Arc<Semaphore>) -> Result<Received, Problem> {
    let promised = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if promised.is_some_and(|promised| promised > bounds.bytes_max) {
        return Err(Problem::TooLarge { bytes_max: bounds.bytes_max });
    }
    let encoding = Encoding::of(headers)?;
    let received = tokio::time::timeout(bounds.patience, gather(body, bounds, waiting)).await;
    let (bytes, room) = received.map_err(|_| Problem::TooSlow { seconds: bounds.patience.as_secs() })??;
    Ok(Received { bytes, encoding, room })
}

async fn gather(body: Body, bounds: Bounds, waiting: &Arc<Semaphore>) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
    let mut stream = body.into_data_stream();
    let mut gathered = BytesMut::new();
    let mut taken = room(waiting, 0)?;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| Problem::Malformed(format!("the body ended early: {error}")))?;
        if gathered.len() + piece.len() > bounds.bytes_max {
            return Err(Problem::TooLarge { bytes_max: bounds.bytes_max });
        }
        taken.merge(room(waiting, piece.len())?);
        gathered.extend_from_slice(&piece);
    }
    Ok((gathered.freeze(), taken))
}

/// Room for `bytes` among what waits.
pub(super) fn room(waiting: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Arc::clone(waiting).try_acquire_many_owned(bytes).map_err(|_| Problem::Refused(Refusal::Busy))
}

/// Decompresses no more than a body may have: a small one may become huge.
fn limited(decoder: impl Read, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut bytes = Vec::new();
    let limit = bytes_max as u64 + 1;
    let read = decoder.take(limit).read_to_end(&mut bytes);
    read.map_err(|error| Problem::Malformed(format!("the body cannot be decompressed: {error}")))?;
    if bytes.len() > bytes_max {
        return Err(Problem::TooLarge { bytes_max });
    }
    Ok(Bytes::from(bytes))
}

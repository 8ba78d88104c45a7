//! Counters in the Prometheus text format.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::Totals;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStream {
    stream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAnswer {
    stream: String,
    status: u16,
}

/// What the server counts. A request to a stream that is not there counts under the name "".
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<OfAnswer, Counter>,
    rows: Family<OfStream, Counter>,
    repeated: Family<OfStream, Counter>,
    bytes: Family<OfStream, Counter>,
    answer_seconds: Histogram,
    waiting_bytes: Gauge,
    /// Over all streams.
    totals: (AtomicU64, AtomicU64),
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("weir_ingest");
        let (requests, rows, repeated, bytes) =
            (Family::<OfAnswer, Counter>::default(), Family::default(), Family::default(), Family::default());
        let answer_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let waiting_bytes = Gauge::default();
        registry.register("requests", "Requests answered, by stream and status", requests.clone());
        registry.register("rows", "Rows committed", rows.clone());
        registry.register("repeated_requests", "Requests answered from what was remembered of their key", repeated.clone());
        registry.register_with_unit("body", "Body bytes of committed requests, decompressed", Unit::Bytes, bytes.clone());
        let seconds = "Time from a request's headers to its answer";
        registry.register_with_unit("answer", seconds, Unit::Seconds, answer_seconds.clone());
        registry.register_with_unit("waiting", "Bytes of bodies under way", Unit::Bytes, waiting_bytes.clone());
        Self { registry, requests, rows, repeated, bytes, answer_seconds, waiting_bytes, totals: Default::default() }
    }

    pub(super) fn totals(&self) -> Totals {
        let (requests, rows) = &self.totals;
        Totals { requests: requests.load(Ordering::Relaxed), rows: rows.load(Ordering::Relaxed) }
    }

    pub(super) fn answered(&self, stream: &str, status: u16, seconds: f64) {
        self.requests.get_or_create(&OfAnswer { stream: stream.to_owned(), status }).inc();
        self.answer_seconds.observe(seconds);
        self.totals.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn taken(&self, stream: &str, rows: u64, bytes: u64, repeated: bool) {
        let stream = OfStream { stream: stream.to_owned() };
        if repeated {
            self.repeated.get_or_create(&stream).inc();
        } else {
            self.rows.get_or_create(&stream).inc_by(rows);
            self.totals.1.fetch_add(rows, Ordering::Relaxed);
            self.bytes.get_or_create(&stream).inc_by(bytes);
        }
    }

    /// - `waiting`: bytes under way now.
    pub(super) fn encode(&self, waiting: usize) -> Result<String, std::fmt::Error> {
        self.waiting_bytes.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

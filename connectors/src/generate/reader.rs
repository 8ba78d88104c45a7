//! A lane of a generated source: fixed blocks of row numbers, dealt round-robin.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use weir_model::{Clock, Offset};

use crate::source::{Pull, Source, SourceBatch, SourceError, SourceReader};

/// Row numbers in a block: block `b` is split `b`.
pub(crate) const BLOCK_ROWS: u64 = 65_536;
/// Row numbers in a block of a paced source: small, so that no lane waits for others' turns. Block `b` is split `b`, and lane
/// `b mod lanes` reads it.
pub const PACED_BLOCK_ROWS: u64 = 64;
/// Rows of a batch.
const BATCH_ROWS: u64 = 16_384;

/// Makes rows by their numbers.
pub trait Generator: Send + Sync + std::fmt::Debug + 'static {
    /// Rows `numbers` with the declared columns `projection`; rows that a number has no row for are left out.
    ///
    /// # Errors
    /// [`SourceError`].
    fn rows(&self, numbers: std::ops::Range<u64>, projection: &[usize], schema: &SchemaRef) -> Result<RecordBatch, SourceError>;
}

/// A generator with its bounds.
#[derive(Debug)]
pub struct Generated<G> {
    /// What is made, for people: [`described`].
    pub(crate) what: String,
    pub(crate) generator: Arc<G>,
    pub(crate) schema: SchemaRef,
    /// Numbers in all; `None` never ends.
    pub(crate) total: Option<u64>,
    /// Numbers per second over all lanes; `None` as fast as possible.
    pub(crate) rate: Option<u64>,
    pub(crate) clock: Arc<dyn Clock>,
    /// When number 0 is due, microseconds on the wall clock.
    pub(crate) start_micros: i64,
}

/// A source for people: `nexmark bids, 1,000,000 events, seed 0`.
pub(crate) fn described(what: &str, count: Option<u64>, unit: &str, seed: u64) -> String {
    let extent = count.map_or_else(|| "without end".to_owned(), |count| format!("{} {unit}", grouped(count)));
    format!("{what}, {extent}, seed {seed}")
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[async_trait]
impl<G: Generator> Source for Generated<G> {
    fn bounded(&self) -> bool {
        self.total.is_some()
    }

    fn describe(&self) -> String {
        self.rate.map_or_else(|| self.what.clone(), |rate| format!("{}, {} rows per second", self.what, grouped(rate)))
    }

    async fn open(
        &self,
        lane: u32,
        lanes: u32,
        from: Offset,
        projection: &[usize],
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        let at = if from == Offset::default() { Offset { split: u64::from(lane), at: 0 } } else { from };
        Ok(Box::new(GeneratedReader {
            generator: Arc::clone(&self.generator),
            projected: Arc::new(self.schema.project(projection)?),
            projection: projection.to_vec(),
            total: self.total.unwrap_or(u64::MAX),
            rate: self.rate,
            clock: Arc::clone(&self.clock),
            start_micros: self.start_micros,
            step: u64::from(lanes.max(1)),
            at,
            end_at: None,
        }))
    }
}

#[derive(Debug)]
struct GeneratedReader<G> {
    generator: Arc<G>,
    projected: SchemaRef,
    projection: Vec<usize>,
    total: u64,
    rate: Option<u64>,
    clock: Arc<dyn Clock>,
    start_micros: i64,
    step: u64,
    at: Offset,
    end_at: Option<Offset>,
}

impl<G> GeneratedReader<G> {
    /// One past the last number before the place where a batch must end, if that lies in this block.
    fn cut(&self, block_rows: u64) -> u64 {
        let here = self.end_at.filter(|place| place.split == self.at.split && place.at > self.at.at);
        here.map_or(u64::MAX, |place| place.split.saturating_mul(block_rows).saturating_add(place.at))
    }

    /// One past the last number that is due now.
    fn due(&self) -> u64 {
        let Some(rate) = self.rate else { return self.total };
        let elapsed = u64::try_from(self.clock.now_micros().saturating_sub(self.start_micros)).unwrap_or(0);
        let due = u128::from(elapsed) * u128::from(rate) / 1_000_000;
        u64::try_from(due).unwrap_or(u64::MAX).min(self.total)
    }
}

#[async_trait]
impl<G: Generator> SourceReader for GeneratedReader<G> {
    async fn next(&mut self) -> Result<Pull, SourceError> {
        let block_rows = self.rate.map_or(BLOCK_ROWS, |_| PACED_BLOCK_ROWS);
        let first = self.at.split.saturating_mul(block_rows).saturating_add(self.at.at);
        if first >= self.total {
            return Ok(Pull::End);
        }
        let block_end = (self.at.split + 1).saturating_mul(block_rows).min(self.total);
        let end = block_end.min(first.saturating_add(BATCH_ROWS)).min(self.due()).min(self.cut(block_rows));
        if end <= first {
            return Ok(Pull::Later);
        }
        let batch = self.generator.rows(first..end, &self.projection, &self.projected)?;
        self.at = if end == block_end && block_end < self.total || end == self.total {
            Offset { split: self.at.split + self.step, at: 0 }
        } else {
            Offset { split: self.at.split, at: self.at.at + (end - first) }
        };
        Ok(Pull::Rows(SourceBatch { bytes: batch.get_array_memory_size() as u64, batch, upto: self.at, bad: Vec::new() }))
    }

    fn end_at(&mut self, place: Offset) {
        self.end_at = Some(place);
    }
}

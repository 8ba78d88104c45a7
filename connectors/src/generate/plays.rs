//! Plays of songs: the example's input. Songs are skewed (a few are hot), scores are multiples of 1/64 so that their sums are exact,
//! and event times are up to four seconds out of order.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, Int64Builder, RecordBatch, RecordBatchOptions, TimestampMillisecondBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use weir_model::Clock;

use super::random::below;
use super::reader::{Generated, Generator, described};
use crate::options::{OptionsError, TableOptions};
use crate::source::SourceError;

const OPTIONS: [&str; 6] = ["connector", "number-of-rows", "rows-per-second", "seed", "start-time", "disorder-ms"];
const SONGS: u64 = 10_000;
const USERS: u64 = 100_000;
/// 2026-01-01 00:00:00 UTC.
const BASE_MILLIS: i64 = 1_767_225_600_000;

/// The source of `'connector' = 'plays'`.
pub type PlaySource = Generated<Plays>;

/// Makes plays by their numbers: one each millisecond of event time.
#[derive(Debug)]
pub struct Plays {
    seed: u64,
    disorder_millis: u64,
}

impl Plays {
    /// Plays of `seed`, up to `disorder_millis` out of order.
    #[must_use]
    pub const fn new(seed: u64, disorder_millis: u64) -> Self {
        Self { seed, disorder_millis }
    }

    /// All columns of a play.
    #[must_use]
    pub fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("song_id", DataType::Int64, true),
            Field::new("user_id", DataType::Int64, true),
            Field::new("play_score", DataType::Float64, true),
            Field::new("etime", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        ]))
    }

    /// The product of two uniform draws favours small numbers: song 0 is played most.
    fn song(&self, row: u64) -> u64 {
        below(self.seed, row, 1, below(self.seed, row, 2, SONGS) + 1)
    }

    fn millis(&self, row: u64) -> i64 {
        let behind = below(self.seed, row, 4, self.disorder_millis + 1);
        BASE_MILLIS + i64::try_from(row).unwrap_or(i64::MAX) - i64::try_from(behind).unwrap_or(0)
    }

    fn column(&self, name: &str, numbers: std::ops::Range<u64>) -> Option<ArrayRef> {
        let count = usize::try_from(numbers.end - numbers.start).unwrap_or(0);
        let integers = |value: &dyn Fn(u64) -> u64| -> ArrayRef {
            let mut builder = Int64Builder::with_capacity(count);
            numbers.clone().for_each(|row| builder.append_value(i64::try_from(value(row)).unwrap_or(i64::MAX)));
            Arc::new(builder.finish())
        };
        Some(match name {
            "song_id" => integers(&|row| self.song(row)),
            "user_id" => integers(&|row| below(self.seed, row, 3, USERS)),
            "play_score" => {
                let mut builder = Float64Builder::with_capacity(count);
                numbers.for_each(|row| builder.append_value(below(self.seed, row, 5, 64 * 64) as f64 / 64.0));
                Arc::new(builder.finish())
            }
            "etime" => {
                let mut builder = TimestampMillisecondBuilder::with_capacity(count);
                numbers.for_each(|row| builder.append_value(self.millis(row)));
                Arc::new(builder.finish())
            }
            _ => return None,
        })
    }
}

impl PlaySource {
    /// A source with the declared columns `schema`.
    ///
    /// # Errors
    /// [`OptionsError`] naming an option or column.
    pub fn new(options: TableOptions<'_>, schema: SchemaRef, clock: Arc<dyn Clock>) -> Result<Self, OptionsError> {
        options.only(&OPTIONS)?;
        let known = Plays::schema();
        if let Some(unknown) = schema.fields().iter().find(|field| known.field_with_name(field.name()).is_err()) {
            return Err(
                options.error(format!("column {} is not one of a play's: song_id, user_id, play_score, etime", unknown.name()))
            );
        }
        let seed = options.number("seed")?.unwrap_or(0);
        let generator = Plays::new(seed, options.number("disorder-ms")?.unwrap_or(4_000));
        let total = options.number("number-of-rows")?;
        let now = clock.now_micros();
        let start_micros = options.number("start-time")?.and_then(|start| i64::try_from(start).ok()).unwrap_or(now);
        let rate = options.number("rows-per-second")?.filter(|rate| *rate > 0);
        let what = described("plays", total, "rows", seed);
        Ok(Self { what, generator: Arc::new(generator), schema, total, rate, clock, start_micros })
    }
}

impl Generator for Plays {
    fn rows(&self, numbers: std::ops::Range<u64>, _projection: &[usize], schema: &SchemaRef) -> Result<RecordBatch, SourceError> {
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let column = self.column(field.name(), numbers.clone());
            let column = column.ok_or_else(|| SourceError::format("plays", format!("no column {}", field.name())))?;
            columns.push(cast(&column, field.data_type())?);
        }
        let rows = usize::try_from(numbers.end - numbers.start).unwrap_or(0);
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
    }
}

//! Random rows for any table: `'connector' = 'datagen'`, with the options of Flink's.
//!
//! | option | meaning | default |
//! | --- | --- | --- |
//! | `rows-per-second` | pace of all lanes together, 0 for none | 10000; none if `number-of-rows` is given |
//! | `number-of-rows` | rows in all | endless |
//! | `seed` | same seed, same rows | 0 |
//! | `start-time` | when row 0 is due, microseconds since 1970-01-01 UTC | when the job is created |
//! | `fields.X.kind` | `random` or `sequence` | `random` |
//! | `fields.X.min`, `fields.X.max` | ends of a random number, both included | see below |
//! | `fields.X.length` | characters or bytes of a random STRING or BYTES, at most 16384 | 100 |
//! | `fields.X.max-past` | how far a random time lies behind its row's time, at most, as `5 s` or `1 d` | 0 |
//! | `fields.X.null-rate` | share of NULLs of a random column, 0 to 1 | 0 |
//! | `fields.X.start`, `fields.X.end` | ends of a sequence, both included; it ends the table | needed |
//!
//! | type | random values | default `min` to `max` | sequence |
//! | --- | --- | --- | --- |
//! | BOOLEAN | even odds | | no |
//! | TINYINT, SMALLINT, INT, BIGINT | uniform | the type's | yes |
//! | FLOAT, DOUBLE | uniform multiples of 1/64 | 0 to 1,000 and 0 to 1,000,000 | yes |
//! | DECIMAL(p, s) | uniform, of 18 digits at most | 0 to the largest | yes |
//! | STRING, VARCHAR, CHAR | hexadecimal digits | | yes |
//! | BYTES, BINARY, VARBINARY | uniform | | no |
//! | DATE | the day of the row's time | | no |
//! | TIMESTAMP, TIMESTAMP_LTZ | uniform from the row's time less `max-past` to the row's time | | no |
//!
//! Why multiples of 1/64: their sums are exact up to 2^47, FLOATs' up to 2^18, so that results do not depend on the order of
//! addition. Why a row's own time and not the clock's: row `n` is of `start-time` + `n` / `rows-per-second` (10,000 a second if there
//! is no pace), so that a row that is made again, after a failure, is the same row. The lengths of CHAR(n) and VARCHAR(n) are not
//! looked at: set `length`.
//!
//! A table with sequences ends with the shortest of them, or at `number-of-rows` if that comes first.

mod column;
mod draw;
mod fields;
mod values;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use weir_model::Clock;

use self::column::Column;
use self::draw::Timeline;
use self::fields::FieldOptions;
use super::columns::{batch, conform};
use super::reader::{Generated, Generator, described};
use crate::options::{OptionsError, TableOptions, nearest};
use crate::source::SourceError;

const OPTIONS: [&str; 5] = ["connector", "rows-per-second", "number-of-rows", "seed", "start-time"];
/// Flink's default.
const ROWS_PER_SECOND: u64 = 10_000;

/// The source of `'connector' = 'datagen'`.
pub type DatagenSource = Generated<Datagen>;

/// Makes random rows by their numbers.
#[derive(Debug)]
pub struct Datagen {
    columns: Vec<Column>,
    timeline: Timeline,
}

impl DatagenSource {
    /// A source with the declared columns `schema`: see the options above.
    ///
    /// # Errors
    /// [`OptionsError`] naming an option or column, and what to write.
    pub fn new(options: TableOptions<'_>, schema: SchemaRef, clock: Arc<dyn Clock>) -> Result<Self, OptionsError> {
        check_keys(options, &schema)?;
        let seed = options.number("seed")?.unwrap_or(0);
        let columns = (schema.fields().iter().zip(0..))
            .map(|(field, place)| Column::new(FieldOptions { options, field }, seed, place))
            .collect::<Result<Vec<_>, _>>()?;
        let rows = options.number("number-of-rows")?;
        let total = columns.iter().filter_map(Column::rows).chain(rows).min();
        let pace = options.number("rows-per-second")?.or(rows.is_none().then_some(ROWS_PER_SECOND));
        let rate = pace.filter(|rate| *rate > 0);
        let now = clock.now_micros();
        let start_micros = options.number("start-time")?.and_then(|start| i64::try_from(start).ok()).unwrap_or(now);
        let timeline = Timeline { start_micros, rate: rate.unwrap_or(ROWS_PER_SECOND) };
        let what = described("datagen", total, "rows", seed);
        Ok(Self { what, generator: Arc::new(Datagen { columns, timeline }), schema, total, rate, clock, start_micros })
    }
}

impl Generator for Datagen {
    fn rows(&self, numbers: Range<u64>, _projection: &[usize], schema: &SchemaRef) -> Result<RecordBatch, SourceError> {
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields().iter() {
            let column = self.columns.iter().find(|column| column.is(field.name()));
            let column = column.ok_or_else(|| SourceError::format("datagen", format!("no column {}", field.name())))?;
            columns.push(conform(column.array(&self.timeline, &numbers)?, field.data_type())?);
        }
        batch(schema, columns, &numbers)
    }
}

/// Refuses options of columns that do not exist, and options that nobody knows.
fn check_keys(options: TableOptions<'_>, schema: &Schema) -> Result<(), OptionsError> {
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut known = OPTIONS.to_vec();
    for key in options.options.keys() {
        let Some(rest) = key.strip_prefix("fields.") else { continue };
        check_field_key(options, &columns, rest)?;
        known.push(key);
    }
    options.only(&known)
}

/// - `rest`: what follows `fields.`
fn check_field_key(options: TableOptions<'_>, columns: &[&str], rest: &str) -> Result<(), OptionsError> {
    let (column, name) = rest.rsplit_once('.').unwrap_or((rest, ""));
    if !columns.contains(&column) {
        let hint = nearest(column, columns)
            .map_or_else(|| format!("columns are {}", columns.join(", ")), |near| format!("did you mean '{near}'?"));
        return Err(options.error(format!("option 'fields.{rest}': there is no column '{column}' to generate: {hint}")));
    }
    if !fields::KEYS.contains(&name) {
        let hint = nearest(name, &fields::KEYS).map_or_else(
            || format!("known for a column: {}", fields::KEYS.join(", ")),
            |near| format!("did you mean '{}'?", fields::key(column, near)),
        );
        return Err(options.error(format!("unknown option 'fields.{rest}': {hint}")));
    }
    Ok(())
}

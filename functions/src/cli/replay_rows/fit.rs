//! Rows that were set aside, as rows of a stream: late ones column by column, dead letters decoded anew.

use anyhow::Context as _;
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use weir_connectors::TableOptions;
use weir_connectors::body::{conformed, differences};
use weir_connectors::files::Format;
use weir_connectors::files::decode::{TextOptions, decode_apart};
use weir_connectors::source::RAW_BYTES_MAX;
use weir_model::stream::StreamRow;

use super::aside::Aside;
use crate::job::Loaded;
use crate::kept::Stream;
use crate::query::late_columns;

/// How rows become rows of the stream.
#[derive(Debug)]
pub(super) struct Fit {
    kind: Stream,
    /// Columns of the stream.
    columns: SchemaRef,
    /// How the source of dead letters was written.
    format: Format,
    text: TextOptions,
    /// What keeps rows that were decoded once from being rows of the stream.
    misfit: Vec<String>,
}

/// Rows of the stream, and those that cannot be.
#[derive(Debug)]
pub(super) struct Fitted {
    pub(super) rows: RecordBatch,
    /// By their places among the rows given, and why.
    pub(super) bad: Vec<(usize, String)>,
}

impl Fit {
    /// # Errors
    /// Late rows whose columns are not those of the stream: each difference is named.
    pub(super) fn new(loaded: &Loaded, aside: &Aside, stream: &StreamRow, columns: &SchemaRef) -> anyhow::Result<Self> {
        let source = &loaded.plan.pipelines[aside.pipeline].source;
        let options = TableOptions { table: &source.name, options: &source.options };
        let is_csv = options.get("connector") == Some("filesystem") && options.get("format") == Some("csv");
        let read = late_columns(loaded, aside.pipeline)?;
        if aside.kind == Stream::Late {
            let (differences, name, sink) = (differences(columns, &read), &stream.name, &aside.sink);
            anyhow::ensure!(
                differences.is_empty(),
                "the late rows of {sink} are no rows of stream {name}:\n  {}\nhelp: make a stream with the columns that the job reads, or choose columns: weir query 'SELECT .. FROM late.{sink}' --output rows.json; weir ingest {name} rows.json",
                differences.join("\n  ")
            );
        }
        let format = if is_csv { Format::Csv } else { Format::Json };
        let text = if is_csv { TextOptions::new(options)? } else { TextOptions::default() };
        Ok(Self { kind: aside.kind, columns: SchemaRef::clone(columns), format, text, misfit: misnamed(columns, &read) })
    }

    /// # Errors
    /// Columns that a text cannot hold.
    pub(super) fn rows(&self, rows: &RecordBatch) -> anyhow::Result<Fitted> {
        match self.kind {
            Stream::Late => self.late(rows),
            Stream::Dead => self.dead(rows),
        }
    }

    fn late(&self, rows: &RecordBatch) -> anyhow::Result<Fitted> {
        if let Ok(rows) = conformed(&self.columns, rows) {
            return Ok(Fitted { rows, bad: Vec::new() });
        }
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for row in 0..rows.num_rows() {
            match conformed(&self.columns, &rows.slice(row, 1)) {
                Ok(row) => good.push(row),
                Err(reason) => bad.push((row, reason)),
            }
        }
        Ok(Fitted { rows: concat_batches(&self.columns, &good)?, bad })
    }

    fn dead(&self, rows: &RecordBatch) -> anyhow::Result<Fitted> {
        let raw = rows.column_by_name("raw").context("dead letters without raw rows")?.as_string::<i32>();
        let offsets = rows.column_by_name("offset").context("dead letters without offsets")?;
        let (mut as_came, mut decoded, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..rows.num_rows() {
            let text = if raw.is_valid(row) { raw.value(row) } else { "" };
            let was_decoded = offsets.is_null(row);
            match if was_decoded { None } else { unfit(text) } {
                Some(reason) => bad.push((row, reason.to_owned())),
                None if was_decoded && !self.misfit.is_empty() => bad.push((row, self.misfit.join("; "))),
                None if was_decoded => decoded.push((row, text)),
                None => as_came.push((row, text)),
            }
        }
        let (came, mut worse) = self.decode(self.format, &as_came)?;
        let (told, more) = self.decode(Format::Json, &decoded)?;
        bad.append(&mut worse);
        bad.extend(more);
        Ok(Fitted { rows: concat_batches(&self.columns, [&came, &told])?, bad })
    }

    /// Texts with their places among the rows given.
    fn decode(&self, format: Format, texts: &[(usize, &str)]) -> anyhow::Result<(RecordBatch, Vec<(usize, String)>)> {
        let records: Vec<&str> = texts.iter().map(|(_, text)| *text).collect();
        let apart = decode_apart(format, &self.columns, &self.text, &records)?;
        let bad = apart.bad.into_iter().map(|(place, reason)| (texts[place].0, reason));
        Ok((apart.rows, bad.collect()))
    }
}

/// Why a text is not what had come, however well it decodes.
fn unfit(text: &str) -> Option<&'static str> {
    match text {
        text if text.trim().is_empty() => Some("there is no text"),
        text if text.len() >= RAW_BYTES_MAX => Some("only its first 64 KiB were kept: take it from its source"),
        text if text.contains(char::REPLACEMENT_CHARACTER) => Some("it had bytes that are no UTF-8: take it from its source"),
        _ => None,
    }
}

/// Columns that only one of them has: the text of a row that was decoded once holds what its job reads.
fn misnamed(stream: &SchemaRef, read: &SchemaRef) -> Vec<String> {
    let missing = |of: &SchemaRef, from: &SchemaRef, what: &str| {
        let fields = of.fields().iter().filter(|field| from.field_with_name(field.name()).is_err());
        fields.map(|field| format!("column {} {what}", field.name())).collect::<Vec<_>>()
    };
    let mut found = missing(stream, read, "is in the stream, and the job did not read it");
    found.extend(missing(read, stream, "was read by the job, and is not in the stream"));
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, StringArray, UInt64Array};
    use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;
    use crate::dead_letter;

    fn fit(format: Format, misfit: &[&str]) -> Fit {
        let fields = vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)];
        Fit {
            kind: Stream::Dead,
            columns: Arc::new(Schema::new(fields)),
            format,
            text: TextOptions::default(),
            misfit: misfit.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    fn dead(letters: &[(Option<u64>, Option<&str>)]) -> RecordBatch {
        let texts = |text: &str| Arc::new(StringArray::from(vec![text; letters.len()])) as ArrayRef;
        let offsets: ArrayRef = Arc::new(letters.iter().map(|(offset, _)| *offset).collect::<UInt64Array>());
        let raw: ArrayRef = Arc::new(letters.iter().map(|(_, raw)| *raw).collect::<StringArray>());
        RecordBatch::try_new(dead_letter::schema(), vec![texts("s"), offsets, texts("r"), raw]).unwrap()
    }

    fn ids(fitted: &Fitted) -> Vec<i64> {
        fitted.rows.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn each_letter_is_decoded_by_itself_in_the_format_it_came_in() {
        let letters = dead(&[
            (Some(0), Some("1,\"left open")),
            (Some(9), Some("2,two")),
            (None, Some("{\"id\":3,\"name\":\"three\"}")),
            (Some(20), Some("x,4")),
            (Some(30), Some("5,\"five\nlines\"")),
        ]);
        let fitted = fit(Format::Csv, &[]).rows(&letters).unwrap();
        assert_eq!(ids(&fitted), [2, 5, 3]);
        assert_eq!(fitted.bad.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 3]);
    }

    #[test]
    fn what_was_not_kept_whole_is_never_taken_for_a_row() {
        let cut = format!("6,{}", "x".repeat(RAW_BYTES_MAX - 2));
        let letters = dead(&[
            (Some(0), None),
            (Some(1), Some(" ")),
            (Some(2), Some(&cut)),
            (Some(3), Some("7,\u{fffd}")),
            (Some(4), Some("8,y")),
        ]);
        let fitted = fit(Format::Csv, &[]).rows(&letters).unwrap();
        assert_eq!((ids(&fitted), fitted.bad.len()), (vec![8], 4));
    }

    #[test]
    fn a_row_that_was_decoded_is_refused_where_the_job_read_other_columns() {
        let letters = dead(&[(None, Some("{\"id\":1}")), (Some(5), Some("{\"id\":2}"))]);
        let fitted = fit(Format::Json, &["column name is in the stream"]).rows(&letters).unwrap();
        assert_eq!((ids(&fitted), fitted.bad), (vec![2], vec![(0, "column name is in the stream".to_owned())]));
    }
}

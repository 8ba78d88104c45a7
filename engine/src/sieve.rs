//! Rows on which an expression fails, found by halves.
//!
//! Why: the engine evaluates whole batches and its errors name no row, but whoever has to mend the input needs the row.
//! Never: runs while all is well; takes an error for a row's that comes again without any.
//!
//! ```text
//! batch fails -> left half runs, right half fails -> .. -> one row fails: it is the one
//! ```
//! Cost: with n rows of which k fail, about 2 k log n runs.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::json::LineDelimitedWriter;
use weir_plan::OnError;

use crate::EngineError;
use crate::fragment::FragmentRunner;
use crate::lane::run_with_row;
use crate::rowtime::RowtimeReader;

/// A row on which an expression fails.
#[derive(Debug, Clone)]
pub struct FailedRow {
    /// The row, with the columns that the job reads.
    pub row: RecordBatch,
    /// What the engine says.
    pub reason: String,
}

/// A stateless step that fails on a batch.
pub(crate) enum Failing<'a> {
    /// The event time.
    Time(&'a RowtimeReader),
    /// A fragment over the source's columns.
    Fragment(&'a mut FragmentRunner),
    /// A fragment that also passes a row number through.
    Numbered(&'a mut FragmentRunner),
}

impl Failing<'_> {
    async fn run(&mut self, rows: &RecordBatch) -> Result<(), EngineError> {
        match self {
            Self::Time(rowtime) => rowtime.times(rows).map(drop),
            Self::Fragment(fragment) => fragment.run(vec![rows.clone()]).await.map(drop),
            Self::Numbered(fragment) => run_with_row(fragment, rows).await.map(drop),
        }
    }
}

/// What to do about rows that fail.
#[derive(Debug)]
pub(crate) struct Sieve {
    /// Table that the rows come from.
    pub(crate) table: String,
    pub(crate) on_error: OnError,
}

impl Sieve {
    /// `rows` without those on which `step` fails, which `failed` takes; or the first of them as an error, as the table says.
    ///
    /// - `error`: what `step` said about all of `rows`.
    pub(crate) async fn good(
        &self,
        mut step: Failing<'_>,
        rows: &RecordBatch,
        error: EngineError,
        failed: &mut Vec<FailedRow>,
    ) -> Result<RecordBatch, EngineError> {
        if !error.may_be_a_rows() {
            return Err(error);
        }
        let mut good = Vec::new();
        let mut parts = vec![(0, rows.num_rows())];
        let before = failed.len();
        while let Some((start, count)) = parts.pop() {
            let part = rows.slice(start, count);
            match step.run(&part).await {
                Ok(()) => good.push(part),
                Err(error) if !error.may_be_a_rows() => return Err(error),
                Err(error) if count == 1 && self.on_error == OnError::Stop => return Err(self.stop(&part, &error)),
                Err(error) if count == 1 => failed.push(FailedRow { row: part, reason: error.reason() }),
                Err(_) => {
                    let half = count / 2;
                    parts.extend([(start + half, count - half), (start, half)]);
                }
            }
        }
        // Every row passes by itself: it was none of them.
        if failed.len() == before { Err(error) } else { Ok(concat_batches(&rows.schema(), &good)?) }
    }

    fn stop(&self, row: &RecordBatch, error: &EngineError) -> EngineError {
        EngineError::Row { table: self.table.clone(), row: shown(row), reason: error.reason() }
    }
}

/// A row as a JSON object.
fn shown(row: &RecordBatch) -> String {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    match writer.write(row).and_then(|()| writer.finish()) {
        Ok(()) => String::from_utf8_lossy(&writer.into_inner()).trim_end().to_owned(),
        Err(error) => format!("(it cannot be shown: {error})"),
    }
}

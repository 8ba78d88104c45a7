//! The dead-letter stream: rows that could not be decoded, have no place in time, or on which an expression failed, kept with their address and the reason.
//!
//! | column | type | meaning |
//! | --- | --- | --- |
//! | `source` | Utf8 | file, or the stream and lane |
//! | `offset` | UInt64 | byte offset of the row in the decoded file; null if it was decoded |
//! | `reason` | Utf8 | what is wrong with it |
//! | `raw` | Utf8 | the row as it came, at most 64 KiB of it; as JSON and whole if it was decoded |

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringBuilder, UInt64Builder};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use weir_connectors::BadRow;
use weir_connectors::encode::json_lines;
use weir_engine::LaneEpoch;
use weir_model::ShardKey;

/// Columns of the stream.
#[must_use]
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("offset", DataType::UInt64, true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("raw", DataType::Utf8, true),
    ]))
}

/// Rows of the stream for one epoch of `lane`; `None` if there are none.
///
/// # Errors
/// [`ArrowError`] if a row cannot be shown as JSON.
pub fn rows(epoch: &LaneEpoch, bad: &[BadRow], lane: ShardKey) -> Result<Option<RecordBatch>, ArrowError> {
    let (mut source, mut offset) = (StringBuilder::new(), UInt64Builder::new());
    let (mut reason, mut raw) = (StringBuilder::new(), StringBuilder::new());
    for row in bad {
        source.append_value(&row.source);
        offset.append_value(row.offset);
        reason.append_value(&row.reason);
        raw.append_value(String::from_utf8_lossy(&row.raw));
    }
    let misfits = epoch.misfits.iter().map(|(misfit, rows)| (misfit.reason(), rows));
    let failed = epoch.failed.iter().map(|failed| (failed.reason.as_str(), &failed.row));
    for (why, rows) in misfits.chain(failed) {
        let text = json_lines(std::slice::from_ref(rows), false)?;
        let mut lines = text.split(|byte| *byte == b'\n').map(String::from_utf8_lossy);
        for _ in 0..rows.num_rows() {
            source.append_value(format!("lane {lane}"));
            offset.append_null();
            reason.append_value(why);
            raw.append_option(lines.next());
        }
    }
    let columns: Vec<ArrayRef> =
        vec![Arc::new(source.finish()), Arc::new(offset.finish()), Arc::new(reason.finish()), Arc::new(raw.finish())];
    let rows = RecordBatch::try_new(schema(), columns)?;
    Ok((rows.num_rows() > 0).then_some(rows))
}

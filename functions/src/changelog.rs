//! Results that change, as sinks that keep every change show them.
//!
//! | column | type | meaning |
//! | --- | --- | --- |
//! | the sink's, as declared | | the result; of a row that is taken back, the result that is, but of a window's `-D` only the key is the row's |
//! | `op` | STRING | `+I` first result of its key, `+U` another in its place, `-U` taken back because `+U` follows, `-D` taken back for good |
//! | `epoch` | BIGINT | the commit that made the row: of two rows of a key the one with the larger epoch is newer, in one epoch the later row |

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Int8Type, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use weir_model::Epoch;
use weir_plan::{Op, SinkTable};

/// Columns of what a sink is given.
#[must_use]
pub fn sink_schema(sink: &SinkTable) -> SchemaRef {
    if !sink.changes.has_op() {
        return Arc::clone(&sink.schema);
    }
    with_change(sink.schema.fields().iter().cloned())
}

fn with_change(columns: impl Iterator<Item = Arc<Field>>) -> SchemaRef {
    let added = [Field::new("op", DataType::Utf8, false), Field::new("epoch", DataType::Int64, false)].map(Arc::new);
    Arc::new(Schema::new(columns.chain(added).collect::<Vec<_>>()))
}

/// Output rows of one epoch as the sink is given them.
///
/// # Errors
/// [`ArrowError`] if the rows do not begin with what happened to them.
pub(crate) fn shown(sink: &SinkTable, rows: RecordBatch, epoch: Epoch) -> Result<RecordBatch, ArrowError> {
    if !sink.changes.has_op() {
        return Ok(rows);
    }
    let ops = rows.column(0).as_primitive::<Int8Type>().values();
    let sign = |op: &i8| Op::ALL.iter().find(|known| **known as i8 == *op).map(|known| known.sign());
    let signs = StringArray::from(ops.iter().map(sign).collect::<Vec<_>>());
    let epochs = Int64Array::from_value(i64::try_from(epoch.0).unwrap_or(i64::MAX), rows.num_rows());
    let mut columns: Vec<ArrayRef> = rows.columns()[1..].to_vec();
    columns.push(Arc::new(signs));
    columns.push(Arc::new(epochs));
    RecordBatch::try_new(with_change(rows.schema().fields().iter().skip(1).cloned()), columns)
}

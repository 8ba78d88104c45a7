//! The newest row of each key: of two rows of a key the one with the larger epoch, of one epoch the later one.
//!
//! Memory: the newest rows, at most as many again that others have taken the place of, and a batch.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, Float64Array, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

/// What the last change of a key says that is gone.
const DELETED: &str = "-D";
/// Rows that may be held although others have taken their places, beside as many as are newest.
const SLACK_ROWS: usize = 65_536;

/// Keys of rows as bytes that are equal where the keys are.
#[derive(Debug)]
pub(super) struct Keys {
    places: Vec<usize>,
    converter: RowConverter,
}

impl Keys {
    pub(super) fn new(schema: &SchemaRef, places: Vec<usize>) -> Result<Self, ArrowError> {
        let fields = places.iter().map(|place| SortField::new(schema.field(*place).data_type().clone())).collect();
        Ok(Self { places, converter: RowConverter::new(fields)? })
    }

    pub(super) fn of(&self, batch: &RecordBatch) -> Result<Rows, ArrowError> {
        let columns: Vec<ArrayRef> = self.places.iter().map(|place| canonical(batch.column(*place))).collect();
        self.converter.convert_columns(&columns)
    }
}

/// Numbers that are one key have one form: there is one zero, and one NaN.
fn canonical(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let one = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
            let values: Float64Array = column.as_primitive::<Float64Type>().unary(one);
            Arc::new(values)
        }
        DataType::Float32 => {
            let one = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
            let values: Float32Array = column.as_primitive::<Float32Type>().unary(one);
            Arc::new(values)
        }
        _ => ArrayRef::clone(column),
    }
}

/// The newest rows of a changelog.
#[derive(Debug)]
pub(super) struct Newest {
    keys: Keys,
    op: usize,
    epoch: usize,
    places: HashMap<Box<[u8]>, Place>,
    pub(super) batches: Vec<RecordBatch>,
    rows: usize,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    epoch: i64,
    batch: usize,
    row: usize,
}

impl Newest {
    /// - `schema`: of the changelog. - `key`: places of the key's columns.
    ///
    /// # Errors
    /// [`ArrowError`] for a key that has no order, or a schema without `op` and `epoch`.
    pub(super) fn new(schema: &SchemaRef, key: Vec<usize>) -> Result<Self, ArrowError> {
        // The last columns of these names: the changelog's own come after those that are declared.
        let last = |name: &str| schema.fields().iter().rposition(|field| field.name() == name);
        let missing = || ArrowError::SchemaError("a changelog has columns op and epoch".to_owned());
        let (op, epoch) = last("op").zip(last("epoch")).ok_or_else(missing)?;
        let keys = Keys::new(schema, key)?;
        Ok(Self { keys, op, epoch, places: HashMap::new(), batches: Vec::new(), rows: 0 })
    }

    /// Takes changes that came after those before.
    ///
    /// # Errors
    /// [`ArrowError`] if the batch is of another schema.
    pub(super) fn take(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let keys = self.keys.of(batch)?;
        let epochs = batch.column(self.epoch).as_primitive::<Int64Type>();
        let number = self.batches.len();
        for (row, (key, epoch)) in keys.iter().zip(epochs.values()).enumerate() {
            let place = Place { epoch: *epoch, batch: number, row };
            let key: &[u8] = key.as_ref();
            match self.places.get_mut(key) {
                Some(held) if held.epoch <= *epoch => *held = place,
                Some(_) => {}
                None => {
                    self.places.insert(key.into(), place);
                }
            }
        }
        self.rows += batch.num_rows();
        self.batches.push(batch.clone());
        if self.rows > 2 * self.places.len() + SLACK_ROWS { self.compact() } else { Ok(()) }
    }

    /// Holds nothing but the newest rows.
    fn compact(&mut self) -> Result<(), ArrowError> {
        let mut places: Vec<&mut Place> = self.places.values_mut().collect();
        let from: Vec<(usize, usize)> = places.iter().map(|place| (place.batch, place.row)).collect();
        let newest = interleave_record_batch(&self.batches.iter().collect::<Vec<_>>(), &from)?;
        for (row, place) in places.iter_mut().enumerate() {
            (place.batch, place.row) = (0, row);
        }
        self.rows = newest.num_rows();
        self.batches = vec![newest];
        Ok(())
    }

    /// The newest row of each key that was not deleted, by key.
    ///
    /// # Errors
    /// [`ArrowError`]; none is known.
    pub(super) fn sorted(self) -> Result<Vec<RecordBatch>, ArrowError> {
        let ops: Vec<_> = self.batches.iter().map(|batch| batch.column(self.op).as_string::<i32>()).collect();
        let stands = |place: &Place| ops[place.batch].value(place.row) != DELETED;
        let mut rows: Vec<(&[u8], usize, usize)> = self
            .places
            .iter()
            .filter(|(_, place)| stands(place))
            .map(|(key, place)| (key.as_ref(), place.batch, place.row))
            .collect();
        rows.sort_unstable();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let from: Vec<(usize, usize)> = rows.iter().map(|(_, batch, row)| (*batch, *row)).collect();
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        Ok(vec![interleave_record_batch(&batches, &from)?])
    }
}

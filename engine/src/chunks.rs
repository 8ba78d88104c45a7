//! Rows of a keyed table: append-only chunks, of which only the newest row of each slot counts.
//!
//! ```text
//! a batch's touched keys --append--> chunk of n rows      chunks grow geometrically from the end to the beginning:
//!                                                         one shorter than twice the next is joined with it, live rows only
//! ```
//! Why: a batch costs what it touches, not what the table holds. A row is copied O(log table) times in its life, and dead rows are
//! never more than live ones in a chunk that is joined.

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_empty_array};
use datafusion::arrow::compute::{concat_batches, interleave, interleave_record_batch, take_record_batch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::error::ArrowError;

/// Where a slot's row lies: number of the chunk, number of the row.
type Place = (u32, u32);
const NOWHERE: Place = (u32::MAX, u32::MAX);

#[derive(Debug)]
struct Chunk {
    rows: RecordBatch,
    /// Slot of each row.
    slots: Vec<u32>,
    live: usize,
    bytes: usize,
}

/// The newest row of each slot.
#[derive(Debug)]
pub(crate) struct Chunks {
    schema: SchemaRef,
    chunks: Vec<Chunk>,
    /// By slot.
    places: Vec<Place>,
}

impl Chunks {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Self { schema, chunks: Vec::new(), places: Vec::new() }
    }

    /// Whether `slot` has a row.
    pub(crate) fn has(&self, slot: u32) -> bool {
        self.places.get(slot as usize).is_some_and(|place| *place != NOWHERE)
    }

    pub(crate) fn bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.bytes + chunk.slots.capacity() * size_of::<u32>()).sum();
        chunks + self.places.capacity() * size_of::<Place>()
    }

    /// Rows of `slots`, all of which have one, in their order.
    pub(crate) fn gather(&self, slots: &[u32]) -> Result<RecordBatch, ArrowError> {
        if slots.is_empty() {
            return Ok(RecordBatch::new_empty(SchemaRef::clone(&self.schema)));
        }
        let chunks: Vec<&RecordBatch> = self.chunks.iter().map(|chunk| &chunk.rows).collect();
        interleave_record_batch(&chunks, &self.places_of(slots))
    }

    /// As [`Self::gather`], one column.
    pub(crate) fn gather_column(&self, slots: &[u32], column: usize) -> Result<ArrayRef, ArrowError> {
        if slots.is_empty() {
            return Ok(new_empty_array(self.schema.field(column).data_type()));
        }
        let chunks: Vec<&dyn Array> = self.chunks.iter().map(|chunk| chunk.rows.column(column).as_ref()).collect();
        interleave(&chunks, &self.places_of(slots))
    }

    fn places_of(&self, slots: &[u32]) -> Vec<(usize, usize)> {
        let place = |slot: &u32| {
            let (chunk, row) = self.places[*slot as usize];
            (chunk as usize, row as usize)
        };
        slots.iter().map(place).collect()
    }

    /// All slots that have a row, in the order in which these were written.
    pub(crate) fn slots(&self) -> Vec<u32> {
        let mut slots = Vec::with_capacity(self.chunks.iter().map(|chunk| chunk.live).sum());
        for (number, chunk) in (0u32..).zip(&self.chunks) {
            let live = (0u32..).zip(&chunk.slots).filter(|(row, slot)| self.places[**slot as usize] == (number, *row));
            slots.extend(live.map(|(_, slot)| *slot));
        }
        slots
    }

    /// `slots`, all of which have a row, in the order in which these were written.
    pub(crate) fn in_order(&self, slots: &[u32]) -> Vec<u32> {
        let mut slots = slots.to_vec();
        slots.sort_unstable_by_key(|slot| self.places[*slot as usize]);
        slots
    }

    /// Puts rows in the place of those that their slots had; no slot twice.
    pub(crate) fn append(&mut self, rows: RecordBatch, slots: Vec<u32>) -> Result<(), ArrowError> {
        debug_assert_eq!(rows.num_rows(), slots.len(), "each row has a slot");
        if slots.is_empty() {
            return Ok(());
        }
        let most = slots.iter().copied().max().map_or(0, |slot| slot as usize + 1);
        if self.places.len() < most {
            self.places.resize(most, NOWHERE);
        }
        let number = chunk_number(self.chunks.len());
        for (row, slot) in (0u32..).zip(&slots) {
            let place = &mut self.places[*slot as usize];
            if *place != NOWHERE {
                self.chunks[place.0 as usize].live -= 1;
            }
            *place = (number, row);
        }
        self.chunks.push(Chunk { bytes: slice_bytes(&rows), live: slots.len(), rows, slots });
        self.settle()
    }

    /// Joins chunks until each is at least twice as long as the next.
    fn settle(&mut self) -> Result<(), ArrowError> {
        while let [.., before, last] = self.chunks.as_slice()
            && before.live < 2 * last.rows.num_rows()
        {
            let (Some(last), Some(before)) = (self.chunks.pop(), self.chunks.pop()) else { break };
            let number = chunk_number(self.chunks.len());
            let parts = [self.live_part(number, before)?, self.live_part(number + 1, last)?];
            let slots: Vec<u32> = parts.iter().flat_map(|(_, slots)| slots.iter().copied()).collect();
            let rows = concat_batches(&self.schema, parts.iter().map(|(rows, _)| rows))?;
            for (row, slot) in (0u32..).zip(&slots) {
                self.places[*slot as usize] = (number, row);
            }
            self.chunks.push(Chunk { bytes: slice_bytes(&rows), live: slots.len(), rows, slots });
        }
        Ok(())
    }

    /// Rows of chunk `number` that still count, and their slots.
    fn live_part(&self, number: u32, chunk: Chunk) -> Result<(RecordBatch, Vec<u32>), ArrowError> {
        if chunk.live == chunk.slots.len() {
            return Ok((chunk.rows, chunk.slots));
        }
        let lives = |(row, slot): &(u32, &u32)| self.places[**slot as usize] == (number, *row);
        let (rows, slots): (Vec<u32>, Vec<u32>) = (0u32..).zip(&chunk.slots).filter(lives).unzip();
        Ok((take_record_batch(&chunk.rows, &UInt32Array::from(rows))?, slots))
    }
}

/// Bytes of rows in memory; of a buffer that several arrays share each counts its part, but of those of views all.
#[must_use]
pub fn slice_bytes(rows: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8View | DataType::BinaryView => column.get_array_memory_size(),
        _ => column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()),
    };
    rows.columns().iter().map(bytes).sum()
}

fn chunk_number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
    use datafusion::arrow::datatypes::Int64Type;

    use super::*;

    fn values(values: Vec<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("v", Arc::new(Int64Array::from(values)) as ArrayRef)]).unwrap()
    }

    #[test]
    fn the_newest_row_of_each_slot_counts_and_chunks_stay_few() {
        let mut chunks = Chunks::new(values(vec![]).schema());
        let mut expected = BTreeMap::new();
        for batch in 0..500u32 {
            // Strides that revisit old slots and bring new ones.
            let slots: Vec<u32> = (0..20)
                .map(|n| (batch * 7 + n * 31) % (batch + 25))
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect();
            let rows: Vec<i64> = slots.iter().map(|slot| i64::from(batch * 1_000 + slot)).collect();
            expected.extend(slots.iter().copied().zip(rows.iter().copied()));
            chunks.append(values(rows), slots).unwrap();
            assert!(chunks.chunks.len() <= 12, "{} chunks", chunks.chunks.len());
        }
        let slots: Vec<u32> = expected.keys().copied().collect();
        let found = chunks.gather(&slots).unwrap();
        assert_eq!(found.column(0).as_primitive::<Int64Type>().values().to_vec(), expected.values().copied().collect::<Vec<_>>());
        let held: usize = chunks.chunks.iter().map(|chunk| chunk.rows.num_rows()).sum();
        assert!(held <= 3 * expected.len(), "{held} rows are held for {} slots", expected.len());
        assert!(!chunks.has(100_000) && chunks.has(slots[0]));
    }
}

//! Which values a group has, in order: a table's keys as bytes that compare as they do, value last.
//!
//! Why beside the table: its index finds a key, but not the next one once the least or greatest is gone. Follows from the rows alone, so it
//! is stored nowhere, and made anew with the rows that are read.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{RowConverter, SortField};

use super::slots::slot_number;
use crate::pane_table::PaneShape;

/// About what a key takes beside its bytes.
const NODE_BYTES: usize = 40;

/// Values that are there, by group.
pub(super) struct Order {
    /// Of a group's keys and the value.
    keys: RowConverter,
    /// Of a group's keys: what the bytes of each of its values begin with.
    groups: RowConverter,
    there: BTreeSet<Box<[u8]>>,
    bytes: usize,
}

impl Order {
    pub(super) fn new(shape: &PaneShape) -> Result<Self, ArrowError> {
        let field = |key: &datafusion::arrow::datatypes::FieldRef| SortField::new(key.data_type().clone());
        let fields: Vec<SortField> = shape.keys().fields().iter().map(field).collect();
        let groups = RowConverter::new(fields[..fields.len() - 1].to_vec())?;
        Ok(Self { keys: RowConverter::new(fields)?, groups, there: BTreeSet::new(), bytes: 0 })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes rows of the table, the newest of their keys.
    ///
    /// - `living`: which of them are there.
    pub(super) fn take(&mut self, shape: &PaneShape, rows: &RecordBatch, living: &BooleanArray) -> Result<(), ArrowError> {
        let keys = self.keys.convert_columns(&rows.columns()[2..2 + shape.key_count()])?;
        for (key, lives) in keys.iter().zip(living.values()) {
            let key: &[u8] = key.as_ref();
            if lives && !self.there.contains(key) {
                self.there.insert(key.into());
                self.bytes += key.len() + NODE_BYTES;
            } else if !lives && self.there.remove(key) {
                self.bytes -= key.len() + NODE_BYTES;
            }
        }
        Ok(())
    }

    /// The least and the greatest value of each group that is asked for; NULL of one that has none. Each group is looked up once.
    ///
    /// - `keys`: columns of the groups' keys. - `asked`: by row.
    pub(super) fn extremes(&self, keys: &[ArrayRef], asked: &[bool]) -> Result<Vec<ArrayRef>, ArrowError> {
        let prefixes = if keys.is_empty() { None } else { Some(self.groups.convert_columns(keys)?) };
        let prefix = |row: usize| prefixes.as_ref().map_or(&[][..], |prefixes| prefixes.row(row).data());
        let mut groups: HashMap<&[u8], u32> = HashMap::new();
        let (mut least, mut greatest, mut places) = (Vec::new(), Vec::new(), vec![None; asked.len()]);
        for row in (0..asked.len()).filter(|row| asked[*row]) {
            let count = slot_number(groups.len());
            let group = *groups.entry(prefix(row)).or_insert(count);
            if group == count {
                least.push(self.least(prefix(row)));
                greatest.push(self.greatest(prefix(row)));
            }
            places[row] = Some(group);
        }
        let places = UInt32Array::from(places);
        [least, greatest].iter().map(|found| take(&self.values(found)?, &places, None)).collect()
    }

    fn least(&self, prefix: &[u8]) -> Option<&[u8]> {
        let first = self.there.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded)).next();
        first.map(AsRef::as_ref).filter(|key| key.starts_with(prefix))
    }

    fn greatest(&self, prefix: &[u8]) -> Option<&[u8]> {
        let end = end_of(prefix);
        let upto = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let last = self.there.range::<[u8], _>((Bound::Unbounded, upto)).next_back();
        last.map(AsRef::as_ref).filter(|key| key.starts_with(prefix))
    }

    /// The values of keys; NULL of none.
    fn values(&self, found: &[Option<&[u8]>]) -> Result<ArrayRef, ArrowError> {
        let parser = self.keys.parser();
        let (mut places, mut rows) = (Vec::with_capacity(found.len()), Vec::with_capacity(found.len()));
        for key in found {
            places.push(key.map(|_| slot_number(rows.len())));
            rows.extend(key.map(|key| parser.parse(key)));
        }
        let columns = self.keys.convert_rows(rows)?;
        let values = columns.last().ok_or_else(|| ArrowError::SchemaError("a set without a value".to_owned()))?;
        take(values, &UInt32Array::from(places), None)
    }
}

/// The first bytes after all that begin with `prefix`; `None` if there are none.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_after_everything_that_begins_with_it() {
        assert_eq!(end_of(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(end_of(&[1, 255, 255]), Some(vec![2]));
        assert_eq!((end_of(&[255, 255]), end_of(&[])), (None, None));
    }
}

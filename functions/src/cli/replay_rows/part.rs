//! Parts: a few rows of one commit, by an address that is the same for ever, and which of them were taken.

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::{concat_batches, filter_record_batch};
use datafusion::arrow::error::ArrowError;
use weir_model::{Epoch, ShardKey};

use crate::kept::Stream;

/// Rows of a part. Frozen: the keys under which earlier runs are remembered name parts of this size.
pub(super) const PART_ROWS: usize = 1_000;

/// Rows of one commit of one shard.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) kind: Stream,
    pub(super) shard: ShardKey,
    pub(super) epoch: Epoch,
    /// Which of the commit's parts it is.
    pub(super) number: usize,
    pub(super) rows: RecordBatch,
}

impl Part {
    /// The rows of one commit in parts.
    ///
    /// # Errors
    /// [`ArrowError`] if the batches are not of one schema.
    pub(super) fn split(kind: Stream, shard: ShardKey, epoch: Epoch, batches: &[RecordBatch]) -> Result<Vec<Self>, ArrowError> {
        let Some(first) = batches.first() else { return Ok(Vec::new()) };
        let all = concat_batches(first.schema_ref(), batches)?;
        let rows = |number: usize| all.slice(number * PART_ROWS, PART_ROWS.min(all.num_rows() - number * PART_ROWS));
        let parts = all.num_rows().div_ceil(PART_ROWS);
        Ok((0..parts).map(|number| Self { kind, shard, epoch, number, rows: rows(number) }).collect())
    }

    /// Key under which a stream remembers the rows that it took of this part for the `time`th time, counted from 0.
    pub(super) fn key(&self, time: usize) -> String {
        let kind = match self.kind {
            Stream::Late => "late",
            Stream::Dead => "dead",
        };
        format!("replay-rows/{}/{kind}/{}/{}/{}/{time}", self.shard.job, self.shard, self.epoch, self.number)
    }
}

/// Some of the rows of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowSet(Vec<bool>);

impl FromIterator<bool> for RowSet {
    fn from_iter<T: IntoIterator<Item = bool>>(rows: T) -> Self {
        Self(rows.into_iter().collect())
    }
}

impl RowSet {
    pub(super) fn none(rows: usize) -> Self {
        Self(vec![false; rows])
    }

    pub(super) fn all(rows: usize) -> Self {
        Self(vec![true; rows])
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().filter(|row| **row).count() as u64
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        self.0.iter().zip(&other.0).map(|(a, b)| *a && *b).collect()
    }

    pub(super) fn or(&self, other: &Self) -> Self {
        self.0.iter().zip(&other.0).map(|(a, b)| *a || *b).collect()
    }

    pub(super) fn without(&self, other: &Self) -> Self {
        self.0.iter().zip(&other.0).map(|(a, b)| *a && !*b).collect()
    }

    /// Without those that stand at `places` among the rows of this set.
    pub(super) fn without_places(&self, places: impl IntoIterator<Item = usize>) -> Self {
        let members: Vec<usize> = (0..self.0.len()).filter(|row| self.0[*row]).collect();
        let mut kept = self.clone();
        for place in places {
            if let Some(row) = members.get(place) {
                kept.0[*row] = false;
            }
        }
        kept
    }

    /// These rows of `batch`.
    ///
    /// # Errors
    /// [`ArrowError`] if the batch has another number of rows.
    pub(super) fn of(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        filter_record_batch(batch, &BooleanArray::from(self.0.clone()))
    }

    /// Four rows a digit, the first row in the first digit's highest bit.
    pub(super) fn to_text(&self) -> String {
        let digit = |rows: &[bool]| {
            let value = rows.iter().enumerate().fold(0, |digit, (at, row)| digit | u32::from(*row) << (3 - at));
            char::from_digit(value, 16).unwrap_or_default()
        };
        self.0.chunks(4).map(digit).collect()
    }

    /// Reads what [`Self::to_text`] wrote of a part with `rows` rows; `None` if it is something else.
    pub(super) fn parse(text: &str, rows: usize) -> Option<Self> {
        let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len() == rows.div_ceil(4))?;
        Some((0..rows).map(|row| digits[row / 4] >> (3 - row % 4) & 1 == 1).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array};
    use weir_model::{JobId, ShardId, StageId};

    use super::*;

    #[test]
    fn a_set_of_rows_is_read_back_as_it_was_written_and_nothing_else_is() {
        for rows in [1, 4, 5, 1_000] {
            let set: RowSet = (0..rows).map(|row| row % 3 == 0).collect();
            assert_eq!(RowSet::parse(&set.to_text(), rows), Some(set.clone()), "{rows}");
            assert_eq!(RowSet::parse(&set.to_text(), rows + 4), None);
        }
        let set: RowSet = [true, false, false, true, true].into_iter().collect();
        assert_eq!(set.to_text(), "98", "frozen: earlier runs are remembered so");
        assert_eq!(RowSet::parse("9x", 5), None);
    }

    #[test]
    fn places_among_the_rows_of_a_set_are_taken_out_of_it() {
        let set: RowSet = [false, true, true, false, true].into_iter().collect();
        assert_eq!(set.without_places([0, 2]), [false, false, true, false, false].into_iter().collect());
        assert_eq!(set.without_places([7]), set);
    }

    #[test]
    fn a_commit_is_cut_into_the_same_parts_however_its_rows_are_read() {
        let rows = |from: i64, to: i64| {
            RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from_iter_values(from..to)) as ArrayRef)]).unwrap()
        };
        let shard = ShardKey::new(JobId(1), StageId(0), ShardId(3));
        let split = |batches: &[RecordBatch]| Part::split(Stream::Dead, shard, Epoch(7), batches).unwrap();
        let (one, other) = (split(&[rows(0, 2_500)]), split(&[rows(0, 999), rows(999, 1_001), rows(1_001, 2_500)]));
        assert_eq!(one.iter().map(|part| part.rows.num_rows()).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        for (a, b) in one.iter().zip(&other) {
            assert_eq!((&a.rows, a.key(0)), (&b.rows, b.key(0)));
        }
        assert_eq!(one[2].key(1), "replay-rows/0000000000000001/dead/s000-00003/7/2/1", "frozen: earlier runs are remembered so");
    }
}

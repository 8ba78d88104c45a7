//! Sorting rows by key group and cutting them by receiver: a counting sort and one `take`, never a comparison sort.
//!
//! ```text
//! rows --sorted_by_key_group--> rows, stable within a key group --split_by_receiver--> one slice per receiver, nothing copied
//! ```

use arrow::array::{AsArray, RecordBatch, UInt16Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::UInt16Type;
use weir_model::layout::Layout;
use weir_model::{KeyGroup, ShardId};

use crate::StateError;

/// Stable order of rows by key group, and for each key group the position of its first row (`groups + 1` entries).
///
/// - `groups`: key groups of the job, above every value of `key_groups`. - Cost: O(rows + groups).
#[must_use]
pub fn sort_by_key_group(key_groups: &UInt16Array, groups: u16) -> (UInt32Array, Vec<usize>) {
    let mut starts = vec![0usize; usize::from(groups) + 1];
    for group in key_groups.values() {
        starts[usize::from(*group) + 1] += 1;
    }
    for group in 0..usize::from(groups) {
        starts[group + 1] += starts[group];
    }
    let mut next = starts.clone();
    let mut order = vec![0u32; key_groups.len()];
    for (row, group) in (0u32..).zip(key_groups.values()) {
        let at = &mut next[usize::from(*group)];
        order[*at] = row;
        *at += 1;
    }
    (UInt32Array::from(order), starts)
}

/// Cuts `rows`, sorted by their key-group column `column`, into one slice per receiver that gets any; nothing is copied.
///
/// # Errors
/// [`StateError::NoReceiver`] if a key group belongs to no shard of the layout.
pub fn split_by_receiver(rows: &RecordBatch, column: usize, layout: &Layout) -> Result<Vec<(ShardId, RecordBatch)>, StateError> {
    let key_groups = rows.column(column).as_primitive::<UInt16Type>();
    let mut parts = Vec::new();
    let mut start = 0;
    while start < rows.num_rows() {
        let group = KeyGroup(key_groups.value(start));
        let shard =
            layout.shards.iter().find(|shard| shard.range.contains(group)).ok_or(StateError::NoReceiver { group: group.0 })?;
        let length = key_groups.values()[start..].partition_point(|group| *group < shard.range.end);
        parts.push((shard.shard, rows.slice(start, length)));
        start += length;
    }
    Ok(parts)
}

/// `rows` in stable order of their key-group column; rows that are sorted already are not copied.
///
/// # Errors
/// [`StateError::Arrow`] if rows cannot be gathered.
pub fn sorted_by_key_group(rows: &RecordBatch, column: usize, groups: u16) -> Result<RecordBatch, StateError> {
    let key_groups = rows.column(column).as_primitive::<UInt16Type>();
    if key_groups.values().is_sorted() {
        return Ok(rows.clone());
    }
    let (order, _) = sort_by_key_group(key_groups, groups);
    Ok(take_record_batch(rows, &order)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    use super::*;

    fn numbered(groups: Vec<u16>) -> RecordBatch {
        let numbers = Int64Array::from_iter_values(0..i64::try_from(groups.len()).unwrap());
        RecordBatch::try_from_iter([
            ("__kg", Arc::new(UInt16Array::from(groups)) as ArrayRef),
            ("row", Arc::new(numbers) as ArrayRef),
        ])
        .unwrap()
    }

    fn numbers(rows: &RecordBatch) -> Vec<i64> {
        rows.column(1).as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn rows_reach_the_owner_of_their_key_group_in_stable_order() {
        let sorted = sorted_by_key_group(&numbered(vec![700, 3, 359, 3, 360]), 0, 720).unwrap();
        let parts = split_by_receiver(&sorted, 0, &Layout::keyed(720, 2)).unwrap();
        let shown: Vec<_> = parts.iter().map(|(shard, rows)| (shard.0, numbers(rows))).collect();
        assert_eq!(shown, [(0, vec![1, 3, 2]), (1, vec![4, 0])]);
    }

    #[test]
    fn a_key_group_that_nobody_owns_is_an_error() {
        let lanes = Layout::unkeyed(720, 2);
        assert!(matches!(split_by_receiver(&numbered(vec![5]), 0, &lanes), Err(StateError::NoReceiver { group: 5 })));
    }

    proptest! {
        #[test]
        fn every_row_reaches_exactly_its_owner(groups in prop::collection::vec(0u16..50, 0..300), shards in 1u16..=50) {
            let layout = Layout::keyed(50, shards);
            let rows = numbered(groups.clone());
            let (_, starts) = sort_by_key_group(rows.column(0).as_primitive::<UInt16Type>(), 50);
            let parts = split_by_receiver(&sorted_by_key_group(&rows, 0, 50).unwrap(), 0, &layout).unwrap();
            let mut expected: Vec<i64> = (0..i64::try_from(groups.len()).unwrap()).collect();
            expected.sort_by_key(|row| groups[usize::try_from(*row).unwrap()]);
            prop_assert_eq!(parts.iter().flat_map(|(_, rows)| numbers(rows)).collect::<Vec<_>>(), expected);
            for (shard, rows) in &parts {
                let range = layout.shards[shard.0 as usize].range;
                let size = starts[usize::from(range.end)] - starts[usize::from(range.start)];
                prop_assert!(size > 0 && rows.num_rows() == size);
                let owned = rows.column(0).as_primitive::<UInt16Type>().values().iter().all(|group| range.contains(KeyGroup(*group)));
                prop_assert!(owned);
            }
        }
    }
}

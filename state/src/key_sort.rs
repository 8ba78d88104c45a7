//! Sorting rows by key group and cutting them by receiver: a counting sort and one `take`, never a comparison sort.

use arrow::array::{Array as _, AsArray, RecordBatch, UInt16Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::UInt16Type;
use weir_model::layout::Layout;
use weir_model::{KeyGroup, ShardId};

use crate::StateError;

/// Stable order of rows by key group, and for each key group the position of its first row (`groups + 1` entries).
///
/// Cost: O(rows + groups).
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
/// [`StateError::Corrupt`] if a key group belongs to no receiver.
pub fn split_by_receiver(rows: &RecordBatch, column: usize, layout: &Layout) -> Result<Vec<(ShardId, RecordBatch)>, StateError> {
    let key_groups = rows.column(column).as_primitive::<UInt16Type>();
    let mut parts = Vec::new();
    let mut start = 0;
    while start < rows.num_rows() {
        let group = KeyGroup(key_groups.value(start));
        let shard = layout.shards.iter().find(|shard| shard.range.contains(group)).ok_or_else(|| StateError::Corrupt {
            object: "layout".to_owned(),
            message: format!("key group {} belongs to no shard", group.0),
        })?;
        let length = key_groups.values()[start..].partition_point(|group| *group < shard.range.end);
        parts.push((shard.shard, rows.slice(start, length)));
        start += length;
    }
    Ok(parts)
}

/// `rows` in stable order of their key-group column.
///
/// # Errors
/// [`StateError::Arrow`] if rows cannot be gathered.
pub fn sorted_by_key_group(rows: &RecordBatch, column: usize, groups: u16) -> Result<RecordBatch, StateError> {
    let (order, _) = sort_by_key_group(rows.column(column).as_primitive::<UInt16Type>(), groups);
    Ok(take_record_batch(rows, &order)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn rows_reach_the_owner_of_their_key_group_in_stable_order() {
        let groups = UInt16Array::from(vec![700, 3, 359, 3, 360]);
        let rows = RecordBatch::try_from_iter([
            ("__kg", Arc::new(groups) as ArrayRef),
            ("row", Arc::new(Int64Array::from(vec![0, 1, 2, 3, 4])) as ArrayRef),
        ])
        .unwrap();
        let sorted = sorted_by_key_group(&rows, 0, 720).unwrap();
        let parts = split_by_receiver(&sorted, 0, &Layout::keyed(720, 2)).unwrap();
        let shown: Vec<(u32, Vec<i64>)> = parts
            .iter()
            .map(|(shard, rows)| (shard.0, rows.column(1).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()))
            .collect();
        assert_eq!(shown, [(0, vec![1, 3, 2]), (1, vec![4, 0])]);
    }
}

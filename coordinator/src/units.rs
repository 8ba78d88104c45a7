//! What requests to the table cost, in DynamoDB's units, whatever the store: so that a run on one machine tells the bill.
//!
//! | request | units |
//! | --- | --- |
//! | read of one item, strongly consistent | 1 read unit per 4 KiB, at least 1 |
//! | read of a partition | 1 read unit per 4 KiB of all items together, at least 1 |
//! | one write | 1 write unit per KiB of the new item, at least 1 |
//! | several writes in a transaction | twice that for each, checks too |
//! | one check alone | a read |
//!
//! Not counted: what a delete or a check finds beyond 1 KiB, an old item larger than its successor, and what the store sends again.

use crate::store::{Condition, Item, Write};

const READ_UNIT_BYTES: usize = 4 << 10;
const WRITE_UNIT_BYTES: usize = 1 << 10;

/// Units of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Units {
    /// Read units.
    pub read: u64,
    /// Write units.
    pub write: u64,
}

/// Units of reading `items` in one request.
pub fn of_read<'a>(items: impl IntoIterator<Item = &'a Item>) -> Units {
    let bytes: usize = items.into_iter().map(Item::bytes).sum();
    Units { read: units(bytes, READ_UNIT_BYTES), write: 0 }
}

/// Units of a transaction.
#[must_use]
pub fn of_transaction(writes: &[Write]) -> Units {
    // A condition on a field is judged by a read before.
    let pins = writes.iter().filter(|write| matches!(write.target().1, Condition::FieldIs { .. })).count() as u64;
    let write = |write: &Write| units(write.bytes(), WRITE_UNIT_BYTES);
    match writes {
        [] => Units::default(),
        [Write::Check { .. }] => Units { read: 1, write: 0 },
        [one] => Units { read: pins, write: write(one) },
        many => Units { read: pins, write: many.iter().map(|one| 2 * write(one)).sum() },
    }
}

fn units(bytes: usize, unit: usize) -> u64 {
    bytes.div_ceil(unit).max(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ItemKey;

    fn put(bytes: usize) -> Write {
        let body = vec![b' '; bytes].into();
        Write::Put { key: ItemKey::new("p", "s"), condition: Condition::Absent, body }
    }

    #[test]
    fn a_transaction_of_two_costs_four_times_one_write() {
        assert_eq!(of_transaction(&[]), Units::default());
        assert_eq!(of_transaction(&[put(100)]).write, 1);
        assert_eq!(of_transaction(&[put(100), put(100)]).write, 4);
        assert_eq!(of_transaction(&[put(2_000)]).write, 3, "the key and our attributes count");
        let check = Write::Check { key: ItemKey::new("p", "s"), condition: Condition::Exists };
        assert_eq!(of_transaction(std::slice::from_ref(&check)), Units { read: 1, write: 0 });
        assert_eq!(of_transaction(&[check, put(1)]).write, 4);
    }

    #[test]
    fn a_read_costs_its_bytes_and_at_least_one_unit() {
        let item = |bytes: usize| Item { key: ItemKey::new("p", "s"), version: 1, body: vec![b' '; bytes].into() };
        assert_eq!(of_read(&[]).read, 1);
        assert_eq!(of_read(&[item(4_096)]).read, 2);
        assert_eq!(of_read(&[item(1_000), item(1_000), item(1_000)]).read, 1);
    }
}

//! The one conditional request, sent until its answer is clear.

use crate::store::{Condition, Conflict, ItemKey, StoreError, TransactOutcome, Write, check_limits, holds};

use super::request::{Change, Guard, Order, Request};
use super::resend::{Next, Sendings};
use super::{DynamoTable, Item};

/// Times a transaction is pinned anew because an item moved under a condition on its field.
const PINS_MAX: usize = 8;

impl DynamoTable {
    pub(super) async fn transact_items(&self, writes: &[Write]) -> Result<TransactOutcome, StoreError> {
        check_limits(writes)?;
        match writes {
            [] => return Ok(TransactOutcome::Applied),
            [Write::Check { key, condition }] => return self.check(key, condition).await,
            _ => {}
        }
        for _ in 0..PINS_MAX {
            let orders = match self.pin(writes).await? {
                Pinned::Orders(orders) => orders,
                Pinned::Refused(conflicts) => return Ok(TransactOutcome::Refused(conflicts)),
            };
            let mut conflicts = match self.send(&orders).await? {
                TransactOutcome::Applied => return Ok(TransactOutcome::Applied),
                TransactOutcome::Refused(conflicts) => conflicts,
            };
            // Only the pin was refused, not the condition itself, where the item moved and its field did not.
            conflicts.retain(|conflict| !holds_of(writes[conflict.index].target().1, conflict.found.as_ref()));
            if !conflicts.is_empty() {
                return Ok(TransactOutcome::Refused(conflicts));
            }
        }
        Err(StoreError::Determinate(format!("{}: an item moved under every attempt to check its field", self.place)))
    }

    /// Nothing is written, so a strongly consistent read says the same for a tenth of the price.
    async fn check(&self, key: &ItemKey, condition: &Condition) -> Result<TransactOutcome, StoreError> {
        let found = self.get_item(key).await?;
        if holds_of(condition, found.as_ref()) {
            return Ok(TransactOutcome::Applied);
        }
        Ok(TransactOutcome::Refused(vec![Conflict { index: 0, found }]))
    }

    async fn pin(&self, writes: &[Write]) -> Result<Pinned, StoreError> {
        let mut orders = Vec::with_capacity(writes.len());
        let mut conflicts = Vec::new();
        for (index, write) in writes.iter().enumerate() {
            let (key, condition) = write.target();
            let guard = match condition {
                Condition::Absent => Guard::Absent,
                Condition::Exists => Guard::Exists,
                Condition::VersionIs(version) => Guard::VersionIs(*version),
                Condition::FieldIs { .. } => match self.get_item(key).await? {
                    Some(item) if holds_of(condition, Some(&item)) => Guard::VersionIs(item.version),
                    found => {
                        conflicts.push(Conflict { index, found });
                        continue;
                    }
                },
            };
            orders.push(Order { key: key.clone(), guard, change: change(write)? });
        }
        Ok(if conflicts.is_empty() { Pinned::Orders(orders) } else { Pinned::Refused(conflicts) })
    }

    async fn send(&self, orders: &[Order]) -> Result<TransactOutcome, StoreError> {
        let write = self.ids.next_u128();
        let request = Request::new(&self.client, &self.place.table, orders, write)?;
        let mut sendings = Sendings::new(orders);
        let mut token = write;
        loop {
            match sendings.hear(request.send(token, write, &self.place).await) {
                Next::Done(outcome) => return outcome,
                Next::Again => {}
                Next::AgainWithFreshToken => token = self.ids.next_u128(),
            }
            self.wait(sendings.sent()).await;
        }
    }
}

/// Writes whose conditions the service can judge.
enum Pinned {
    /// All of them.
    Orders(Vec<Order>),
    /// These conditions on fields do not hold.
    Refused(Vec<Conflict>),
}

fn holds_of(condition: &Condition, found: Option<&Item>) -> bool {
    holds(condition, found.map(|item| (item.version, item.body.as_ref())))
}

fn change(write: &Write) -> Result<Change, StoreError> {
    match write {
        Write::Put { key, body, .. } => match std::str::from_utf8(body) {
            Ok(text) => Ok(Change::Put(text.to_owned())),
            Err(error) => Err(StoreError::Invalid(format!("row {key}: its body is no JSON: {error}"))),
        },
        Write::Delete { .. } => Ok(Change::Delete),
        Write::Check { .. } => Ok(Change::Nothing),
    }
}

//! Requests: one `UpdateItem` or `DeleteItem`, or one `TransactWriteItems`, each under its condition.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::delete_item::builders::DeleteItemFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::builders::TransactWriteItemsFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};

use crate::store::{ItemKey, StoreError};

use super::item::{self, Attributes};
use crate::keys;

/// Writes a body under the next version; works whatever was there, so that one form serves every condition.
const SET: &str = "SET #version = if_not_exists(#version, :zero) + :one, #body = :body, #write = :write";
/// The same, of a row that the table may forget some day.
const SET_EXPIRING: &str =
    "SET #version = if_not_exists(#version, :zero) + :one, #body = :body, #write = :write, #expires = :expires";

/// A condition that the service can judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// There is no such item.
    Absent,
    /// The item is there.
    Exists,
    /// The item is there at this version.
    VersionIs(u64),
}

/// What is done to an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It gets this body.
    Put(String),
    /// It is deleted.
    Delete,
    /// It stays: only the condition counts.
    Nothing,
}

/// One write of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// The item.
    pub(super) key: ItemKey,
    /// What must hold.
    pub(super) guard: Guard,
    /// What is done.
    pub(super) change: Change,
}

/// A request, ready to be sent more than once.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// One item is written.
    Update(Box<UpdateItemFluentBuilder>),
    /// One item is deleted.
    Delete(Box<DeleteItemFluentBuilder>),
    /// Anything else.
    Transact(Box<TransactWriteItemsFluentBuilder>),
}

impl Request {
    /// The request for `orders`.
    ///
    /// - `write`: id of the transaction.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the SDK finds something missing.
    pub(super) fn new(client: &Client, table: &str, orders: &[Order], write: u128) -> Result<Self, StoreError> {
        let all_old = ReturnValuesOnConditionCheckFailure::AllOld;
        match orders {
            [Order { key, guard, change: Change::Put(body) }] => {
                let terms = Terms::of(*guard).and_set(key, body, write);
                let update = client.update_item().table_name(table).set_key(Some(item::key(key))).update_expression(terms.set);
                let update = update.condition_expression(terms.condition).return_values_on_condition_check_failure(all_old);
                let update = update.set_expression_attribute_names(terms.names);
                Ok(Self::Update(Box::new(update.set_expression_attribute_values(terms.values))))
            }
            [Order { key, guard, change: Change::Delete }] => {
                let terms = Terms::of(*guard);
                let delete = client.delete_item().table_name(table).set_key(Some(item::key(key)));
                let delete = delete.condition_expression(terms.condition).return_values_on_condition_check_failure(all_old);
                let delete = delete.set_expression_attribute_names(terms.names);
                Ok(Self::Delete(Box::new(delete.set_expression_attribute_values(terms.values))))
            }
            _ => {
                let mut items = Vec::with_capacity(orders.len());
                for order in orders {
                    items.push(transact_item(table, order, write)?);
                }
                Ok(Self::Transact(Box::new(client.transact_write_items().set_transact_items(Some(items)))))
            }
        }
    }
}

fn transact_item(table: &str, order: &Order, write: u128) -> Result<TransactWriteItem, StoreError> {
    let terms = Terms::of(order.guard);
    let key = item::key(&order.key);
    let all_old = ReturnValuesOnConditionCheckFailure::AllOld;
    let built = match &order.change {
        Change::Put(body) => {
            let terms = terms.and_set(&order.key, body, write);
            let update = Update::builder().table_name(table).set_key(Some(key)).update_expression(terms.set);
            let update = update.condition_expression(terms.condition).return_values_on_condition_check_failure(all_old);
            let update = update.set_expression_attribute_names(terms.names).set_expression_attribute_values(terms.values);
            update.build().map(|update| TransactWriteItem::builder().update(update))
        }
        Change::Delete => {
            let delete = Delete::builder().table_name(table).set_key(Some(key)).condition_expression(terms.condition);
            let delete = delete.return_values_on_condition_check_failure(all_old);
            let delete = delete.set_expression_attribute_names(terms.names).set_expression_attribute_values(terms.values);
            delete.build().map(|delete| TransactWriteItem::builder().delete(delete))
        }
        Change::Nothing => {
            let check = ConditionCheck::builder().table_name(table).set_key(Some(key)).condition_expression(terms.condition);
            let check = check.return_values_on_condition_check_failure(all_old);
            let check = check.set_expression_attribute_names(terms.names).set_expression_attribute_values(terms.values);
            check.build().map(|check| TransactWriteItem::builder().condition_check(check))
        }
    };
    built.map(|item| item.build()).map_err(|error| StoreError::Invalid(format!("row {}: {error}", order.key)))
}

/// A condition with what its placeholders stand for; none may be given that is not used.
struct Terms {
    condition: &'static str,
    set: &'static str,
    names: Option<HashMap<String, String>>,
    values: Option<Attributes>,
}

impl Terms {
    fn of(guard: Guard) -> Self {
        match guard {
            Guard::Absent => Self { condition: "attribute_not_exists(pk)", set: SET, names: None, values: None },
            Guard::Exists => Self { condition: "attribute_exists(pk)", set: SET, names: None, values: None },
            Guard::VersionIs(version) => Self {
                condition: "#version = :is",
                set: SET,
                names: Some(HashMap::from([name("#version", item::VERSION)])),
                values: Some(HashMap::from([(":is".to_owned(), item::number(version))])),
            },
        }
    }

    fn and_set(mut self, key: &ItemKey, body: &str, write: u128) -> Self {
        let names = self.names.get_or_insert_default();
        names.extend([name("#version", item::VERSION), name("#body", item::BODY), name("#write", item::WRITE)]);
        let values = self.values.get_or_insert_default();
        values.insert(":zero".to_owned(), item::number(0));
        values.insert(":one".to_owned(), item::number(1));
        values.insert(":body".to_owned(), AttributeValue::S(body.to_owned()));
        values.insert(":write".to_owned(), item::write_id(write));
        if let Some(expires_at) = keys::expires_at(key, body.as_bytes()) {
            names.extend([name("#expires", item::EXPIRES_AT)]);
            values.insert(":expires".to_owned(), AttributeValue::N(expires_at.to_string()));
            self.set = SET_EXPIRING;
        }
        self
    }
}

fn name(placeholder: &str, attribute: &str) -> (String, String) {
    (placeholder.to_owned(), attribute.to_owned())
}

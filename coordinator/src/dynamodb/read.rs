//! Reads, strongly consistent. A failed one happened to nobody, so it is sent again whatever the failure.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::AttributeValue;

use crate::store::{Item, ItemKey, StoreError};

use super::failure::{Verdict, judge};
use super::{DynamoTable, item};

/// Times a read is sent.
const SENDINGS_MAX: u32 = 4;

impl DynamoTable {
    pub(super) async fn get_item(&self, key: &ItemKey) -> Result<Option<Item>, StoreError> {
        let get = self.client.get_item().table_name(&self.place.table).set_key(Some(item::key(key))).consistent_read(true);
        let found = self.read(|| get.clone().send()).await?;
        found.item.map(item::decode).transpose()
    }

    pub(super) async fn query_items(&self, partition: &str) -> Result<Vec<Item>, StoreError> {
        let query = self.client.query().table_name(&self.place.table).consistent_read(true);
        let query = query.key_condition_expression("pk = :pk");
        let query = query.expression_attribute_values(":pk", AttributeValue::S(partition.to_owned()));
        let mut items = Vec::new();
        let mut from = None;
        loop {
            let page = self.read(|| query.clone().set_exclusive_start_key(from.clone()).send()).await?;
            for found in page.items.unwrap_or_default() {
                items.push(item::decode(found)?);
            }
            match page.last_evaluated_key {
                Some(last) => from = Some(last),
                None => return Ok(items),
            }
        }
    }

    /// Sends a read until it is answered, bounded.
    pub(super) async fn read<T, E, F>(&self, send: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let mut sent = 0;
        loop {
            let failure = match send().await {
                Ok(answer) => return Ok(answer),
                Err(error) => judge(&error, &self.place),
            };
            sent += 1;
            if failure.verdict == Verdict::Invalid || sent == SENDINGS_MAX {
                return Err(failure.of_a_read());
            }
            self.wait(sent).await;
        }
    }
}

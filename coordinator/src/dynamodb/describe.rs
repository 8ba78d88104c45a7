//! Looks at a table before it is used: what would break the protocol is refused with its remedy.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{KeyType, ScalarAttributeType, StreamViewType, TableDescription, TableStatus};

use weir_model::Clock;
use weir_model::decide::{Skew, decide_skew};

use crate::store::StoreError;

use super::connect::Place;
use super::failure::judge;
use super::heard::Heard;
use super::item::{PARTITION, SORT};

/// Times a table is asked for at the start.
const TRIES_MAX: u32 = 4;
/// Wait after the first of them; grows with each.
const WAIT: Duration = Duration::from_millis(25);

/// A table that Weir can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Where it is.
    pub place: Place,
    /// Items, as the service last counted them (every six hours or so).
    pub items: u64,
    /// Their bytes, as of then.
    pub bytes: u64,
    /// Whether requests are paid one by one (on demand) and not reserved.
    pub on_demand: bool,
    /// Name (ARN) of its stream.
    pub stream: String,
}

/// Describes a table and refuses one that cannot be used.
///
/// # Errors
/// [`StoreError::Invalid`] with the remedy; [`StoreError::Determinate`] if the service does not answer.
pub async fn describe(client: &Client, place: &Place) -> Result<Described, StoreError> {
    match find(client, place).await? {
        Some(table) => check(&table, place),
        None => Err(StoreError::Invalid(format!(
            "{place}: there is no such table: make it with weir table create {}, or choose its region with AWS_REGION",
            place.table
        ))),
    }
}

/// As [`describe`], and refuses a machine whose clock is not the service's (W3).
pub(super) async fn describe_timed(client: &Client, place: &Place, clock: &Arc<dyn Clock>) -> Result<Described, StoreError> {
    let heard = Heard::new(Arc::clone(clock));
    let config = client.config().to_builder().interceptor(heard.clone()).build();
    let client = Client::from_conf(config);
    let mut tries = 1;
    let described = loop {
        match describe(&client, place).await {
            Err(StoreError::Determinate(_)) if tries < TRIES_MAX => clock.sleep(WAIT * tries).await,
            known => break known?,
        }
        tries += 1;
    };
    match heard.stamp().map(|stamp| decide_skew(&stamp)) {
        None | Some(Skew::Agrees) => Ok(described),
        Some(skew @ (Skew::Ahead(_) | Skew::Behind(_))) => Err(StoreError::Invalid(format!("{place}: {skew}"))),
    }
}

/// The table as the service describes it, if there is one.
pub(super) async fn find(client: &Client, place: &Place) -> Result<Option<TableDescription>, StoreError> {
    match client.describe_table().table_name(&place.table).send().await {
        Ok(described) => Ok(described.table),
        Err(error) if error.as_service_error().is_some_and(DescribeTableError::is_resource_not_found_exception) => Ok(None),
        Err(error) => Err(judge(&error, place).of_a_read()),
    }
}

fn check(table: &TableDescription, place: &Place) -> Result<Described, StoreError> {
    let invalid = |what: &str| Err(StoreError::Invalid(format!("{place}: {what}")));
    match table.table_status() {
        Some(TableStatus::Active | TableStatus::Updating) | None => {}
        Some(TableStatus::Creating) => return invalid("it is being made: wait until weir table create has returned"),
        Some(status) => return invalid(&format!("its status is {status}: use another table")),
    }
    check_keys(table, place)?;
    if !table.replicas().is_empty() {
        return invalid(
            "it is a global table: a replica answers with rows that another region has overwritten; use a table without",
        );
    }
    let stream = table.stream_specification().filter(|stream| stream.stream_enabled());
    let images = stream.and_then(|stream| stream.stream_view_type()) == Some(&StreamViewType::NewAndOldImages);
    let (true, Some(stream)) = (images, table.latest_stream_arn()) else {
        return invalid(&format!("it has no stream of new and old images: turn it on with weir table create {}", place.table));
    };
    let on_demand = table.billing_mode_summary().and_then(|summary| summary.billing_mode());
    Ok(Described {
        place: place.clone(),
        items: table.item_count().and_then(|items| items.try_into().ok()).unwrap_or(0),
        bytes: table.table_size_bytes().and_then(|bytes| bytes.try_into().ok()).unwrap_or(0),
        on_demand: on_demand == Some(&aws_sdk_dynamodb::types::BillingMode::PayPerRequest),
        stream: stream.to_owned(),
    })
}

/// Refuses a table whose keys are not ours; nothing can be done about an existing one.
pub(super) fn check_keys(table: &TableDescription, place: &Place) -> Result<(), StoreError> {
    let text = |name: &str| {
        let mut attributes = table.attribute_definitions().iter();
        attributes.any(|attribute| attribute.attribute_name() == name && *attribute.attribute_type() == ScalarAttributeType::S)
    };
    let keys: Vec<(&str, &KeyType)> = table.key_schema().iter().map(|key| (key.attribute_name(), key.key_type())).collect();
    if keys == [(PARTITION, &KeyType::Hash), (SORT, &KeyType::Range)] && text(PARTITION) && text(SORT) {
        return Ok(());
    }
    Err(StoreError::Invalid(format!(
        "{place}: its keys are not those of Weir (partition key {PARTITION:?} and sort key {SORT:?}, both strings): \
         choose another name and make the table with weir table create"
    )))
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{AttributeDefinition, KeySchemaElement, ReplicaDescription, StreamSpecification};

    use super::*;

    fn table(sort: &str, stream: bool) -> aws_sdk_dynamodb::types::builders::TableDescriptionBuilder {
        let key = |name: &str, of: KeyType| KeySchemaElement::builder().attribute_name(name).key_type(of).build().unwrap();
        let text = |name: &str| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build().unwrap()
        };
        let view = StreamSpecification::builder().stream_enabled(stream).stream_view_type(StreamViewType::NewAndOldImages);
        TableDescription::builder()
            .table_status(TableStatus::Active)
            .key_schema(key(PARTITION, KeyType::Hash))
            .key_schema(key(sort, KeyType::Range))
            .attribute_definitions(text(PARTITION))
            .attribute_definitions(text(sort))
            .stream_specification(view.build().unwrap())
            .latest_stream_arn("arn:of:stream")
    }

    fn refused(table: &TableDescription) -> String {
        let place = Place { table: "rows".into(), region: "r".into(), endpoint: None };
        check(table, &place).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
    }

    #[test]
    fn a_table_that_would_break_the_protocol_is_refused_with_its_remedy() {
        assert_eq!(refused(&table(SORT, true).build()), "accepted");
        assert!(refused(&table("range", true).build()).contains("keys"));
        assert!(refused(&table(SORT, false).build()).contains("weir table create rows"));
        let replica = ReplicaDescription::builder().region_name("eu-west-1").build();
        assert!(refused(&table(SORT, true).replicas(replica).build()).contains("global table"));
        assert!(refused(&table(SORT, true).table_status(TableStatus::Creating).build()).contains("being made"));
        assert!(refused(&table(SORT, true).table_status(TableStatus::Deleting).build()).contains("DELETING"));
    }
}

//! Makes the table: on demand, with a stream of both images, and with expiry of key items.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::update_table::UpdateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification, StreamViewType,
    TableDescription, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
};
use weir_model::Clock;

use crate::store::StoreError;

use super::connect::Place;
use super::describe::{Described, check_keys, describe, find};
use super::failure::judge;
use super::item::{EXPIRES_AT, PARTITION, SORT};

/// How often a table that is being made is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Looks before giving up: five minutes; a table takes ten seconds or so.
const LOOKS_MAX: usize = 600;

/// Makes the table, or adds what an existing one lacks, and waits until it can be used. Doing it again changes nothing.
///
/// # Errors
/// [`StoreError::Invalid`] if there is such a table with other keys, or the credentials do not allow it.
pub async fn create_table(client: &Client, place: &Place, clock: &dyn Clock) -> Result<Described, StoreError> {
    if find(client, place).await?.is_none() {
        create(client, place).await?;
    }
    let table = wait_until_active(client, place, clock).await?;
    check_keys(&table, place)?;
    if !table.stream_specification().is_some_and(StreamSpecification::stream_enabled) {
        turn_stream_on(client, place).await?;
        wait_until_active(client, place, clock).await?;
    }
    turn_expiry_on(client, place).await?;
    describe(client, place).await
}

async fn create(client: &Client, place: &Place) -> Result<(), StoreError> {
    let mut create = client.create_table().table_name(&place.table).billing_mode(BillingMode::PayPerRequest);
    for (name, of) in [(PARTITION, KeyType::Hash), (SORT, KeyType::Range)] {
        let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
        create = create.attribute_definitions(attribute.build().map_err(|error| incomplete(&error))?);
        let key = KeySchemaElement::builder().attribute_name(name).key_type(of);
        create = create.key_schema(key.build().map_err(|error| incomplete(&error))?);
    }
    match create.stream_specification(stream()?).send().await {
        Ok(_) => Ok(()),
        // Somebody else makes it at this moment.
        Err(error) if error.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception) => Ok(()),
        Err(error) => Err(judge(&error, place).of_a_read()),
    }
}

async fn turn_stream_on(client: &Client, place: &Place) -> Result<(), StoreError> {
    match client.update_table().table_name(&place.table).stream_specification(stream()?).send().await {
        Ok(_) => Ok(()),
        Err(error) if error.as_service_error().is_some_and(UpdateTableError::is_resource_in_use_exception) => Ok(()),
        Err(error) => Err(judge(&error, place).of_a_read()),
    }
}

async fn turn_expiry_on(client: &Client, place: &Place) -> Result<(), StoreError> {
    let found = client.describe_time_to_live().table_name(&place.table).send().await;
    let found = found.map_err(|error| judge(&error, place).of_a_read())?.time_to_live_description;
    let status = found.as_ref().and_then(|found| found.time_to_live_status());
    if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
        let attribute = found.as_ref().and_then(|found| found.attribute_name()).unwrap_or_default();
        if attribute == EXPIRES_AT {
            return Ok(());
        }
        let text = format!("{place}: its items expire by attribute {attribute:?}: turn that off, Weir's is {EXPIRES_AT:?}");
        return Err(StoreError::Invalid(text));
    }
    let expiry = TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES_AT);
    let expiry = expiry.build().map_err(|error| incomplete(&error))?;
    let updated = client.update_time_to_live().table_name(&place.table).time_to_live_specification(expiry).send().await;
    updated.map(drop).map_err(|error| judge(&error, place).of_a_read())
}

async fn wait_until_active(client: &Client, place: &Place, clock: &dyn Clock) -> Result<TableDescription, StoreError> {
    for _ in 0..LOOKS_MAX {
        match find(client, place).await? {
            Some(table) if table.table_status() == Some(&TableStatus::Active) => return Ok(table),
            _ => clock.sleep(LOOK_INTERVAL).await,
        }
    }
    Err(StoreError::Determinate(format!("{place}: it is still not active: look again with weir table describe")))
}

fn stream() -> Result<StreamSpecification, StoreError> {
    let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewAndOldImages);
    stream.build().map_err(|error| incomplete(&error))
}

fn incomplete(error: &dyn std::error::Error) -> StoreError {
    StoreError::Invalid(format!("a request to make a table is incomplete: {error}"))
}

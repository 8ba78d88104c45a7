//! Items as attributes.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;

use crate::store::{Item, ItemKey, StoreError};

/// Partition key.
pub(super) const PARTITION: &str = "pk";
/// Sort key.
pub(super) const SORT: &str = "sk";
/// The item's version.
pub(super) const VERSION: &str = "version";
/// The item's JSON.
pub(super) const BODY: &str = "body";
/// Id of the transaction that wrote the item.
pub(super) const WRITE: &str = "write";
/// When a key item may be forgotten, seconds UTC.
pub(super) const EXPIRES_AT: &str = "expires_at";

/// Attributes of an item, as the SDK has them.
pub(super) type Attributes = HashMap<String, AttributeValue>;

/// The attributes that name `key`.
pub(super) fn key(key: &ItemKey) -> Attributes {
    HashMap::from([
        (PARTITION.to_owned(), AttributeValue::S(key.partition.clone())),
        (SORT.to_owned(), AttributeValue::S(key.sort.clone())),
    ])
}

/// An item's version as an attribute.
pub(super) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// A transaction's id as an attribute.
pub(super) fn write_id(id: u128) -> AttributeValue {
    AttributeValue::B(Blob::new(id.to_be_bytes()))
}

/// Reads an item.
///
/// # Errors
/// [`StoreError::Corrupt`] if it is not one of ours.
pub(super) fn decode(mut attributes: Attributes) -> Result<Item, StoreError> {
    let mut text = |name: &str| match attributes.remove(name) {
        Some(AttributeValue::S(text)) => Some(text),
        _ => None,
    };
    let (partition, sort, body) = (text(PARTITION), text(SORT), text(BODY));
    let key = ItemKey::new(partition.unwrap_or_default(), sort.unwrap_or_default());
    let version = match attributes.get(VERSION) {
        Some(AttributeValue::N(number)) => number.parse().ok(),
        _ => None,
    };
    match (version, body) {
        (Some(version), Some(body)) => Ok(Item { key, version, body: Bytes::from(body) }),
        (version, _) => {
            let missing = if version.is_none() { VERSION } else { BODY };
            let message = format!("attribute {missing:?} is missing or of another type: use a table that only Weir writes");
            Err(StoreError::Corrupt { key: key.to_string(), message })
        }
    }
}

/// Whether the transaction `id` wrote the item with these attributes.
pub(super) fn written_by(attributes: &Attributes, id: u128) -> bool {
    attributes.get(WRITE) == Some(&write_id(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_of_somebody_else_is_refused_by_its_key() {
        let mut attributes = key(&ItemKey::new("p", "s"));
        attributes.insert(BODY.to_owned(), AttributeValue::S("{}".to_owned()));
        let error = decode(attributes.clone()).unwrap_err().to_string();
        assert!(error.contains("p/s") && error.contains("version"), "{error}");
        attributes.insert(VERSION.to_owned(), number(u64::MAX));
        attributes.insert(WRITE.to_owned(), write_id(7));
        assert!(written_by(&attributes, 7) && !written_by(&attributes, 8));
        assert_eq!(decode(attributes).unwrap().version, u64::MAX);
    }
}

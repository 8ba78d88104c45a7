//! What reaches a dispatcher: the table's stream, and its own messages come back.

use serde::Deserialize;
use serde_json::Value;
use weir_coordinator::keys;
use weir_model::{Epoch, JobId, ShardKey};

use crate::outbox::Look;

/// A head that has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// The shard.
    pub shard: ShardKey,
    /// Its epoch after the change.
    pub epoch: Epoch,
}

/// Everything of one delivery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Heads that have changed.
    pub changed: Vec<Changed>,
    /// Jobs that were created.
    pub created: Vec<JobId>,
    /// Slots to look at.
    pub looks: Vec<Look>,
}

/// A delivery that is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("record {record} of the event: {message}")]
pub struct EventError {
    /// Counted from 1.
    pub record: usize,
    /// What is wrong with it.
    pub message: String,
}

/// Part of a head that a dispatcher looks at; the rest is read from the table.
#[derive(Deserialize)]
struct HeadPart {
    shard: ShardKey,
    epoch: Epoch,
}

impl Event {
    /// Reads what Lambda delivers: `Records` of DynamoDB Streams or of SQS.
    ///
    /// # Errors
    /// [`EventError`] naming the record.
    pub fn parse(event: &Value) -> Result<Self, EventError> {
        let records = event.get("Records").and_then(Value::as_array);
        let records = records.ok_or_else(|| EventError { record: 0, message: "it has no Records".to_owned() })?;
        let mut parsed = Self::default();
        for (number, record) in (1..).zip(records) {
            parsed.read(record).map_err(|message| EventError { record: number, message })?;
        }
        Ok(parsed)
    }

    fn read(&mut self, record: &Value) -> Result<(), String> {
        if let Some(change) = record.get("dynamodb") {
            return self.read_change(change);
        }
        let body = record.get("body").and_then(Value::as_str).ok_or("it is neither a change of the table nor a message")?;
        self.looks.push(serde_json::from_str(body).map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Rows but heads and routes wake nobody; neither does what was deleted.
    fn read_change(&mut self, change: &Value) -> Result<(), String> {
        let text = |place: &str| change.pointer(place).and_then(Value::as_str);
        let (Some(partition), Some(sort)) = (text("/Keys/pk/S"), text("/Keys/sk/S")) else {
            return Err("its keys are not those of a table of Weir".to_owned());
        };
        let Some(body) = text("/NewImage/body/S") else { return Ok(()) };
        match (partition.split('/').next(), sort) {
            (Some("head"), "head") => {
                let head: HeadPart = serde_json::from_str(body).map_err(|error| error.to_string())?;
                self.changed.push(Changed { shard: head.shard, epoch: head.epoch });
            }
            (Some("job"), keys::ROUTES) => {
                let job = partition.strip_prefix("job/").and_then(|job| job.parse().ok());
                self.created.push(job.ok_or_else(|| format!("{partition} names no job"))?);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_model::{Head, ShardId, StageId};

    use super::*;

    #[test]
    fn heads_routes_and_messages_are_read_and_other_rows_passed_over() {
        let shard = ShardKey::new(JobId(5), StageId(1), ShardId(2));
        let head = serde_json::to_string(&Head { epoch: Epoch(7), ..Head::new(shard) }).unwrap();
        let look = Look { job: JobId(5), slot: 3, called: weir_model::decide::Called::default() };
        let record = |partition: String, sort: &str, body: &str| {
            json!({"eventName": "MODIFY", "dynamodb": {
                "Keys": {"pk": {"S": partition}, "sk": {"S": sort}}, "NewImage": {"body": {"S": body}, "version": {"N": "1"}}}})
        };
        let gone = json!({"eventName": "REMOVE", "dynamodb": {"Keys": {"pk": {"S": "head/x"}, "sk": {"S": "head"}}}});
        let event = json!({"Records": [
            record(keys::head(shard).partition, "head", &head),
            record(keys::routes(JobId(5)).partition, keys::ROUTES, "{}"),
            record("retention/x".to_owned(), "retention", "{}"),
            gone,
            {"eventSource": "aws:sqs", "body": serde_json::to_string(&look).unwrap()},
        ]});
        let parsed = Event::parse(&event).unwrap();
        let changed = vec![Changed { shard, epoch: Epoch(7) }];
        assert_eq!(parsed, Event { changed, created: vec![JobId(5)], looks: vec![look] });
    }

    #[test]
    fn what_is_none_of_ours_is_refused_by_its_number() {
        assert!(Event::parse(&json!({})).unwrap_err().to_string().contains("no Records"));
        let error = Event::parse(&json!({"Records": [{"eventSource": "aws:s3"}]})).unwrap_err();
        assert_eq!(error.record, 1);
    }
}

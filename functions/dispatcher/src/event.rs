//! What reaches a dispatcher: the table's stream, and its own messages come back.

use serde::Deserialize;
use serde_json::Value;
use weir_coordinator::keys;
use weir_model::head::Owner;
use weir_model::{Epoch, JobId, ShardKey};

use crate::outbox::Look;

/// A head that has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// The shard.
    pub shard: ShardKey,
    /// Its epoch after the change.
    pub epoch: Epoch,
    /// Whether somebody holds it after the change.
    pub holding: Holding,
}

/// Whether a shard is held, as a change of its head says. A hint: what is done about it rests on what is read (T1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holding {
    /// Nobody does: its holder let go.
    Free,
    /// Somebody does, by a lease.
    Until {
        /// End of the lease, microseconds UTC.
        micros: i64,
    },
}

impl Holding {
    /// End of the lease.
    #[must_use]
    pub fn until_micros(self) -> Option<i64> {
        match self {
            Self::Free => None,
            Self::Until { micros } => Some(micros),
        }
    }
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
    /// Records that could not be read.
    pub skipped: usize,
}

/// A delivery that is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("the event has no Records: a dispatcher is called by the table's stream and by its own queue")]
pub struct EventError;

/// Part of a head that a dispatcher looks at; the rest is read from the table.
#[derive(Deserialize)]
struct HeadPart {
    shard: ShardKey,
    epoch: Epoch,
    owner: Option<Owner>,
}

impl Event {
    /// Reads what Lambda delivers: `Records` of DynamoDB Streams or of SQS.
    ///
    /// A record that cannot be read is told and passed over: the delivery would come again until the record expires, and hold up every
    /// job for a day.
    ///
    /// # Errors
    /// [`EventError`] if there are no records at all.
    pub fn parse(event: &Value) -> Result<Self, EventError> {
        let records = event.get("Records").and_then(Value::as_array).ok_or(EventError)?;
        let mut parsed = Self::default();
        for (record, value) in (1..).zip(records) {
            if let Err(error) = parsed.read(value) {
                parsed.skipped += 1;
                tracing::error!(record, error, skipped = parsed.skipped, "passed over a record that cannot be read");
            }
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
                let holding = head.owner.map_or(Holding::Free, |owner| Holding::Until { micros: owner.lease_until_micros });
                self.changed.push(Changed { shard: head.shard, epoch: head.epoch, holding });
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
        let look = Look { job: JobId(5), slot: 3, at_micros: 9, called: weir_model::decide::Called::default() };
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
        let changed = vec![Changed { shard, epoch: Epoch(7), holding: Holding::Free }];
        assert_eq!(parsed, Event { changed, created: vec![JobId(5)], looks: vec![look], skipped: 0 });
    }

    #[test]
    fn a_record_that_cannot_be_read_is_passed_over_and_the_rest_is_read() {
        assert!(Event::parse(&json!({})).unwrap_err().to_string().contains("no Records"));
        let shard = ShardKey::new(JobId(5), StageId(1), ShardId(2));
        let owner = Owner { id: weir_model::OwnerId(1), lease_until_micros: 8 };
        let head = serde_json::to_string(&Head { owner: Some(owner), ..Head::new(shard) }).unwrap();
        let change = |body: &str| {
            json!({"dynamodb": {
            "Keys": {"pk": {"S": keys::head(shard).partition}, "sk": {"S": "head"}}, "NewImage": {"body": {"S": body}}}})
        };
        let strange = [change("{}"), json!({"eventSource": "aws:s3"}), json!({"body": "{}"}), json!({"dynamodb": {}})];
        let records = [&strange[..], &[change(&head)]].concat();
        let parsed = Event::parse(&json!({ "Records": records })).unwrap();
        let changed = vec![Changed { shard, epoch: Epoch(0), holding: Holding::Until { micros: 8 } }];
        assert_eq!(parsed, Event { changed, skipped: 4, ..Event::default() });
    }
}

//! Calls as asynchronous invocations of a Lambda function, delayed messages by an SQS queue.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use weir_model::invocation::Invocation;

use crate::outbox::{Look, Outbox, OutboxError};

/// Longest delay of a message in SQS.
const DELAY_MAX: Duration = Duration::from_secs(900);

/// Who is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// Name or ARN of the worker function.
    pub worker: String,
    /// URL of the queue that comes back to the dispatcher.
    pub queue: String,
}

/// Speaks to AWS, or to what `AWS_ENDPOINT_URL_LAMBDA` and `AWS_ENDPOINT_URL_SQS` name.
#[derive(Debug)]
pub struct AwsOutbox {
    lambda: aws_sdk_lambda::Client,
    queue: aws_sdk_sqs::Client,
    targets: Targets,
}

impl AwsOutbox {
    /// Finds credentials, region and endpoints as every AWS tool does.
    pub async fn new(targets: Targets) -> Self {
        let config = weir_coordinator::dynamodb::sdk_config().await;
        Self { lambda: aws_sdk_lambda::Client::new(&config), queue: aws_sdk_sqs::Client::new(&config), targets }
    }
}

fn failed(what: &str, error: &dyn std::error::Error) -> OutboxError {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    OutboxError { what: what.to_owned(), message }
}

#[async_trait]
impl Outbox for AwsOutbox {
    async fn call(&self, invocation: &Invocation) -> Result<(), OutboxError> {
        let worker = &self.targets.worker;
        let payload = serde_json::to_vec(invocation).map_err(|error| failed(worker, &error))?;
        let call = self.lambda.invoke().function_name(worker).invocation_type(InvocationType::Event);
        call.payload(Blob::new(payload)).send().await.map_err(|error| failed(worker, &error))?;
        Ok(())
    }

    async fn look_after(&self, look: &Look, after: Duration) -> Result<(), OutboxError> {
        let queue = &self.targets.queue;
        let body = serde_json::to_string(look).map_err(|error| failed(queue, &error))?;
        let seconds = after.min(DELAY_MAX).as_secs_f64().ceil();
        #[expect(clippy::cast_possible_truncation, reason = "at most 900")]
        let message = self.queue.send_message().queue_url(queue).message_body(body).delay_seconds(seconds as i32);
        message.send().await.map_err(|error| failed(queue, &error))?;
        Ok(())
    }
}

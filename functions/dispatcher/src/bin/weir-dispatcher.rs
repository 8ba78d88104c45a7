//! The dispatcher as an AWS Lambda function: its events are the table's stream and its own queue.

use std::process::ExitCode;
use std::sync::Arc;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use weir_dispatcher::{AwsOutbox, Dispatcher, Event, Targets};
use weir_seams::{Durability, Places, SystemClock};

fn variable(name: &str, what: &str) -> Result<String, String> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or_else(|| format!("{name} is not set: {what}"))
}

async fn open() -> Result<Dispatcher, Box<dyn std::error::Error>> {
    let coordination = variable("WEIR_COORDINATION", "name the table, dynamodb://TABLE")?;
    let worker = variable("WEIR_WORKER_FUNCTION", "name the function that runs weir-worker")?;
    let queue = variable("WEIR_DISPATCH_QUEUE", "give the URL of the queue whose messages come back here")?;
    // Objects are none of its business.
    let places = Places { store: "memory:".to_owned(), coordination: Some(coordination), durability: Durability::Fsync };
    let outbox = AwsOutbox::new(Targets { worker, queue }).await;
    Ok(Dispatcher::new(places.open_table().await?, Arc::new(SystemClock::new()), Arc::new(outbox)))
}

async fn handle(dispatcher: Arc<Dispatcher>, event: LambdaEvent<Value>) -> Result<(), Error> {
    Ok(dispatcher.handle(Event::parse(&event.payload)?).await?)
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "the function's last word")]
async fn main() -> ExitCode {
    weir_seams::log_for_machines();
    let dispatcher = match open().await {
        Ok(dispatcher) => Arc::new(dispatcher),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match lambda_runtime::run(service_fn(move |event| handle(Arc::clone(&dispatcher), event))).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

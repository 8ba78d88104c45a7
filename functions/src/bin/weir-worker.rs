//! The worker as an AWS Lambda function.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lambda_runtime::{Error, LambdaEvent, service_fn};
use weir_functions::lambda::Worker;
use weir_functions::worker::{Invocation, Left};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::disallowed_methods, reason = "the platform says the deadline in its own time")]
fn time_left(deadline: SystemTime) -> Duration {
    deadline.duration_since(SystemTime::now()).unwrap_or_default()
}

async fn handle(worker: Arc<Worker>, event: LambdaEvent<Invocation>) -> Result<Left, Error> {
    Ok(worker.handle(event.payload, time_left(event.context.deadline())).await?)
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "the function's last word")]
async fn main() -> ExitCode {
    weir_seams::log_for_machines();
    let worker = match Worker::from_environment().await {
        Ok(worker) => Arc::new(worker),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let serve = service_fn(move |event| handle(Arc::clone(&worker), event));
    match lambda_runtime::run(serve).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

//! One instance of a function: a process after the other, each with a runtime API of its own, and who kills them.
//!
//! The API belongs to one process, so nothing that a dead one has asked or answered is taken for its successor's.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Route, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::watch;

use super::platform::{Event, Function, Platform, log_of, serve};
use crate::support::weir;

/// How long an invocation runs in which the process is killed.
const KILLED_AFTER: Duration = Duration::from_millis(120);

/// What a process is at.
#[derive(Debug)]
enum Phase {
    Idle,
    Running {
        number: u64,
        event: Event,
    },
    /// It is dead, or will be.
    Ended,
}

impl Phase {
    fn is_running(&self, wanted: u64) -> bool {
        matches!(self, Self::Running { number, .. } if *number == wanted)
    }
}

/// What the runtime API of one process holds.
struct Runtime {
    platform: Platform,
    function: Arc<Function>,
    phase: watch::Sender<Phase>,
    served: watch::Sender<u64>,
}

/// One instance, for ever.
pub(super) async fn run(platform: Platform, function: Arc<Function>, endpoint: String, folder: PathBuf) {
    loop {
        let runtime = Arc::new(Runtime {
            platform: platform.clone(),
            function: Arc::clone(&function),
            phase: watch::Sender::new(Phase::Idle),
            served: watch::Sender::new(0),
        });
        let api = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
            .with_state(Arc::clone(&runtime));
        let mut process = Running(spawn(&function, &serve(api).await, &endpoint, &folder));
        platform.count(function.name, |counts| counts.cold += 1);
        let killed = watch_over(&runtime, &mut process.0).await;
        // From here on nobody takes an event for it; what it was doing is delivered again.
        let last = runtime.phase.send_replace(Phase::Ended);
        drop(process);
        if let Phase::Running { event, .. } = last {
            platform.again(function.name, event);
        }
        platform.count(function.name, |counts| if killed { counts.killed += 1 } else { counts.failed += 1 });
    }
}

/// A process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Until the process ends by itself (`false`), has run out of its time, or its turn to be killed has come.
async fn watch_over(runtime: &Runtime, process: &mut Child) -> bool {
    let mut phases = runtime.phase.subscribe();
    loop {
        let number = taken(&mut phases).await;
        if process.try_wait().expect("the process can be asked").is_some() {
            return false;
        }
        let Some(number) = number else { continue };
        let time = if runtime.is_killed_in(number) { KILLED_AFTER } else { runtime.function.time };
        let answered = phases.wait_for(|phase| !phase.is_running(number));
        if tokio::time::timeout(time, answered).await.is_err() {
            return true;
        }
    }
}

/// The invocation that runs; `None` if none does for a while.
async fn taken(phases: &mut watch::Receiver<Phase>) -> Option<u64> {
    let running = phases.wait_for(|phase| matches!(phase, Phase::Running { .. }));
    let phase = tokio::time::timeout(Duration::from_millis(100), running).await.ok()?.ok()?;
    if let Phase::Running { number, .. } = &*phase { Some(*number) } else { None }
}

fn spawn(function: &Function, api: &str, endpoint: &str, folder: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log_of(folder, function.name)).expect("a log can be written");
    let mut command = Command::new(weir().with_file_name(function.binary));
    command.current_dir(folder).stdin(Stdio::null()).stderr(log).envs(&function.environment);
    command.env("AWS_LAMBDA_RUNTIME_API", api).env("AWS_LAMBDA_FUNCTION_NAME", function.name);
    command.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512").env("AWS_LAMBDA_FUNCTION_VERSION", "1");
    command.env("AWS_LAMBDA_LOG_GROUP_NAME", "weir").env("AWS_LAMBDA_LOG_STREAM_NAME", "weir");
    command
        .env("AWS_ENDPOINT_URL_LAMBDA", format!("http://{endpoint}"))
        .env("AWS_ENDPOINT_URL_SQS", format!("http://{endpoint}"));
    command.env("WEIR_WORKER_FUNCTION", "worker").env("WEIR_DISPATCH_QUEUE", format!("http://{endpoint}/queue"));
    command.spawn().unwrap_or_else(|error| panic!("{}: {error}: run cargo build --release --bins first", function.binary))
}

impl Runtime {
    fn is_killed_in(&self, number: u64) -> bool {
        number.is_multiple_of(self.function.killed_each)
    }

    /// The event that was answered, unless the answer comes too late or is not to be heard: then it is delivered again.
    fn take_answered(&self, id: &str) -> Option<Event> {
        let mut taken = None;
        self.phase.send_if_modified(|phase| {
            let hears = matches!(phase, Phase::Running { number, .. } if request(*number) == id && !self.is_killed_in(*number));
            if hears && let Phase::Running { event, .. } = std::mem::replace(phase, Phase::Idle) {
                taken = Some(event);
            }
            hears
        });
        taken
    }
}

fn request(number: u64) -> String {
    format!("request-{number}")
}

async fn next(State(runtime): State<Arc<Runtime>>) -> Response {
    let function = &runtime.function;
    if !matches!(*runtime.phase.borrow(), Phase::Idle) {
        // Its last answer was not heard: it is about to be killed.
        std::future::pending::<()>().await;
    }
    let event = runtime.platform.next(function.name).await;
    let body = event.body.clone();
    runtime.served.send_modify(|served| *served += 1);
    let number = *runtime.served.borrow();
    let mut running = Some(Phase::Running { number, event });
    runtime.phase.send_if_modified(|phase| {
        let lives = !matches!(phase, Phase::Ended);
        if lives && let Some(running) = running.take() {
            *phase = running;
        }
        lives
    });
    if let Some(Phase::Running { event, .. }) = running {
        // It died while it asked.
        runtime.platform.push(function.name, event);
        return StatusCode::GONE.into_response();
    }
    if number > 1 {
        runtime.platform.count(function.name, |counts| counts.warm += 1);
    }
    let deadline = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970") + function.time;
    let headers = [
        ("lambda-runtime-aws-request-id", request(number)),
        ("lambda-runtime-deadline-ms", deadline.as_millis().to_string()),
        ("lambda-runtime-invoked-function-arn", format!("arn:aws:lambda:us-east-1:0:function:{}", function.name)),
        ("content-type", "application/json".to_owned()),
    ];
    (headers, body).into_response()
}

async fn response(State(runtime): State<Arc<Runtime>>, Route(id): Route<String>, body: Bytes) -> StatusCode {
    if let Some(event) = runtime.take_answered(&id) {
        event.answered(String::from_utf8_lossy(&body).into_owned());
    }
    StatusCode::ACCEPTED
}

/// A function that fails is called again with the same event, a few times.
async fn error(State(runtime): State<Arc<Runtime>>, Route(id): Route<String>, body: Bytes) -> StatusCode {
    let name = runtime.function.name;
    eprintln!("{name} failed: {}", String::from_utf8_lossy(&body));
    runtime.platform.count(name, |counts| counts.failed += 1);
    if let Some(event) = runtime.take_answered(&id) {
        runtime.platform.again(name, event);
    }
    StatusCode::ACCEPTED
}

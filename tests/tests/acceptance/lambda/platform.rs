//! As much of AWS Lambda and SQS as functions see: the runtime API, asynchronous invocations, delayed messages. In process, over
//! loopback HTTP; the functions are processes of their own.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Route, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::support::weir;

/// One call of a worker in this many is lost.
const LOST_EVERY: u64 = 10;
/// How often a failed event is tried.
const TRIES: u32 = 3;

/// A function.
pub(super) struct Function {
    name: &'static str,
    binary: &'static str,
    instances: usize,
    environment: BTreeMap<String, String>,
    time: Duration,
    killed_after: u64,
}

impl Function {
    pub(super) fn new(name: &'static str, binary: &'static str, instances: usize) -> Self {
        let time = Duration::from_secs(30);
        Self { name, binary, instances, environment: BTreeMap::new(), time, killed_after: u64::MAX }
    }

    pub(super) fn with<S: AsRef<str>>(mut self, variables: &[(&str, S)]) -> Self {
        self.environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), value.as_ref().to_owned())));
        self
    }

    /// The function's time-out.
    pub(super) fn lasting(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Its process is killed in the middle of each n-th invocation, and started cold for the next.
    pub(super) fn killed_after(mut self, invocations: u64) -> Self {
        self.killed_after = invocations;
        self
    }
}

/// What happened to a function's events.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) cold: u64,
    pub(super) warm: u64,
    pub(super) failed: u64,
    pub(super) killed: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(String, u32)>,
    counts: Counts,
}

struct Shared {
    queues: Mutex<BTreeMap<&'static str, Queue>>,
    changed: Notify,
    delayed: Mutex<u64>,
}

/// The platform; it lives as long as the test.
#[derive(Clone)]
pub(super) struct Platform(Arc<Shared>);

impl Platform {
    /// Starts the services, and each function's instances when they have something to do.
    pub(super) async fn start(functions: Vec<Function>, folder: &Path) -> Self {
        let queues = functions.iter().map(|function| (function.name, Queue::default())).collect();
        let platform = Self(Arc::new(Shared { queues: Mutex::new(queues), changed: Notify::new(), delayed: Mutex::new(0) }));
        let services = Router::new()
            .route("/2015-03-31/functions/{name}/invocations", post(invoke))
            .route("/", post(send_message))
            .with_state(platform.clone());
        let endpoint = serve(services).await;
        for function in functions {
            let function = Arc::new(function);
            for _ in 0..function.instances {
                tokio::spawn(instance(platform.clone(), Arc::clone(&function), endpoint.clone(), folder.to_owned()));
            }
        }
        platform
    }

    /// Puts an event before a function.
    pub(super) fn enqueue(&self, function: &str, event: String) {
        self.push(function, event, TRIES);
    }

    fn push(&self, function: &str, event: String, tries: u32) {
        self.with(function, |queue| queue.waiting.push_back((event, tries)));
        self.0.changed.notify_waiters();
    }

    fn with<T>(&self, function: &str, act: impl FnOnce(&mut Queue) -> T) -> T {
        act(self.0.queues.lock().unwrap().get_mut(function).expect("a function of that name"))
    }

    async fn next(&self, function: &str) -> (String, u32) {
        loop {
            let changed = self.0.changed.notified();
            if let Some(event) = self.with(function, |queue| queue.waiting.pop_front()) {
                return event;
            }
            let _timeout = tokio::time::timeout(Duration::from_millis(200), changed).await;
        }
    }

    pub(super) fn counts(&self, function: &str) -> Counts {
        self.with(function, |queue| queue.counts)
    }

    pub(super) fn told(&self) -> String {
        let queues = self.0.queues.lock().unwrap();
        let told = queues.iter().map(|(name, queue)| format!("{name}: {:?}, {} waiting", queue.counts, queue.waiting.len()));
        told.collect::<Vec<_>>().join("; ")
    }

    /// Waits until nothing waits and nothing is delayed.
    pub(super) async fn drained(&self, patience: Duration) {
        let quiet = async {
            loop {
                let waiting = self.0.queues.lock().unwrap().values().map(|queue| queue.waiting.len()).sum::<usize>();
                if waiting == 0 && *self.0.delayed.lock().unwrap() == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        assert!(tokio::time::timeout(patience, quiet).await.is_ok(), "events go on although the job is done; {}", self.told());
    }
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its number").to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// An asynchronous invocation: taken at once, doubled, and now and then lost.
async fn invoke(State(platform): State<Platform>, Route(name): Route<String>, body: Bytes) -> Response {
    let event = String::from_utf8(body.to_vec()).expect("an event is JSON");
    let calls = platform.with(&name, |queue| {
        queue.counts.calls += 1;
        queue.counts.calls
    });
    if calls % LOST_EVERY == 0 {
        platform.with(&name, |queue| queue.counts.lost += 1);
    } else {
        platform.with(&name, |queue| queue.counts.doubled += 1);
        platform.enqueue(&name, event.clone());
        platform.enqueue(&name, event);
    }
    StatusCode::ACCEPTED.into_response()
}

/// A message to the dispatcher, delivered twice after its delay.
async fn send_message(State(platform): State<Platform>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers["x-amz-target"], "AmazonSQS.SendMessage");
    let message: Value = serde_json::from_slice(&body).expect("a message is JSON");
    let delay = Duration::from_secs(message["DelaySeconds"].as_u64().unwrap_or(0));
    let event = json!({"Records": [{"eventSource": "aws:sqs", "body": message["MessageBody"]}]}).to_string();
    *platform.0.delayed.lock().unwrap() += 1;
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        platform.enqueue("dispatcher", event.clone());
        platform.enqueue("dispatcher", event);
        *platform.0.delayed.lock().unwrap() -= 1;
    });
    ([("content-type", "application/x-amz-json-1.0")], json!({"MessageId": "m"}).to_string()).into_response()
}

/// What the runtime API of one instance holds.
struct Runtime {
    platform: Platform,
    function: Arc<Function>,
    /// Event handed out, with its number and the tries that are left.
    running: Mutex<Option<(u64, String, u32)>>,
    taken: Notify,
    answered: Notify,
    served: Mutex<u64>,
}

/// One instance: a process, its runtime API, and who kills it.
async fn instance(platform: Platform, function: Arc<Function>, endpoint: String, folder: PathBuf) {
    let runtime = Arc::new(Runtime {
        platform: platform.clone(),
        function: Arc::clone(&function),
        running: Mutex::new(None),
        taken: Notify::new(),
        answered: Notify::new(),
        served: Mutex::new(0),
    });
    let api = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
        .with_state(Arc::clone(&runtime));
    let api = serve(api).await;
    loop {
        let mut process = Running(spawn(&function, &api, &endpoint, &folder));
        platform.with(function.name, |queue| queue.counts.cold += 1);
        *runtime.served.lock().unwrap() = 0;
        let ended = watch(&runtime, &mut process.0).await;
        drop(process);
        // What it was doing is an asynchronous event: the platform delivers it again.
        let unfinished = runtime.running.lock().unwrap().take();
        if let Some((_, event, tries)) = unfinished.filter(|(_, _, tries)| *tries > 1) {
            platform.push(function.name, event, tries - 1);
        }
        platform.with(
            function.name,
            |queue| if ended == Ended::Killed { queue.counts.killed += 1 } else { queue.counts.failed += 1 },
        );
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

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Killed,
    ByItself,
}

/// Until the process ends, has run out of its time, or its turn to be killed has come: in the middle of an invocation.
async fn watch(runtime: &Runtime, process: &mut Child) -> Ended {
    loop {
        let taken = tokio::time::timeout(Duration::from_millis(100), runtime.taken.notified()).await.is_ok();
        if process.try_wait().expect("the process can be asked").is_some() {
            return Ended::ByItself;
        }
        if !taken {
            continue;
        }
        let kills = *runtime.served.lock().unwrap() >= runtime.function.killed_after;
        let time = if kills { Duration::from_millis(120) } else { runtime.function.time };
        if tokio::time::timeout(time, runtime.answered.notified()).await.is_err() {
            return Ended::Killed;
        }
    }
}

fn spawn(function: &Function, api: &str, endpoint: &str, folder: &Path) -> Child {
    let mut command = Command::new(weir().with_file_name(function.binary));
    command.current_dir(folder).stdin(Stdio::null()).stderr(Stdio::null()).envs(&function.environment);
    command.env("AWS_LAMBDA_RUNTIME_API", api).env("AWS_LAMBDA_FUNCTION_NAME", function.name);
    command.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512").env("AWS_LAMBDA_FUNCTION_VERSION", "1");
    command.env("AWS_LAMBDA_LOG_GROUP_NAME", "weir").env("AWS_LAMBDA_LOG_STREAM_NAME", "weir");
    command
        .env("AWS_ENDPOINT_URL_LAMBDA", format!("http://{endpoint}"))
        .env("AWS_ENDPOINT_URL_SQS", format!("http://{endpoint}"));
    command.env("WEIR_WORKER_FUNCTION", "worker").env("WEIR_DISPATCH_QUEUE", format!("http://{endpoint}/queue"));
    command.spawn().unwrap_or_else(|error| panic!("{}: {error}: run cargo build --release --bins first", function.binary))
}

async fn next(State(runtime): State<Arc<Runtime>>) -> Response {
    let (event, tries) = runtime.platform.next(runtime.function.name).await;
    let number = {
        let mut served = runtime.served.lock().unwrap();
        *served += 1;
        if *served > 1 {
            runtime.platform.with(runtime.function.name, |queue| queue.counts.warm += 1);
        }
        *served
    };
    *runtime.running.lock().unwrap() = Some((number, event.clone(), tries));
    runtime.taken.notify_one();
    let deadline = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970") + runtime.function.time;
    let headers = [
        ("lambda-runtime-aws-request-id", format!("request-{number}")),
        ("lambda-runtime-deadline-ms", deadline.as_millis().to_string()),
        ("lambda-runtime-invoked-function-arn", format!("arn:aws:lambda:us-east-1:0:function:{}", runtime.function.name)),
        ("content-type", "application/json".to_owned()),
    ];
    (headers, event).into_response()
}

async fn response(State(runtime): State<Arc<Runtime>>) -> StatusCode {
    runtime.running.lock().unwrap().take();
    runtime.answered.notify_one();
    StatusCode::ACCEPTED
}

/// A function that fails is called again with the same event, a few times.
async fn error(State(runtime): State<Arc<Runtime>>, body: Bytes) -> StatusCode {
    eprintln!("{} failed: {}", runtime.function.name, String::from_utf8_lossy(&body));
    let failed = runtime.running.lock().unwrap().take();
    runtime.platform.with(runtime.function.name, |queue| queue.counts.failed += 1);
    if let Some((_, event, tries)) = failed.filter(|(_, _, tries)| *tries > 1) {
        runtime.platform.push(runtime.function.name, event, tries - 1);
    }
    runtime.answered.notify_one();
    StatusCode::ACCEPTED
}

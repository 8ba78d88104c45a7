//! As much of AWS Lambda and SQS as functions see: asynchronous and synchronous invocations, delayed messages. In process, over loopback
//! HTTP; the functions are processes of their own, see [`super::instance`].

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Route, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

use super::instance;

/// One call of a worker in this many is lost; the first of them is among those that start a job.
const LOST_EVERY: u64 = 10;
const LOST_FIRST: u64 = 3;
/// How often a failed event is tried, and after how long.
const TRIES: u32 = 3;
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Lines of a function's log that are shown when a test fails.
const LOG_LINES: usize = 30;

/// A function.
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) binary: &'static str,
    instances: usize,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) time: Duration,
    pub(super) killed_each: u64,
}

impl Function {
    pub(super) fn new(name: &'static str, binary: &'static str, instances: usize) -> Self {
        let time = Duration::from_secs(30);
        Self { name, binary, instances, environment: BTreeMap::new(), time, killed_each: u64::MAX }
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

    /// Its process is killed in its n-th invocation, in the middle or as it answers, and started cold for the next.
    pub(super) fn killed_in_each(mut self, invocation: u64) -> Self {
        self.killed_each = invocation;
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

/// What a function is called with.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) body: String,
    tries: u32,
    /// Who waits for the answer; nobody of an asynchronous event.
    answer: Option<oneshot::Sender<String>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Event>,
    counts: Counts,
}

struct Shared {
    queues: Mutex<BTreeMap<&'static str, Queue>>,
    changed: Notify,
    delayed: Mutex<u64>,
    logs: PathBuf,
}

/// The platform; it lives as long as the test.
#[derive(Clone)]
pub(super) struct Platform(Arc<Shared>);

impl Platform {
    /// Starts the services, and each function's instances.
    pub(super) async fn start(functions: Vec<Function>, folder: &Path) -> Self {
        let queues = functions.iter().map(|function| (function.name, Queue::default())).collect();
        let (changed, delayed) = (Notify::new(), Mutex::new(0));
        let platform = Self(Arc::new(Shared { queues: Mutex::new(queues), changed, delayed, logs: folder.to_owned() }));
        let services = Router::new()
            .route("/2015-03-31/functions/{name}/invocations", post(invoke))
            .route("/", post(send_message))
            .with_state(platform.clone());
        let endpoint = serve(services).await;
        for function in functions {
            let function = Arc::new(function);
            for _ in 0..function.instances {
                tokio::spawn(instance::run(platform.clone(), Arc::clone(&function), endpoint.clone(), folder.to_owned()));
            }
        }
        platform
    }

    /// Puts an event before a function.
    pub(super) fn enqueue(&self, function: &str, body: String) {
        self.push(function, Event { body, tries: TRIES, answer: None });
    }

    /// Calls a function and waits for its answer; `None` if it failed or was killed.
    pub(super) async fn ask(&self, function: &str, body: String) -> Option<String> {
        let (answer, answered) = oneshot::channel();
        self.push(function, Event { body, tries: 1, answer: Some(answer) });
        answered.await.ok()
    }

    pub(super) fn push(&self, function: &str, event: Event) {
        self.with(function, |queue| queue.waiting.push_back(event));
        self.0.changed.notify_waiters();
    }

    /// An event that failed comes again after a while, a few times.
    pub(super) fn again(&self, function: &'static str, event: Event) {
        if event.tries > 1 {
            self.later(AGAIN_AFTER, function, vec![Event { tries: event.tries - 1, ..event }]);
        }
    }

    fn later(&self, delay: Duration, function: &'static str, events: Vec<Event>) {
        *self.0.delayed.lock().unwrap() += 1;
        let platform = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            events.into_iter().for_each(|event| platform.push(function, event));
            *platform.0.delayed.lock().unwrap() -= 1;
        });
    }

    fn with<T>(&self, function: &str, act: impl FnOnce(&mut Queue) -> T) -> T {
        act(self.0.queues.lock().unwrap().get_mut(function).expect("a function of that name"))
    }

    pub(super) fn count(&self, function: &str, act: impl FnOnce(&mut Counts)) {
        self.with(function, |queue| act(&mut queue.counts));
    }

    pub(super) async fn next(&self, function: &str) -> Event {
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

    /// What the functions said last.
    pub(super) fn logs(&self) -> String {
        let names: Vec<&str> = self.0.queues.lock().unwrap().keys().copied().collect();
        let tail = |name: &&str| {
            let said = std::fs::read_to_string(log_of(&self.0.logs, name)).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
        };
        names.iter().map(tail).collect()
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
        let quiet = tokio::time::timeout(patience, quiet).await.is_ok();
        assert!(quiet, "events go on although the job is done; {}\n{}", self.told(), self.logs());
    }
}

impl Event {
    /// Tells who waits.
    pub(super) fn answered(self, body: String) {
        if let Some(answer) = self.answer {
            drop(answer.send(body));
        }
    }
}

/// Where a function's standard error goes, of all its instances.
pub(super) fn log_of(folder: &Path, function: &str) -> PathBuf {
    folder.join(format!("{function}.log"))
}

pub(super) async fn serve(router: Router) -> String {
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
    if calls % LOST_EVERY == LOST_FIRST {
        platform.count(&name, |counts| counts.lost += 1);
    } else {
        platform.count(&name, |counts| counts.doubled += 1);
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
    let body = json!({"Records": [{"eventSource": "aws:sqs", "body": message["MessageBody"]}]}).to_string();
    let event = |body: String| Event { body, tries: TRIES, answer: None };
    platform.later(delay, "dispatcher", vec![event(body.clone()), event(body)]);
    ([("content-type", "application/x-amz-json-1.0")], json!({"MessageId": "m"}).to_string()).into_response()
}

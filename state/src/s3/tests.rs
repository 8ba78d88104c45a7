//! Against a real store, MinIO by the project's own script, or any that `WEIR_TEST_S3_ENDPOINT` names; refusals also against one that
//! says what it is told to.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use weir_model::time::Sleep;

use super::*;
use crate::error::Kind;
use crate::{contract, store};

/// A clock that stands still, or the machine's.
#[derive(Debug, Clone, Copy)]
enum TestClock {
    At(i64),
    Real,
}

#[expect(clippy::disallowed_methods, reason = "a real store answers in real time")]
impl Clock for TestClock {
    fn now_micros(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        match self {
            Self::At(micros) => *micros,
            Self::Real => i64::try_from(since.as_micros()).unwrap(),
        }
    }
    fn monotonic_micros(&self) -> i64 {
        self.now_micros()
    }
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

fn bucket(builder: AmazonS3Builder, place: Place) -> Bucket {
    open_with(builder, place, Arc::new(TestClock::Real)).unwrap()
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run eval \"$(infra/local/up --with-seaweedfs)\""))
}

/// Not from the environment: its `AWS_ENDPOINT_URL_S3` would go before an endpoint set here.
fn at(endpoint: String) -> AmazonS3Builder {
    let (key, secret) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
    to(endpoint).with_access_key_id(key).with_secret_access_key(secret)
}

fn real() -> AmazonS3Builder {
    at(variable("WEIR_TEST_S3_ENDPOINT"))
}

fn place(prefix: &str) -> Place {
    let bucket = std::env::var("WEIR_TEST_S3_BUCKET").unwrap_or_else(|_| "weir".to_owned());
    Place { bucket, prefix: prefix.to_owned() }
}

/// Tests of several runs may share a bucket.
fn unique(name: &str) -> String {
    format!("tests/{name}-{}", uuid::Uuid::now_v7())
}

#[tokio::test]
async fn minio_keeps_the_contract_with_and_without_a_prefix() {
    for prefix in ["", "some/prefix"] {
        let store = bucket(real(), place(prefix)).store;
        contract::holds(store.as_ref(), &unique("contract")).await;
    }
}

#[tokio::test]
async fn seaweedfs_keeps_the_contract() {
    let store = bucket(at(variable("WEIR_TEST_SEAWEEDFS_ENDPOINT")), place("")).store;
    contract::holds(store.as_ref(), &unique("contract")).await;
}

#[tokio::test]
async fn a_prefix_keeps_stores_of_one_bucket_apart() {
    let folder = unique("apart");
    let (left, right) = (bucket(real(), place("left")).store, bucket(real(), place("right")).store);
    let name = Path::from(format!("{folder}/x"));
    left.put(&name, "left".into()).await.unwrap();
    assert!(matches!(right.get(&name).await, Err(Error::NotFound { .. })));
    let whole = bucket(real(), place("")).store;
    let found = whole.get(&Path::from(format!("left/{name}"))).await.unwrap().bytes().await.unwrap();
    assert_eq!(found.as_ref(), b"left");
    left.delete(&name).await.unwrap();
}

async fn told(builder: AmazonS3Builder, name: &str) -> String {
    let place = Place { bucket: name.to_owned(), prefix: String::new() };
    match bucket(builder, place).check().await {
        Ok(()) => "fine".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_real_store_says_what_is_wrong_at_the_start() {
    assert_eq!(told(real(), &place("").bucket).await, "fine");
    assert!(told(real(), "no-such-bucket").await.contains("bucket no-such-bucket: there is no such bucket"));
    let wrong_key = told(real().with_access_key_id("nobody"), &place("").bucket).await;
    assert!(wrong_key.contains("AWS_ACCESS_KEY_ID"), "{wrong_key}");
    let wrong_secret = told(real().with_secret_access_key("wrong-secret"), &place("").bucket).await;
    assert!(wrong_secret.contains("AWS_SECRET_ACCESS_KEY"), "{wrong_secret}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = told(real().with_endpoint(format!("http://{nobody}")), "bucket").await;
    assert!(silent.contains("AWS_ENDPOINT_URL_S3"), "{silent}");
}

/// A store that says what it is told to.
struct Scripted {
    endpoint: String,
    requests: Arc<AtomicUsize>,
}

/// Answers each request with the next of `answers` (status, header lines, body), the last one for ever.
fn scripted_with(answers: Vec<(&'static str, String, &'static str)>) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            read_request(&mut stream);
            let number = counter.fetch_add(1, Ordering::Relaxed);
            let (status, headers, body) = &answers[number.min(answers.len() - 1)];
            let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
            drop(stream.write_all(format!("{head}{body}").as_bytes()));
        }
    });
    Scripted { endpoint, requests }
}

fn scripted(answers: Vec<(&'static str, &'static str)>) -> String {
    scripted_with(answers.into_iter().map(|(status, body)| (status, String::new(), body)).collect()).endpoint
}

/// To its end: a connection that is closed before breaks under the answer.
fn read_request(stream: &mut TcpStream) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let head = seen.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&seen[..head]).to_lowercase();
            let length =
                text.lines().find_map(|line| line.strip_prefix("content-length:")).map_or(0, |n| n.trim().parse().unwrap());
            if seen.len() >= head + 4 + length {
                return;
            }
        }
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => seen.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
}

fn to(endpoint: String) -> AmazonS3Builder {
    AmazonS3Builder::new().with_endpoint(endpoint).with_region("us-east-1").with_access_key_id("a").with_secret_access_key("b")
}

#[tokio::test]
async fn each_refusal_names_its_remedy() {
    for (status, code, remedy) in [
        ("403 Forbidden", "<Error><Code>RequestTimeTooSkewed</Code></Error>", "clock"),
        ("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>", "s3:PutObject"),
        ("301 Moved Permanently", "<Error><Code>PermanentRedirect</Code></Error>", "AWS_REGION"),
        ("400 Bad Request", "<Error><Code>AuthorizationHeaderMalformed</Code></Error>", "AWS_REGION"),
        ("507 Insufficient Storage", "<Error><Code>XMinioStorageFull</Code></Error>", "free some space"),
    ] {
        let said = told(to(scripted(vec![(status, code)])), "bucket").await;
        assert!(said.contains(remedy), "{code}: {said}");
    }
}

#[tokio::test]
async fn a_store_that_is_slow_for_a_while_is_asked_again() {
    let slow = ("503 Slow Down", "<Error><Code>SlowDown</Code></Error>");
    let gone = ("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>");
    assert_eq!(told(to(scripted(vec![slow, slow, gone])), "bucket").await, "fine");
}

const CONFLICT: &str = "<Error><Code>OperationAborted</Code><Message>A conflicting operation is in progress</Message></Error>";
const PRECONDITION: &str = "<Error><Code>PreconditionFailed</Code></Error>";

/// Puts an object as workers do; returns what came of it and how many requests that took.
async fn put_to(answers: Vec<(&'static str, &'static str)>) -> (std::result::Result<(), StateError>, usize) {
    let etag = "etag: \"1\"\r\n";
    let scripted = scripted_with(answers.into_iter().map(|(status, body)| (status, etag.to_owned(), body)).collect());
    let store = bucket(to(scripted.endpoint), Place { bucket: "bucket".to_owned(), prefix: String::new() }).store;
    let put = store::put_again(store.as_ref(), &TestClock::Real, "jobs/a", Bytes::from_static(b"rows")).await;
    (put, scripted.requests.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_put_that_met_a_conflict_is_made_again() {
    for refusal in [("409 Conflict", CONFLICT), ("412 Precondition Failed", PRECONDITION)] {
        let (put, requests) = put_to(vec![refusal, refusal, ("200 OK", "")]).await;
        put.unwrap();
        assert_eq!(requests, 3, "{refusal:?}");
    }
}

#[tokio::test]
async fn a_store_that_only_ever_answers_with_a_conflict_ends_the_put_with_the_objects_name() {
    for refusal in [("409 Conflict", CONFLICT), ("412 Precondition Failed", PRECONDITION)] {
        let (put, requests) = put_to(vec![refusal]).await;
        let error = put.unwrap_err();
        assert_eq!((error.kind(), requests), (Kind::Retry, 6), "the invocation ends and is called again: {error}");
        assert!(error.to_string().contains("jobs/a"), "{error}");
    }
}

#[tokio::test]
async fn a_store_that_fills_up_says_so_with_the_remedy_whatever_is_put() {
    let full = ("507 Insufficient Storage", "<Error><Code>XMinioStorageFull</Code></Error>");
    let store = bucket(to(scripted(vec![full])), Place { bucket: "bucket".to_owned(), prefix: "a".to_owned() }).store;
    for bytes in [Bytes::from_static(b"rows"), Bytes::from(vec![0; PUT_BYTES_MAX + 1])] {
        let error = store::put(store.as_ref(), "jobs/a", bytes).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains("bucket bucket") && said.contains("free some space"), "{said}");
        assert_eq!(error.kind(), Kind::Retry, "it may be freed meanwhile");
    }
}

#[tokio::test]
async fn a_machine_whose_clock_differs_from_the_stores_is_refused() {
    // 1994-11-06 08:49:37.
    let (date, second) = ("date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 784_111_777_000_000);
    for (clock, said) in [(second + 500_000, "fine"), (second + 9_000_000, "8.0 s ahead"), (second - 5_000_000, "5.0 s behind")] {
        let scripted = scripted_with(vec![("404 Not Found", date.to_owned(), "<Error><Code>NoSuchKey</Code></Error>")]);
        let place = Place { bucket: "bucket".to_owned(), prefix: String::new() };
        let checked = open_with(to(scripted.endpoint), place, Arc::new(TestClock::At(clock))).unwrap().check().await;
        let checked = checked.map_or_else(|error| error.to_string(), |()| "fine".to_owned());
        assert!(checked.contains(said) && (said == "fine" || checked.contains("set it")), "{said}: {checked}");
    }
}

#[test]
fn an_address_that_names_no_bucket_is_refused() {
    for address in ["s3://", "s3:///prefix", "s3://UPPER", "s3://a b"] {
        let error = Place::parse(address).unwrap_err().to_string();
        assert!(error.contains("s3://BUCKET"), "{address}: {error}");
    }
    let place = Place::parse("s3://events/team/a/").unwrap();
    assert_eq!((place.bucket.as_str(), place.prefix.as_str()), ("events", "team/a"));
}

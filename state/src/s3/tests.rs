//! Against a real store, MinIO by the project's own script, or any that `WEIR_TEST_S3_ENDPOINT` names; refusals also against one that
//! says what it is told to.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;
use crate::contract;

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
        let store = open_with(real(), &place(prefix)).unwrap();
        contract::holds(store.as_ref(), &unique("contract")).await;
    }
}

#[tokio::test]
async fn seaweedfs_keeps_the_contract() {
    let store = open_with(at(variable("WEIR_TEST_SEAWEEDFS_ENDPOINT")), &place("")).unwrap();
    contract::holds(store.as_ref(), &unique("contract")).await;
}

#[tokio::test]
async fn a_prefix_keeps_stores_of_one_bucket_apart() {
    let folder = unique("apart");
    let (left, right) = (open_with(real(), &place("left")).unwrap(), open_with(real(), &place("right")).unwrap());
    let name = Path::from(format!("{folder}/x"));
    left.put(&name, "left".into()).await.unwrap();
    assert!(matches!(right.get(&name).await, Err(Error::NotFound { .. })));
    let whole = open_with(real(), &place("")).unwrap();
    let found = whole.get(&Path::from(format!("left/{name}"))).await.unwrap().bytes().await.unwrap();
    assert_eq!(found.as_ref(), b"left");
    left.delete(&name).await.unwrap();
}

async fn told(builder: AmazonS3Builder, bucket: &str) -> String {
    let place = Place { bucket: bucket.to_owned(), prefix: String::new() };
    let store = open_with(builder, &place).unwrap();
    match check(store.as_ref(), &format!("s3://{bucket}")).await {
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

/// A store that answers each request with the next of `answers`, the last one for ever.
fn scripted(answers: Vec<(&'static str, &'static str)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let (status, body) = answers[number.min(answers.len() - 1)];
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => seen.push(byte[0]),
                    _ => break,
                }
            }
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            drop(stream.write_all(format!("{head}{body}").as_bytes()));
        }
    });
    endpoint
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

#[test]
fn an_address_that_names_no_bucket_is_refused() {
    for address in ["s3://", "s3:///prefix", "s3://UPPER", "s3://a b"] {
        let error = Place::parse(address).unwrap_err().to_string();
        assert!(error.contains("s3://BUCKET"), "{address}: {error}");
    }
    let place = Place::parse("s3://events/team/a/").unwrap();
    assert_eq!((place.bucket.as_str(), place.prefix.as_str()), ("events", "team/a"));
}

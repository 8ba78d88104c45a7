use std::io::Write as _;

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;
use crate::testing::{ids, seams, stream};

const NDJSON: &str = "application/x-ndjson";

/// A server on a port of its own, with the stream `plays`.
struct Running {
    seams: Seams,
    address: SocketAddr,
    client: Client,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(settings: ServerSettings) -> Self {
        let seams = seams();
        let _row = stream(&seams, 2).await;
        let server = Server::new(seams.clone(), settings);
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move { serve(&server, listener, async { drop(stopped.await) }).await });
        Self { seams, address, client: Client::new(), stop, serving }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    fn post(&self, media_type: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.request(Method::POST, "/v1/streams/plays/rows").header("content-type", media_type).body(body)
    }

    async fn ids(&self) -> Vec<i64> {
        ids(&self.seams, &stream(&self.seams, 2).await).await
    }

    async fn stop(self) -> Seams {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap();
        self.seams
    }
}

async fn said(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

#[tokio::test]
async fn rows_are_durable_when_the_answer_comes() {
    let running = Running::start(ServerSettings::default()).await;
    let (status, taken) = said(running.post(NDJSON, "{\"id\":1}\n{\"id\":2}\n").send().await.unwrap()).await;
    assert_eq!((status, &taken["rows"], &taken["repeated"]), (StatusCode::OK, &json!(2), &json!(false)), "{taken}");
    assert_eq!(running.ids().await, [1, 2]);
    let (_, empty) = said(running.post("application/json", "[]").send().await.unwrap()).await;
    assert_eq!(empty, json!({"stream": "plays", "rows": 0, "repeated": false}));
}

#[tokio::test]
async fn compressed_bodies_are_read_and_bombs_are_not() {
    let running = Running::start(ServerSettings { body_bytes_max: 10_000, ..ServerSettings::default() }).await;
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&b"{\"id\":2}"[..], 1).unwrap();
    for (encoding, body) in [("gzip", gzip(b"{\"id\":1}")), ("zstd", zstd)] {
        let answer = running.post(NDJSON, body).header("content-encoding", encoding).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{encoding}");
    }
    let bomb = running.post(NDJSON, gzip(&[b' '; 1_000_000])).header("content-encoding", "gzip").send().await.unwrap();
    assert_eq!(bomb.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let broken = running.post(NDJSON, "no gzip").header("content-encoding", "gzip").send().await.unwrap();
    assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
    assert_eq!(running.ids().await, [1, 2]);
}

#[tokio::test]
async fn what_is_wrong_is_said_and_nothing_of_it_is_taken() {
    let running = Running::start(ServerSettings { body_bytes_max: 1_000, ..ServerSettings::default() }).await;
    let (status, bad) = said(running.post(NDJSON, "{\"id\":1}\n{\"id\":\"x\"}\n{\"id\":").send().await.unwrap()).await;
    assert_eq!((status, &bad["bad_rows"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!(2)), "{bad}");
    assert_eq!((&bad["bad"][0]["row"], &bad["bad"][1]["row"]), (&json!(2), &json!(3)));
    for (media_type, body, status, words) in [
        ("text/plain", "x".to_owned(), 415, "application/x-ndjson"),
        ("application/json", "7".to_owned(), 400, "array of objects"),
        (NDJSON, " ".repeat(1_001), 413, "several requests"),
        ("application/vnd.apache.parquet", "x".to_owned(), 400, "no Parquet file"),
    ] {
        let (found, answer) = said(running.post(media_type, body).send().await.unwrap()).await;
        let error = answer["error"].as_str().unwrap();
        assert!(found.as_u16() == status && error.contains(words), "{media_type}: {found} {error}");
    }
    let (status, none) = said(running.request(Method::POST, "/v1/streams/players/rows").send().await.unwrap()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(none["error"].as_str().unwrap().contains("there are plays"), "{none}");
    let encoded = running.post(NDJSON, "x").header("content-encoding", "br").send().await.unwrap();
    assert_eq!(encoded.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let key = running.post(NDJSON, "{\"id\":1}").header("idempotency-key", "").send().await.unwrap();
    assert_eq!(key.status(), StatusCode::BAD_REQUEST);
    assert!(running.ids().await.is_empty());
}

#[tokio::test]
async fn a_key_counts_once_and_its_second_body_is_refused() {
    let running = Running::start(ServerSettings::default()).await;
    let send =
        async |body: &'static str| said(running.post(NDJSON, body).header("idempotency-key", "k").send().await.unwrap()).await;
    let (_, first) = send("{\"id\":1}").await;
    let (_, again) = send("{\"id\":1}").await;
    assert_eq!((&first["repeated"], &again["repeated"], &again["epoch"]), (&json!(false), &json!(true), &first["epoch"]));
    let (status, other) = send("{\"id\":2}").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{other}");
    assert_eq!(running.ids().await, [1]);
}

#[tokio::test]
async fn a_token_is_asked_for_where_there_is_one() {
    let running =
        Running::start(ServerSettings { token: Some(Token::parse("secret").unwrap()), ..ServerSettings::default() }).await;
    for token in [None, Some("secre"), Some("secret1"), Some("")] {
        let request = running.post(NDJSON, "{\"id\":1}");
        let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
        assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{token:?}");
    }
    assert_eq!(running.request(Method::GET, "/v1/streams").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(running.request(Method::GET, "/healthz").send().await.unwrap().status(), StatusCode::OK);
    let good = running.post(NDJSON, "{\"id\":1}").bearer_auth("secret").send().await.unwrap();
    assert_eq!(good.status(), StatusCode::OK);
    let anywhere = "0.0.0.0:1".parse().unwrap();
    assert!(check_exposure(anywhere, &ServerSettings::default()).is_err());
    let guarded = ServerSettings { token: Some(Token::parse("secret").unwrap()), ..ServerSettings::default() };
    assert!(check_exposure(anywhere, &guarded).is_ok());
}

#[tokio::test]
async fn a_full_server_sends_clients_away_for_a_while() {
    let running = Running::start(ServerSettings { waiting_bytes_max: 4_000, ..ServerSettings::default() }).await;
    let full = running.post(NDJSON, format!("{{\"id\":1,\"name\":\"{}\"}}", "x".repeat(20_000))).send().await.unwrap();
    assert_eq!(full.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(full.headers()["retry-after"], "1");
    assert_eq!(running.post(NDJSON, "{\"id\":2}").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(running.ids().await, [2]);
}

#[tokio::test]
async fn a_slow_client_holds_nobody_up() {
    let running = Running::start(ServerSettings { patience: Duration::from_millis(200), ..ServerSettings::default() }).await;
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    let head =
        "POST /v1/streams/plays/rows HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ncontent-length: 100\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    silent.write_all(b"POST /v1").await.unwrap();
    assert_eq!(running.post(NDJSON, "{\"id\":1}").send().await.unwrap().status(), StatusCode::OK);
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let mut nothing = String::new();
    silent.read_to_string(&mut nothing).await.unwrap();
    assert!(nothing.is_empty() || nothing.starts_with("HTTP/1.1 408"), "{nothing}");
}

#[tokio::test]
async fn stopping_answers_what_is_under_way_and_frees_the_lanes() {
    let running = Running::start(ServerSettings::default()).await;
    let sent: Vec<_> = (0..20).map(|id| tokio::spawn(running.post(NDJSON, format!("{{\"id\":{id}}}")).send())).collect();
    let mut taken = 0;
    for answer in sent {
        taken += usize::from(answer.await.unwrap().is_ok_and(|answer| answer.status() == StatusCode::OK));
    }
    let seams = running.stop().await;
    let row = stream(&seams, 2).await;
    assert_eq!(ids(&seams, &row).await.len(), taken);
    for shard in row.shards() {
        assert_eq!(crate::testing::head(&seams, shard).await.owner, None);
    }
}

#[tokio::test]
async fn streams_and_counters_are_shown() {
    let running = Running::start(ServerSettings::default()).await;
    running.post(NDJSON, "{\"id\":1}").send().await.unwrap();
    running.post(NDJSON, "{").send().await.unwrap();
    let (_, listed) = said(running.request(Method::GET, "/v1/streams").send().await.unwrap()).await;
    assert_eq!((&listed[0]["name"], &listed[0]["lanes"]), (&json!("plays"), &json!(2)));
    let (_, shown) = said(running.request(Method::GET, "/v1/streams/plays").send().await.unwrap()).await;
    assert_eq!(shown["columns"][0], json!({"name": "id", "type": "Int64"}));
    let text = running.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    for line in [
        "weir_ingest_requests_total{stream=\"plays\",status=\"200\"} 1",
        "weir_ingest_requests_total{stream=\"plays\",status=\"422\"} 1",
        "weir_ingest_rows_total{stream=\"plays\"} 1",
        "weir_ingest_answer_seconds_count 2",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn the_description_names_every_route_and_nothing_else() {
    let running = Running::start(ServerSettings::default()).await;
    let (_, described) = said(running.request(Method::GET, "/openapi.json").send().await.unwrap()).await;
    let paths = described["paths"].as_object().unwrap();
    for (path, operations) in paths {
        let path = path.replace("{stream}", "plays");
        for method in operations.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let answer = running.request(method.clone(), &path).send().await.unwrap();
            let status = answer.status().as_u16().to_string();
            let known = &operations[method.as_str().to_lowercase()]["responses"];
            assert!(known.get(&status).is_some(), "{method} {path}: {status} is not described");
        }
    }
    let (status, unknown) = said(running.request(Method::GET, "/v2").send().await.unwrap()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    for path in paths.keys().filter(|path| !path.contains('{')) {
        assert!(unknown["error"].as_str().unwrap().contains(path.as_str()), "{path} is not in {unknown}");
    }
}

//! Against a server that answers as it is told.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;

use super::*;

/// What the server does with one request.
#[derive(Debug, Clone, Copy)]
enum Does {
    Answers(u16, &'static str),
    /// Half of the answer, then the connection breaks.
    Breaks(&'static str),
    /// Nothing comes.
    Hangs,
}

const TAKEN: Does = Does::Answers(200, r#"{"rows": 2, "repeated": false}"#);

/// Serves `script` in order, one request a connection; tells the key and the token of each.
fn server(script: Vec<Does>) -> (String, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (told, heard) = channel();
    std::thread::spawn(move || {
        let mut hung = Vec::new();
        for (does, stream) in script.into_iter().zip(listener.incoming()) {
            let mut stream = stream.unwrap();
            let head = read_head(&mut stream);
            told.send((header(&head, "idempotency-key"), header(&head, "authorization"))).unwrap();
            match does {
                Does::Answers(status, body) => answer(&mut stream, status, body.len(), body),
                Does::Breaks(body) => answer(&mut stream, 200, body.len(), &body[..body.len() / 2]),
                Does::Hangs => hung.push(stream),
            }
        }
    });
    (url, heard)
}

fn answer(stream: &mut TcpStream, status: u16, length: usize, body: &str) {
    let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
}

/// The head of a request, whose two bytes of body are read too.
fn read_head(stream: &mut TcpStream) -> String {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    stream.read_exact(&mut [0; 2]).unwrap();
    String::from_utf8(seen).unwrap()
}

fn header(head: &str, name: &str) -> String {
    let line = head.lines().find_map(|line| line.split_once(": ").filter(|(found, _)| found.eq_ignore_ascii_case(name)));
    line.map(|(_, value)| value.to_owned()).unwrap_or_default()
}

async fn send(script: Vec<Does>) -> (anyhow::Result<Sent>, Vec<(String, String)>) {
    let (url, heard) = server(script);
    let millis = Duration::from_millis;
    let patience =
        Patience { answer: millis(300), wait: millis(1), wait_max: millis(4), all: millis(3_000), ..Patience::default() };
    let sender = Sender::new(&url, "plays", Some(Token::parse("secret").unwrap()), "run", patience).unwrap();
    let chunk = Chunk { body: Bytes::from_static(b"{}"), content_type: "application/x-ndjson", file_bytes: 2, rows_before: 40 };
    (sender.send(7, chunk).await, heard.try_iter().collect())
}

#[tokio::test]
async fn what_may_pass_is_sent_again_under_the_same_key() {
    let passing = [408, 429, 500, 502, 503, 504].map(|status| Does::Answers(status, "busy"));
    let others = [Does::Hangs, Does::Breaks(r#"{"rows": 2, "repeated": false}"#), TAKEN];
    let (sent, heard) = send(passing.into_iter().chain(others).collect()).await;
    assert_eq!(sent.unwrap().rows, 2);
    assert_eq!(heard.len(), 9);
    assert!(heard.iter().all(|(key, token)| key == "run-7" && token == "Bearer secret"), "{heard:?}");
}

#[tokio::test]
async fn what_will_not_pass_is_told_at_once_with_its_place_in_the_file() {
    let bad = r#"{"error": "1 rows cannot be read", "bad": [{"row": 2, "reason": "no number"}]}"#;
    let (sent, heard) = send(vec![Does::Answers(422, bad), TAKEN]).await;
    let said = sent.unwrap_err().to_string();
    assert!(said.contains("422") && said.contains("row 42: no number"), "{said}");
    assert_eq!(heard.len(), 1);
}

#[tokio::test]
async fn a_server_that_never_answers_clearly_is_given_up_with_its_last_word() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let millis = Duration::from_millis;
    let patience = Patience { wait: millis(1), wait_max: millis(4), all: millis(50), ..Patience::default() };
    let sender = Sender::new(&format!("http://{nobody}"), "plays", None, "run", patience).unwrap();
    let chunk = Chunk { body: Bytes::new(), content_type: "application/x-ndjson", file_bytes: 0, rows_before: 0 };
    let said = sender.send(0, chunk).await.unwrap_err().to_string();
    assert!(said.contains("no clear answer") && said.to_lowercase().contains("refused"), "{said}");
}

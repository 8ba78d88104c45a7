//! A network between client and store that fails as told: what the store heard and what the client heard, apart.

use std::collections::VecDeque;
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to one writing request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives, and so does its answer.
    Passes,
    /// The store has done it; the connection breaks before the answer.
    AnswerLost,
    /// The store has done it; the answer never comes, and the connection stays.
    AnswerHangs,
    /// The store has done it; the answer is an error of the service's own.
    ServerError,
    /// The connection breaks before the store has seen it.
    RequestLost,
    /// The service refuses it with this code, without looking at it.
    RefusedAs(&'static str),
}

/// Starts a network to the store at `upstream`; writing requests meet `fates` in order, then pass. Returns its endpoint.
pub(super) fn start(upstream: &str, fates: &[Fate]) -> String {
    let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let fates = Arc::new(Mutex::new(fates.iter().copied().collect::<VecDeque<Fate>>()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, upstream, fates) = (client.unwrap(), upstream.clone(), Arc::clone(&fates));
            std::thread::spawn(move || drop(serve(client, &upstream, &fates)));
        }
    });
    endpoint
}

fn serve(mut client: TcpStream, upstream: &str, fates: &Mutex<VecDeque<Fate>>) -> std::io::Result<()> {
    let request = read_request(&mut client)?;
    let head = String::from_utf8_lossy(&request[..request.len().min(2048)]).to_lowercase();
    let writes = ["updateitem", "deleteitem", "transactwriteitems"].iter().any(|verb| head.contains(&format!("20120810.{verb}")));
    let fate = if writes { fates.lock().unwrap().pop_front().unwrap_or(Fate::Passes) } else { Fate::Passes };
    match fate {
        Fate::Passes => client.write_all(&forward(&request, upstream)?),
        Fate::AnswerLost => forward(&request, upstream).map(drop),
        Fate::AnswerHangs => {
            forward(&request, upstream)?;
            // Until the client gives up.
            client.set_read_timeout(Some(Duration::from_secs(20)))?;
            client.read(&mut [0]).map(drop)
        }
        Fate::ServerError => {
            forward(&request, upstream)?;
            client.write_all(&error(500, "InternalServerError"))
        }
        Fate::RequestLost => Ok(()),
        Fate::RefusedAs(code) => client.write_all(&error(400, code)),
    }
}

fn error(status: u16, code: &str) -> Vec<u8> {
    let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"injected"}}"#);
    let length = body.len();
    let head = "Content-Type: application/x-amz-json-1.0\r\nConnection: close";
    format!("HTTP/1.1 {status} Injected\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// Reads one request whole; its body has a length.
fn read_request(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = [0; 1 << 16];
    loop {
        let read = client.read(&mut buffer)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        request.extend_from_slice(&buffer[..read]);
        let Some(head) = request.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")).map_or(0, |n| n.trim().parse().unwrap());
        if request.len() >= head + 4 + length {
            return Ok(request);
        }
    }
}

/// Sends a request on and reads its answer to the end, which the added header makes the end of the connection.
fn forward(request: &[u8], upstream: &str) -> std::io::Result<Vec<u8>> {
    let mut store = TcpStream::connect(upstream)?;
    let line = request.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
    store.write_all(&request[..line])?;
    store.write_all(b"Connection: close\r\n")?;
    store.write_all(&request[line..])?;
    let mut answer = Vec::new();
    store.read_to_end(&mut answer)?;
    Ok(answer)
}

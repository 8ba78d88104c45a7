//! A network between Weir and a store that cuts, delays and drops: what the store heard and what Weir heard are drawn apart; or one
//! that only lets nothing more be stored for a while.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    /// It comes through late.
    Delayed(Duration),
    /// The connection breaks before the store has seen it.
    RequestLost,
    /// The store has done it; the connection breaks before the answer.
    AnswerLost,
    /// Half of the answer comes through.
    AnswerCut,
}

/// Of a hundred requests, the first 82 pass.
fn fate(drawn: u64) -> Fate {
    match drawn % 100 {
        0..82 => Fate::Passes,
        82..91 => Fate::Delayed(Duration::from_millis(20 + drawn / 100 % 180)),
        91..94 => Fate::RequestLost,
        94..97 => Fate::AnswerLost,
        _ => Fate::AnswerCut,
    }
}

/// A bad network to one store.
pub(crate) struct Network {
    pub(crate) endpoint: String,
    state: Arc<State>,
}

/// How a network stands.
struct State {
    /// Host and port of the store.
    upstream: String,
    /// `None`: every request passes.
    seed: Option<u64>,
    /// Whether the store has no room left.
    full: AtomicBool,
    requests: AtomicU64,
    spoilt: AtomicU64,
}

impl Network {
    /// Starts a network to the store at `upstream`; the same `seed` draws the same fates, in the order in which requests come.
    pub(crate) fn start(upstream: &str, seed: u64) -> Self {
        Self::begin(upstream, Some(seed))
    }

    /// Starts a network that loses nothing.
    pub(crate) fn clear(upstream: &str) -> Self {
        Self::begin(upstream, None)
    }

    fn begin(upstream: &str, seed: Option<u64>) -> Self {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let (full, requests, spoilt) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let state = Arc::new(State { upstream, seed, full, requests, spoilt });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("its number"));
        let of_clients = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&of_clients);
                // A connection that breaks is what this is about.
                std::thread::spawn(move || drop(serve(client, &state)));
            }
        });
        Self { endpoint, state }
    }

    /// Requests, and how many of them were lost, cut, left without an answer or refused.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.state.requests.load(Ordering::Relaxed), self.state.spoilt.load(Ordering::Relaxed))
    }

    /// From now on the store answers as MinIO does whose disk is full, or no longer.
    pub(crate) fn set_full(&self, full: bool) {
        self.state.full.store(full, Ordering::Relaxed);
    }
}

fn serve(mut client: TcpStream, state: &State) -> Result<()> {
    loop {
        let request = read_request(&mut client)?;
        let number = state.requests.fetch_add(1, Ordering::Relaxed);
        if state.full.load(Ordering::Relaxed) && stores(&request) {
            state.spoilt.fetch_add(1, Ordering::Relaxed);
            return client.write_all(FULL.as_bytes());
        }
        let fate = state.seed.map_or(Fate::Passes, |seed| fate(mixed(seed.wrapping_add(number))));
        if !matches!(fate, Fate::Passes | Fate::Delayed(_)) {
            state.spoilt.fetch_add(1, Ordering::Relaxed);
        }
        if let Fate::Delayed(time) = fate {
            std::thread::sleep(time);
        }
        if fate == Fate::RequestLost {
            return Ok(());
        }
        let answer = forward(&request, &state.upstream)?;
        match fate {
            Fate::AnswerLost => return Ok(()),
            Fate::AnswerCut => return client.write_all(&answer[..answer.len() / 2]),
            Fate::Passes | Fate::Delayed(_) | Fate::RequestLost => client.write_all(&answer)?,
        }
        if says_close(&answer) {
            return Ok(());
        }
    }
}

/// What a full MinIO says.
const FULL: &str = "HTTP/1.1 507 Insufficient Storage\r\ncontent-type: application/xml\r\nconnection: close\r\ncontent-length: 114\r\n\r\n\
                    <Error><Code>XMinioStorageFull</Code><Message>Storage backend has reached its minimum free drive</Message></Error>";

/// Whether a request needs room.
fn stores(request: &[u8]) -> bool {
    request.starts_with(b"PUT ")
        || (request.starts_with(b"POST ") && request.windows(8).take(2_048).any(|eight| eight == b"?uploads"))
}

/// Spreads neighbouring numbers (splitmix64).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn head_of(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|four| four == b"\r\n\r\n")
}

fn says_close(answer: &[u8]) -> bool {
    let head = head_of(answer).unwrap_or(answer.len());
    String::from_utf8_lossy(&answer[..head]).to_lowercase().contains("connection: close")
}

/// Reads one request whole; its body has a length.
fn read_request(client: &mut TcpStream) -> Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = client.read(&mut buffer)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        request.extend_from_slice(&buffer[..read]);
        let Some(head) = head_of(&request) else { continue };
        let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(Ok(0), |length| length.trim().parse()).map_err(Error::other)?;
        if request.len() >= head + 4 + length {
            return Ok(request);
        }
    }
}

/// Sends a request on and reads its answer to the end, which the added header makes the end of the connection.
fn forward(request: &[u8], upstream: &str) -> Result<Vec<u8>> {
    let mut store = TcpStream::connect(upstream)?;
    let line = request.windows(2).position(|two| two == b"\r\n").ok_or(ErrorKind::InvalidData)? + 2;
    store.write_all(&request[..line])?;
    store.write_all(b"Connection: close\r\n")?;
    store.write_all(&request[line..])?;
    let mut answer = Vec::new();
    store.read_to_end(&mut answer)?;
    Ok(answer)
}

//! Invocations in processes of their own (`--invoke process`): one small JSON event in, one answer out, nothing kept between.
//!
//! Both lie on a socket that is the process's standard input, so its standard output stays the user's, where `print` writes.
//!
//! ```text
//! caller   --- event, one line ---------------------------------------------------> process serves
//! caller   --- closes its side: somebody asked it to stop, or it died ------------> process commits what it has and leaves
//! caller  <--- answer, one line: how it went, and what it counted ----------------- process
//! ```
//! The process has a process group of its own: Ctrl-C in a terminal reaches the caller alone, which passes it on.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::config::Config;
use crate::context::{Ctx, Stop};
use crate::open;
use crate::progress::Counted;
use crate::worker::{self, Failure, Invocation, Left, WorkerError};

/// How often the caller looks whether it was asked to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Looks after which it asks whether another process would take its share: it reads a folder.
const ASK_EVERY: u32 = 25;

/// The event: what the process reads first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Event {
    /// What to serve.
    invocation: Invocation,
    /// Where everything is.
    config: Config,
    /// How long it waits for more before it leaves.
    linger: Duration,
}

/// The last thing the process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    outcome: Outcome,
    counted: Counted,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Left(Left),
    Failed { message: String, failure: Failure },
}

/// Runs one invocation in a fresh process of this program, and counts as this process's own what it did.
pub(super) async fn invoke(invocation: &Invocation, ctx: &Ctx, config: &Config) -> Result<Left, WorkerError> {
    if worker::is_held(ctx, &invocation.shards).await? {
        return Ok(Left::Held);
    }
    let event = Event { invocation: invocation.clone(), config: config.clone(), linger: ctx.tuning.linger };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut process = spawn(theirs).map_err(failed)?;
    let answer = ask(ours, &event, ctx).await;
    let status = process.wait().await.map_err(failed)?;
    let Some(Answer { outcome, counted }) = answer.map_err(failed)? else {
        return Err(failed(format!("it ended without an answer, with {status}")));
    };
    ctx.progress.take_in(&counted);
    match outcome {
        Outcome::Left(left) => Ok(left),
        Outcome::Failed { message, failure } => Err(WorkerError::Elsewhere { message, failure }),
    }
}

fn failed(error: impl std::fmt::Display) -> WorkerError {
    WorkerError::Task(format!("invocation process: {error}"))
}

fn spawn(socket: UnixStream) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("invoke").stdin(Stdio::from(OwnedFd::from(socket))).process_group(0).kill_on_drop(true);
    command.spawn()
}

/// Sends the event and waits for the answer; `None` if the process died before it gave one.
async fn ask(socket: UnixStream, event: &Event, ctx: &Ctx) -> io::Result<Option<Answer>> {
    socket.set_nonblocking(true)?;
    let (reading, mut writing) = tokio::net::UnixStream::from_std(socket)?.into_split();
    let mut answers = tokio::io::BufReader::new(reading).lines();
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    writing.write_all(&line).await?;
    let answer = tokio::select! {
        answer = answers.next_line() => answer,
        () = must_leave(ctx) => {
            // One that has just ended has given its answer.
            drop(writing.shutdown().await);
            answers.next_line().await
        }
    };
    Ok(answer?.map(|line| serde_json::from_str(&line)).transpose()?)
}

/// Until this process is asked to stop, or another one would take its share.
async fn must_leave(ctx: &Ctx) {
    let began = ctx.clock.monotonic_micros();
    let share_after = i64::try_from(ctx.tuning.share_after.as_micros()).unwrap_or(i64::MAX);
    for looks in 1u32.. {
        ctx.clock.sleep(LOOK_EVERY).await;
        let asks = looks.is_multiple_of(ASK_EVERY) && ctx.clock.monotonic_micros() - began >= share_after;
        if ctx.stop.requested() || (asks && ctx.liveness.share_wanted()) {
            return;
        }
    }
}

/// The other side: serves the event on standard input in this process, and answers there.
///
/// - `stop`: requested once the caller closes its side.
///
/// # Errors
/// Standard input is no socket, or holds no event.
pub async fn serve_invocation(stop: Stop) -> io::Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut caller = BufReader::new(socket.try_clone()?);
    let mut line = String::new();
    caller.read_line(&mut line)?;
    let event: Event = serde_json::from_str(&line)?;
    stop_when_closed(caller, stop.clone())?;
    let mut answer = serde_json::to_vec(&answer(event, stop).await)?;
    answer.push(b'\n');
    socket.write_all(&answer)
}

fn stop_when_closed(mut caller: BufReader<UnixStream>, stop: Stop) -> io::Result<()> {
    let watch = move || {
        // It says nothing more; that it ends is what counts, however it ends.
        drop(io::copy(&mut caller, &mut io::sink()));
        stop.request();
    };
    std::thread::Builder::new().name("weir-caller".to_owned()).spawn(watch).map(drop)
}

async fn answer(event: Event, stop: Stop) -> Answer {
    let mut opened = match open::open_for_invocation(&event.config).await {
        Ok(opened) => opened,
        Err(error) => return Answer { outcome: Outcome::of(Err(error.into())), counted: Counted::default() },
    };
    opened.ctx.stop = stop;
    opened.ctx.tuning.linger = event.linger;
    let served = worker::handle(&event.invocation, &opened.ctx).await;
    Answer { outcome: Outcome::of(served), counted: opened.counted() }
}

impl Outcome {
    fn of(served: Result<Left, WorkerError>) -> Self {
        match served {
            Ok(left) => Self::Left(left),
            Err(error) => Self::Failed { message: error.to_string(), failure: error.failure() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_carries_over_whether_trying_again_may_help() {
        let lasting = WorkerError::Print(io::Error::other("closed"));
        for (error, failure) in [(lasting, Failure::Lasting), (WorkerError::Task("died".to_owned()), Failure::Passing)] {
            let text = serde_json::to_string(&Outcome::of(Err(error))).expect("an answer");
            let Outcome::Failed { message, failure: found } = serde_json::from_str(&text).expect("read back") else {
                panic!("{text}");
            };
            assert_eq!(WorkerError::Elsewhere { message, failure: found }.failure(), failure, "{text}");
        }
    }

    #[test]
    fn an_event_waits_for_ever_if_told_so() {
        let invocation = Invocation { job: weir_model::JobId(1), shards: Vec::new(), rounds_max: Some(8), run_millis_max: None };
        let event = Event { invocation, config: Config::default(), linger: Duration::MAX };
        let text = serde_json::to_string(&event).expect("an event");
        assert_eq!(serde_json::from_str::<Event>(&text).expect("read back"), event);
    }
}

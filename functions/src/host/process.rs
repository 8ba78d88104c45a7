//! Invocations in processes of their own (`--invoke process`): one small JSON event in, one word out, nothing kept between.

use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::config::Config;
use crate::open;
use crate::worker::{self, Invocation, Left, WorkerError};

/// What the process reads on standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvokeRequest {
    /// The event.
    pub invocation: Invocation,
    /// Where everything is.
    pub config: Config,
}

/// Runs one invocation in a fresh process of this program.
pub(super) async fn invoke(invocation: &Invocation, config: &Config) -> Result<Left, WorkerError> {
    let failed = |error: &dyn std::fmt::Display| WorkerError::Task(format!("invocation process: {error}"));
    let request = InvokeRequest { invocation: invocation.clone(), config: config.clone() };
    let event = serde_json::to_vec(&request).map_err(|error| failed(&error))?;
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let mut child = Command::new(program)
        .arg("invoke")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&event).await.map_err(|error| failed(&error))?;
    }
    let output = child.wait_with_output().await.map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    let answer = output.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap_or_default();
    serde_json::from_slice(answer).map_err(|error| failed(&error))
}

/// The other side: serves one request in this process.
///
/// # Errors
/// [`WorkerError`].
pub async fn invoke_here(request: &InvokeRequest) -> Result<Left, WorkerError> {
    let opened = open::open(&request.config).await.map_err(|error| WorkerError::Task(error.to_string()))?;
    worker::handle(&request.invocation, &opened.ctx).await
}

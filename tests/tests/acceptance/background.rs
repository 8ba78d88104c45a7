//! Processes that run beside a test: what they complain of is kept for when they fail, and none outlives its test.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::ops::{Deref, DerefMut};
use std::process::{Child, Command};
use std::time::Duration;

/// A process in the background.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    complaints: File,
}

impl Background {
    /// Starts `command`.
    pub(crate) fn start(command: &mut Command) -> Self {
        let complaints = tempfile::tempfile().expect("a file");
        let said = complaints.try_clone().expect("another handle");
        Self { child: command.stderr(said).spawn().expect("it starts"), complaints }
    }

    /// What it said on standard error.
    pub(crate) fn complaints(&mut self) -> String {
        let mut said = Vec::new();
        self.complaints.rewind().and_then(|()| self.complaints.read_to_end(&mut said)).expect("the file can be read");
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Kills it and waits until it is dead.
    pub(crate) fn end(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("it is dead");
    }

    /// Waits until it ends or the time is over; returns whether it ended.
    ///
    /// # Panics
    /// With what it said, if it failed.
    pub(crate) async fn ended_within(&mut self, time: Duration) -> bool {
        let until = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("the process can be asked") {
                assert!(status.success(), "a run failed by itself: {}", self.complaints());
                return true;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        false
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// If it does not within `time`.
    pub(crate) async fn ends(&mut self, what: &str, time: Duration) {
        assert!(self.ended_within(time).await, "{what} does not end: {}", self.complaints());
    }
}

impl Deref for Background {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Background {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

//! Wakes the listeners of this process when another one writes: a task that reads the feed while somebody listens.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use weir_model::Clock;

use super::feed::{Batch, Feed};
use crate::store::StoreError;

/// Wait after a look that found changes; the service lets a shard be read four or five times a second.
const LOOK_AFTER_MIN: Duration = Duration::from_millis(250);
/// Wait after looks that found none: doubles up to this, and so does what it costs to listen.
const LOOK_AFTER_MAX: Duration = Duration::from_secs(1);
/// Wait after failed looks, so that others get their turn.
const FAILED_AFTER_MAX: Duration = Duration::from_secs(8);
/// Rest after a refusal that will not pass by itself, such as a missing permission.
const REFUSED_AFTER: Duration = Duration::from_secs(60);
/// A feed that nobody listened to for so long is begun anew instead of reading all that was missed.
const FORGOTTEN_AFTER_MICROS: i64 = 60_000_000;

/// The task; ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watching(JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the task works with.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    /// Told of changes; its receivers are the listeners.
    pub(super) changed: watch::Sender<u64>,
    /// Told of a new listener.
    pub(super) listening: Arc<Notify>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Watch {
    /// Starts to watch; nothing is read before somebody listens.
    pub(super) fn start(self, feed: impl Fn() -> Feed + Send + Sync + 'static, on: &tokio::runtime::Handle) -> Watching {
        Watching(on.spawn(async move { self.run(feed).await }))
    }

    async fn run(self, make: impl Fn() -> Feed) {
        let mut feed = make();
        let mut left_at = self.clock.monotonic_micros();
        loop {
            self.listening.notified().await;
            if self.clock.monotonic_micros() - left_at > FORGOTTEN_AFTER_MICROS {
                feed = make();
            }
            if let Err(error) = self.serve(&mut feed).await {
                tracing::warn!(%error, "the change feed cannot be read: changes by other processes are found by looking for them");
                feed = make();
                self.clock.sleep(REFUSED_AFTER).await;
                self.listening.notify_one();
            }
            left_at = self.clock.monotonic_micros();
        }
    }

    /// Reads while somebody listens, or until it is refused.
    async fn serve(&self, feed: &mut Feed) -> Result<(), StoreError> {
        let mut wait = LOOK_AFTER_MIN;
        while self.changed.receiver_count() > 0 {
            let batch = feed.poll().await;
            if !batch.changed.is_empty() || batch.gap {
                self.changed.send_modify(|changes| *changes += 1);
            }
            wait = next_wait(wait, &batch);
            if let Some(error @ StoreError::Invalid(_)) = batch.failed {
                return Err(error);
            }
            self.clock.sleep(wait).await;
        }
        Ok(())
    }
}

fn next_wait(last: Duration, batch: &Batch) -> Duration {
    match &batch.failed {
        Some(error) => {
            tracing::debug!(%error, "the change feed did not answer");
            (last * 2).min(FAILED_AFTER_MAX)
        }
        None if batch.changed.is_empty() => (last * 2).min(LOOK_AFTER_MAX),
        None => LOOK_AFTER_MIN,
    }
}

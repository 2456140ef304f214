//! What every operation needs and nothing makes for itself.

use std::sync::Arc;

use backstay_model::Progress;
use backstay_repo::repo::Repo;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::{Error, Result};

#[derive(Debug, Clone)]
pub struct Context {
    pub repo: Arc<Repo>,
    pub clock: Arc<dyn Clock>,
    /// Cancelled when somebody asks to stop; every operation ends soon after.
    pub cancel: CancellationToken,
    /// Polled by whoever shows how far an operation is.
    pub progress: Arc<Progress>,
}

impl Context {
    pub fn new(
        repo: Arc<Repo>,
        clock: Arc<dyn Clock>,
        cancel: CancellationToken,
        progress: Arc<Progress>,
    ) -> Self {
        Self { repo, clock, cancel, progress }
    }

    /// The work, or [`Error::Cancelled`] as soon as somebody asks to stop. Only for
    /// work that may be dropped at any point.
    pub(crate) async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            done = work => done,
        }
    }

    pub(crate) fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Threads that move bytes: one per core, since most of the work is compressing,
/// sealing and hashing.
pub(crate) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Blocking work, away from the threads that serve everybody.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_cancelled() => Err(Error::Cancelled),
        Err(error) => Err(Error::broken(format!("blocking work did not end: {error}"))),
    }
}

//! What an operation needs that touches no repository.

use std::sync::Arc;

use backstay_model::Progress;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::context::Context;
use crate::error::{Error, Result};

/// One run of an operation. A [`Context`] is this and a repository; portable dumps do
/// without one.
#[derive(Debug, Clone)]
pub struct Run {
    pub clock: Arc<dyn Clock>,
    /// Cancelled when somebody asks to stop; every operation ends soon after.
    pub cancel: CancellationToken,
    /// Polled by whoever shows how far an operation is.
    pub progress: Arc<Progress>,
}

impl Run {
    pub fn new(clock: Arc<dyn Clock>, cancel: CancellationToken, progress: Arc<Progress>) -> Self {
        Self { clock, cancel, progress }
    }

    pub(crate) fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
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
}

impl From<&Context> for Run {
    fn from(context: &Context) -> Self {
        let Context { clock, cancel, progress, repo: _ } = context;
        Self { clock: Arc::clone(clock), cancel: cancel.clone(), progress: Arc::clone(progress) }
    }
}

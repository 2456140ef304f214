//! Archive: the log of a server is received as it is written, and stored.
//!
//! Every byte goes the same way: socket → spool → disk of this machine → acknowledgement →
//! store. The server may forget what was acknowledged, so nothing is before it is durable
//! in the spool, and nothing leaves the spool before the store has it.
//!
//! Invariant: what is received goes on exactly where the log ended, on the timeline that
//! it ended on. Where it cannot, that is a hole, and it is told.
//!
//! Refuses another cluster behind the same address, and a server whose log is behind what
//! was received of it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstay_model::error::{Classified, ErrorKind};
use backstay_model::{LogId, LogSpan};
use backstay_repo::log::spool::LogSpool;

use crate::context::{Context, off_thread};
use crate::error::{Error, Result};
use crate::instance::Instance;

mod begin;
mod sender;
mod stream;

use sender::Sender;

/// One spool, for whoever receives and whoever sends. Only threads that may block lock it.
#[derive(Clone)]
struct Spool(Arc<Mutex<LogSpool>>);

impl Spool {
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut LogSpool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let spool = Arc::clone(&self.0);
        off_thread(move || work(&mut spool.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

/// The cuts of the log: spans end there at the latest.
const CUT_BYTES: u64 = backstay_repo::log::SPAN_BYTES_MAX;
/// Between two attempts to reach a server, growing from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(15);
/// How long the last spans may take to reach the store after somebody asked to stop: what
/// is not there by then stays in the spool, and goes with the next run.
const LAST_SENDING: Duration = Duration::from_secs(30);

/// So old may what the store does not have be, when nobody says.
pub const DEFAULT_RPO: Duration = Duration::from_secs(5);

/// How a log is archived.
#[derive(Debug, Clone)]
pub struct ArchiveOptions {
    /// The replication slot, made when it is not there.
    pub slot: String,
    /// A directory of this instance alone.
    pub spool: PathBuf,
    /// So old may what the store does not have be at most, by intention.
    pub rpo: Duration,
    /// Every piece is made durable and acknowledged at once: for a server that waits for
    /// it with `synchronous_standby_names`.
    pub synchronous: bool,
    pub compression_level: i32,
}

/// What an archive does, as it happens.
#[derive(Debug, Clone, PartialEq)]
pub enum ArchiveEvent {
    /// The log comes in, from this position on.
    Began { log: LogId, from: u64 },
    /// Another timeline goes on from here.
    Timeline { log: LogId, from: u64 },
    /// The store has it.
    Sent { log: LogId, span: LogSpan },
    /// The server is away, or does not let us in: it is tried again.
    Waiting { reason: String },
}

/// Whoever wants to know what an archive does.
pub trait ArchiveWatcher: Send + Sync {
    fn see(&self, event: ArchiveEvent);
}

/// How a stream ended without an error.
enum Ended {
    /// Somebody asked to stop.
    Asked,
    /// The server went down, in order.
    Server,
}

/// Receives until somebody asks to stop; what was received goes to the store then, so the calls
/// of its repository must not end with `context.cancel`. A server that is away is tried again; only what
/// no waiting can mend ends it with an error.
///
/// # Errors
///
/// [`Error::OtherCluster`], [`Error::ServerBehind`], and those of the engine and the
/// repository that another attempt would meet again.
pub async fn run(
    context: &Context,
    instance: &Instance,
    options: &ArchiveOptions,
    watcher: &dyn ArchiveWatcher,
) -> Result<()> {
    let directory = options.spool.clone();
    let opened = off_thread(move || Ok(LogSpool::open(&directory, CUT_BYTES)?)).await?;
    let spool = Spool(Arc::new(Mutex::new(opened)));
    spool.with(begin::look_after_a_crash).await?;
    let mut sender = Sender::new(context, instance, options, watcher, spool.clone());
    context.unless_cancelled(sender.take_over()).await?;
    let mut wait = RETRY_FIRST;
    let outcome = loop {
        let reason = match stream::receive(context, instance, options, watcher, &spool, &mut sender).await {
            Ok(Ended::Asked) => break Ok(()),
            Err(error) if was_stopped(context, &error) => break Ok(()),
            Ok(Ended::Server) => {
                wait = RETRY_FIRST;
                "the server is shut down".to_owned()
            }
            Err(error) if !is_worth_another_try(&error) => break Err(error),
            Err(error) => crate::status::with_causes(&error),
        };
        watcher.see(ArchiveEvent::Waiting { reason });
        sender.rest(wait).await?;
        if context.cancel.is_cancelled() {
            break Ok(());
        }
        wait = (wait * 2).min(RETRY_LAST);
    };
    let left = tokio::time::timeout(LAST_SENDING, sender.finish()).await;
    match (outcome, left) {
        (Err(error), _) => Err(error),
        // It lies in the spool, and goes with the next run.
        (Ok(()), Ok(Err(error))) if was_stopped(context, &error) => Ok(()),
        (Ok(()), Ok(sent)) => sent,
        (Ok(()), Err(_)) => Ok(()),
    }
}

/// What was on its way to the store when somebody asked to stop is no failure.
fn was_stopped(context: &Context, error: &Error) -> bool {
    context.cancel.is_cancelled() && error.kind() == ErrorKind::Cancelled
}

/// A server that starts, stops, or whose old connection still holds the slot.
fn is_worth_another_try(error: &Error) -> bool {
    match error {
        Error::Engine(backstay_engine::Error::SlotInUse { .. }) => true,
        // Log that is gone does not come back.
        Error::Engine(backstay_engine::Error::WalMissing { .. }) => false,
        Error::Engine(error) => error.kind() == ErrorKind::Unavailable,
        _ => false,
    }
}

//! Archive: the log of a server is received as it is written, and stored.
//!
//! Every byte goes the same way: socket → spool → disk of this machine → acknowledgement →
//! store. The server may forget what was acknowledged, so nothing is before it is durable
//! in the spool, and nothing leaves the spool before the store has it.
//!
//! Invariant: what is received goes on exactly where the log ended, on the timeline that
//! it ended on. Where it cannot, that ends it, unless somebody chose to go on behind a gap:
//! then that is noted before anything is given up, and a new base is taken.
//!
//! Refuses another cluster behind the same address, and a server whose log is behind what
//! was received of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backstay_engine::postgres::receive::SlotWatch;
use backstay_model::error::{Classified, ErrorKind};
use backstay_model::{LagLimit, LogId, OnMaxLag};
use backstay_repo::log::spool::{LogSpool, SpooledSpan};

use crate::context::{Context, off_thread};
use crate::error::{Error, Result};
use crate::instance::{EngineSettings, Instance};

mod base;
mod begin;
mod connection;
mod event;
mod gap;
mod keeping;
mod lag;
pub(crate) mod redis;
mod room;
mod sealing;
mod sender;
mod stream;

use base::Bases;
pub use event::{ArchiveEvent, ArchiveWatcher};
use lag::Lag;
use sealing::Records;
use sender::Sender;

/// One spool, for whoever receives and whoever sends. Only threads that may block lock it.
#[derive(Clone)]
struct Spool(Arc<Mutex<LogSpool>>);

impl Spool {
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut LogSpool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let spool = self.clone();
        off_thread(move || work(&mut spool.lock())).await
    }

    /// For a thread that may block.
    fn lock(&self) -> MutexGuard<'_, LogSpool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cuts of the log: spans end there at the latest.
const CUT_BYTES: u64 = backstay_repo::log::SPAN_BYTES_MAX;
/// Those of a stream. A span lies in memory while it is sealed, with what it becomes beside it.
const STREAM_CUT_BYTES: u64 = CUT_BYTES / 2;
/// Between two attempts to reach a server, growing from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(15);
/// Another beginning that needs no waiting: so many in a row.
const AT_ONCE: u32 = 4;
/// Where commits wait for us, they wait for the next attempt too.
const RETRY_LAST_SYNCHRONOUS: Duration = Duration::from_secs(1);
/// So long a store may take to say what is there, before the log goes on without it.
const STORE_LIMIT: Duration = Duration::from_secs(15);
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
    /// Of the bases behind gaps, and of the log.
    pub compression_level: i32,
    pub log_level: i32,
    /// How much the server may hold for the archive.
    pub max_lag: Option<LagLimit>,
    /// What is done when it does, and about log that it let go of by itself.
    pub on_max_lag: OnMaxLag,
    /// Once, log that the server has let go of is a gap, and no end of the archive.
    pub accept_gap: bool,
}

impl ArchiveOptions {
    /// A server that is back is found before what it writes then is too old.
    fn longest_retry(&self) -> Duration {
        if self.synchronous {
            RETRY_LAST_SYNCHRONOUS
        } else {
            self.rpo.clamp(RETRY_LAST_SYNCHRONOUS, RETRY_LAST)
        }
    }
}

/// How a stream ended without an error.
enum Ended {
    /// Somebody asked to stop.
    Asked,
    /// The server went down, in order.
    Server,
    /// There is another beginning to be made, at once.
    Again,
    /// A stream without the base that it was to follow.
    WithoutBase,
}

/// What one run knows over all of its connections.
struct Archive<'a> {
    context: &'a Context,
    instance: &'a Instance,
    options: &'a ArchiveOptions,
    watcher: &'a dyn ArchiveWatcher,
    spool: Spool,
    sender: Sender<'a>,
    lag: Lag<'a>,
    /// Looks at the slot while nothing is read from the connection.
    slot: SlotWatch,
    /// Log that the server let go of is a gap.
    accepts_gap: bool,
    /// The server did not have this segment any more.
    log_gone: Option<String>,
    /// The lineage that the store has confirmed, and the histories that it has or will have
    /// before their log.
    lineage: Option<String>,
    histories: BTreeSet<LogId>,
    /// Durable in the spool.
    durable: Option<(LogId, u64)>,
    bases: Bases,
}

/// Receives until somebody asks to stop; what was received goes to the store then, so the calls
/// of its repository must not end with `context.cancel`. A server or a store that is away is tried
/// again, a spool without room is waited for; only what no waiting can mend ends it with an error.
///
/// # Errors
///
/// [`Error::OtherCluster`], [`Error::ServerBehind`], [`Error::SlotLost`], [`Error::LogGone`], and those
/// of the engine and the repository that another attempt would meet again.
pub async fn run(
    context: &Context,
    instance: &Instance,
    options: &ArchiveOptions,
    watcher: &dyn ArchiveWatcher,
) -> Result<()> {
    let over = context.cancel.child_token();
    let (bases, orders) = Bases::until(over.clone());
    let receiving = async {
        let ended = match &instance.engine {
            EngineSettings::Redis(settings) => {
                redis::receive(context, instance, settings, options, watcher, bases).await
            }
            _ => receive(context, instance, options, watcher, bases).await,
        };
        over.cancel();
        ended
    };
    let of_bases = Context { cancel: over.clone(), ..context.clone() };
    let taking = base::take(&of_bases, instance, options, watcher, orders);
    tokio::join!(receiving, taking).0
}

async fn receive(
    context: &Context,
    instance: &Instance,
    options: &ArchiveOptions,
    watcher: &dyn ArchiveWatcher,
    bases: Bases,
) -> Result<()> {
    let opened = room::open_spool(context, options, watcher, CUT_BYTES).await;
    let Some(spool) = opened? else { return Ok(()) };
    spool.with(begin::look_after_a_crash).await?;
    let marking = Arc::new(Records);
    let mut sender = Sender::new(context, instance, options, watcher, spool.clone(), marking)?;
    context.unless_cancelled(sender.take_over()).await?;
    let gives_up = options.on_max_lag == OnMaxLag::Gap;
    let mut archive = Archive {
        context,
        instance,
        options,
        watcher,
        spool,
        sender,
        lag: Lag::new(watcher, options.max_lag),
        slot: SlotWatch::new(instance.postgres()?)?,
        accepts_gap: gives_up || options.accept_gap,
        log_gone: None,
        lineage: None,
        histories: BTreeSet::new(),
        durable: None,
        bases,
    };
    let outcome = archive.receive_on().await;
    let left = tokio::time::timeout(LAST_SENDING, archive.sender.finish()).await;
    archive.sender.end().await;
    match (outcome, left) {
        (Err(error), _) => Err(error),
        // It lies in the spool, and goes with the next run.
        (Ok(()), Ok(Err(error))) if was_stopped(context, &error) => Ok(()),
        (Ok(()), Ok(sent)) => sent,
        (Ok(()), Err(_)) => Ok(()),
    }
}

impl Archive<'_> {
    /// One connection after the other.
    async fn receive_on(&mut self) -> Result<()> {
        let mut wait = RETRY_FIRST;
        let mut at_once = 0;
        loop {
            let (reason, hints) = match connection::receive(self).await {
                Ok(Ended::Asked) => return Ok(()),
                Err(error) if was_stopped(self.context, &error) => return Ok(()),
                Ok(Ended::Again) if at_once < AT_ONCE => {
                    at_once += 1;
                    continue;
                }
                Ok(Ended::Again | Ended::WithoutBase) => {
                    ("the archive begins anew, again and again".to_owned(), Vec::new())
                }
                Ok(Ended::Server) => {
                    wait = RETRY_FIRST;
                    ("the server is shut down".to_owned(), Vec::new())
                }
                Err(Error::Engine(backstay_engine::Error::WalMissing { segment })) => {
                    if !self.accepts_gap {
                        return Err(Error::LogGone { instance: self.instance.id.clone(), segment });
                    }
                    if self.log_gone.is_none() && at_once < AT_ONCE {
                        at_once += 1;
                        self.log_gone = Some(segment);
                        continue;
                    }
                    (format!("the server does not have the segment {segment}"), Vec::new())
                }
                Err(error) if !is_worth_another_try(&error) => return Err(error),
                Err(error) => {
                    self.give_up_what_is_not_durable(&error).await?;
                    (crate::status::with_causes(&error), error.hints())
                }
            };
            self.watcher.see(ArchiveEvent::Waiting { reason, hints });
            self.sender.rest(wait).await?;
            if self.context.cancel.is_cancelled() {
                return Ok(());
            }
            wait = (wait * 2).min(self.options.longest_retry());
            at_once = 0;
        }
    }

    /// What lies in the spool was made durable, also what the last connection had not come to.
    fn durable_are(&mut self, spooled: &[SpooledSpan]) {
        for one in spooled {
            self.sender.durable(&one.log, one.span.start, one.span.end);
        }
        if let Some((log, durable)) = &mut self.durable {
            let ends = spooled.iter().filter(|one| one.log == *log).map(|one| one.span.end);
            *durable = ends.max().unwrap_or(0).max(*durable);
        }
    }

    /// Log is not given up twice for one word.
    fn gap_was_accepted(&mut self) {
        self.accepts_gap = self.options.on_max_lag == OnMaxLag::Gap;
        self.log_gone = None;
    }
}

/// What the store is asked before a connection begins, within a limit.
async fn within<T>(asked: impl Future<Output = backstay_repo::Result<T>>) -> Result<T> {
    match tokio::time::timeout(STORE_LIMIT, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::StoreSilent { seconds: STORE_LIMIT.as_secs() }),
    }
}

/// What was on its way to the store when somebody asked to stop is no failure.
fn was_stopped(context: &Context, error: &Error) -> bool {
    context.cancel.is_cancelled() && error.kind() == ErrorKind::Cancelled
}

/// A server that starts, stops, or whose old connection still holds the slot; a store that is
/// away; a disk without room.
fn is_worth_another_try(error: &Error) -> bool {
    match error {
        Error::Engine(backstay_engine::Error::SlotInUse { .. }) => true,
        Error::Engine(error) => error.kind() == ErrorKind::Unavailable,
        Error::Repo(error) if error.is_full_spool() => true,
        Error::GapNotNoted { .. } => true,
        error => gap::is_away(error),
    }
}

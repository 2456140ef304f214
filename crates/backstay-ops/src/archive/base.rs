//! The bases of an archive: the one behind a gap, without which nothing that is received there could be
//! restored to, and the one that a server sends before its stream.
//!
//! They are taken beside whatever is received, which waits for none of them: a base may take hours,
//! and connections end and begin meanwhile.
//!
//! Invariant: one base at a time, whatever it is for. One that is wanted is tried until it is there.
//! It is wanted as long as the repository shows log behind it and no base, so a process that was
//! killed on the way leaves the next one to take it.

use std::sync::Arc;
use std::time::Duration;

use backstay_engine::redis::base::RedisBase;
use backstay_model::error::Classified;
use backstay_model::{BackupSummary, LogGap, Lsn, TimelineId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{ArchiveEvent, ArchiveOptions, ArchiveWatcher};
use crate::backup::{self, BackupOptions};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::status::with_causes;

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// What a base is wanted for: one is enough for it, however often the connection ends meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WantedBase {
    /// The gap that it lies behind, by where that begins and how far the server was.
    Gap { from: (TimelineId, Lsn), server: (TimelineId, Lsn) },
    /// The stream that has none, by its id and where it begins.
    Stream { replication_id: String, offset: u64 },
}

impl WantedBase {
    pub fn behind(gap: &LogGap) -> WantedBase {
        WantedBase::Gap { from: (gap.timeline, gap.from), server: (gap.server_timeline, gap.server) }
    }
}

/// A base whose snapshot is on its way already, with the stream behind it.
pub(super) struct BegunBase {
    pub base: RedisBase,
    /// What another one is for, where this one fails.
    pub instead: WantedBase,
    /// Nothing comes where its stream did not begin: a base for that would lead nowhere.
    pub has_begun: oneshot::Receiver<()>,
    pub turn: Turn,
}

/// Whoever has it may take a base, and nobody else does meanwhile.
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// The end of whoever receives.
#[derive(Clone)]
pub(super) struct Bases {
    wanted: watch::Sender<Option<WantedBase>>,
    begun: mpsc::Sender<BegunBase>,
    turns: Arc<Semaphore>,
    /// No base goes on behind that.
    pub over: CancellationToken,
}

/// The end of whoever takes them.
pub(super) struct Orders {
    wanted: watch::Receiver<Option<WantedBase>>,
    begun: mpsc::Receiver<BegunBase>,
    /// Of the other end.
    bases: Bases,
}

impl Bases {
    pub fn until(over: CancellationToken) -> (Bases, Orders) {
        let ((wants, wanted), (begins, begun)) = (watch::channel(None), mpsc::channel(1));
        let bases = Bases { wanted: wants, begun: begins, turns: Arc::new(Semaphore::new(1)), over };
        (bases.clone(), Orders { wanted, begun, bases })
    }

    pub fn want(&self, behind: WantedBase) {
        self.wanted.send_replace(Some(behind));
    }

    /// Nothing while a base is under way.
    pub fn free_turn(&self) -> Option<Turn> {
        Arc::clone(&self.turns).try_acquire_owned().ok().map(|_permit| Turn { _permit })
    }

    /// When no base is under way.
    pub async fn turn(&self) -> Result<Turn> {
        match Arc::clone(&self.turns).acquire_owned().await {
            Ok(_permit) => Ok(Turn { _permit }),
            Err(_) => Err(Error::broken("there are no turns any more")),
        }
    }

    /// Returns at once.
    pub async fn take(&self, begun: BegunBase) -> Result<()> {
        // What was wanted for a stream before this one would be taken of this one.
        self.wanted.send_replace(None);
        self.begun.send(begun).await.map_err(|_| Error::Cancelled)
    }
}

/// Takes every base, until `context` is cancelled; what is under way then ends first.
pub(super) async fn take(
    context: &Context,
    instance: &Instance,
    options: &ArchiveOptions,
    watcher: &dyn ArchiveWatcher,
    orders: Orders,
) {
    let Orders { wanted, begun, bases } = orders;
    let backup = BackupOptions { full: false, compression_level: Some(options.compression_level) };
    let taker = Taker { context, instance, backup, watcher, bases };
    tokio::join!(taker.when_wanted(wanted), taker.when_begun(begun));
}

struct Taker<'a> {
    context: &'a Context,
    instance: &'a Instance,
    backup: BackupOptions,
    watcher: &'a dyn ArchiveWatcher,
    bases: Bases,
}

impl Taker<'_> {
    async fn when_wanted(&self, mut wanted: watch::Receiver<Option<WantedBase>>) {
        let (mut taken, mut tried) = (None, None);
        let mut wait = RETRY_FIRST;
        loop {
            let turn = async {
                let is_new = |wanted: &Option<WantedBase>| wanted.is_some() && *wanted != taken;
                wanted.wait_for(is_new).await.map_err(|_| Error::Cancelled)?;
                self.bases.turn().await
            };
            let Ok(turn) = self.context.unless_cancelled(turn).await else { return };
            // Somebody else may have had a turn since.
            let behind = wanted.borrow_and_update().clone();
            if behind.is_none() || behind == taken {
                continue;
            }
            if behind != tried {
                (tried, wait) = (behind.clone(), RETRY_FIRST);
            }
            let is_behind_gap = matches!(behind, Some(WantedBase::Gap { .. }));
            self.watcher.see(ArchiveEvent::BaseBegun { is_behind_gap });
            if self.has_ended(backup::run(self.context, self.instance, &self.backup).await) {
                taken = behind;
                continue;
            }
            // A base that comes with a stream may be taken meanwhile.
            drop(turn);
            tokio::select! {
                () = self.context.cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(RETRY_LAST);
        }
    }

    async fn when_begun(&self, mut begun: mpsc::Receiver<BegunBase>) {
        loop {
            let next = tokio::select! {
                biased;
                () = self.context.cancel.cancelled() => return,
                next = begun.recv() => next,
            };
            let Some(BegunBase { base, instead, has_begun, turn }) = next else { return };
            self.watcher.see(ArchiveEvent::BaseBegun { is_behind_gap: false });
            let ended = backup::run_on(self.context, self.instance, &self.backup, base).await;
            if !self.has_ended(ended) && has_begun.await.is_ok() {
                self.bases.want(instead);
            }
            drop(turn);
        }
    }

    /// Whether nothing is left to be done: it was taken, or somebody asked to stop.
    fn has_ended(&self, ended: Result<BackupSummary>) -> bool {
        let event = match ended {
            Ok(BackupSummary { id, finished_at, .. }) => ArchiveEvent::BaseTaken { id, finished_at },
            Err(_) if self.context.cancel.is_cancelled() => return true,
            Err(error) => ArchiveEvent::BaseFailed { reason: with_causes(&error), hints: error.hints() },
        };
        let is_taken = matches!(event, ArchiveEvent::BaseTaken { .. });
        self.watcher.see(event);
        is_taken
    }
}

//! A spool without room: the server is not told that it may forget, and waits with us.
//!
//! Invariant: what is not durable here is not acknowledged, whatever there is no room for.
//! As soon as there is some, the log goes on where it stopped.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backstay_model::{LogSpan, Lsn};
use backstay_repo::log::spool::LogSpool;

use super::{Archive, ArchiveEvent, ArchiveOptions, ArchiveWatcher, Spool};
use crate::context::{Context, off_thread};
use crate::error::{Error, Result};
use crate::status::with_causes;

/// How often it is looked whether there is room.
const LOOK: Duration = Duration::from_millis(200);
/// How often the server is asked what it holds, while nothing is read from it.
const LOOK_AT_SLOT: Duration = Duration::from_secs(2);

/// Opens the spool as soon as there is room for that; nothing when somebody asked to stop.
pub(super) async fn open_spool(
    context: &Context,
    options: &ArchiveOptions,
    watcher: &dyn ArchiveWatcher,
    cut_bytes: u64,
) -> Result<Option<Spool>> {
    let mut was_full = false;
    loop {
        let (directory, is_waited_for) = (options.spool.clone(), options.synchronous);
        let opened = off_thread(move || {
            let mut spool = LogSpool::open(&directory, cut_bytes)?;
            match spool.fill_ahead(is_waited_for) {
                // Without it as well: what lies there must be sent before there is room.
                Err(error) if error.is_full_spool() => tracing::debug!(%error, "no file is filled ahead"),
                done => done?,
            }
            Ok(spool)
        });
        match opened.await {
            Ok(spool) => {
                if was_full {
                    watcher.see(ArchiveEvent::SpoolHasRoom);
                }
                return Ok(Some(Spool(Arc::new(Mutex::new(spool)))));
            }
            Err(Error::Repo(error)) if error.is_full_spool() => {
                if !was_full {
                    watcher.see(ArchiveEvent::SpoolFull { reason: with_causes(&error) });
                }
                was_full = true;
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = context.cancel.cancelled() => return Ok(None),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// How a wait for room ended.
pub(super) enum Room {
    /// There may be some.
    Perhaps,
    /// Somebody asked to stop.
    Asked,
    /// The server is to be freed of what it holds.
    FreesServer,
}

/// When the server was asked last.
pub(super) struct Waiting {
    asked: Option<Instant>,
    pub reported: Instant,
}

impl Waiting {
    pub fn begin(archive: &Archive<'_>, full: &Error) -> Waiting {
        archive.watcher.see(ArchiveEvent::SpoolFull { reason: with_causes(full) });
        Waiting { asked: None, reported: Instant::now() }
    }

    /// Sends what is there, and looks at what the server holds meanwhile.
    /// What is durable here the server may not know yet.
    pub async fn rest(
        &mut self,
        archive: &mut Archive<'_>,
        segment_bytes: u64,
        durable: Lsn,
    ) -> Result<Room> {
        archive.sender.turn().await?;
        if archive.options.max_lag.is_some() && self.asked.is_none_or(|at| at.elapsed() >= LOOK_AT_SLOT) {
            self.asked = Some(Instant::now());
            match archive.slot.look(&archive.options.slot).await {
                Ok(slot) => {
                    let held = slot.and_then(|slot| slot.held_behind(durable));
                    if held.is_some_and(|held| archive.lag.see(segment_bytes, held)) {
                        return Ok(Room::FreesServer);
                    }
                }
                // Whether the server is away, the connection will say.
                Err(error) => tracing::debug!(%error, "the server does not say what it holds"),
            }
        }
        Ok(tokio::select! {
            () = archive.context.cancel.cancelled() => Room::Asked,
            () = tokio::time::sleep(LOOK) => Room::Perhaps,
        })
    }
}

impl Archive<'_> {
    /// A disk that took bytes and lost them when they were to be brought to it: what is not
    /// known to be durable is received once more.
    pub(super) async fn give_up_what_is_not_durable(&mut self, error: &Error) -> Result<()> {
        if !matches!(error, Error::Repo(error) if error.is_full_spool()) {
            return Ok(());
        }
        let Some((log, to)) = self.durable.clone() else { return Ok(()) };
        // It was the last that came.
        let all = LogSpan { start: 0, end: u64::MAX };
        self.spool.with(move |spool| Ok(spool.truncate(&log, all, to)?)).await
    }
}

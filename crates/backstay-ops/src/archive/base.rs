//! The base behind a gap: without it, nothing that is received there can be restored to.
//!
//! Invariant: it is tried until it is there. It is wanted as long as the repository shows a
//! gap with log behind it and no base, so a process that was killed on the way leaves the
//! next one to take it.

use std::time::Duration;

use backstay_model::error::Classified;
use backstay_model::{LogGap, Lsn, TimelineId};
use tokio::sync::watch;

use super::{ArchiveEvent, ArchiveOptions, ArchiveWatcher};
use crate::backup::{self, BackupOptions};
use crate::context::Context;
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

/// Takes a base whenever one is wanted, until `context` is cancelled.
pub(super) async fn take_when_wanted(
    context: &Context,
    instance: &Instance,
    options: &ArchiveOptions,
    watcher: &dyn ArchiveWatcher,
    mut wanted: watch::Receiver<Option<WantedBase>>,
) {
    let backup = BackupOptions { full: false, compression_level: Some(options.compression_level) };
    let mut taken = None;
    loop {
        let behind = tokio::select! {
            () = context.cancel.cancelled() => return,
            wanted = wanted.wait_for(|wanted| *wanted != taken) => match wanted {
                Ok(wanted) => wanted.clone(),
                Err(_) => return,
            }
        };
        let mut wait = RETRY_FIRST;
        loop {
            let is_behind_gap = matches!(behind, Some(WantedBase::Gap { .. }));
            watcher.see(ArchiveEvent::BaseBegun { is_behind_gap });
            let error = match backup::run(context, instance, &backup).await {
                Ok(summary) => {
                    watcher.see(ArchiveEvent::BaseTaken { id: summary.id, finished_at: summary.finished_at });
                    break;
                }
                Err(_) if context.cancel.is_cancelled() => return,
                Err(error) => error,
            };
            watcher.see(ArchiveEvent::BaseFailed { reason: with_causes(&error), hints: error.hints() });
            tokio::select! {
                () = context.cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(RETRY_LAST);
        }
        taken = behind;
    }
}

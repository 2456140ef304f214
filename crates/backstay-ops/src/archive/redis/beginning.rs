//! The beginning of a stream: a server sends everything, and the stream behind it.
//!
//! Everything is a base, and is stored as it comes, as fast as the store takes it. The server holds the
//! stream for us so long, and no more of it than `client-output-buffer-limit` lets it: then it ends the
//! connection, and snapshot and stream are lost. With a store that slow it would come so for ever.
//! So the next snapshot is read as fast as it comes and kept by nobody; the stream begins behind
//! it, and a base is taken beside that, for which the server holds nothing.

use std::pin::pin;
use std::time::Duration;

use backstay_engine::redis::base::RedisBase;
use backstay_engine::redis::commands::CommandReader;
use backstay_engine::redis::settings::Address;
use backstay_engine::redis::stream::StreamReceiver;
use backstay_engine::redis::sync::FullSync;
use backstay_model::Finding;
use tokio::sync::oneshot;

use super::resume::{Resume, Streams};
use super::{StreamArchive, error_hints};
use crate::archive::base::WantedBase;
use crate::archive::{ArchiveEvent, ArchiveOptions, ArchiveWatcher, Ended, RETRY_FIRST};
use crate::backup::{self, BackupOptions};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::instance::Instance;

/// How often what lies in the spool goes on to the store while a snapshot comes.
const LOOK: Duration = Duration::from_millis(100);

impl StreamArchive<'_> {
    /// With a full synchronisation: until the stream behind it ends.
    pub(super) async fn begin_anew(
        &mut self,
        address: &Address,
        sync: FullSync,
        streams: &Streams,
        before: Option<&Resume>,
    ) -> Result<Ended> {
        // Named for the case that no base comes with it.
        let wanted = WantedBase::Stream {
            replication_id: sync.place.replication_id.clone(),
            offset: sync.place.offset,
        };
        if self.has_lost_snapshot {
            self.watcher.see(ArchiveEvent::Told { finding: passed_over() });
            let receiver = self.while_sending(pass_over(sync)).await??;
            self.wants_base.send_replace(Some(wanted));
            return self.follow_new(address, streams, receiver, before).await;
        }
        let cancel = self.context.cancel.clone();
        let beginning = RedisBase::with_stream(address, sync, cancel.child_token());
        let (base, behind) = self.context.unless_cancelled(async { Ok(beginning.await?) }).await?;
        self.watcher.see(ArchiveEvent::BaseBegun { is_behind_gap: false });
        let taking = take(self.context, self.instance, self.options, self.watcher, base);
        let wants_base = self.wants_base.clone();
        let (begun, has_begun) = oneshot::channel();
        let taking = async {
            // A base for a stream that did not begin would lead nowhere, and keep the server from sending
            // the next snapshot.
            if !taking.await && has_begun.await.is_ok() {
                wants_base.send_replace(Some(wanted));
            }
        };
        let following = async {
            match self.while_sending(behind).await? {
                Ok(receiver) => {
                    let _ = begun.send(());
                    self.follow_new(address, streams, receiver, before).await
                }
                // Why it failed is told where the base is.
                Err(_) if self.context.cancel.is_cancelled() => Ok(Ended::Asked),
                Err(_) => {
                    drop(begun);
                    self.has_lost_snapshot = true;
                    Ok(Ended::WithoutBase)
                }
            }
        };
        tokio::join!(following, taking).0
    }

    /// Waits, and lets go on what lies in the spool.
    async fn while_sending<T>(&mut self, waited: impl Future<Output = T>) -> Result<T> {
        let mut waited = pin!(waited);
        loop {
            tokio::select! {
                done = &mut waited => return Ok(done),
                () = self.context.cancel.cancelled() => return Err(Error::Cancelled),
                () = tokio::time::sleep(LOOK) => self.sender.turn().await?,
            }
        }
    }

    /// Behind a full synchronisation.
    async fn follow_new(
        &mut self,
        address: &Address,
        streams: &Streams,
        receiver: StreamReceiver,
        before: Option<&Resume>,
    ) -> Result<Ended> {
        // What it has forked for goes on.
        (self.has_forked, self.has_lost_snapshot, self.fork_wait) = (false, false, RETRY_FIRST);
        let place = receiver.place().clone();
        let log = streams.log_with(&place.replication_id);
        if let Some(before) = before.filter(|before| before.log != log) {
            self.sender.over(&before.log);
        }
        // A replica that is behind sends again what is here.
        let is_here = |before: &&Resume| {
            before.replication_id == place.replication_id && before.reader.at() >= place.offset
        };
        let from = before.filter(is_here).cloned().unwrap_or_else(|| Resume {
            log,
            reader: CommandReader::new(place.offset, receiver.database()),
            replication_id: place.replication_id,
        });
        self.follow(address, receiver, from).await
    }
}

/// As fast as it comes.
async fn pass_over(mut sync: FullSync) -> Result<StreamReceiver> {
    while sync.next().await?.is_some() {}
    Ok(sync.into_stream()?)
}

fn passed_over() -> Finding {
    Finding::warning(
        "the base",
        "the last snapshot did not come to its end while it was stored: the server sends another one, of which \
         nothing is kept but the stream behind it, and the base comes beside that",
        "a larger `client-output-buffer-limit` for replicas, or a faster store, lets the first one come through",
    )
}

/// Whether the base behind which a stream begins was taken.
async fn take(
    context: &Context,
    instance: &Instance,
    options: &ArchiveOptions,
    watcher: &dyn ArchiveWatcher,
    base: RedisBase,
) -> bool {
    let backup = BackupOptions { full: false, compression_level: Some(options.compression_level) };
    match backup::run_on(context, instance, &backup, base).await {
        Ok(summary) => {
            watcher.see(ArchiveEvent::BaseTaken { id: summary.id, finished_at: summary.finished_at });
            true
        }
        Err(_) if context.cancel.is_cancelled() => true,
        Err(error) => {
            let reason = crate::status::with_causes(&error);
            watcher.see(ArchiveEvent::BaseFailed { reason, hints: error_hints(&error) });
            false
        }
    }
}

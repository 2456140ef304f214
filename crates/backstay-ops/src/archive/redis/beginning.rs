//! The beginning of a stream: a server sends everything, and the stream behind it.
//!
//! Everything is a base, and is stored as it comes, as fast as the store takes it. The server holds the
//! stream for us so long, and no more of it than `client-output-buffer-limit` lets it: then it ends the
//! connection, and snapshot and stream are lost. With a store that slow it would come so for ever.
//! So the next snapshot is read as fast as it comes and kept by nobody; the stream begins behind
//! it, and a base is taken beside that, for which the server holds nothing. So it is where an earlier
//! base is still on its way.
//!
//! Invariant: a connection never waits for a base. When the snapshot is here or lost, what follows it
//! is received, or asked for anew.

use std::pin::pin;
use std::time::Duration;

use backstay_engine::redis::base::RedisBase;
use backstay_engine::redis::commands::CommandReader;
use backstay_engine::redis::settings::Address;
use backstay_engine::redis::stream::StreamReceiver;
use backstay_engine::redis::sync::FullSync;
use backstay_model::Finding;
use tokio::sync::oneshot;

use super::StreamArchive;
use super::resume::{Resume, Streams};
use crate::archive::base::{BegunBase, WantedBase};
use crate::archive::{ArchiveEvent, Ended, RETRY_FIRST};
use crate::error::{Error, Result};

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
        let passed_over = match self.has_lost_snapshot {
            true => Err(lost_before()),
            false => self.bases.free_turn().ok_or_else(still_busy),
        };
        let turn = match passed_over {
            Ok(turn) => turn,
            Err(finding) => {
                self.watcher.see(ArchiveEvent::Told { finding });
                let receiver = self.while_sending(pass_over(sync)).await??;
                self.bases.want(wanted);
                return self.follow_new(address, streams, receiver, before).await;
            }
        };
        let beginning = RedisBase::with_stream(address, sync, self.bases.over.child_token());
        let (base, behind) = self.context.unless_cancelled(async { Ok(beginning.await?) }).await?;
        let (begun, has_begun) = oneshot::channel();
        // It outlives this connection: what the store still has to take keeps nobody from the next.
        self.bases.take(BegunBase { base, instead: wanted, has_begun, turn }).await?;
        match self.while_sending(behind).await? {
            Ok(receiver) => {
                let _ = begun.send(());
                self.follow_new(address, streams, receiver, before).await
            }
            // Why it failed is told where the base is.
            Err(_) if self.context.cancel.is_cancelled() => Ok(Ended::Asked),
            Err(_) => {
                self.has_lost_snapshot = true;
                Ok(Ended::WithoutBase)
            }
        }
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

fn lost_before() -> Finding {
    Finding::warning(
        "the base",
        "the last snapshot did not come to its end while it was stored: the server sends another one, of which \
         nothing is kept but the stream behind it, and the base comes beside that",
        "where the store was too slow for it, a larger `client-output-buffer-limit` for replicas lets it come through",
    )
}

/// Two at once would take twice the memory, and each the half of a store that is behind already.
fn still_busy() -> Finding {
    Finding::warning(
        "the base",
        "an earlier base is still being stored: of the snapshot that the server sends now nothing is kept but the \
         stream behind it, and another base comes when the earlier one is there",
        "what comes before that base is restored to no instant; a faster store makes it shorter",
    )
}

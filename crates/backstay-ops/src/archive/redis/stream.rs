//! One connection: from the socket into the spool.
//!
//! While a thread appends and waits for the disk, more is read; what has no room in memory waits
//! in the socket, and the server holds it as it does for every replica.

use std::time::{Duration, Instant};

use backstay_engine::redis::facts::ServerFacts;
use backstay_engine::redis::settings::Address;
use backstay_engine::redis::stream::StreamReceiver;
use tokio::task::{JoinError, JoinSet};

use super::headroom::Headroom;
use super::instants::Witness;
use super::keeper::{Keeper, Piece};
use super::{SILENCE, StreamArchive};
use crate::archive::keeping::Batch;
use crate::archive::{ArchiveEvent, Ended};
use crate::error::{Error, Result};
use crate::status::with_causes;

/// How long a wait for the next piece is: then what is due is done.
const LOOK: Duration = Duration::from_millis(100);
/// What is taken from the socket while what came before is written.
const BATCH_BYTES: usize = 2 << 20;
/// What came is durable so soon, or when there is so much.
const FLUSH: Duration = Duration::from_millis(250);
const FLUSH_BYTES: u64 = 16 << 20;
/// Where only the server's own words came: so soon, for the time until which nothing happened.
const FLUSH_WORDS: Duration = Duration::from_secs(60);
/// Servers give up a replica that is silent for `repl-timeout`, a minute when nobody says.
const REPORT: Duration = Duration::from_secs(1);
/// A spool without room is tried so often.
const TRY: Duration = Duration::from_millis(200);

/// What a thread did.
struct Done {
    keeper: Keeper,
    piece: Piece,
    /// There was no room.
    full: Option<Box<Error>>,
    /// It was flushed, and all up to here is durable.
    durable: Option<u64>,
}

pub(super) struct Stream<'a, 'b> {
    archive: &'a mut StreamArchive<'b>,
    receiver: StreamReceiver,
    /// Not while a thread has it.
    keeper: Option<Keeper>,
    working: JoinSet<Result<Done>>,
    came: Vec<u8>,
    came_at: jiff::Timestamp,
    spare: Vec<u8>,
    /// Handed to a thread, and durable, from where it began.
    begun_at: u64,
    taken: u64,
    durable: u64,
    /// Behind that, up to here, only the server's own words came. It waits for those as well
    /// before it stops, for ten seconds, and they may wait much longer for the disk.
    harmless: u64,
    /// Something that changes data is not durable yet.
    has_changes: bool,
    last_flush: Instant,
    last_report: Instant,
    last_word: Instant,
    headroom: Headroom<'b>,
    /// How full the server was, and at which offset, with the next line.
    witness: Option<ServerFacts>,
}

impl<'a, 'b> Stream<'a, 'b> {
    pub fn new(
        archive: &'a mut StreamArchive<'b>,
        address: &Address,
        receiver: StreamReceiver,
        keeper: Keeper,
    ) -> Self {
        let from = keeper.reader.at();
        Stream {
            came_at: archive.context.clock.now(),
            headroom: Headroom::new(address.clone(), archive.watcher),
            archive,
            receiver,
            keeper: Some(keeper),
            working: JoinSet::new(),
            came: Vec::new(),
            spare: Vec::new(),
            begun_at: from,
            taken: from,
            durable: from,
            harmless: from,
            has_changes: false,
            last_flush: Instant::now(),
            last_report: Instant::now(),
            last_word: Instant::now(),
            witness: None,
        }
    }

    pub async fn run(mut self) -> Result<Ended> {
        let begun = self.begin().await;
        let outcome = match begun {
            Ok(()) => self.receive().await,
            Err(error) => Err(error),
        };
        // Another connection begins where the last line says: nothing moves it any more.
        while self.working.join_next().await.is_some() {}
        outcome
    }

    /// The state where it begins is written down, and the server is told that it may go on.
    async fn begin(&mut self) -> Result<()> {
        let mut keeper = self.keeper()?;
        let begun = crate::context::off_thread(move || {
            keeper.begin()?;
            Ok(keeper)
        });
        self.keeper = Some(begun.await?);
        self.report().await
    }

    fn keeper(&mut self) -> Result<Keeper> {
        self.keeper.take().ok_or_else(|| Error::broken("two threads for one stream"))
    }

    async fn receive(&mut self) -> Result<Ended> {
        let cancel = self.archive.context.cancel.clone();
        loop {
            let has_room = self.came.len() < BATCH_BYTES;
            tokio::select! {
                biased;
                () = cancel.cancelled() => return self.keep_last(Ok(Ended::Asked)).await,
                Some(done) = self.working.join_next() => self.done(done).await?,
                came = self.receiver.next(LOOK), if has_room => match came {
                    Ok(Some(bytes)) => self.take(&bytes),
                    Ok(None) => {}
                    Err(error) => return self.keep_last(Err(error.into())).await,
                },
                () = tokio::time::sleep(LOOK), if !has_room => {}
            }
            if self.last_word.elapsed() > SILENCE {
                let lost = backstay_engine::Error::Timeout {
                    action: "receive the stream",
                    seconds: SILENCE.as_secs(),
                };
                return self.keep_last(Err(lost.into())).await;
            }
            if self.working.is_empty() {
                self.work(false)?;
            }
            if self.last_report.elapsed() >= REPORT {
                self.report().await?;
            }
            if let Some(said) = self.headroom.look(self.durable) {
                self.witness =
                    Some(said).filter(|said| said.replication_id == self.receiver.place().replication_id);
            }
            self.archive.sender.turn().await?;
        }
    }

    /// What this side has already is passed over: a server that is behind it sends it again.
    fn take(&mut self, bytes: &[u8]) {
        self.last_word = Instant::now();
        self.came_at = self.archive.context.clock.now();
        let end = self.receiver.place().offset;
        let wanted = end.saturating_sub(self.taken + self.came.len() as u64);
        let passed = bytes.len().saturating_sub(usize::try_from(wanted).unwrap_or(usize::MAX));
        self.came.extend_from_slice(bytes.get(passed..).unwrap_or_default());
    }

    /// Hands what came to a thread, where there is something to do.
    fn work(&mut self, is_last: bool) -> Result<()> {
        let waits = self.taken + self.came.len() as u64 - self.durable;
        let patience = if self.has_changes { FLUSH } else { FLUSH_WORDS };
        let is_due = waits > FLUSH_BYTES || self.last_flush.elapsed() >= patience;
        let flush = waits > 0 && (is_last || is_due);
        if self.came.is_empty() && !flush {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.came, std::mem::take(&mut self.spare));
        let mut keeper = self.keeper()?;
        if let Some(said) = self.witness.take() {
            keeper.witness = Some(Witness { offset: said.offset, databases: said.databases });
        }
        let goes_on = self.taken > self.begun_at;
        let batch = Batch { log: keeper.log.clone(), at: self.taken, bytes, taken: 0, goes_on };
        self.taken += batch.bytes.len() as u64;
        self.hand_on(keeper, Piece { batch, came_at: self.came_at }, flush);
        Ok(())
    }

    fn hand_on(&mut self, mut keeper: Keeper, mut piece: Piece, flush: bool) {
        self.working.spawn_blocking(move || {
            let full = keeper.keep(&mut piece)?.map(Box::new);
            keeper.note_quiet();
            let durable = if flush || full.is_some() { Some(keeper.flush()?) } else { None };
            Ok(Done { keeper, piece, full, durable })
        });
    }

    async fn done(&mut self, joined: Result<Result<Done>, JoinError>) -> Result<()> {
        let joined =
            joined.map_err(|error| Error::broken(format!("a thread of the spool ended: {error}")))?;
        let Done { mut keeper, mut piece, full, durable } = joined?;
        self.has_changes |= keeper.reader.take_changes();
        if !self.has_changes {
            self.harmless = keeper.reader.boundary();
        }
        let is_asked = keeper.reader.take_question();
        // Somebody may wait for it, with `WAIT`.
        let is_news = durable.is_some_and(|end| end > self.durable);
        if let Some(end) = durable {
            self.is_durable(&keeper, end);
        }
        if let Some(full) = full {
            let reason = with_causes(&full);
            self.archive.watcher.see(ArchiveEvent::SpoolFull { reason });
            (keeper, piece) = self.wait_for_room(keeper, piece).await?;
            self.archive.watcher.see(ArchiveEvent::SpoolHasRoom);
        }
        self.spare = piece.batch.bytes;
        self.spare.clear();
        self.keeper = Some(keeper);
        if is_asked || is_news {
            self.report().await?;
        }
        Ok(())
    }

    fn is_durable(&mut self, keeper: &Keeper, end: u64) {
        self.last_flush = Instant::now();
        self.has_changes = false;
        self.durable = end;
        self.archive.sender.durable(&keeper.log, self.begun_at, end);
    }

    /// Until the spool has taken what was left. The server is told that we live, and of no more.
    async fn wait_for_room(&mut self, mut keeper: Keeper, mut piece: Piece) -> Result<(Keeper, Piece)> {
        loop {
            tokio::select! {
                () = self.archive.context.cancel.cancelled() => return Err(Error::Cancelled),
                () = tokio::time::sleep(TRY) => {}
            }
            self.archive.sender.turn().await?;
            if self.last_report.elapsed() >= REPORT {
                self.report().await?;
            }
            // Whether the server waits as well is not known while nothing is read.
            self.last_word = Instant::now();
            let is_full;
            (keeper, piece, is_full) = crate::context::off_thread(move || {
                let full = keeper.keep(&mut piece)?;
                keeper.flush()?;
                Ok((keeper, piece, full.is_some()))
            })
            .await?;
            self.is_durable(&keeper, keeper.reader.at());
            if !is_full {
                return Ok((keeper, piece));
            }
        }
    }

    /// Everything that came is durable before the end is told.
    async fn keep_last(&mut self, over: Result<Ended>) -> Result<Ended> {
        while let Some(done) = self.working.join_next().await {
            self.done(done).await?;
        }
        self.work(true)?;
        while let Some(done) = self.working.join_next().await {
            self.done(done).await?;
        }
        if matches!(over, Ok(Ended::Asked)) {
            // It may be gone.
            drop(self.report().await);
        }
        over
    }

    async fn report(&mut self) -> Result<()> {
        self.last_report = Instant::now();
        match self.receiver.acknowledge(self.durable.max(self.harmless)).await {
            // What a server has sent before it closed the connection may still be read, and it may not
            // send it again. Behind that comes the end.
            Err(error @ backstay_engine::Error::ConnectionLost { .. }) => {
                tracing::debug!(%error, "the server does not hear how far this side is");
                Ok(())
            }
            told => Ok(told?),
        }
    }
}

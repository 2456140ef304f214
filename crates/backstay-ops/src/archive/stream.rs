//! What comes through one connection: from the socket into the spool.
//!
//! Invariant: the server is told of nothing that is not durable here.

use std::time::{Duration, Instant};

use backstay_engine::postgres::receive::{LogReceiver, WaitedFor};
use backstay_engine::postgres::wal::LogReader;
use backstay_engine::postgres::walsender::StreamEvent;
use backstay_model::{LogId, Lsn, TimelineId};
use tokio::task::JoinSet;

use super::Archive;
use super::ArchiveEvent;
use super::keeping::{Batch, Keeping, Kept};
use super::room::{Room, Waiting};
use crate::error::{Error, Result};

/// How long a wait for the next piece is: then what is due is sent.
const LOOK: Duration = Duration::from_millis(100);
/// What is taken from the socket while what came before is written.
const BATCH_BYTES: usize = 4 << 20;
/// What came is durable and reported so soon, when nobody waits for it.
const FLUSH: Duration = Duration::from_millis(250);
/// Or when there is so much: a file that ends waits for little then.
const FLUSH_BYTES: u64 = 4 << 20;
/// A server believes a receiver gone after `wal_sender_timeout`, by default a minute; and the
/// receiver a server that does not answer for as long.
const REPORT: Duration = Duration::from_secs(10);
/// Where that is shorter, so often within it.
const REPORTS: u32 = 6;

/// The server has counted us by then.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Its settings may change at any time.
const NEXT_LOOK: Duration = Duration::from_secs(60);

/// Why nothing more comes through it.
pub(super) enum Over {
    Asked,
    Server,
    Timeline {
        next: TimelineId,
        at: Lsn,
    },
    /// It holds as much as it may.
    FreesServer,
}

/// What came and was not taken further.
#[derive(Default)]
struct Came {
    bytes: Vec<u8>,
    wants_report: bool,
    /// Nothing comes behind it.
    over: Option<Result<Over>>,
}

impl Came {
    fn has_room(&self) -> bool {
        self.over.is_none() && self.bytes.len() < BATCH_BYTES
    }

    fn take(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Log { bytes, .. } => self.bytes.extend_from_slice(&bytes),
            StreamEvent::Alive { wants_report } => self.wants_report |= wants_report,
            StreamEvent::Stopped => self.over = Some(Ok(Over::Server)),
            StreamEvent::TimelineEnded { next, at } => self.over = Some(Ok(Over::Timeline { next, at })),
        }
    }
}

pub(super) struct Stream<'a, 'b> {
    archive: &'a mut Archive<'b>,
    receiver: &'a mut LogReceiver,
    log: LogId,
    begun_at: u64,
    keeping: Keeping,
    came: Came,
    /// A buffer for what comes next.
    spare: Vec<u8>,
    /// So far it was handed on to be kept, is in the spool, and is durable there.
    taken: u64,
    written: Lsn,
    durable: Lsn,
    /// The server waits for a word.
    wants_report: bool,
    /// Nobody listens to a report any more.
    is_ending: bool,
    /// It ends with an error, which waits for nothing.
    is_failed: bool,
    /// A report did not get through, and when. What the server had sent before is read to its end.
    unheard: Option<(Instant, Error)>,
    /// Nothing that was received behind a gap is durable yet.
    pub is_behind_gap: bool,
    last_flush: Instant,
    last_report: Instant,
    report_after: Duration,
    next_look: Option<Instant>,
    /// Ended with the stream.
    look: JoinSet<backstay_engine::Result<Option<WaitedFor>>>,
}

impl<'a, 'b> Stream<'a, 'b> {
    /// Of a stream that begins here.
    pub fn new(
        archive: &'a mut Archive<'b>,
        receiver: &'a mut LogReceiver,
        log: LogId,
        from: Lsn,
        is_behind_gap: bool,
    ) -> Self {
        let system = receiver.identity().system_identifier;
        let reader = LogReader::new(from, receiver.segment_bytes(), Some(system));
        let report_after = REPORT.min(receiver.patience() / REPORTS);
        let keeping = Keeping::new(archive.spool.clone(), reader);
        Stream {
            archive,
            receiver,
            log,
            begun_at: from.0,
            keeping,
            came: Came::default(),
            spare: Vec::new(),
            taken: from.0,
            written: from,
            durable: from,
            wants_report: false,
            is_ending: false,
            is_failed: false,
            unheard: None,
            is_behind_gap,
            last_flush: Instant::now(),
            last_report: Instant::now(),
            report_after,
            next_look: Some(Instant::now() + FIRST_LOOK),
            look: JoinSet::new(),
        }
    }

    pub async fn run(&mut self) -> Result<Over> {
        let outcome = self.receive().await;
        // Another connection begins where the spool ends: that moves no more.
        self.keeping.rest().await;
        outcome
    }

    async fn receive(&mut self) -> Result<Over> {
        let cancel = self.archive.context.cancel.clone();
        // A commit may wait for what was received by the last connection, and nothing new come
        // before it is confirmed.
        self.report().await;
        loop {
            let is_open = self.came.over.is_none();
            let kept = tokio::select! {
                biased;
                () = cancel.cancelled(), if is_open => {
                    self.came.over = Some(Ok(Over::Asked));
                    None
                }
                kept = self.keeping.next(), if self.keeping.is_busy() => Some(kept?),
                event = self.receiver.next(LOOK), if self.came.has_room() => {
                    self.take(event);
                    None
                }
                // A server that hears nothing while a disk hangs would give us up.
                () = tokio::time::sleep(LOOK), if is_open && !self.came.has_room() => None,
                else => None,
            };
            if let Some(kept) = kept
                && let Some(over) = self.kept(kept).await?
            {
                return Ok(over);
            }
            if self.keeping.is_free() {
                self.take_what_is_there().await;
                if let Some(over) = self.came.over.take() {
                    return self.keep_last(over).await;
                }
                self.keep()?;
            }
            let is_due = self.last_flush.elapsed() >= FLUSH;
            let waits = self.written.0 - self.durable.0;
            if (waits > FLUSH_BYTES || is_due && waits > 0) && !self.keeping.is_flushing() {
                self.last_flush = Instant::now();
                self.keeping.flush(self.log.clone());
            }
            if self.last_report.elapsed() >= self.report_after {
                self.report().await;
            }
            self.look_who_waits();
            let is_long = |unheard: &mut (Instant, Error)| unheard.0.elapsed() >= self.report_after;
            if self.came.over.is_none()
                && let Some((_, error)) = self.unheard.take_if(is_long)
            {
                self.came.over = Some(Err(error));
            }
            if self.came.over.is_none() {
                if let Err(error) = self.archive.sender.turn().await {
                    self.came.over = Some(Err(error));
                } else if self.holds_too_much() {
                    // It is given up behind what is here.
                    self.came.over = Some(Ok(Over::FreesServer));
                }
            }
        }
    }

    /// An error ends the stream when what came before is kept: it may be the last that comes.
    fn take(&mut self, event: backstay_engine::Result<Option<StreamEvent>>) {
        match event {
            Ok(Some(event)) => self.came.take(event),
            Ok(None) => self.came.over = self.unheard.take().map(|(_, error)| Err(error)),
            Err(error) => self.came.over = Some(Err(error.into())),
        }
    }

    /// What has come already, without waiting for more.
    async fn take_what_is_there(&mut self) {
        while self.came.has_room() {
            let event = self.receiver.next(Duration::ZERO).await;
            if matches!(event, Ok(None)) {
                return;
            }
            self.take(event);
        }
    }

    /// Hands on what came, where something did.
    fn keep(&mut self) -> Result<()> {
        if self.came.bytes.is_empty() && !self.came.wants_report {
            return Ok(());
        }
        let flush = self.archive.options.synchronous || self.came.wants_report;
        self.hand_on(flush)
    }

    fn hand_on(&mut self, flush: bool) -> Result<()> {
        self.wants_report |= std::mem::take(&mut self.came.wants_report);
        let bytes = std::mem::replace(&mut self.came.bytes, std::mem::take(&mut self.spare));
        let (at, goes_on) = (self.taken, self.taken > self.begun_at);
        self.taken += bytes.len() as u64;
        self.keeping.append(Batch { log: self.log.clone(), at, bytes, taken: 0, goes_on }, flush)
    }

    /// Everything is durable before the end is told.
    async fn keep_last(&mut self, over: Result<Over>) -> Result<Over> {
        self.is_ending = !matches!(over, Ok(Over::Asked));
        self.is_failed = over.is_err();
        self.hand_on(true)?;
        while self.keeping.is_busy() {
            let kept = self.keeping.next().await?;
            if let Some(over) = self.kept(kept).await? {
                return Ok(over);
            }
        }
        if matches!(over, Ok(Over::Asked)) {
            self.report().await;
        }
        over
    }

    /// Whether commits wait for this archive is for the server to say; asking it takes a while,
    /// in which the log goes on.
    fn look_who_waits(&mut self) {
        let is_intended = self.archive.options.synchronous;
        if self.next_look.is_some_and(|next| next <= Instant::now()) {
            self.next_look = is_intended.then(|| Instant::now() + NEXT_LOOK);
            self.look.spawn(self.receiver.waited_for(&self.archive.options.slot));
        }
        match self.look.try_join_next() {
            Some(Ok(Ok(Some(WaitedFor { is_so, names })))) => {
                self.archive.watcher.see(ArchiveEvent::Commits { wait: is_so, is_intended, names });
            }
            Some(Ok(Err(error))) => tracing::debug!(%error, "whether commits wait is not known"),
            _ => {}
        }
    }

    /// What the server has written and may not forget yet.
    fn holds_too_much(&mut self) -> bool {
        let Some((received, server)) = self.receiver.positions() else { return false };
        // Before its first word nobody knows how far it is.
        let has_spoken = received > Lsn(self.begun_at) || server > received;
        let held = server.0.saturating_sub(self.durable.0);
        has_spoken && self.archive.lag.see(self.receiver.segment_bytes(), held)
    }

    /// Takes note of what was kept. Says when that came to an end before there was room.
    async fn kept(&mut self, kept: Kept) -> Result<Option<Over>> {
        match kept {
            Kept::Flushed { end } => self.is_durable(Lsn(end)).await?,
            Kept::Appended { batch, full, is_durable } => {
                self.written = self.written.max(Lsn(batch.end()));
                // A flush beside it may have failed: the disk may have told that one alone.
                while is_durable && self.keeping.is_flushing() {
                    self.keeping.next().await?;
                }
                if is_durable {
                    self.is_durable(Lsn(batch.end())).await?;
                }
                if let Some(full) = full {
                    if let Some(Err(error)) = self.came.over.take_if(|over| over.is_err()) {
                        return Err(error);
                    }
                    if self.is_failed {
                        return Ok(None);
                    }
                    return self.wait_for_room(batch, &full).await;
                }
                self.spare = batch.bytes;
                self.spare.clear();
            }
        }
        Ok(None)
    }

    /// Until the spool has taken what was left.
    async fn wait_for_room(&mut self, mut batch: Batch, full: &Error) -> Result<Option<Over>> {
        // It holds no more than what has no place here.
        self.report_durable().await;
        let segment_bytes = self.receiver.segment_bytes();
        let mut waits = Waiting::begin(self.archive, full);
        loop {
            match waits.rest(self.archive, segment_bytes, self.durable).await? {
                Room::Perhaps => {}
                Room::Asked => {
                    self.report_durable().await;
                    return Ok(Some(Over::Asked));
                }
                Room::FreesServer => return Ok(Some(Over::FreesServer)),
            }
            if waits.reported.elapsed() >= self.report_after {
                waits.reported = Instant::now();
                self.report_durable().await;
            }
            let full;
            (batch, full) = self.keeping.append_rest(batch).await?;
            self.written = self.written.max(Lsn(batch.end()));
            self.is_durable(Lsn(batch.end())).await?;
            if full.is_none() {
                break;
            }
        }
        self.archive.watcher.see(ArchiveEvent::SpoolHasRoom);
        Ok(None)
    }

    /// Tells the sender, and the server: commits may wait for it.
    async fn is_durable(&mut self, end: Lsn) -> Result<()> {
        self.last_flush = Instant::now();
        let is_news = end > self.durable;
        if is_news {
            self.durable = end;
            self.written = self.written.max(end);
            self.archive.sender.durable(&self.log, self.begun_at, end.0);
            self.archive.durable = Some((self.log.clone(), end.0));
            if std::mem::take(&mut self.is_behind_gap) {
                // What lies in the spool says now where the log goes on.
                self.archive.spool.with(|spool| Ok(spool.clear_note()?)).await?;
            }
        }
        if is_news || self.wants_report {
            self.wants_report = false;
            self.report().await;
        }
        Ok(())
    }

    async fn report(&mut self) {
        self.report_of(self.written).await;
    }

    /// Of what came, only this is here.
    async fn report_durable(&mut self) {
        self.report_of(self.durable).await;
    }

    /// One that does not get through ends nothing by itself: the connection will.
    async fn report_of(&mut self, written: Lsn) {
        let is_over = matches!(self.came.over, Some(Err(_) | Ok(Over::Server | Over::Timeline { .. })));
        if self.is_ending || self.unheard.is_some() || is_over {
            return;
        }
        let time = self.archive.context.clock.now();
        if let Err(error) = self.receiver.report(written, self.durable, time).await {
            self.unheard = Some((Instant::now(), error.into()));
        }
        self.last_report = Instant::now();
    }
}

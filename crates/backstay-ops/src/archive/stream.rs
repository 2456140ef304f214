//! What comes through one connection: from the socket into the spool.
//!
//! Invariant: the server is told of nothing that is not durable here.

use std::time::{Duration, Instant};

use backstay_engine::postgres::receive::{LogReceiver, WaitedFor};
use backstay_engine::postgres::wal::LogReader;
use backstay_engine::postgres::walsender::StreamEvent;
use backstay_model::{LogId, Lsn, TimelineId};
use bytes::Bytes;
use tokio::task::JoinSet;

use super::Archive;
use super::ArchiveEvent;
use super::room::{Pieces, Room, Waiting};
use crate::context::off_thread;
use crate::error::{Error, Result};

/// So much is looked at in less time than another thread takes to begin.
const AT_ONCE_BYTES: usize = 64 << 10;
/// How long a wait for the next piece is: then what is due is sent.
const LOOK: Duration = Duration::from_millis(100);
/// What is taken from the socket before it is written.
const BATCH_BYTES: usize = 4 << 20;
/// What came is durable and reported so soon, when nobody waits for it.
const FLUSH: Duration = Duration::from_millis(250);
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

pub(super) struct Stream<'a, 'b> {
    archive: &'a mut Archive<'b>,
    receiver: &'a mut LogReceiver,
    log: LogId,
    begun_at: u64,
    durable: Lsn,
    reader: LogReader,
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
        Stream {
            archive,
            receiver,
            log,
            begun_at: from.0,
            durable: from,
            reader,
            is_behind_gap,
            last_flush: Instant::now(),
            last_report: Instant::now(),
            report_after,
            next_look: Some(Instant::now() + FIRST_LOOK),
            look: JoinSet::new(),
        }
    }

    pub async fn run(&mut self) -> Result<Over> {
        let cancel = self.archive.context.cancel.clone();
        // A commit may wait for what was received by the last connection, and nothing new come
        // before it is confirmed.
        self.report().await?;
        loop {
            let event = tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    self.keep(Vec::new(), true).await?;
                    self.report().await?;
                    return Ok(Over::Asked);
                }
                event = self.receiver.next(LOOK) => event,
            };
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    // What came before is kept: it may be the last that comes.
                    self.keep(Vec::new(), true).await?;
                    return Err(error.into());
                }
            };
            let (mut batch, mut bytes, mut wants_report) = (Vec::new(), 0, false);
            let (mut over, mut failed) = (None, None);
            let mut next = event;
            while let Some(event) = next {
                match event {
                    StreamEvent::Log { bytes: piece, .. } => {
                        bytes += piece.len();
                        batch.push(piece);
                    }
                    StreamEvent::Alive { wants_report: wants } => wants_report |= wants,
                    StreamEvent::Stopped => over = Some(Over::Server),
                    StreamEvent::TimelineEnded { next, at } => over = Some(Over::Timeline { next, at }),
                }
                if over.is_some() || bytes >= BATCH_BYTES {
                    break;
                }
                // What has come already, without waiting for more.
                next = match self.receiver.next(Duration::ZERO).await {
                    Ok(next) => next,
                    // Told once: what came before it is kept first.
                    Err(error) => {
                        failed = Some(error);
                        None
                    }
                };
            }
            let is_due = self.last_flush.elapsed() >= FLUSH;
            let is_last = over.is_some() || failed.is_some();
            let flush = self.archive.options.synchronous || wants_report || is_last || is_due;
            let before = self.durable;
            if let Some(over) = self.keep(batch, flush).await? {
                return Ok(over);
            }
            if let Some(error) = failed {
                return Err(error.into());
            }
            if over.is_none()
                && (wants_report || self.durable > before || self.last_report.elapsed() >= self.report_after)
            {
                self.report().await?;
            }
            self.look_who_waits();
            self.archive.sender.turn().await?;
            if let Some(over) = over {
                return Ok(over);
            }
            if self.holds_too_much() {
                // It is given up behind what is here.
                self.keep(Vec::new(), true).await?;
                return Ok(Over::FreesServer);
            }
        }
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

    /// Into the spool, and to its disk when somebody waits for that. Says when that came to
    /// an end before there was room.
    async fn keep(&mut self, batch: Vec<Bytes>, flush: bool) -> Result<Option<Over>> {
        let at = self.reader.position().0;
        self.look_at(&batch).await?;
        let mut pieces = Pieces { log: self.log.clone(), at, pieces: batch.into() };
        let mut waiting: Option<Waiting> = None;
        loop {
            let full = pieces.put(&self.archive.spool, flush).await?;
            if flush || full.is_some() {
                self.is_durable(Lsn(pieces.at)).await?;
            }
            let Some(full) = full else { break };
            let segment_bytes = self.receiver.segment_bytes();
            if waiting.is_none() {
                // It holds no more than what has no place here.
                self.report_durable().await?;
            }
            let durable = self.durable;
            let waits = waiting.get_or_insert_with(|| Waiting::begin(self.archive, &full));
            let room = waits.rest(self.archive, segment_bytes, durable).await?;
            match room {
                Room::Perhaps => {}
                Room::Asked => {
                    self.report_durable().await?;
                    return Ok(Some(Over::Asked));
                }
                Room::FreesServer => return Ok(Some(Over::FreesServer)),
            }
            if waits.reported.elapsed() >= self.report_after {
                waits.reported = Instant::now();
                self.report_durable().await?;
            }
        }
        if waiting.is_some() {
            self.archive.watcher.see(ArchiveEvent::SpoolHasRoom);
        }
        Ok(None)
    }

    /// Whether it is log. Much of it takes a while, and is nothing for a thread that others wait for.
    async fn look_at(&mut self, batch: &[Bytes]) -> Result<()> {
        let read = |mut reader: LogReader, batch: &[Bytes]| {
            let mut marks = Vec::new();
            for piece in batch {
                reader.push(piece, &mut marks).map_err(|damage| Error::LogDamaged { source: damage })?;
                marks.clear();
            }
            Ok(reader)
        };
        let reader = std::mem::replace(&mut self.reader, LogReader::of_any_segments(Lsn(0)));
        self.reader = match batch.iter().map(Bytes::len).sum::<usize>() {
            0..=AT_ONCE_BYTES => read(reader, batch)?,
            _ => {
                let batch = batch.to_vec();
                off_thread(move || read(reader, &batch)).await?
            }
        };
        Ok(())
    }

    async fn is_durable(&mut self, end: Lsn) -> Result<()> {
        self.last_flush = Instant::now();
        if end <= self.durable {
            return Ok(());
        }
        self.durable = end;
        self.archive.sender.durable(&self.log, self.begun_at, end.0);
        self.archive.durable = Some((self.log.clone(), end.0));
        if std::mem::take(&mut self.is_behind_gap) {
            // What lies in the spool says now where the log goes on.
            self.archive.spool.with(|spool| Ok(spool.clear_note()?)).await?;
        }
        Ok(())
    }

    async fn report(&mut self) -> Result<()> {
        self.report_of(self.reader.position()).await
    }

    /// Of what came, only this is here.
    async fn report_durable(&mut self) -> Result<()> {
        self.report_of(self.durable).await
    }

    async fn report_of(&mut self, written: Lsn) -> Result<()> {
        let time = self.archive.context.clock.now();
        self.receiver.report(written, self.durable, time).await?;
        self.last_report = Instant::now();
        Ok(())
    }
}

//! One connection's worth of log: from the socket into the spool.

use std::time::{Duration, Instant};

use backstay_engine::postgres::receive::LogReceiver;
use backstay_engine::postgres::wal::LogReader;
use backstay_engine::postgres::walsender::{StandbyReport, StreamEvent};
use backstay_model::{LogId, Lsn, TimelineId};
use bytes::Bytes;

use super::begin::{self, log_of};
use super::sender::Sender;
use super::{ArchiveEvent, ArchiveOptions, ArchiveWatcher, Ended, Spool};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::instance::Instance;

/// How long a wait for the next piece is: then what is due is sent.
const LOOK: Duration = Duration::from_millis(100);
/// What is taken from the socket before it is written.
const BATCH_BYTES: usize = 4 << 20;
/// What came is durable and reported so soon, when nobody waits for it.
const FLUSH: Duration = Duration::from_millis(250);
/// A server believes a receiver gone after `wal_sender_timeout`, by default a minute.
const REPORT: Duration = Duration::from_secs(10);

/// Receives until the server or somebody ends it.
pub(super) async fn receive(
    context: &Context,
    instance: &Instance,
    options: &ArchiveOptions,
    watcher: &dyn ArchiveWatcher,
    spool: &Spool,
    sender: &mut Sender<'_>,
) -> Result<Ended> {
    let settings = instance.postgres()?;
    let mut receiver = context.unless_cancelled(async { Ok(LogReceiver::connect(settings).await?) }).await?;
    let index = context.unless_cancelled(async { Ok(context.repo.log_index(&instance.id).await?) }).await?;
    context.unless_cancelled(begin::refuse_another(context, instance, &receiver, &index)).await?;
    let slot = match receiver.slot(&options.slot).await? {
        Some(slot) => slot,
        None => {
            receiver.create_slot(&options.slot).await?;
            receiver.slot(&options.slot).await?.ok_or_else(|| Error::broken("a slot vanished"))?
        }
    };
    if slot.is_lost() {
        return Err(Error::SlotLost { slot: options.slot.clone() });
    }
    let restart = slot.restart.unwrap_or(receiver.identity().flushed);
    let spooled = spool.with(|spool| Ok(spool.spans())).await?;
    let beginning = begin::choose(&receiver, restart, &spooled, &index)?;
    for timeline in 2..=receiver.identity().timeline.0 {
        let kept = keep_history(context, instance, &mut receiver, TimelineId(timeline));
        context.unless_cancelled(kept).await?;
    }
    let (mut timeline, mut from) = (beginning.timeline, beginning.from);
    loop {
        receiver.begin(&options.slot, from, timeline).await?;
        let log = log_of(&receiver, timeline);
        watcher.see(ArchiveEvent::Began { log: log.clone(), from: from.0 });
        let system = receiver.identity().system_identifier;
        let reader = LogReader::new(from, receiver.segment_bytes(), Some(system));
        let mut stream = Stream {
            context,
            options,
            spool,
            receiver: &mut receiver,
            sender,
            begun_at: from.0,
            durable: from,
            log,
            reader,
            last_flush: Instant::now(),
            last_report: Instant::now(),
        };
        match stream.run().await? {
            Over::Asked => return Ok(Ended::Asked),
            Over::Server => return Ok(Ended::Server),
            Over::Timeline { next, at } => {
                let ended = log_of(&receiver, timeline);
                sender.over(&ended);
                keep_history(context, instance, &mut receiver, next).await?;
                // The segment in which it changed is kept under the new name as a whole.
                let segment = receiver.segment_bytes();
                (timeline, from) = (next, Lsn(at.0 / segment * segment));
                watcher.see(ArchiveEvent::Timeline { log: log_of(&receiver, next), from: from.0 });
            }
        }
    }
}

/// Where a timeline came from. Without it nobody finds the way to it.
async fn keep_history(
    context: &Context,
    instance: &Instance,
    receiver: &mut LogReceiver,
    timeline: TimelineId,
) -> Result<()> {
    let log = log_of(receiver, timeline);
    match receiver.history(timeline).await {
        Ok(history) => Ok(context.repo.put_log_history(&instance.id, &log, &history.content).await?),
        // A server that was made from a base of a late timeline does not have those of the
        // timelines between: its own history tells of them.
        Err(error) if timeline != receiver.identity().timeline => {
            tracing::debug!(%error, %timeline, "the server does not have the history of a timeline");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

enum Over {
    Asked,
    Server,
    Timeline { next: TimelineId, at: Lsn },
}

struct Stream<'a, 'b> {
    context: &'a Context,
    options: &'a ArchiveOptions,
    spool: &'a Spool,
    receiver: &'a mut LogReceiver,
    sender: &'a mut Sender<'b>,
    log: LogId,
    begun_at: u64,
    durable: Lsn,
    reader: LogReader,
    last_flush: Instant,
    last_report: Instant,
}

impl Stream<'_, '_> {
    async fn run(&mut self) -> Result<Over> {
        let cancel = self.context.cancel.clone();
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
            let flush = self.options.synchronous || wants_report || is_last || is_due;
            let before = self.durable;
            self.keep(batch, flush).await?;
            if let Some(error) = failed {
                return Err(error.into());
            }
            if over.is_none()
                && (wants_report || self.durable > before || self.last_report.elapsed() >= REPORT)
            {
                self.report().await?;
            }
            self.sender.turn().await?;
            if let Some(over) = over {
                return Ok(over);
            }
        }
    }

    /// Into the spool, and to its disk when somebody waits for that.
    async fn keep(&mut self, batch: Vec<Bytes>, flush: bool) -> Result<()> {
        let mut marks = Vec::new();
        let mut at = self.reader.position();
        for piece in &batch {
            self.reader.push(piece, &mut marks).map_err(|damage| Error::LogDamaged { source: damage })?;
            marks.clear();
        }
        let end = self.reader.position();
        let log = self.log.clone();
        self.spool
            .with(move |spool| {
                for piece in &batch {
                    spool.append(&log, at.0, piece)?;
                    at = at + piece.len() as u64;
                }
                if flush {
                    spool.flush()?;
                }
                Ok(())
            })
            .await?;
        if flush {
            self.last_flush = Instant::now();
            if end > self.durable {
                self.durable = end;
                self.sender.durable(&self.log, self.begun_at, end.0);
            }
        }
        Ok(())
    }

    async fn report(&mut self) -> Result<()> {
        let written = self.reader.position();
        let report = StandbyReport { written, flushed: self.durable, time: self.context.clock.now() };
        self.receiver.report(report).await?;
        self.last_report = Instant::now();
        Ok(())
    }
}

//! The log as the server writes it: `START_REPLICATION` of a physical slot.
//!
//! Invariant: what is handed out lies byte behind byte, from the position that was asked
//! for. A piece from anywhere else ends the stream with an error, for what is behind it
//! would be taken for what follows.
//!
//! A report of what is durable is sent when the caller says so. A server that shuts down
//! waits until it has one for its last byte, so the end must be reported at once.

use std::time::Duration;

use backstay_model::{Lsn, TimelineId};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::Walsender;
use super::command::identifier;
use super::reply::{Row, server_message};
use super::wire::{Frame, malformed, out_of_turn};
use crate::error::ServerMessage;
use crate::{Error, Result};

const START: &str = "start to receive the log";
const RECEIVE: &str = "receive the log";
const REPORT: &str = "report what is durable";
const STOP: &str = "stop to receive the log";

/// PostgreSQL counts microseconds from the first of January 2000.
const POSTGRES_EPOCH_SECONDS: i64 = 946_684_800;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    Log {
        at: Lsn,
        bytes: Bytes,
    },
    /// The server has nothing else to say just now.
    Alive {
        /// It wants a report at once.
        wants_report: bool,
    },
    /// Behind `at` another timeline goes on; the connection is free for commands.
    TimelineEnded {
        next: TimelineId,
        at: Lsn,
    },
    /// It sent everything and shuts down.
    Stopped,
}

/// What of the log is where, for the server's view of its standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandbyReport {
    pub written: Lsn,
    /// Durable: the server may forget what lies before it, and a synchronous commit is
    /// acknowledged by it.
    pub flushed: Lsn,
    pub time: Timestamp,
    /// The server is to say at once that it is there.
    pub wants_answer: bool,
}

/// A stream that was begun on a [`Walsender`].
#[derive(Debug)]
pub struct LogStream {
    timeline: TimelineId,
    received: Lsn,
    /// How far the server has written, as it said last.
    server_end: Lsn,
    /// The server has ended its side; what follows is the answer of a command.
    is_over: bool,
    /// What of that answer has come.
    next: Option<(TimelineId, Lsn)>,
    refusal: Option<ServerMessage>,
}

impl Walsender {
    /// Begins at `from`, which may lie within a record. With a slot, the server holds
    /// what was not yet reported as durable.
    ///
    /// # Errors
    ///
    /// [`Error::WalMissing`] when the server no longer has it, [`Error::SlotInUse`].
    pub async fn start_log(
        &mut self,
        slot: Option<&str>,
        from: Lsn,
        timeline: TimelineId,
    ) -> Result<LogStream> {
        let slot_clause = slot.map(|slot| format!("SLOT {} ", identifier(slot))).unwrap_or_default();
        let command = format!("START_REPLICATION {slot_clause}PHYSICAL {from} TIMELINE {timeline}");
        self.send_command(START, &command).await?;
        let stream = LogStream {
            timeline,
            received: from,
            server_end: from,
            is_over: false,
            next: None,
            refusal: None,
        };
        match self.wire.answer(self.limits.statement, START).await? {
            Frame::CopyBoth => Ok(stream),
            // A timeline that ended at or before `from` has nothing to stream: the answer
            // is the row that names the next one.
            frame @ Frame::Message(Message::RowDescription(_) | Message::CommandComplete(_)) => {
                drop(frame);
                Ok(LogStream { is_over: true, ..stream })
            }
            Frame::Message(Message::ErrorResponse(body)) => {
                let refusal = server_message(&mut body.fields());
                self.drain(START).await?;
                Err(refused(refusal, START, slot))
            }
            frame => Err(out_of_turn(&frame, START)),
        }
    }
}

impl LogStream {
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// Behind the last byte that came.
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// How far the server has written.
    pub fn server_end(&self) -> Lsn {
        self.server_end
    }

    /// The next event, `None` when there is none within `wait`. Dropped half-way, it
    /// loses nothing.
    pub async fn next(&mut self, walsender: &mut Walsender, wait: Duration) -> Result<Option<StreamEvent>> {
        if self.is_over {
            return self.end(walsender).await.map(Some);
        }
        let frame = match walsender.wire.answer(wait, RECEIVE).await {
            Ok(frame) => frame,
            Err(Error::Timeout { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        match frame {
            Frame::Data(data) => self.event(data).map(Some),
            Frame::Message(Message::CopyDone) => {
                frontend::copy_done(&mut walsender.wire.outgoing);
                self.is_over = true;
                self.end(walsender).await.map(Some)
            }
            // Without an end of the copy: the server is shutting down.
            Frame::Message(Message::CommandComplete(_)) => Ok(Some(StreamEvent::Stopped)),
            Frame::Message(Message::ErrorResponse(body)) => {
                self.refusal = Some(server_message(&mut body.fields()));
                self.is_over = true;
                self.end(walsender).await.map(Some)
            }
            frame => Err(out_of_turn(&frame, RECEIVE)),
        }
    }

    fn event(&mut self, mut data: Bytes) -> Result<StreamEvent> {
        const LOG_HEAD: usize = 1 + 8 + 8 + 8;
        const ALIVE_LENGTH: usize = 1 + 8 + 8 + 1;
        match data.first() {
            Some(b'w') if data.len() >= LOG_HEAD => {
                data.advance(1);
                let (at, server_end) = (Lsn(data.get_u64()), Lsn(data.get_u64()));
                data.advance(8);
                if at != self.received {
                    return Err(Error::LogGap { expected: self.received, found: at });
                }
                self.received = at + data.len() as u64;
                self.server_end = server_end.max(self.received);
                Ok(StreamEvent::Log { at, bytes: data })
            }
            Some(b'k') if data.len() == ALIVE_LENGTH => {
                data.advance(1);
                self.server_end = Lsn(data.get_u64()).max(self.received);
                data.advance(8);
                Ok(StreamEvent::Alive { wants_report: data.get_u8() != 0 })
            }
            _ => Err(Error::Protocol { reason: "a frame of the log that is neither".to_owned() }),
        }
    }

    /// After the copy: the row that names the next timeline, or nothing when the stream
    /// was ended by us. Dropped half-way, it goes on where it was.
    async fn end(&mut self, walsender: &mut Walsender) -> Result<StreamEvent> {
        if self.refusal.is_none() {
            walsender.wire.send(walsender.limits.statement, RECEIVE).await?;
        }
        while self.refusal.is_none() {
            match walsender.wire.answer(walsender.limits.statement, RECEIVE).await? {
                Frame::Message(Message::DataRow(body)) => {
                    let row = Row::parse(&body)?;
                    self.next =
                        Some((TimelineId(row.parsed(0, "timeline")?), row.parsed(1, "log position")?));
                }
                Frame::Message(Message::ErrorResponse(body)) => {
                    self.refusal = Some(server_message(&mut body.fields()));
                }
                Frame::Message(Message::ReadyForQuery(_)) => {
                    return Ok(match self.next.take() {
                        Some((next, at)) => StreamEvent::TimelineEnded { next, at },
                        None => StreamEvent::Stopped,
                    });
                }
                Frame::Message(
                    Message::RowDescription(_) | Message::CommandComplete(_) | Message::CopyDone,
                )
                | Frame::Data(_) => {}
                frame => return Err(out_of_turn(&frame, RECEIVE)),
            }
        }
        walsender.drain(RECEIVE).await?;
        match self.refusal.take() {
            Some(said) => Err(refused(said, RECEIVE, None)),
            None => Ok(StreamEvent::Stopped),
        }
    }

    /// Nothing where the server has ended its side: it would take it for a command.
    pub async fn report(&self, walsender: &mut Walsender, report: StandbyReport) -> Result<()> {
        if self.is_over {
            return Ok(());
        }
        let mut text = BytesMut::with_capacity(1 + 8 * 4 + 1);
        text.put_u8(b'r');
        text.put_u64(report.written.0);
        text.put_u64(report.flushed.0);
        // Nothing is applied here. What is durable is all that can be said of it, and a
        // server that waits for `remote_apply` waits for no less.
        text.put_u64(report.flushed.0);
        text.put_i64(since_postgres_epoch(report.time));
        text.put_u8(report.wants_answer.into());
        let data = frontend::CopyData::new(&text[..]).map_err(|error| malformed(&error))?;
        data.write(&mut walsender.wire.outgoing);
        walsender.wire.send(walsender.limits.statement, REPORT).await
    }

    /// Ends the stream from our side. The connection is free for commands afterwards.
    pub async fn stop(mut self, walsender: &mut Walsender) -> Result<()> {
        if !self.is_over {
            frontend::copy_done(&mut walsender.wire.outgoing);
            walsender.wire.send(walsender.limits.statement, STOP).await?;
            self.is_over = true;
        }
        self.end(walsender).await.map(drop)
    }
}

fn since_postgres_epoch(time: Timestamp) -> i64 {
    time.as_microsecond() - POSTGRES_EPOCH_SECONDS * 1_000_000
}

/// What the server says of a log that it cannot send. A segment that is gone is known by
/// its name in the text, whatever the language of the text.
fn refused(said: ServerMessage, action: &'static str, slot: Option<&str>) -> Error {
    const OBJECT_IN_USE: &str = "55006";
    const UNDEFINED_FILE: &str = "58P01";
    match (said.code.as_str(), slot) {
        (OBJECT_IN_USE, Some(slot)) => Error::SlotInUse { slot: slot.to_owned(), source: Box::new(said) },
        (UNDEFINED_FILE, _) => match said.log_segment() {
            Some(segment) => Error::WalMissing { segment },
            None => said.during(action),
        },
        _ => said.during(action),
    }
}

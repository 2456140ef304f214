//! Frames over a socket: the lowest layer of the replication client.
//!
//! Invariant: every wait has a limit, and a read that is dropped half-way loses
//! nothing, because bytes enter the buffer only in the one awaited call. Copy data
//! is sliced out of the buffer, not copied.
//!
//! Refuses frames longer than [`FRAME_MAX`]: a length that is nonsense must not
//! become an allocation.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::backend::{self, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::reply;
use crate::address::Socket;
use crate::error::ServerMessage;
use crate::{Error, Result};

/// The largest frame taken. Servers send copy data in pieces of 32 KiB and log
/// in pieces of 128 KiB; the largest single answer is a timeline history.
const FRAME_MAX: usize = 64 << 20;

/// Room that is kept for one read of the socket: some frames at once, few calls.
const READ_AHEAD: usize = 256 << 10;

/// `CopyBothResponse`, which the codec does not know.
const COPY_BOTH_TAG: u8 = b'W';

/// Warnings that are kept until somebody asks; a server that has more to say has
/// said enough.
const WARNINGS_KEPT: usize = 100;

/// Tag and length.
const HEADER_LENGTH: usize = 5;

/// One frame of the server.
pub(super) enum Frame {
    /// The payload of a `CopyData`.
    Data(Bytes),
    /// From here on both sides send copy data.
    CopyBoth,
    Message(Message),
}

pub(super) struct Wire {
    socket: Box<dyn Socket>,
    incoming: BytesMut,
    pub(super) outgoing: BytesMut,
    /// What the server said beside its answers.
    pub(super) warnings: Vec<ServerMessage>,
}

impl Wire {
    pub(super) fn new(socket: Box<dyn Socket>) -> Self {
        Self {
            socket,
            incoming: BytesMut::with_capacity(READ_AHEAD),
            outgoing: BytesMut::new(),
            warnings: Vec::new(),
        }
    }

    /// Sends what was put into `outgoing`.
    pub(super) async fn send(&mut self, limit: Duration, action: &'static str) -> Result<()> {
        let lost = |source: std::io::Error| Error::ConnectionLost { action, source: source.into() };
        let sending = async {
            self.socket.write_all_buf(&mut self.outgoing).await?;
            self.socket.flush().await
        };
        match timeout(limit, sending).await {
            Ok(sent) => sent.map_err(lost),
            Err(_) => Err(Error::Timeout { action, seconds: limit.as_secs() }),
        }
    }

    /// The next frame. The limit is one of silence: it starts anew with every
    /// byte that arrives.
    pub(super) async fn frame(&mut self, limit: Duration, action: &'static str) -> Result<Frame> {
        loop {
            if let Some(frame) = self.buffered_frame()? {
                return Ok(frame);
            }
            self.incoming.reserve(READ_AHEAD);
            let reading = self.socket.read_buf(&mut self.incoming);
            let read = match limit {
                // A timer rounds up to its next tick, and a commit waits for that millisecond.
                Duration::ZERO => tokio::select! {
                    biased;
                    read = reading => Some(read),
                    () = std::future::ready(()) => None,
                },
                limit => timeout(limit, reading).await.ok(),
            };
            let Some(read) = read else { return Err(Error::Timeout { action, seconds: limit.as_secs() }) };
            let read = read.map_err(|source| Error::ConnectionLost { action, source: source.into() })?;
            if read == 0 {
                let source = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return Err(Error::ConnectionLost { action, source: source.into() });
            }
        }
    }

    /// The next frame that is not a notice or a changed parameter. Warnings are
    /// kept, other notices are of no interest.
    pub(super) async fn answer(&mut self, limit: Duration, action: &'static str) -> Result<Frame> {
        loop {
            match self.frame(limit, action).await? {
                Frame::Message(Message::NoticeResponse(notice)) => {
                    let said = reply::server_message(&mut notice.fields());
                    tracing::debug!(code = said.code, "{}", said.message);
                    if reply::is_warning(&mut notice.fields()) {
                        self.keep_warning(said);
                    }
                }
                Frame::Message(Message::ParameterStatus(_)) => {}
                frame => return Ok(frame),
            }
        }
    }

    /// A server that looks at its files twice, to measure and to send, warns twice.
    fn keep_warning(&mut self, said: ServerMessage) {
        if self.warnings.len() < WARNINGS_KEPT && !self.warnings.contains(&said) {
            self.warnings.push(said);
        }
    }

    fn buffered_frame(&mut self) -> Result<Option<Frame>> {
        let Some(header) = backend::Header::parse(&self.incoming).map_err(|error| malformed(&error))? else {
            return Ok(None);
        };
        // The codec has checked that the length is not below four.
        let length = header.len() as usize + 1;
        if length > FRAME_MAX {
            return Err(Error::Protocol {
                reason: format!("a frame of {length} bytes, at most {FRAME_MAX} are taken"),
            });
        }
        if self.incoming.len() < length {
            self.incoming.reserve(length - self.incoming.len());
            return Ok(None);
        }
        Ok(match header.tag() {
            COPY_BOTH_TAG => {
                self.incoming.advance(length);
                Some(Frame::CopyBoth)
            }
            backend::COPY_DATA_TAG => {
                let mut frame = self.incoming.split_to(length);
                frame.advance(HEADER_LENGTH);
                Some(Frame::Data(frame.freeze()))
            }
            _ => Message::parse(&mut self.incoming).map_err(|error| malformed(&error))?.map(Frame::Message),
        })
    }
}

pub(super) fn malformed(source: &std::io::Error) -> Error {
    Error::Protocol { reason: source.to_string() }
}

/// For what does not belong here in the conversation.
pub(super) fn out_of_turn(frame: &Frame, action: &'static str) -> Error {
    let what = match frame {
        Frame::Data(_) => "copy data",
        Frame::CopyBoth => "the start of a stream",
        Frame::Message(Message::DataRow(_)) => "a row",
        Frame::Message(Message::CopyInResponse(_)) => "a request for copy data",
        Frame::Message(Message::CopyOutResponse(_)) => "the start of copy data",
        Frame::Message(Message::CopyDone) => "the end of copy data",
        Frame::Message(Message::CommandComplete(_)) => "the end of a command",
        Frame::Message(Message::ReadyForQuery(_)) => "a request for the next command",
        Frame::Message(_) => "a message",
    };
    Error::Protocol { reason: format!("{what} came while it was asked to {action}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_read_that_is_dropped_half_way_loses_nothing() {
        let (mut server, client) = duplex(64);
        let mut wire = Wire::new(Box::new(client));
        server.write_all(b"d\0\0\0\x09he").await.unwrap();
        // The first wait is given up with half a frame in the buffer.
        let early = wire.frame(Duration::from_millis(20), "read").await;
        assert!(matches!(early, Err(Error::Timeout { .. })));
        server.write_all(b"lloW\0\0\0\x04").await.unwrap();
        match wire.frame(LIMIT, "read").await.unwrap() {
            Frame::Data(data) => assert_eq!(&data[..], b"hello"),
            _ => panic!("not the data"),
        }
        assert!(matches!(wire.frame(LIMIT, "read").await.unwrap(), Frame::CopyBoth));
        drop(server);
        assert!(matches!(wire.frame(LIMIT, "read").await, Err(Error::ConnectionLost { .. })));
    }

    #[tokio::test]
    async fn a_length_that_is_nonsense_is_refused_before_memory_is_taken() {
        let (mut server, client) = duplex(64);
        let mut wire = Wire::new(Box::new(client));
        server.write_all(b"d\x7f\xff\xff\xff").await.unwrap();
        assert!(matches!(wire.frame(LIMIT, "read").await, Err(Error::Protocol { .. })));
    }
}

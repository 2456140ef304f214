//! Commands that have one short answer, and the upload of a manifest.
//!
//! Invariant: whatever a command's end, the connection is ready for the next one
//! afterwards; only a lost connection or a broken protocol makes it useless.

use std::time::Duration;

use backstay_model::{Lsn, TimelineId};
use bytes::Bytes;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::sync::mpsc;

use super::Walsender;
use super::reply::{Row, server_message};
use super::wire::{Frame, malformed, out_of_turn};
use crate::{Error, Result};

/// What `IDENTIFY_SYSTEM` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemIdentity {
    pub system_identifier: u64,
    pub timeline: TimelineId,
    /// How far the log is flushed (a primary) or replayed (a standby).
    pub flushed: Lsn,
}

/// Where a replication slot holds the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotPosition {
    /// `None` for a slot that reserves nothing yet.
    pub restart: Option<Lsn>,
    pub timeline: Option<TimelineId>,
}

/// A `.history` file: its name and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    pub name: String,
    pub content: Bytes,
}

impl Walsender {
    pub async fn identify_system(&mut self) -> Result<SystemIdentity> {
        let rows = self.query("identify the server", "IDENTIFY_SYSTEM").await?;
        let row = only(&rows, "IDENTIFY_SYSTEM")?;
        Ok(SystemIdentity {
            system_identifier: row.parsed(0, "system identifier")?,
            timeline: TimelineId(row.parsed(1, "timeline")?),
            flushed: row.parsed(2, "log position")?,
        })
    }

    /// The value of a server setting, with its unit as `SHOW` writes it.
    pub async fn show(&mut self, setting: &str) -> Result<String> {
        let rows = self.query("read a server setting", &format!("SHOW {}", identifier(setting))).await?;
        Ok(only(&rows, "SHOW")?.text(0, "setting")?.to_owned())
    }

    /// A slot that holds the log from the last checkpoint on and goes with this
    /// connection.
    pub async fn create_temporary_slot(&mut self, name: &str) -> Result<()> {
        let command = format!("CREATE_REPLICATION_SLOT {} TEMPORARY PHYSICAL RESERVE_WAL", identifier(name));
        self.query("create a temporary replication slot", &command).await.map(drop)
    }

    /// A slot that stays, and holds the log from the last checkpoint on.
    pub async fn create_slot(&mut self, name: &str) -> Result<()> {
        let command = format!("CREATE_REPLICATION_SLOT {} PHYSICAL RESERVE_WAL", identifier(name));
        self.query("create a replication slot", &command).await.map(drop)
    }

    /// One that holds nothing yet.
    pub async fn create_empty_slot(&mut self, name: &str) -> Result<()> {
        let command = format!("CREATE_REPLICATION_SLOT {} PHYSICAL", identifier(name));
        self.query("create a replication slot", &command).await.map(drop)
    }

    pub async fn drop_slot(&mut self, name: &str) -> Result<()> {
        let command = format!("DROP_REPLICATION_SLOT {}", identifier(name));
        self.query("drop a replication slot", &command).await.map(drop)
    }

    /// `None` when there is no such slot. PostgreSQL 15 and later.
    pub async fn read_slot(&mut self, name: &str) -> Result<Option<SlotPosition>> {
        let command = format!("READ_REPLICATION_SLOT {}", identifier(name));
        let rows = self.query("read a replication slot", &command).await?;
        let row = only(&rows, "READ_REPLICATION_SLOT")?;
        if row.optional_text(0).is_none() {
            return Ok(None);
        }
        let restart = match row.optional_text(1) {
            Some(_) => Some(row.parsed(1, "log position")?),
            None => None,
        };
        let timeline = match row.optional_text(2) {
            Some(_) => Some(TimelineId(row.parsed(2, "timeline")?)),
            None => None,
        };
        Ok(Some(SlotPosition { restart, timeline }))
    }

    /// The history of a timeline other than the first, which has none.
    pub async fn timeline_history(&mut self, timeline: TimelineId) -> Result<TimelineHistory> {
        let rows = self.query("read a timeline history", &format!("TIMELINE_HISTORY {timeline}")).await?;
        let row = only(&rows, "TIMELINE_HISTORY")?;
        let name = row.text(0, "file name")?.to_owned();
        let content = row
            .bytes(1)
            .ok_or_else(|| Error::Protocol { reason: "the timeline history has no content".to_owned() })?;
        Ok(TimelineHistory { name, content })
    }

    /// Gives the server the manifest of an earlier backup, for an incremental one
    /// on this connection. Ends where `pieces` does.
    pub async fn upload_manifest(&mut self, pieces: &mut mpsc::Receiver<Vec<u8>>) -> Result<()> {
        const ACTION: &str = "upload the manifest of the parent";
        self.send_command(ACTION, "UPLOAD_MANIFEST").await?;
        match self.wire.answer(self.limits.statement, ACTION).await? {
            Frame::Message(Message::CopyInResponse(_)) => {}
            Frame::Message(Message::ErrorResponse(body)) => {
                let refusal = server_message(&mut body.fields());
                self.drain(ACTION).await?;
                return Err(refusal.during(ACTION));
            }
            frame => return Err(out_of_turn(&frame, ACTION)),
        }
        while let Some(piece) = pieces.recv().await {
            let data = frontend::CopyData::new(piece.as_slice()).map_err(|error| malformed(&error))?;
            data.write(&mut self.wire.outgoing);
            self.wire.send(self.limits.statement, ACTION).await?;
        }
        frontend::copy_done(&mut self.wire.outgoing);
        self.wire.send(self.limits.statement, ACTION).await?;
        self.finish(ACTION, self.limits.statement).await.map(drop)
    }

    /// Runs a command to its end and returns its rows.
    pub(super) async fn query(&mut self, action: &'static str, command: &str) -> Result<Vec<Row>> {
        self.send_command(action, command).await?;
        self.finish(action, self.limits.statement).await
    }

    pub(super) async fn send_command(&mut self, action: &'static str, command: &str) -> Result<()> {
        frontend::query(command, &mut self.wire.outgoing).map_err(|error| malformed(&error))?;
        self.wire.send(self.limits.statement, action).await
    }

    /// Collects rows until the server asks for the next command.
    pub(super) async fn finish(&mut self, action: &'static str, limit: Duration) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut refusal = None;
        loop {
            match self.wire.answer(limit, action).await {
                Ok(Frame::Message(message)) => match message {
                    Message::DataRow(body) => rows.push(Row::parse(&body)?),
                    Message::ErrorResponse(body) => refusal = Some(server_message(&mut body.fields())),
                    Message::ReadyForQuery(_) => break,
                    Message::RowDescription(_) | Message::CommandComplete(_) | Message::CopyDone => {}
                    message => return Err(out_of_turn(&Frame::Message(message), action)),
                },
                Ok(frame) => return Err(out_of_turn(&frame, action)),
                // A fatal error is said, then the connection is closed: what was
                // said is the better error.
                Err(lost) => return Err(refusal.map_or(lost, |said| said.during(action))),
            }
        }
        match refusal {
            Some(said) => Err(said.during(action)),
            None => Ok(rows),
        }
    }

    /// After an error: until the server asks for the next command. A connection
    /// that ends here was a fatal error's; the next use of it will say so.
    pub(super) async fn drain(&mut self, action: &'static str) -> Result<()> {
        loop {
            match self.wire.answer(self.limits.statement, action).await {
                Ok(Frame::Message(Message::ReadyForQuery(_))) | Err(Error::ConnectionLost { .. }) => {
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn only<'r>(rows: &'r [Row], command: &str) -> Result<&'r Row> {
    rows.first().ok_or_else(|| Error::Protocol { reason: format!("{command} was answered with no row") })
}

/// Quotes a name for the replication grammar.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text for the replication grammar.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

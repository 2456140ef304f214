//! `BASE_BACKUP`: the command in its two grammars and the stream in its two shapes.
//!
//! PostgreSQL 15 and later send one copy in which each frame says what it is;
//! 13 and 14 send one copy per archive and one for the manifest. Both come out as
//! the same events.
//!
//! Refuses to let the server check page sums: it would fail the backup over one
//! bad page, and after all bytes were sent.

use backstay_model::{ByteRate, Lsn, TimelineId};
use bytes::{Buf, Bytes};
use postgres_protocol::message::backend::Message;

use super::Walsender;
use super::command::literal;
use super::reply::{Row, server_message};
use super::wire::{Frame, out_of_turn};
use crate::error::ServerMessage;
use crate::{Error, Result};

const START: &str = "start the backup";
const COPY: &str = "copy the backup";

/// The first version with option lists, one copy for all and typed frames.
const NEW_GRAMMAR_MAJOR: u32 = 15;

#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Written into `backup_label`.
    pub label: String,
    /// Only what changed since the manifest uploaded on this connection.
    pub incremental: bool,
    /// How much the server may read and send in a second, where it can keep to it.
    pub max_rate: Option<ByteRate>,
}

/// A tablespace as the server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// `None` for the data directory itself.
    pub oid: Option<u32>,
    pub location: Option<String>,
    /// The server's estimate.
    pub size_kib: u64,
}

/// What the stream brings next.
#[derive(Debug, PartialEq, Eq)]
pub enum BackupEvent {
    /// The archive of a tablespace begins, or with `None` that of the data directory.
    Archive { tablespace: Option<u32> },
    /// The next bytes of the archive.
    Content(Bytes),
    /// The next bytes of the manifest.
    Manifest(Bytes),
}

/// A base backup that has begun.
#[derive(Debug)]
pub struct BaseBackup {
    pub start: Lsn,
    pub timeline: TimelineId,
    /// In the order of their archives; the data directory is the last.
    pub tablespaces: Vec<Tablespace>,
    stop: Option<(Lsn, TimelineId)>,
    typed_frames: bool,
    /// Copies begun, where each is an archive.
    copies: usize,
    in_manifest: bool,
}

impl Walsender {
    /// Runs the command up to where the data begins. When the server refuses, the
    /// connection is free for another command.
    pub async fn begin_base_backup(&mut self, options: &BackupOptions) -> Result<BaseBackup> {
        let command = command(self.major, options);
        // What was said of an attempt that was refused is not about this one.
        self.wire.warnings.clear();
        self.send_command(START, &command).await?;
        let mut sets: Vec<Vec<Row>> = Vec::new();
        // First where the log begins, then the tablespaces.
        while sets.len() < 2 {
            sets.push(self.result_set().await?);
        }
        let [positions, spaces] = sets.as_slice() else { return Err(incomplete()) };
        let position = positions.first().ok_or_else(incomplete)?;
        let tablespaces = spaces.iter().map(tablespace).collect::<Result<Vec<_>>>()?;
        Ok(BaseBackup {
            start: position.parsed(0, "log position")?,
            timeline: TimelineId(position.parsed(1, "timeline")?),
            tablespaces,
            stop: None,
            typed_frames: self.major >= NEW_GRAMMAR_MAJOR,
            copies: 0,
            in_manifest: false,
        })
    }

    async fn result_set(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        loop {
            match self.wire.answer(self.limits.backup_start, START).await? {
                Frame::Message(Message::RowDescription(_)) => {}
                Frame::Message(Message::DataRow(body)) => rows.push(Row::parse(&body)?),
                Frame::Message(Message::CommandComplete(_)) => return Ok(rows),
                Frame::Message(Message::ErrorResponse(body)) => {
                    let refusal = server_message(&mut body.fields());
                    self.drain(START).await?;
                    return Err(refusal.during(START));
                }
                frame => return Err(out_of_turn(&frame, START)),
            }
        }
    }
}

impl BaseBackup {
    /// The next event, `None` when the server is done and the connection is free.
    pub async fn next(&mut self, walsender: &mut Walsender) -> Result<Option<BackupEvent>> {
        loop {
            let event = match walsender.wire.answer(walsender.limits.silence, COPY).await? {
                Frame::Data(data) if self.typed_frames => self.typed(data)?,
                Frame::Data(data) if self.in_manifest => Some(BackupEvent::Manifest(data)),
                Frame::Data(data) => Some(BackupEvent::Content(data)),
                Frame::Message(Message::CopyOutResponse(_)) if !self.typed_frames => self.next_copy(),
                Frame::Message(
                    Message::CopyOutResponse(_)
                    | Message::CopyDone
                    | Message::RowDescription(_)
                    | Message::CommandComplete(_),
                ) => None,
                Frame::Message(Message::DataRow(body)) => {
                    let row = Row::parse(&body)?;
                    let timeline = TimelineId(row.parsed(1, "timeline")?);
                    self.stop = Some((row.parsed(0, "log position")?, timeline));
                    None
                }
                Frame::Message(Message::ErrorResponse(body)) => {
                    let refusal = server_message(&mut body.fields());
                    walsender.drain(COPY).await?;
                    return Err(copy_error(refusal));
                }
                Frame::Message(Message::ReadyForQuery(_)) => return Ok(None),
                frame => return Err(out_of_turn(&frame, COPY)),
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Where the backup is consistent; known when the stream has ended. Refuses a
    /// standby that was promoted on the way.
    pub fn stop(&self) -> Result<Lsn> {
        match self.stop {
            Some((lsn, timeline)) if timeline == self.timeline => Ok(lsn),
            Some((_, stopped)) => Err(Error::Promoted { started: self.timeline, stopped }),
            None => Err(incomplete()),
        }
    }

    /// The server's estimate of all archives.
    pub fn estimated_bytes(&self) -> u64 {
        self.tablespaces.iter().map(|space| space.size_kib << 10).sum()
    }

    /// 13 and 14: archives come in the order of the list, then the manifest.
    fn next_copy(&mut self) -> Option<BackupEvent> {
        let tablespace = self.tablespaces.get(self.copies).map(|space| space.oid);
        self.copies += 1;
        self.in_manifest = tablespace.is_none();
        tablespace.map(|tablespace| BackupEvent::Archive { tablespace })
    }

    /// 15 and later: the first byte says what the frame is.
    fn typed(&mut self, mut data: Bytes) -> Result<Option<BackupEvent>> {
        if data.is_empty() {
            return Err(Error::Protocol { reason: "an empty frame in the backup".to_owned() });
        }
        match data.get_u8() {
            b'n' => {
                self.in_manifest = false;
                let name = data.split(|byte| *byte == 0).next().unwrap_or_default();
                archive(&String::from_utf8_lossy(name)).map(Some)
            }
            b'm' => {
                self.in_manifest = true;
                Ok(None)
            }
            b'd' if self.in_manifest => Ok(Some(BackupEvent::Manifest(data))),
            b'd' => Ok(Some(BackupEvent::Content(data))),
            // How many bytes of the archive were sent, in the server's own count.
            b'p' => Ok(None),
            other => Err(Error::Protocol {
                reason: format!("a frame of the unknown kind {:?} in the backup", other as char),
            }),
        }
    }
}

fn archive(name: &str) -> Result<BackupEvent> {
    let stem = name.strip_suffix(".tar");
    let tablespace = match stem {
        Some("base") => None,
        Some(oid) if oid.parse::<u32>().is_ok() => oid.parse().ok(),
        _ => return Err(Error::Protocol { reason: format!("an archive of the unknown name {name:?}") }),
    };
    Ok(BackupEvent::Archive { tablespace })
}

fn tablespace(row: &Row) -> Result<Tablespace> {
    let oid = match row.optional_text(0) {
        Some(_) => Some(row.parsed(0, "oid of a tablespace")?),
        None => None,
    };
    let size_kib = match row.optional_text(2) {
        Some(_) => row.parsed(2, "size of a tablespace")?,
        None => 0,
    };
    Ok(Tablespace { oid, location: row.optional_text(1).map(str::to_owned), size_kib })
}

/// What the server said in the middle of the copy. A segment of the log that is
/// gone is known by its name in the text, whatever the language of the text.
fn copy_error(said: ServerMessage) -> Error {
    let about_files = matches!(said.code.as_str(), "XX000" | "58P01");
    match said.log_segment() {
        Some(segment) if about_files => Error::WalMissing { segment },
        _ => said.during(COPY),
    }
}

fn incomplete() -> Error {
    Error::Protocol { reason: "the answer to BASE_BACKUP is incomplete".to_owned() }
}

/// The rates that a server can keep to, in KiB a second.
const MAX_RATE_KIB: std::ops::RangeInclusive<u64> = 32..=1 << 20;

/// The option for the rate, rounded up: who receives keeps to the exact one. A rate
/// beyond what the server can keep to is left to him alone.
fn max_rate(options: &BackupOptions) -> Option<String> {
    let kib = options.max_rate?.bytes_per_second().div_ceil(1 << 10);
    MAX_RATE_KIB.contains(&kib).then(|| format!("MAX_RATE {kib}"))
}

/// An immediate checkpoint, since somebody waits; the log inside; no wait for the
/// server's own archive, since the log is inside.
fn command(major: u32, options: &BackupOptions) -> String {
    let label = literal(&options.label);
    let rate = max_rate(options);
    if major < NEW_GRAMMAR_MAJOR {
        let rate = rate.map(|rate| format!(" {rate}")).unwrap_or_default();
        return format!(
            "BASE_BACKUP LABEL {label} PROGRESS FAST WAL NOWAIT{rate} TABLESPACE_MAP NOVERIFY_CHECKSUMS \
             MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
        );
    }
    let rate = rate.map(|rate| format!(", {rate}")).unwrap_or_default();
    let incremental = if options.incremental { ", INCREMENTAL" } else { "" };
    format!(
        "BASE_BACKUP (LABEL {label}, PROGRESS, CHECKPOINT 'fast', WAL, WAIT false, TABLESPACE_MAP, \
         VERIFY_CHECKSUMS false, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C'{rate}{incremental})"
    )
}

#[cfg(test)]
mod tests;

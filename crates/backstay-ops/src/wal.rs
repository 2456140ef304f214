//! Single files of the write-ahead log, for `restore_command` and `archive_command`.
//!
//! Invariant of [`fetch`]: an absence is said only when it is proven, behind the end of
//! what is archived of a timeline. PostgreSQL takes an absence for the end of the log: it
//! opens for business there, and whatever comes behind a hole would be lost in silence.
//! Everything else is an error, and the command ends with a code that stops the recovery.
//!
//! Invariant of [`push`]: success means that the store has the bytes for good, and that
//! they are those of the place that the file's name says.

use std::io::Read;
use std::path::Path;

use backstay_engine::postgres::BackupFacts;
use backstay_engine::postgres::receive::log_id;
use backstay_engine::postgres::wal::{LogReader, first_page};
use backstay_model::{InstanceId, LogId, LogSpan, Lsn, TimelineId};
use backstay_repo::large_buffer::large_buffer;
use backstay_repo::large_write;
use backstay_repo::layout::ObjectName;
use backstay_repo::log::{LogForm, LogPiece, SPAN_BYTES_MAX};
use backstay_repo::store::StoreError;
use bytes::Bytes;

use crate::context::{Context, off_thread};
use crate::error::{Error, Result};
use crate::known::Known;

mod ahead;
mod attendant;
mod command;
pub(crate) mod desk;
mod foresight;
mod name;
mod unnamed;
mod way;

pub use ahead::{DEFAULT_AHEAD, is_more_ready, push_ahead};
pub use attendant::{ASKED_FOR, Bell, Calls, Pusher, attend_fetches, attend_pushes};
pub use command::FetchProgram;
pub use desk::ask_desk;
pub use name::LogFileName;

/// Whose log it is, as a restored directory remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogSource {
    pub instance: InstanceId,
    pub system_identifier: u64,
    pub segment_bytes: u64,
    /// The directory brought the log up to here itself, in `pg_wal`: where the archive does
    /// not have all of a segment before it, the server is to take its own.
    pub own_to: Option<Lsn>,
    /// The recovery stops here at the latest, or says that it could not: a server reads
    /// ahead, and a hole behind this is none of its.
    pub needed_to: Option<Lsn>,
    /// The timeline that the recovery follows to its end; none for a standby, which goes to the
    /// newest there is.
    pub follows: Option<TimelineId>,
    /// A standby asks, which takes no absence for the end: whatever keeps a file away is an
    /// absence to it, and it asks again.
    pub standby: bool,
}

impl LogSource {
    fn log(&self, timeline: TimelineId) -> LogId {
        log_id(self.system_identifier, timeline)
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    Written,
    /// Only what was received of it, and zeros behind: the archive ends in it.
    Tail {
        end: Lsn,
    },
    /// It is proven that the archive ends before it.
    Absent,
}

/// Writes one file of the log to a path, over whatever lies there.
///
/// # Errors
///
/// [`Error::LogHole`] where log is archived behind the place and not at it.
pub async fn fetch(context: &Context, source: &LogSource, name: &LogFileName, to: &Path) -> Result<Fetched> {
    match answer(context, source, name, Vec::new()).await? {
        Answer::There { bytes, end: None } => write(to, bytes).await.map(|()| Fetched::Written),
        Answer::There { bytes, end: Some(end) } => write(to, bytes).await.map(|()| Fetched::Tail { end }),
        Answer::Absent => Ok(Fetched::Absent),
    }
}

/// A file of the log.
enum Answer {
    /// Where the archive ends in it, that is said, and zeros follow.
    There {
        bytes: Vec<u8>,
        end: Option<Lsn>,
    },
    Absent,
}

/// A whole segment comes into `buffer` where it can, whatever is in it.
async fn answer(
    context: &Context,
    source: &LogSource,
    name: &LogFileName,
    buffer: Vec<u8>,
) -> Result<Answer> {
    let there = |bytes| Answer::There { bytes, end: None };
    let (timeline, segment) = match name {
        LogFileName::Segment { timeline, segment } => (*timeline, *segment),
        LogFileName::History { timeline } => {
            let log = source.log(*timeline);
            let history = context.repo.log_history(&source.instance, &log).await?;
            return Ok(history.map_or(Answer::Absent, |history| there(history.into_bytes())));
        }
        // Nobody asks for these to recover, and they are not stored.
        LogFileName::Partial { .. } | LogFileName::Backup { .. } => return Ok(Answer::Absent),
    };
    let log = source.log(timeline);
    let Some(number) = LogFileName::number(segment, source.segment_bytes) else { return Ok(Answer::Absent) };
    let start = number * source.segment_bytes;
    let span = LogSpan { start, end: start + source.segment_bytes };
    let left_at = way::left_at(context, source, timeline).await?.map_or(u64::MAX, |left| left.0);
    if left_at <= span.start {
        return Ok(Answer::Absent);
    }
    let until = span.end.min(left_at);
    if span.length() == SPAN_BYTES_MAX && until == span.end {
        // A segment that was complete lies there as one object, under a name that is known.
        match context.repo.read_log_span_into(&source.instance, &log, span, buffer).await {
            Ok(read) => return Ok(there(read.content)),
            Err(backstay_repo::Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    } else {
        // It would lie in memory beside what is read now.
        drop(buffer);
    }
    let listed = context.repo.timeline_log(&source.instance, &log).await?;
    let coverage = listed.coverage();
    let is_own = source.own_to.is_some_and(|own_to| span.end <= own_to.0);
    if is_own && !coverage.contains(&LogSpan { start, end: until }) {
        return Ok(Answer::Absent);
    }
    let Some(end) = coverage.end().filter(|end| *end > span.start) else { return Ok(Answer::Absent) };
    let reach = coverage.reach(span.start).unwrap_or(span.start).min(until);
    if reach < until && reach < end {
        if source.needed_to.is_some_and(|to| to.0 <= span.start) {
            return Ok(Answer::Absent);
        }
        let missing = coverage.missing(&span).first().copied().unwrap_or(span);
        return Err(Error::LogHole {
            instance: source.instance.clone(),
            timeline,
            from: Lsn(missing.start),
            to: Lsn(missing.end),
        });
    }
    let (mut bytes, _) = context.repo.read_log(&source.instance, &log, &listed, span).await?;
    if let Some(behind) = bytes.get_mut((until - start) as usize..) {
        behind.fill(0);
    }
    Ok(Answer::There { bytes, end: (reach < span.end).then_some(Lsn(reach)) })
}

async fn write(to: &Path, bytes: Vec<u8>) -> Result<()> {
    let path = to.to_owned();
    off_thread(move || {
        large_write::write(&path, &bytes).map_err(|source| Error::WriteLogFile { path, source })
    })
    .await
}

/// The cluster whose log is archived as this instance, by its newest base.
pub async fn known_system(context: &Context, instance: &InstanceId) -> Result<Option<u64>> {
    let known = Known::of(context, instance).await?;
    let newest = known.backups.iter().max_by_key(|(record, _)| record.sequence);
    let facts = newest.and_then(|(record, _)| BackupFacts::from_json(&record.facts).ok());
    Ok(facts.map(|facts| facts.server.system_identifier))
}

/// What became of a file that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    Stored,
    /// Exactly these bytes were there.
    Known,
}

/// Stores one file of the log. When this returns, the server may forget it.
///
/// # Errors
///
/// [`Error::NotThisLog`] for a file that is not what its name says, and an error of the
/// repository where other bytes are stored of the same place.
pub async fn push(
    context: &Context,
    instance: &InstanceId,
    expected_system: Option<u64>,
    path: &Path,
    level: i32,
) -> Result<Pushed> {
    let stored = push_as(context, instance, expected_system, path, level).await?;
    Ok(if stored.is_empty() { Pushed::Known } else { Pushed::Stored })
}

/// The objects as which it was stored; none where all of it was there.
async fn push_as(
    context: &Context,
    instance: &InstanceId,
    expected_system: Option<u64>,
    path: &Path,
    level: i32,
) -> Result<Vec<ObjectName>> {
    let strange = |reason: String| Error::NotThisLog { path: path.to_owned(), reason };
    let text = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name: LogFileName =
        text.parse().map_err(|_| strange("its name is not that of a file of the log".to_owned()))?;
    let file = path.to_owned();
    let bytes =
        off_thread(move || read(&file).map_err(|source| Error::ReadLogFile { path: file.clone(), source }))
            .await?;
    let (timeline, segment, is_partial) = match name {
        LogFileName::Segment { timeline, segment } => (timeline, segment, false),
        LogFileName::Partial { timeline, segment } => (timeline, segment, true),
        LogFileName::History { timeline } => {
            let Some(system) = expected_system else {
                return Err(Error::NoBaseYet { instance: instance.clone() });
            };
            let log = log_id(system, timeline);
            context.repo.put_log_history(instance, &log, &bytes).await?;
            return Ok(vec![context.repo.log_history_name(instance, &log)?]);
        }
        // Says what the record of a base says, which is stored.
        LogFileName::Backup { .. } => return Ok(Vec::new()),
    };
    let (system, segment_bytes) =
        first_page(&bytes).ok_or_else(|| strange("it does not begin as a segment of the log".to_owned()))?;
    if bytes.len() as u64 != segment_bytes {
        return Err(strange(format!("it has {} bytes, and its head says {segment_bytes}", bytes.len())));
    }
    if let Some(expected) = expected_system.filter(|expected| *expected != system) {
        return Err(Error::OtherCluster {
            instance: instance.clone(),
            found: system.to_string(),
            expected: expected.to_string(),
        });
    }
    let number = LogFileName::number(segment, segment_bytes)
        .ok_or_else(|| strange("no segment has its number".to_owned()))?;
    let start = number * segment_bytes;
    let mut reader = LogReader::new(Lsn(start), segment_bytes, Some(system));
    let mut marks = Vec::new();
    reader.push(&bytes, &mut marks).map_err(|damage| strange(damage.to_string()))?;
    // Behind the last record of a timeline lies what was there before.
    let end = match is_partial {
        true => reader.valid_to().map_or(start, |end| end.0),
        false => start + segment_bytes,
    };
    let mut bytes = Bytes::from(bytes);
    let log = log_id(system, timeline);
    if let Some(whole) = LogSpan::new(start, end).filter(|span| span.length() == SPAN_BYTES_MAX) {
        // One that went ahead lies there under a name that is known.
        match context.repo.log_holds(instance, &log, whole, &bytes).await? {
            Some(true) => return Ok(Vec::new()),
            Some(false) => {
                let object = context.repo.log_object_name(instance, &log, whole)?.to_string();
                return Err(backstay_repo::Error::LogDiffers { object }.into());
            }
            None => {}
        }
    }
    let there = context.repo.timeline_log(instance, &log).await?;
    let mut stored = Vec::new();
    let mut from = start;
    while from < end {
        let to = end.min(from + SPAN_BYTES_MAX);
        let span = LogSpan { start: from, end: to };
        // The last part is nobody else's: it is folded where it lies.
        let content = match to == end {
            true => std::mem::take(&mut bytes).slice((from - start) as usize..(to - start) as usize),
            false => bytes.slice((from - start) as usize..(to - start) as usize),
        };
        let is_there = agrees(context, instance, &log, &there, span, &content).await?;
        // They are many: no two of them lie in memory.
        let behind = marks.split_off(marks.partition_point(|mark| mark.at <= to));
        let marks = std::mem::replace(&mut marks, behind);
        if !is_there {
            let marks = marks.into_iter().skip_while(|mark| mark.at <= from).collect();
            let facts = serde_json::json!({ "segment_bytes": segment_bytes });
            let piece = LogPiece {
                log: log.clone(),
                start: from,
                content,
                form: LogForm::PostgresqlRecords,
                marks,
                previous: None,
                facts,
            };
            context.repo.put_log(instance, piece, level).await?;
            stored.push(context.repo.log_object_name(instance, &log, span)?);
        }
        from = to;
    }
    Ok(stored)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let mut bytes = large_buffer(file.metadata()?.len() as usize);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether all of a span is stored already. What is stored of it must be the same.
async fn agrees(
    context: &Context,
    instance: &InstanceId,
    log: &LogId,
    there: &backstay_repo::log::TimelineLog,
    span: LogSpan,
    content: &Bytes,
) -> Result<bool> {
    if there.covering(span).is_empty() {
        return Ok(false);
    }
    let (stored, coverage) = context.repo.read_log(instance, log, there, span).await?;
    for part in coverage.spans() {
        let range = (part.start - span.start) as usize..(part.end - span.start) as usize;
        if stored[range.clone()] != content[range] {
            let object = format!("{instance}/{log} at {}", Lsn(part.start));
            return Err(backstay_repo::Error::LogDiffers { object }.into());
        }
    }
    let is_there = coverage.contains(&span);
    for object in there.covering(span) {
        if is_there {
            let name = context.repo.log_object_name(instance, log, object.span)?;
            context.repo.store().settle(&name).await.map_err(backstay_repo::Error::from)?;
        }
    }
    Ok(is_there)
}

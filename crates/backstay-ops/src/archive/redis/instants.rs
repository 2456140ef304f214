//! When the bytes of a stream came, and where it can be cut: beside the log in the spool, as long as
//! the store does not have it.
//!
//! The bytes themselves do not say it: a stream has no times. So what is known of them is written
//! down after each flush, a line for each, with how far the reading of commands had come.
//!
//! Invariant: a line is durable before anybody is told that its bytes are, and its bytes are before
//! it. So what a crash leaves behind the last line that reads is nobody's: it is received again.
//!
//! Blocks: for a thread of its own.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use backstay_engine::redis::commands::CommandReader;
use backstay_engine::redis::facts::DatabaseFacts;
use backstay_model::{LogId, LogMark, LogMarkKind, LogSpan};
use backstay_repo::log::spool::SpooledSpan;
use crc_fast::{CrcAlgorithm, checksum};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

mod joining;

/// One is written, and another one takes over what is still needed when it has grown.
const FILES: [&str; 2] = ["instants-a", "instants-b"];
const GROWN: u64 = 1 << 20;
/// Room for the lines until somebody looks whether it has grown.
const SPARE: u64 = 1 << 20;
/// Of one span.
const WITNESSES: usize = 4;

/// What is known at the end of a flush.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    pub log: LogId,
    /// As the server calls the stream.
    pub replication_id: String,
    /// Where the reading is: at the end of the bytes that are durable.
    pub reader: CommandReader,
    /// Boundaries since the line before, with when they had come: in microseconds.
    pub marks: Vec<(u64, i64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<Witness>,
}

/// How full the server said that its databases were, at one offset of its stream: the same that a
/// copy has to be that ends there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Witness {
    pub offset: u64,
    pub databases: BTreeMap<u32, DatabaseFacts>,
}

impl Line {
    pub fn end(&self) -> u64 {
        self.reader.at()
    }
}

/// What an object of the log says of its beginning, for whoever reads it alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SpanFacts {
    pub replication_id: String,
    pub reader: CommandReader,
    /// In it, or at its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<Witness>,
}

#[derive(Debug)]
pub(super) struct Instants {
    directory: PathBuf,
    lines: Vec<Line>,
    file: File,
    /// Which of the two it is.
    number: usize,
    written: u64,
    /// When it has grown so far, it is written anew.
    grown: u64,
    /// The other one is there still, and has less.
    is_left: bool,
}

impl Instants {
    pub fn open(directory: &Path) -> Result<Instants> {
        let failed = |source| spool_error(directory, source);
        let read = |path: &Path| match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        };
        // Where both are there, somebody was stopped while one took over from the other, which has
        // all that it has, and perhaps more.
        let mut number = 0;
        let (mut lines, mut end) = (Vec::new(), 0);
        for (of, name) in FILES.into_iter().enumerate() {
            let path = directory.join(name);
            let (found, until) = parse(&read(&path).map_err(failed)?);
            if found.len() > lines.len() {
                (lines, end, number) = (found, until, of);
            }
        }
        let file = begin(&directory.join(FILES[1 - number])).map_err(failed)?;
        let mut instants = Instants {
            directory: directory.to_owned(),
            lines,
            file,
            number,
            written: 0,
            grown: GROWN,
            is_left: false,
        };
        match instants.write_anew() {
            // Without room for another one, the one that is there serves.
            Err(error) if !instants.lines.is_empty() && error.kind() == io::ErrorKind::StorageFull => {
                let path = directory.join(FILES[number]);
                instants.file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
                instants.written = end as u64;
            }
            done => done.map_err(failed)?,
        }
        Ok(instants)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the stream goes on.
    pub fn last(&self) -> Option<&Line> {
        self.lines.last()
    }

    /// The bytes of it are durable, and so is this when it returns. Where it fails, what of it was
    /// written is written over by the next.
    pub fn add(&mut self, line: Line) -> Result<()> {
        let text = text_of(&line);
        let done = self.remove_other().and_then(|()| {
            self.file.write_all_at(text.as_bytes(), self.written)?;
            self.file.sync_data()
        });
        done.map_err(|source| spool_error(&self.directory, source))?;
        self.written += text.len() as u64;
        self.lines.push(line);
        Ok(())
    }

    /// Only what lies in the spool still needs them, and the last line of all says where it goes on.
    pub fn forget(&mut self, spooled: &[SpooledSpan]) {
        let count = self.lines.len();
        let mut number = 0;
        self.lines.retain(|line| {
            number += 1;
            let lies = |one: &SpooledSpan| one.log == line.log && one.span.start <= line.end();
            number == count || spooled.iter().any(lies)
        });
        if self.written < self.grown {
            return;
        }
        joining::join(&mut self.lines, spooled);
        if let Err(error) = self.write_anew() {
            // It grows on where it is.
            tracing::warn!(%error, "what is known of the stream is not written anew");
        }
    }

    /// Into the other file, which is whole before this one goes. It has its room from the beginning:
    /// on a disk that is full, what lies in the spool must have its line.
    fn write_anew(&mut self) -> io::Result<()> {
        let number = 1 - self.number;
        let text: String = self.lines.iter().map(text_of).collect();
        let grown = GROWN.max(2 * text.len() as u64);
        let file = begin(&self.directory.join(FILES[number]))?;
        reserve(&file, grown + SPARE)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.sync_all()?;
        File::open(&self.directory)?.sync_all()?;
        (self.file, self.number, self.written) = (file, number, text.len() as u64);
        (self.grown, self.is_left) = (grown, true);
        self.remove_other()
    }

    /// A crash must not bring the other one back when this one has lines that it has not: none is added
    /// before it is gone for good.
    fn remove_other(&mut self) -> io::Result<()> {
        if !self.is_left {
            return Ok(());
        }
        match fs::remove_file(self.directory.join(FILES[1 - self.number])) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        File::open(&self.directory)?.sync_all()?;
        self.is_left = false;
        Ok(())
    }

    pub fn marks(&self, log: &LogId, span: LogSpan) -> Vec<LogMark> {
        let own = self.lines.iter().filter(|line| line.log == *log).flat_map(|line| &line.marks);
        let mut marks: Vec<LogMark> = own
            .filter(|(at, _)| span.start < *at && *at <= span.end)
            .filter_map(|(at, time)| {
                let time = Timestamp::from_microsecond(*time).ok()?;
                Some(LogMark { at: *at, time, kind: LogMarkKind::Instant })
            })
            .collect();
        marks.sort_by_key(|mark| mark.at);
        marks.dedup_by_key(|mark| mark.at);
        marks
    }

    /// The nearest state that is known at a place or before it, and not before `from`.
    pub fn state_before(&self, log: &LogId, from: u64, at: u64) -> Option<(String, CommandReader)> {
        let own = self.lines.iter().filter(|line| line.log == *log && (from..=at).contains(&line.end()));
        own.max_by_key(|line| line.end()).map(|line| (line.replication_id.clone(), line.reader.clone()))
    }

    /// Of a span: one that is somewhere in it is enough.
    pub fn witnesses(&self, log: &LogId, span: LogSpan) -> Vec<Witness> {
        let own = self.lines.iter().filter(|line| line.log == *log).flat_map(|line| &line.witnesses);
        let within = |witness: &&Witness| span.start < witness.offset && witness.offset <= span.end;
        let mut witnesses: Vec<Witness> = own.filter(within).cloned().collect();
        keep_newest(&mut witnesses);
        witnesses
    }
}

fn keep_newest(witnesses: &mut Vec<Witness>) {
    let too_many = witnesses.len().saturating_sub(WITNESSES);
    witnesses.drain(..too_many);
}

fn spool_error(path: &Path, source: io::Error) -> Error {
    backstay_repo::Error::Spool { path: path.to_owned(), source }.into()
}

fn begin(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Zeros, which end no line. Not every file system can.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        done => Ok(done?),
    }
}

pub(super) fn sum(json: &str) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, json.as_bytes()) as u32
}

fn text_of(line: &Line) -> String {
    let json = serde_json::to_string(line).unwrap_or_default();
    format!("{:08x} {json}\n", sum(&json))
}

/// The lines that read, each of which says all of its place by itself, and where the last one ends. Of one
/// that does not, only the times are lost: what lies in the spool is not given up for it.
fn parse(bytes: &[u8]) -> (Vec<Line>, usize) {
    let read = |line: &[u8]| {
        let (sum_of, json) = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?.split_once(' ')?;
        let is_whole = u32::from_str_radix(sum_of, 16).ok()? == sum(json);
        serde_json::from_str(json).ok().filter(|_| is_whole)
    };
    let (mut lines, mut at, mut end) = (Vec::new(), 0, 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        if let Some(line) = read(line) {
            lines.push(line);
            end = at;
        }
    }
    (lines, end)
}

#[cfg(test)]
mod tests;

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

use super::super::CUT_BYTES;
use crate::error::{Error, Result};

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
    /// What was sealed last of each log: of what lies before it, only the times matter.
    sealed: BTreeMap<LogId, u64>,
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
        let mut lines = Vec::new();
        for (of, name) in FILES.into_iter().enumerate() {
            let path = directory.join(name);
            let found = parse(&read(&path).map_err(failed)?);
            if found.len() > lines.len() {
                (lines, number) = (found, of);
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
            sealed: BTreeMap::new(),
        };
        match instants.write_anew() {
            // Without room for another one, the one that is there serves.
            Err(error) if !instants.lines.is_empty() && error.kind() == io::ErrorKind::StorageFull => {
                let path = directory.join(FILES[number]);
                instants.file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
                instants.written = instants.lines.iter().map(|line| text_of(line).len() as u64).sum();
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
        let done = self.file.write_all_at(text.as_bytes(), self.written).and_then(|()| self.file.sync_data());
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
        self.join_what_is_sealed();
        if let Err(error) = self.write_anew() {
            // It grows on where it is.
            tracing::warn!(%error, "what is known of the stream is not written anew");
        }
    }

    /// A server that says little fills a cut for months, with a line for each minute: its marks are
    /// needed until the cut is sealed as a whole, and of the states that of its beginning.
    fn join_what_is_sealed(&mut self) {
        let mut joined: Vec<Line> = Vec::new();
        for line in self.lines.drain(..) {
            match joined.last_mut() {
                // One that begins a connection stays as it is: a span may begin there.
                Some(last)
                    if last.log == line.log && !line.marks.is_empty() && is_done_with(last, &self.sealed) =>
                {
                    let (mut marks, mut witnesses) =
                        (std::mem::take(&mut last.marks), std::mem::take(&mut last.witnesses));
                    marks.extend(&line.marks);
                    witnesses.extend(line.witnesses.iter().cloned());
                    *last = Line { marks, witnesses, ..line };
                }
                _ => joined.push(line),
            }
        }
        self.lines = joined;
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
        match fs::remove_file(self.directory.join(FILES[self.number])) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // A crash must not bring the other one back when this one has lines that it has not.
        File::open(&self.directory)?.sync_all()?;
        (self.file, self.number, self.written) = (file, number, text.len() as u64);
        self.grown = grown;
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

    /// Of a span that is sealed now; nothing where it is not known.
    pub fn facts(&mut self, log: &LogId, span: LogSpan) -> Option<SpanFacts> {
        self.sealed.insert(log.clone(), span.start);
        let own = || self.lines.iter().filter(|line| line.log == *log);
        let line = own().find(|line| line.end() == span.start)?;
        let witnesses = own().flat_map(|line| &line.witnesses);
        let within = |witness: &&Witness| span.start < witness.offset && witness.offset <= span.end;
        let mut witnesses: Vec<Witness> = witnesses.filter(within).cloned().collect();
        // One that is somewhere in it is enough.
        let behind_the_first = witnesses.len().saturating_sub(WITNESSES);
        witnesses.drain(..behind_the_first);
        Some(SpanFacts {
            replication_id: line.replication_id.clone(),
            reader: line.reader.clone(),
            witnesses,
        })
    }
}

/// Whether nobody asks for the state of this line any more.
fn is_done_with(line: &Line, sealed: &BTreeMap<LogId, u64>) -> bool {
    let begins_a_cut = line.end().is_multiple_of(CUT_BYTES) || line.marks.is_empty();
    !begins_a_cut && sealed.get(&line.log).is_some_and(|sealed| line.end() < *sealed)
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

/// Lines as far as they were written.
fn parse(bytes: &[u8]) -> Vec<Line> {
    let text = String::from_utf8_lossy(bytes);
    let read = |line: &str| {
        let (sum_of, json) = line.split_once(' ')?;
        let is_whole = u32::from_str_radix(sum_of, 16).ok()? == sum(json);
        serde_json::from_str(json).ok().filter(|_| is_whole)
    };
    text.split_inclusive('\n').map_while(|line| read(line.strip_suffix('\n')?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(end: u64, marks: &[(u64, i64)]) -> Line {
        let log = LogId { lineage: "a".repeat(40), timeline: "00000001".to_owned() };
        Line {
            log,
            replication_id: "a".repeat(40),
            reader: CommandReader::new(end, 3),
            marks: marks.to_vec(),
            witnesses: Vec::new(),
        }
    }

    #[test]
    fn what_was_written_down_is_there_again_as_far_as_it_was_whole() {
        let place = tempfile::tempdir().unwrap();
        let mut instants = Instants::open(place.path()).unwrap();
        assert_eq!(instants.last(), None);
        let lines = [line(10, &[]), line(50, &[(20, 5), (45, 9)]), line(90, &[(90, 12)])];
        for line in &lines {
            instants.add(line.clone()).unwrap();
        }
        let log = &lines[0].log;
        drop(instants);
        let path = place.path().join(FILES[1]);
        assert!(!place.path().join(FILES[0]).exists());
        let written = fs::read(&path).unwrap();
        let written = &written[..written.iter().rposition(|byte| *byte == b'\n').unwrap() + 1];
        for cut in 0..written.len() {
            fs::write(&path, &written[..cut]).unwrap();
            let whole = written[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(parse(&fs::read(&path).unwrap()), lines[..whole], "{cut}");
        }
        fs::write(&path, written).unwrap();
        // One that was begun and not written to its end.
        fs::write(place.path().join(FILES[0]), &written[..written.len() / 2]).unwrap();
        let mut instants = Instants::open(place.path()).unwrap();
        assert_eq!(instants.lines, lines);
        let at = |start, end| {
            let marks = instants.marks(log, LogSpan { start, end });
            marks.iter().map(|mark| (mark.at, mark.time.as_microsecond())).collect::<Vec<_>>()
        };
        assert_eq!((at(20, 90), at(10, 20)), (vec![(45, 9), (90, 12)], vec![(20, 5)]));
        let facts = |instants: &mut Instants, start| instants.facts(log, LogSpan { start, end: 90 });
        assert_eq!(facts(&mut instants, 50).unwrap().reader.database(), 3);
        assert_eq!(facts(&mut instants, 45), None);
    }

    #[test]
    fn what_follows_a_line_that_had_no_room_is_read_again() {
        let place = tempfile::tempdir().unwrap();
        let mut instants = Instants::open(place.path()).unwrap();
        let lines = [line(10, &[]), line(20, &[(15, 3)]), line(30, &[(25, 4)])];
        instants.add(lines[0].clone()).unwrap();
        // One that cannot be written to; then as much of the line as there was room for.
        let unwritable = File::open(place.path().join(FILES[1])).unwrap();
        let file = std::mem::replace(&mut instants.file, unwritable);
        assert!(instants.add(lines[1].clone()).is_err());
        instants.file = file;
        instants.file.write_all_at(&text_of(&lines[1]).as_bytes()[..20], instants.written).unwrap();
        for line in &lines[1..] {
            instants.add(line.clone()).unwrap();
        }
        drop(instants);
        assert_eq!(Instants::open(place.path()).unwrap().lines, lines);
    }

    #[test]
    fn of_what_is_sealed_the_times_stay_and_one_state_of_each_cut() {
        let place = tempfile::tempdir().unwrap();
        let mut instants = Instants::open(place.path()).unwrap();
        let log = line(0, &[]).log;
        let cut = CUT_BYTES;
        for (end, mark) in
            [(7, 0), (50, 50), (50, 0), (90, 80), (cut, cut), (cut + 9, cut + 9), (cut + 20, cut + 18)]
        {
            let marks = [(mark, mark as i64)];
            instants.add(line(end, if mark == 0 { &[] } else { &marks })).unwrap();
        }
        instants.facts(&log, LogSpan { start: cut + 20, end: cut + 30 }).unwrap();
        let before = instants.marks(&log, LogSpan { start: 0, end: 2 * cut });
        instants.join_what_is_sealed();
        assert_eq!(instants.marks(&log, LogSpan { start: 0, end: 2 * cut }), before);
        let ends: Vec<u64> = instants.lines.iter().map(Line::end).collect();
        assert_eq!(ends, [7, 50, 50, cut, cut + 20]);
    }

    #[test]
    fn what_is_not_needed_goes_when_it_is_much_and_the_last_line_stays() {
        let place = tempfile::tempdir().unwrap();
        let mut instants = Instants::open(place.path()).unwrap();
        let marks: Vec<(u64, i64)> = (0..100).map(|at| (at, at as i64)).collect();
        let log = line(0, &[]).log;
        let from = |start, end| {
            let span = LogSpan { start, end };
            [SpooledSpan { log: log.clone(), span, last_file: start, is_certain: true }]
        };
        for number in 1..=3000u64 {
            instants.add(line(number * 10, &marks)).unwrap();
            instants.forget(&from(number * 10 - 5, number * 10));
        }
        assert_eq!(instants.lines.len(), 1);
        assert!(instants.written < GROWN);
        // Of another stream nothing lies there any more.
        let other = LogId { timeline: "00000002".to_owned(), ..log.clone() };
        instants.add(Line { log: other, ..line(30_001, &[]) }).unwrap();
        instants.forget(&[]);
        assert_eq!(instants.lines.len(), 1);
        drop(instants);
        assert_eq!(Instants::open(place.path()).unwrap().last().unwrap().end(), 30_001);
    }

    #[test]
    fn a_line_that_was_not_written_to_its_end_is_written_over() {
        let place = tempfile::tempdir().unwrap();
        let mut instants = Instants::open(place.path()).unwrap();
        let long: Vec<(u64, i64)> = (0..100).map(|at| (at, at as i64)).collect();
        instants.add(line(10, &[])).unwrap();
        // As a write ends that fails half-way.
        let half = text_of(&line(20, &long));
        instants.file.write_all_at(&half.as_bytes()[..half.len() - 9], instants.written).unwrap();
        instants.add(line(30, &[(25, 7)])).unwrap();
        drop(instants);
        let instants = Instants::open(place.path()).unwrap();
        assert_eq!(instants.lines, [line(10, &[]), line(30, &[(25, 7)])]);
    }
}

//! The spool: where a log lies on this machine from its arrival until the store has it.
//!
//! What [`flush`](LogSpool::flush) has called durable survives a crash of the machine: a
//! server may forget it then. Files lie at `<lineage>/<timeline>/<start>` and hold bytes
//! from that position on; a file ends at a cut of the log, where the next one begins.
//!
//! Invariant: the bytes of one timeline lie in it without a hole. An append anywhere else
//! than at the end begins a span of its own, and is refused within one that is there.
//!
//! After a crash of the machine the end of a file may hold what was never written there.
//! Such a span says so ([`SpooledSpan::is_certain`]), and whoever knows the log cuts it.
//! After a process that was killed the bytes are right, and may not be durable: they are
//! made so before they are shown. After a flush that failed they are neither, whatever can
//! be read of them: they go.
//!
//! Blocks: for a thread of its own.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use backstay_model::{LogId, LogSpan};

use filled::{Mark, cut_at_mark, fill};

use crate::large_buffer::large_buffer;
use crate::{Error, Result};

mod filled;
mod flush;
mod history;
mod note;

pub use flush::SpoolFlush;

const LOCK: &str = "lock";
/// Under which boot of the machine the spool was written last.
const BOOT: &str = "boot";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What lies in the spool of one timeline without a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledSpan {
    pub log: LogId,
    pub span: LogSpan,
    /// Where its last file begins: behind it a crash of the machine may have left bytes
    /// that were not received.
    pub last_file: u64,
    pub is_certain: bool,
}

#[derive(Debug)]
pub struct LogSpool {
    directory: PathBuf,
    cut_bytes: u64,
    /// Where each file ends.
    files: BTreeMap<(LogId, u64), u64>,
    open: Option<OpenFile>,
    is_certain: bool,
    /// Where the bytes of a file end that was filled ahead; nothing where none is.
    mark: Option<Mark>,
    failed_flushes: u64,
    last_failure: Option<io::ErrorKind>,
    /// Where the last append ended; nothing where something was taken back since.
    appended: Option<(LogId, u64)>,
    _lock: File,
}

/// Files of a spool, and which bytes of each: see [`LogSpool::find`].
#[derive(Debug)]
pub struct LyingBytes {
    parts: Vec<(PathBuf, u64, usize)>,
}

impl LyingBytes {
    pub fn read(&self) -> Result<Vec<u8>> {
        let length = self.parts.iter().map(|(_, _, length)| length).sum();
        let mut bytes = large_buffer(length);
        bytes.resize(length, 0);
        let mut rest = &mut bytes[..];
        for (path, from, length) in &self.parts {
            let (part, behind) = rest.split_at_mut(*length);
            let opened = File::open(path).and_then(|file| file.read_exact_at(part, *from));
            opened.map_err(|source| Error::Spool { path: path.clone(), source })?;
            rest = behind;
        }
        Ok(bytes)
    }
}

#[derive(Debug)]
struct OpenFile {
    log: LogId,
    start: u64,
    end: u64,
    /// So far it was flushed.
    durable: u64,
    file: File,
    /// Its directory does not have its name for good yet.
    is_new: bool,
    /// There are zeros behind its bytes.
    is_filled: bool,
}

impl LogSpool {
    /// Files end at multiples of `cut_bytes`. The directory is made when it is not there.
    ///
    /// # Errors
    ///
    /// [`Error::SpoolInUse`] when another process has it.
    pub fn open(directory: &Path, cut_bytes: u64) -> Result<LogSpool> {
        let failed = |source| Error::Spool { path: directory.to_owned(), source };
        make_directory(directory).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(directory.join(LOCK)).map_err(failed)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::SpoolInUse { path: directory.to_owned() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let mut files = files_below(directory).map_err(failed)?;
        let boot = fs::read_to_string(BOOT_ID).map_err(failed)?;
        let is_certain = fs::read_to_string(directory.join(BOOT)).is_ok_and(|last| last == boot);
        cut_at_mark(directory, &mut files, is_certain).map_err(failed)?;
        // Whoever wrote them was perhaps killed before they were durable, with their names.
        for (log, start) in files.keys() {
            let path = path_of(directory, log, *start);
            let synced = File::open(&path).and_then(|file| file.sync_data());
            synced.and_then(|()| sync_names(directory, log)).map_err(failed)?;
        }
        let mut spool = LogSpool {
            directory: directory.to_owned(),
            cut_bytes: cut_bytes.max(1),
            files,
            open: None,
            is_certain,
            mark: None,
            failed_flushes: 0,
            last_failure: None,
            appended: None,
            _lock: lock,
        };
        if spool.files.is_empty() {
            spool.believe()?;
        }
        spool.reserve_note();
        Ok(spool)
    }

    /// Whether somebody waits for each flush: then the file that grows is filled before.
    pub fn fill_ahead(&mut self, yes: bool) -> Result<()> {
        let opened = yes.then(|| Mark::open(&self.directory)).transpose();
        self.mark = opened.map_err(|source| Error::Spool { path: self.directory.clone(), source })?;
        Ok(())
    }

    /// What lies there, in the order of timelines and positions.
    pub fn spans(&self) -> Vec<SpooledSpan> {
        let mut spans: Vec<SpooledSpan> = Vec::new();
        for ((log, start), end) in &self.files {
            let Some(span) = LogSpan::new(*start, *end) else { continue };
            match spans.last_mut() {
                Some(last) if last.log == *log && last.span.end == *start => {
                    last.span.end = *end;
                    last.last_file = *start;
                }
                _ => spans.push(SpooledSpan {
                    log: log.clone(),
                    span,
                    last_file: *start,
                    is_certain: self.is_certain,
                }),
            }
        }
        spans
    }

    /// All that is uncertain was looked at, and cut where it was not log.
    pub fn believe(&mut self) -> Result<()> {
        let path = self.directory.join(BOOT);
        let failed = |source| Error::Spool { path: path.clone(), source };
        let boot = fs::read_to_string(BOOT_ID).map_err(failed)?;
        // Written over on a full disk, it would be empty.
        if !fs::read_to_string(&path).is_ok_and(|last| last == boot) {
            fs::write(&path, boot).map_err(failed)?;
        }
        self.is_certain = true;
        Ok(())
    }

    /// Takes bytes at the end of a span, or where nothing is. They are durable after the
    /// next [`flush`](Self::flush).
    pub fn append(&mut self, log: &LogId, mut at: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let cut = (at / self.cut_bytes + 1) * self.cut_bytes;
            let (now, later) = bytes.split_at(bytes.len().min((cut - at) as usize));
            self.append_to_file(log, at, now)?;
            at += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn append_to_file(&mut self, log: &LogId, at: u64, bytes: &[u8]) -> Result<()> {
        let fits = |open: &OpenFile| {
            open.log == *log && open.end == at && open.start / self.cut_bytes == at / self.cut_bytes
        };
        if !self.open.as_ref().is_some_and(fits) {
            self.close()?;
            self.open = Some(self.open_at(log, at)?);
        }
        let path = self.directory.clone();
        let Some(open) = &mut self.open else { return Err(Error::broken("a spool without a file")) };
        if let Err(source) = open.file.write_all_at(bytes, open.end - open.start) {
            // What was written of it stays behind the end, and is written over.
            return Err(Error::Spool { path, source });
        }
        let end = open.end + bytes.len() as u64;
        if let Some(mark) = self.mark.as_ref().filter(|_| open.is_filled) {
            mark.set(log, open.start, end).map_err(|source| Error::Spool { path, source })?;
        }
        open.end = end;
        let (key, end) = ((open.log.clone(), open.start), open.end);
        self.files.insert(key, end);
        self.appended = Some((log.clone(), end));
        Ok(())
    }

    /// Whether the last append ended there, wherever its bytes are by now.
    pub fn goes_on_at(&self, log: &LogId, at: u64) -> bool {
        self.appended.as_ref().is_some_and(|(of, end)| of == log && *end == at)
    }

    fn open_at(&self, log: &LogId, at: u64) -> Result<OpenFile> {
        let before = self.files.range((log.clone(), 0)..=(log.clone(), at)).next_back();
        let after = self.files.range((log.clone(), at + 1)..).next().filter(|((of, _), _)| of == log);
        let until = after.map_or(u64::MAX, |((_, start), _)| *start);
        let goes_on = match before {
            Some((_, end)) if *end > at => return Err(Error::broken("bytes of a log came twice")),
            Some(((_, start), end)) if *end == at && start / self.cut_bytes == at / self.cut_bytes => {
                Some(*start)
            }
            _ => None,
        };
        if until <= at {
            return Err(Error::broken("bytes of a log came twice"));
        }
        let start = goes_on.unwrap_or(at);
        let path = self.path(log, start);
        let failed = |source| Error::Spool { path: path.clone(), source };
        let parent = path.parent().unwrap_or(&self.directory);
        make_directory(parent).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        // A crash may have left more than is believed.
        file.set_len(at - start).map_err(failed)?;
        let is_filled = match &self.mark {
            Some(mark) => {
                mark.set(log, start, at).map_err(failed)?;
                let to = self.cut_around(start).end.min(until) - start;
                let is_filled = fill(&file, at - start, to).map_err(failed)?;
                if !is_filled {
                    // Its length says where its bytes end.
                    mark.clear().map_err(failed)?;
                }
                is_filled
            }
            None => false,
        };
        let is_new = goes_on.is_none();
        Ok(OpenFile { log: log.clone(), start, end: at, durable: at, file, is_new, is_filled })
    }

    /// Nothing more is appended to the file that was open, and it ends where its bytes end.
    fn close(&mut self) -> Result<()> {
        self.flush()?;
        let Some(open) = self.open.take().filter(|open| open.is_filled) else { return Ok(()) };
        if open.end == self.cut_around(open.start).end {
            return Ok(());
        }
        let cut = open.file.set_len(open.end - open.start).and_then(|()| open.file.sync_all());
        let path = self.path(&open.log, open.start);
        cut.map_err(|source| {
            // It keeps its mark, and nothing else grows before it is cut.
            self.open = Some(open);
            Error::Spool { path, source }
        })
    }

    /// Bytes that lie there.
    pub fn read(&self, log: &LogId, span: LogSpan) -> Result<Vec<u8>> {
        self.find(log, span)?.read()
    }

    /// Where bytes lie, to be read without the spool: while others append to it.
    pub fn find(&self, log: &LogId, span: LogSpan) -> Result<LyingBytes> {
        let mut parts = Vec::new();
        let mut at = span.start;
        while at < span.end {
            let file = self.files.range((log.clone(), 0)..=(log.clone(), at)).next_back();
            let Some(((_, start), end)) = file.filter(|(_, end)| at < **end) else {
                return Err(Error::broken(format!("{at} of a log is not in the spool")));
            };
            let until = span.end.min(*end);
            parts.push((self.path(log, *start), at - start, (until - at) as usize));
            at = until;
        }
        Ok(LyingBytes { parts })
    }

    /// The cut of the log in which a position lies.
    pub fn cut_around(&self, position: u64) -> LogSpan {
        let start = position / self.cut_bytes * self.cut_bytes;
        LogSpan { start, end: start + self.cut_bytes }
    }

    /// Gives up what lies behind a position in one stretch, of which somebody found that it is no
    /// log. What lies behind the stretch is another one, as behind a gap, and stays.
    pub fn truncate(&mut self, log: &LogId, stretch: LogSpan, to: u64) -> Result<()> {
        self.appended = None;
        self.close()?;
        let files = self.files.range((log.clone(), stretch.start)..(log.clone(), stretch.end));
        let behind: Vec<u64> = files.map(|((_, start), _)| *start).collect();
        // From the end on: whatever interrupts this, what is left has no hole.
        for start in behind.into_iter().rev() {
            let path = self.path(log, start);
            let failed = |source| Error::Spool { path: path.clone(), source };
            let key = (log.clone(), start);
            if start >= to {
                fs::remove_file(&path).map_err(failed)?;
                self.files.remove(&key);
                sync_names(&self.directory, log).map_err(failed)?;
            } else if self.files.get(&key).is_some_and(|end| *end > to) {
                let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
                file.set_len(to - start).map_err(failed)?;
                self.files.insert(key, to);
                file.sync_all().map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Removes the files whose bytes the store has: those that begin at or behind `from` and
    /// end at or before `stored`. One in which the log still grows stays.
    pub fn trim(&mut self, log: &LogId, from: u64, stored: u64) -> Result<u64> {
        let open = self.open.as_ref().filter(|open| open.log == *log).map(|open| open.start);
        let done: Vec<(u64, u64)> = self
            .files
            .range((log.clone(), from)..)
            .take_while(|((of, _), _)| of == log)
            .map(|((_, start), end)| (*start, *end))
            .filter(|(start, end)| {
                *end <= stored && (end.is_multiple_of(self.cut_bytes) || open != Some(*start))
            })
            .collect();
        let mut bytes = 0;
        for (start, end) in done {
            if open == Some(start) {
                self.close()?;
            }
            let path = self.path(log, start);
            fs::remove_file(&path).map_err(|source| Error::Spool { path, source })?;
            self.files.remove(&(log.clone(), start));
            bytes += end - start;
        }
        Ok(bytes)
    }

    /// Where what lies there of a log ends.
    pub fn end_of(&self, log: &LogId) -> Option<u64> {
        self.files.range((log.clone(), 0)..=(log.clone(), u64::MAX)).next_back().map(|(_, end)| *end)
    }

    /// Whether its disk has room for so much.
    ///
    /// # Errors
    ///
    /// One of a full disk when it has not ([`Error::is_full_spool`]).
    pub fn require_room(&self, bytes: u64) -> Result<()> {
        let failed = |source| Error::Spool { path: self.directory.clone(), source };
        let disk = rustix::fs::statvfs(&self.directory).map_err(|error| failed(error.into()))?;
        match disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes {
            true => Ok(()),
            false => Err(failed(io::ErrorKind::StorageFull.into())),
        }
    }

    /// What waits for the store.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|((_, start), end)| end - start).sum()
    }

    fn path(&self, log: &LogId, start: u64) -> PathBuf {
        path_of(&self.directory, log, start)
    }
}

impl Drop for LogSpool {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::debug!(%error, "the spool was not closed");
        }
    }
}

fn path_of(directory: &Path, log: &LogId, start: u64) -> PathBuf {
    directory.join(&log.lineage).join(&log.timeline).join(format!("{start:016X}"))
}

/// The names of a timeline's files, and those of the directories above them.
fn sync_names(directory: &Path, log: &LogId) -> io::Result<()> {
    let lineage = directory.join(&log.lineage);
    for directory in [&lineage.join(&log.timeline), &lineage, directory] {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn files_below(directory: &Path) -> io::Result<BTreeMap<(LogId, u64), u64>> {
    let mut files = BTreeMap::new();
    let below = |path: &Path| -> io::Result<Vec<(String, PathBuf, bool, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = entry.metadata()?;
            found.push((name, entry.path(), metadata.is_dir(), metadata.len()));
        }
        Ok(found)
    };
    for (lineage, path, is_directory, _) in below(directory)? {
        if !is_directory {
            continue;
        }
        for (timeline, path, is_directory, _) in below(&path)? {
            if !is_directory {
                continue;
            }
            for (name, _, is_directory, length) in below(&path)? {
                let start = (name.len() == 16).then(|| u64::from_str_radix(&name, 16).ok()).flatten();
                if let Some(start) = start.filter(|_| !is_directory && length > 0) {
                    let log = LogId { lineage: lineage.clone(), timeline: timeline.clone() };
                    files.insert((log, start), start + length);
                }
            }
        }
    }
    Ok(files)
}

// What is noted in `boot` matters only while the machine runs, so it is never flushed.
#[cfg(test)]
mod tests;

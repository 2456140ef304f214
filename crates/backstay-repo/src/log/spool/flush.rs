//! Bringing bytes to the disk, also while more come.
//!
//! A flush takes as long as the disk does. So it can be begun with the spool at hand, run
//! without it, and its outcome told to the spool: what was appended when it was begun is
//! durable then.
//!
//! Invariant: a flush that failed is heard of by everybody. The system tells of lost bytes
//! once, and perhaps to one of two that waited: a flush that ran beside a failed one calls
//! nothing durable, and all that was appended since goes.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use backstay_model::{LogId, LogSpan};

use super::{LogSpool, sync_names};
use crate::{Error, Result};

/// A flush that was begun: see [`LogSpool::begin_flush`].
#[derive(Debug)]
pub struct SpoolFlush {
    directory: PathBuf,
    path: PathBuf,
    file: File,
    log: LogId,
    start: u64,
    /// What was durable before.
    durable: u64,
    end: u64,
    is_new: bool,
    failed_before: u64,
}

impl SpoolFlush {
    /// Everything up to here is durable when it has succeeded.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Waits for the disk. Needs nobody else to wait.
    pub fn run(&self) -> io::Result<()> {
        self.file.sync_data()?;
        if self.is_new {
            sync_names(&self.directory, &self.log)?;
        }
        Ok(())
    }
}

impl LogSpool {
    /// Begins to bring what was appended to the disk; nothing where all of it is there.
    pub fn begin_flush(&self) -> Result<Option<SpoolFlush>> {
        let open = self.open.as_ref().filter(|open| open.durable < open.end || open.is_new);
        let Some(open) = open else { return Ok(None) };
        let path = self.path(&open.log, open.start);
        let file = open.file.try_clone().map_err(|source| Error::Spool { path: path.clone(), source })?;
        Ok(Some(SpoolFlush {
            directory: self.directory.clone(),
            path,
            file,
            log: open.log.clone(),
            start: open.start,
            durable: open.durable,
            end: open.end,
            is_new: open.is_new,
            failed_before: self.failed_flushes,
        }))
    }

    /// Takes the outcome of a flush.
    ///
    /// # Errors
    ///
    /// Where it failed, or another did meanwhile: then what was not durable before is not
    /// there any more.
    pub fn end_flush(&mut self, flush: &SpoolFlush, done: io::Result<()>) -> Result<()> {
        let is_open =
            self.open.as_ref().is_some_and(|open| open.log == flush.log && open.start == flush.start);
        match done {
            _ if self.failed_flushes != flush.failed_before => {
                // A disk that is full is waited for, whoever heard of it.
                let kind = self.last_failure.unwrap_or(io::ErrorKind::Other);
                let source = io::Error::new(kind, "another flush failed meanwhile");
                Err(Error::Spool { path: flush.path.clone(), source })
            }
            Err(source) if is_open => {
                if let Some(open) = &mut self.open {
                    // One that ran beside it was perhaps told nothing.
                    open.durable = open.durable.min(flush.durable);
                }
                Err(self.give_up(source))
            }
            // Whoever closed the file flushed it as well, and was perhaps told nothing.
            Err(source) => {
                self.failed(&source);
                // It goes with the rest, and needs no flush for that.
                self.open.take_if(|open| open.log == flush.log && open.start >= flush.start);
                let behind = LogSpan { start: flush.start, end: u64::MAX };
                self.truncate(&flush.log, behind, flush.durable)?;
                Err(Error::Spool { path: flush.path.clone(), source })
            }
            Ok(()) => {
                if let Some(open) = self.open.as_mut().filter(|_| is_open) {
                    open.durable = open.durable.max(flush.end);
                    open.is_new &= !flush.is_new;
                }
                Ok(())
            }
        }
    }

    /// How many have failed since it was opened.
    pub fn failed_flushes(&self) -> u64 {
        self.failed_flushes
    }

    /// Brings everything to the disk. Says where the open file ends.
    pub fn flush(&mut self) -> Result<Option<(LogId, u64)>> {
        let Some(open) = &mut self.open else { return Ok(None) };
        let mut done = if open.durable < open.end { open.file.sync_data() } else { Ok(()) };
        if open.is_new {
            done = done.and_then(|()| sync_names(&self.directory, &open.log));
        }
        if let Err(source) = done {
            return Err(self.give_up(source));
        }
        open.durable = open.end;
        open.is_new = false;
        Ok(Some((open.log.clone(), open.end)))
    }

    fn failed(&mut self, source: &io::Error) {
        self.failed_flushes += 1;
        self.last_failure = Some(source.kind());
        self.appended = None;
    }

    /// After a flush that failed the system may have dropped the bytes, and a second one would
    /// succeed without them: whoever opens the spool next must not find them.
    fn give_up(&mut self, source: io::Error) -> Error {
        self.failed(&source);
        let Some(open) = self.open.take() else { return Error::broken("a spool without a file") };
        let key = (open.log.clone(), open.start);
        let path = self.path(&open.log, open.start);
        if open.durable > open.start {
            self.files.insert(key, open.durable);
        } else {
            self.files.remove(&key);
        }
        match open.file.set_len(open.durable - open.start) {
            Ok(()) => Error::Spool { path, source },
            Err(source) => Error::Spool { path, source },
        }
    }
}

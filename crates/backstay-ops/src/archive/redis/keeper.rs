//! From the stream into the spool, with what is known of it.
//!
//! Invariant: bytes are durable when their line is (see [`Instants`]). Nothing is told of before.
//!
//! Blocks: for a thread of its own, one call at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backstay_engine::redis::commands::CommandReader;
use backstay_model::LogId;
use jiff::Timestamp;

use super::instants::{Instants, Line, Witness};
use super::quiet::Quiet;
use crate::archive::keeping::Batch;
use crate::archive::{STREAM_CUT_BYTES, Spool};
use crate::error::{Error, Result};

/// Between two marks, in microseconds: a busy server would have thousands in a second.
pub(super) const MARK_EVERY: i64 = 10_000;
/// So often what is no longer needed is looked for.
const LINES: u32 = 256;

/// For whoever receives and whoever seals. Only threads that may block lock it.
#[derive(Clone)]
pub(super) struct SharedInstants(pub Arc<Mutex<Instants>>);

impl SharedInstants {
    pub fn lock(&self) -> MutexGuard<'_, Instants> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of the stream, and when its last byte did.
pub(super) struct Piece {
    pub batch: Batch,
    pub came_at: Timestamp,
}

pub(super) struct Keeper {
    spool: Spool,
    instants: SharedInstants,
    pub log: LogId,
    pub replication_id: String,
    pub reader: CommandReader,
    /// Of the next line.
    marks: Vec<(u64, i64)>,
    pub witness: Option<Witness>,
    /// The last boundary, and when it had come.
    last: (u64, i64),
    marked: (u64, i64),
    lines: u32,
    quiet: Quiet,
}

impl Keeper {
    /// From a place on whose state is known.
    pub fn new(
        spool: Spool,
        instants: SharedInstants,
        log: LogId,
        replication_id: String,
        reader: CommandReader,
    ) -> Keeper {
        let last = (reader.boundary(), 0);
        let quiet = Quiet::from(replication_id.clone(), reader.at());
        Keeper {
            spool,
            instants,
            log,
            replication_id,
            reader,
            marks: Vec::new(),
            witness: None,
            last,
            marked: last,
            lines: 0,
            quiet,
        }
    }

    /// Notes where the log begins: whoever seals its first span finds the state there.
    pub fn begin(&mut self) -> Result<()> {
        self.note().map(drop)
    }

    /// Writes down where it is, unless that stands there already: while there is no room it is asked for
    /// several times a second, and must take none itself.
    fn note(&self) -> Result<bool> {
        let line = self.line();
        let mut instants = self.instants.lock();
        let says_nothing = line.marks.is_empty() && line.witnesses.is_empty();
        let is_there = |last: &Line| last.log == line.log && last.end() == line.end();
        let is_new = !(says_nothing && instants.last().is_some_and(is_there));
        if is_new {
            instants.add(line)?;
        }
        Ok(is_new)
    }

    /// Takes what has room; says why when something is left.
    pub fn keep(&mut self, piece: &mut Piece) -> Result<Option<Error>> {
        let came_at = piece.came_at.as_microsecond();
        let batch = &mut piece.batch;
        while batch.taken < batch.bytes.len() {
            let before = batch.taken;
            let to_cut = STREAM_CUT_BYTES - batch.end() % STREAM_CUT_BYTES;
            let until = batch.bytes.len().min(before.saturating_add(to_cut as usize));
            let full = batch.put_to(until, &mut self.spool.lock())?;
            let taken = batch.bytes.get(before..batch.taken).unwrap_or_default();
            self.reader.push(taken).map_err(|damage| Error::StreamBroken { source: damage })?;
            if self.reader.boundary() > self.last.0 {
                if self.last.0 > self.marked.0 && came_at - self.last.1 >= MARK_EVERY {
                    // It had come long before what comes now.
                    self.mark();
                }
                self.last = (self.reader.boundary(), came_at);
            }
            if self.last.0 > self.marked.0 && came_at - self.marked.1 >= MARK_EVERY {
                self.mark();
            }
            if full.is_some() {
                return Ok(full);
            }
            if batch.end().is_multiple_of(STREAM_CUT_BYTES) {
                // A span may begin there.
                self.flush()?;
            }
        }
        Ok(None)
    }

    /// Behind each piece: whoever asks for the status learns that nothing is missing.
    pub fn note_quiet(&mut self) {
        if self.reader.has_changes() {
            self.quiet.since = self.reader.at();
        } else if self.reader.boundary() > self.quiet.until {
            self.quiet.until = self.reader.boundary();
            if let Err(error) = self.quiet.write(self.instants.lock().directory()) {
                tracing::debug!(%error, "that the server is idle is not written down");
            }
        }
    }

    fn mark(&mut self) {
        self.marked = self.last;
        self.marks.push(self.marked);
    }

    /// Brings all of it to the disk. Says how far that is.
    pub fn flush(&mut self) -> Result<u64> {
        self.spool.lock().flush()?;
        if self.last.0 > self.marked.0 {
            self.mark();
        }
        // Whoever seals locks the one behind the other.
        let spooled = self.spool.lock().spans();
        if !self.note()? {
            return Ok(self.reader.at());
        }
        self.marks.clear();
        self.witness = None;
        self.lines += 1;
        if self.lines.is_multiple_of(LINES) {
            self.instants.lock().forget(&spooled);
        }
        Ok(self.reader.at())
    }

    fn line(&self) -> Line {
        Line {
            log: self.log.clone(),
            replication_id: self.replication_id.clone(),
            reader: self.reader.clone(),
            marks: self.marks.clone(),
            witnesses: self.witness.iter().cloned().collect(),
        }
    }
}

//! What was received, on its way into the spool and to its disk, while more is received.
//!
//! One thread looks at the log and appends it, and another one waits for the disk: neither keeps
//! the connection from being read. Where commits wait for the log, each append waits for the
//! disk itself, and what comes meanwhile goes together with the next.
//!
//! Invariant: everything goes on exactly where what was appended before ends; after a flush
//! that failed that is nowhere, and nothing is appended until the log begins again.

use backstay_engine::postgres::wal::LogReader;
use backstay_model::LogId;
use backstay_repo::log::spool::LogSpool;
use tokio::task::{JoinError, JoinSet};

use super::Spool;
use crate::error::{Error, Result};

/// Bytes of a log, in a buffer that goes round: taking a new one for each batch would cost as
/// much as reading it.
#[derive(Debug)]
pub(super) struct Batch {
    pub log: LogId,
    pub at: u64,
    pub bytes: Vec<u8>,
    /// So many of them are in the spool.
    pub taken: usize,
    /// What lies before them was appended as well.
    pub goes_on: bool,
}

impl Batch {
    /// Where what is in the spool ends.
    pub fn end(&self) -> u64 {
        self.at + self.taken as u64
    }

    /// Takes what has room; says why when something is left. Then what was taken is durable.
    fn put(&mut self, spool: &mut LogSpool, flush: bool) -> Result<Option<Error>> {
        let full = self.put_to(self.bytes.len(), spool)?;
        if flush || full.is_some() {
            spool.flush()?;
        }
        Ok(full)
    }

    /// The same of so many of its bytes, of which nothing is durable yet.
    pub fn put_to(&mut self, until: usize, spool: &mut LogSpool) -> Result<Option<Error>> {
        let begun = self.end();
        if self.goes_on && !spool.goes_on_at(&self.log, begun) {
            return Err(Error::broken("what was received last was taken back from the spool"));
        }
        let mut full = None;
        let failed_before = spool.failed_flushes();
        match spool.append(&self.log, begun, &self.bytes[self.taken..until]) {
            Ok(()) => self.taken = until,
            // What was there before may have gone with a flush that failed.
            Err(error) if error.is_full_spool() && spool.failed_flushes() == failed_before => {
                // Bytes that reach over the end of a file may be in half.
                let end = spool.end_of(&self.log).filter(|end| *end > begun && *end <= self.all());
                self.taken = end.map_or(self.taken, |end| (end - self.at) as usize);
                full = Some(Error::from(error));
            }
            Err(error) => return Err(error.into()),
        }
        self.goes_on |= self.end() > begun;
        Ok(full)
    }

    fn all(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }
}

/// What became of something that was handed over.
pub(super) enum Kept {
    Appended {
        /// With what had no room.
        batch: Batch,
        full: Option<Box<Error>>,
        is_durable: bool,
    },
    /// So far all is durable.
    Flushed { end: u64 },
}

pub(super) struct Keeping {
    spool: Spool,
    appending: JoinSet<Result<(Kept, LogReader)>>,
    flushing: JoinSet<Result<u64>>,
    /// Not while a thread has it.
    reader: Option<LogReader>,
    /// Nothing is appended any more.
    failed: Option<Error>,
}

impl Keeping {
    pub fn new(spool: Spool, reader: LogReader) -> Keeping {
        Keeping {
            spool,
            appending: JoinSet::new(),
            flushing: JoinSet::new(),
            reader: Some(reader),
            failed: None,
        }
    }

    /// Nothing is being appended.
    pub fn is_free(&self) -> bool {
        self.appending.is_empty() && self.failed.is_none()
    }

    pub fn is_flushing(&self) -> bool {
        !self.flushing.is_empty()
    }

    pub fn is_busy(&self) -> bool {
        !self.is_free() || self.is_flushing()
    }

    /// Appends what was not looked at yet, and brings it to the disk where that is asked for.
    /// Only while nothing else is being appended.
    pub fn append(&mut self, mut batch: Batch, flush: bool) -> Result<()> {
        let mut reader = self.reader.take().ok_or_else(|| Error::broken("two appends at once"))?;
        let spool = self.spool.clone();
        self.appending.spawn_blocking(move || {
            let mut marks = Vec::new();
            reader.push(&batch.bytes, &mut marks).map_err(|damage| Error::LogDamaged { source: damage })?;
            let full = batch.put(&mut spool.lock(), flush)?.map(Box::new);
            let is_durable = flush || full.is_some();
            Ok((Kept::Appended { batch, full, is_durable }, reader))
        });
        Ok(())
    }

    /// Appends what had no room before, and brings it to the disk.
    pub async fn append_rest(&self, mut batch: Batch) -> Result<(Batch, Option<Error>)> {
        self.spool
            .with(move |spool| {
                let full = batch.put(spool, true)?;
                Ok((batch, full))
            })
            .await
    }

    /// Brings what was appended to the disk.
    pub fn flush(&mut self, log: LogId) {
        let spool = self.spool.clone();
        self.flushing.spawn_blocking(move || {
            let (begun, end) = {
                let spool = spool.lock();
                (spool.begin_flush()?, spool.end_of(&log).unwrap_or(0))
            };
            if let Some(flush) = begun {
                let done = flush.run();
                spool.lock().end_flush(&flush, done)?;
            }
            Ok(end)
        });
    }

    /// Waits for what is done next. Only while it is busy. Dropped half-way, it loses nothing.
    pub async fn next(&mut self) -> Result<Kept> {
        if self.failed.is_none() {
            tokio::select! {
                Some(joined) = self.flushing.join_next() => {
                    return Ok(Kept::Flushed { end: ended(joined)? });
                }
                Some(joined) = self.appending.join_next() => match ended(joined) {
                    Ok((kept, reader)) => {
                        self.reader = Some(reader);
                        return Ok(kept);
                    }
                    Err(error) => self.failed = Some(error),
                },
                else => {}
            }
        }
        // A flush that failed took away what the append was to go on behind: it says why.
        if let Some(joined) = self.flushing.join_next().await {
            ended(joined)?;
        }
        Err(self.failed.take().unwrap_or_else(|| Error::broken("nothing is being kept")))
    }

    /// Returns when no thread works on the spool any more.
    pub async fn rest(&mut self) {
        while self.appending.join_next().await.is_some() {}
        while self.flushing.join_next().await.is_some() {}
    }
}

fn ended<T>(joined: Result<Result<T>, JoinError>) -> Result<T> {
    joined.map_err(|error| Error::broken(format!("a thread of the spool did not end: {error}")))?
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use backstay_model::Lsn;

    use super::*;

    const CUT: u64 = 100;

    fn log() -> LogId {
        LogId { lineage: "65F0A1B2C3D4E5F6".to_owned(), timeline: "00000001".to_owned() }
    }

    fn batch(at: u64, length: usize, goes_on: bool) -> Batch {
        Batch { log: log(), at, bytes: vec![1; length], taken: 0, goes_on }
    }

    fn spans(spool: &LogSpool) -> Vec<(u64, u64)> {
        spool.spans().iter().map(|one| (one.span.start, one.span.end)).collect()
    }

    #[test]
    fn behind_a_flush_that_failed_nothing_is_appended() {
        let place = tempfile::tempdir().unwrap();
        let mut spool = LogSpool::open(place.path(), CUT).unwrap();
        assert!(batch(20, 30, false).put(&mut spool, true).unwrap().is_none());
        let mut came = batch(50, 10, true);
        assert!(came.put(&mut spool, false).unwrap().is_none());
        assert_eq!((came.end(), came.goes_on), (60, true));
        let flush = spool.begin_flush().unwrap().unwrap();
        spool.end_flush(&flush, Err(io::Error::from_raw_os_error(5))).unwrap_err();
        // What came meanwhile would be a stretch of its own, and what lies before it a hole.
        batch(60, 10, true).put(&mut spool, true).unwrap_err();
        assert_eq!(spans(&spool), [(20, 50)]);
        // Received once more.
        assert!(batch(50, 60, false).put(&mut spool, true).unwrap().is_none());
        assert_eq!(spans(&spool), [(20, 110)]);
    }

    #[tokio::test]
    async fn appends_and_flushes_end_in_any_order_and_a_failure_is_told_by_its_cause() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool(Arc::new(Mutex::new(LogSpool::open(place.path(), CUT).unwrap())));
        let mut keeping = Keeping::new(spool.clone(), LogReader::of_any_segments(Lsn(0)));
        assert!(!keeping.is_busy() && keeping.is_free());
        keeping.append(batch(0, 0, false), true).unwrap();
        assert!(!keeping.is_free(), "one at a time");
        keeping.append(batch(0, 0, false), true).unwrap_err();
        assert!(matches!(keeping.next().await.unwrap(), Kept::Appended { is_durable: true, full: None, .. }));
        spool.with(|spool| Ok(spool.append(&log(), 0, &[1; 70])?)).await.unwrap();
        keeping.flush(log());
        assert!(keeping.is_free() && keeping.is_flushing());
        assert!(matches!(keeping.next().await.unwrap(), Kept::Flushed { end: 70 }));
        // A flush fails while something is appended that was to go on behind it.
        keeping.appending.spawn_blocking(|| Err(Error::broken("nothing to go on behind")));
        keeping.flushing.spawn_blocking(|| Err(Error::broken("the disk is gone")));
        let error = keeping.next().await.err().unwrap();
        assert!(error.to_string().contains("the disk is gone"), "{error}");
        keeping.rest().await;
    }
}

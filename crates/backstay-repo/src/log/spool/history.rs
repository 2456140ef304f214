//! Where timelines came from, until the store knows it.
//!
//! Invariant: a history lies beside the log of its timeline until the store has it, and its log
//! goes to the store after it: without it nobody finds the way to that log.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use backstay_model::LogId;

use super::{LogSpool, make_directory, sync_names};
use crate::{Error, Result};

const HISTORY: &str = "history";
const UNFINISHED: &str = "history.unfinished";

impl LogSpool {
    /// When this returns, a crash of the machine does not take it back.
    pub fn keep_history(&mut self, log: &LogId, content: &[u8]) -> Result<()> {
        let path = self.history_path(log);
        let written = (|| {
            if fs::read(&path).is_ok_and(|there| there == content) {
                return Ok(());
            }
            make_directory(path.parent().unwrap_or(&self.directory))?;
            let unfinished = path.with_file_name(UNFINISHED);
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(content)?;
            file.sync_all()?;
            // Flushed before, and its directory behind.
            rustix::fs::rename(&unfinished, &path)?;
            sync_names(&self.directory, log)
        })();
        written.map_err(|source| Error::Spool { path, source })
    }

    /// What the store may not have yet, in the order of timelines.
    pub fn histories(&self) -> Result<Vec<(LogId, Vec<u8>)>> {
        let failed = |source| Error::Spool { path: self.directory.clone(), source };
        let mut found = Vec::new();
        for lineage in names_below(&self.directory).map_err(failed)? {
            for timeline in names_below(&self.directory.join(&lineage)).map_err(failed)? {
                let log = LogId { lineage: lineage.clone(), timeline };
                match fs::read(self.history_path(&log)) {
                    Ok(content) => found.push((log, content)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(Error::Spool { path: self.history_path(&log), source }),
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The store has it.
    pub fn forget_history(&mut self, log: &LogId) -> Result<()> {
        let path = self.history_path(log);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::Spool { path, source: error })
            }
            _ => Ok(()),
        }
    }

    fn history_path(&self, log: &LogId) -> PathBuf {
        self.directory.join(&log.lineage).join(&log.timeline).join(HISTORY)
    }
}

/// The directories in one.
fn names_below(directory: &std::path::Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn log(timeline: &str) -> LogId {
        LogId { lineage: "65F1180AA62B0AD2".to_owned(), timeline: timeline.to_owned() }
    }

    #[test]
    fn a_history_outlives_its_process_until_the_store_has_it_and_is_no_log() {
        let place = tempfile::TempDir::new().unwrap();
        let mut spool = LogSpool::open(place.path(), 1 << 20).unwrap();
        assert_eq!(spool.histories().unwrap(), []);
        spool.keep_history(&log("00000003"), b"1\t0/100\n2\t0/200\n").unwrap();
        spool.keep_history(&log("00000002"), b"1\t0/100\n").unwrap();
        spool.keep_history(&log("00000002"), b"1\t0/110\n").unwrap();
        File::create(place.path().join("65F1180AA62B0AD2/00000003/history.unfinished")).unwrap();
        drop(spool);
        let mut spool = LogSpool::open(place.path(), 1 << 20).unwrap();
        assert!(spool.spans().is_empty());
        let two = (log("00000002"), b"1\t0/110\n".to_vec());
        let three = (log("00000003"), b"1\t0/100\n2\t0/200\n".to_vec());
        assert_eq!(spool.histories().unwrap(), [two.clone(), three]);
        spool.forget_history(&log("00000003")).unwrap();
        spool.forget_history(&log("00000003")).unwrap();
        assert_eq!(spool.histories().unwrap(), [two]);
    }
}

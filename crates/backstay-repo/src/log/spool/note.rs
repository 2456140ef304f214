//! The note of a spool: a few words that outlive the process, where the store cannot take them.
//!
//! Its place on the disk is taken when the spool is opened, so that it can be written when
//! there is no room for anything else.
//!
//! Refuses a note that is longer than its place.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use super::LogSpool;
use crate::{Error, Result};

const NOTE: &str = "note";
const NOTE_BYTES: usize = 4096;
/// No note begins or ends with it.
const EMPTY: u8 = b' ';

impl LogSpool {
    /// When this returns, a crash of the machine does not take it back.
    pub fn set_note(&mut self, text: &[u8]) -> Result<()> {
        if text.len() > NOTE_BYTES {
            return Err(Error::broken("a note is longer than its place"));
        }
        let mut bytes = [EMPTY; NOTE_BYTES];
        bytes[..text.len()].copy_from_slice(text);
        let path = self.note_path();
        self.write_note(&bytes).map_err(|source| Error::Spool { path, source })
    }

    pub fn clear_note(&mut self) -> Result<()> {
        match self.note()? {
            Some(_) => self.set_note(&[]),
            None => Ok(()),
        }
    }

    pub fn note(&self) -> Result<Option<Vec<u8>>> {
        let path = self.note_path();
        match std::fs::read(&path) {
            Ok(bytes) => {
                let length = bytes.iter().rposition(|byte| *byte != EMPTY).map_or(0, |last| last + 1);
                Ok(bytes.get(..length).filter(|text| !text.is_empty()).map(<[u8]>::to_vec))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Spool { path, source }),
        }
    }

    /// Where there is no room for it now, there may be some when it is needed.
    pub(super) fn reserve_note(&self) {
        let is_there =
            std::fs::metadata(self.note_path()).is_ok_and(|found| found.len() == NOTE_BYTES as u64);
        if !is_there && let Err(error) = self.write_note(&[EMPTY; NOTE_BYTES]) {
            tracing::warn!(%error, path = %self.note_path().display(), "no room for a note");
        }
    }

    fn write_note(&self, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        // In its place: a new file would need room.
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(self.note_path())?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        File::open(&self.directory)?.sync_all()
    }

    fn note_path(&self) -> PathBuf {
        self.directory.join(NOTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_outlives_its_process_and_is_cleared() {
        let place = tempfile::TempDir::new().unwrap();
        let mut spool = LogSpool::open(place.path(), 1 << 20).unwrap();
        assert_eq!(spool.note().unwrap(), None);
        spool.set_note(b"{\"a\": 1}").unwrap();
        spool.set_note(b"{}").unwrap();
        drop(spool);
        let mut spool = LogSpool::open(place.path(), 1 << 20).unwrap();
        assert_eq!(spool.note().unwrap().as_deref(), Some(&b"{}"[..]));
        assert!(spool.spans().is_empty(), "a note is no log");
        spool.clear_note().unwrap();
        assert_eq!(spool.note().unwrap(), None);
        assert!(spool.set_note(&[b'x'; NOTE_BYTES + 1]).is_err());
    }
}

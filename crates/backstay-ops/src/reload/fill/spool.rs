//! A file for an archive that several sessions read at once: gone when it is dropped.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backstay_engine::postgres::leftovers;

use crate::error::{Error, Result};

pub(super) struct SpoolFile {
    path: PathBuf,
    file: File,
}

impl SpoolFile {
    /// In a directory that must have so much room.
    pub fn make(directory: &Path, bytes: u64) -> Result<SpoolFile> {
        let failed = |source: io::Error| Error::Spool { path: directory.to_owned(), source };
        // What was left there would count as room that is taken.
        leftovers::sweep(directory);
        let room = rustix::fs::statvfs(directory).map_err(|error| failed(error.into()))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if free < bytes {
            return Err(Error::SpoolTooSmall { path: directory.to_owned(), free, needed: bytes });
        }
        let (path, file) = leftovers::make_file(directory).map_err(failed)?;
        Ok(SpoolFile { path, file })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn append(mut self, bytes: &[u8]) -> Result<SpoolFile> {
        match self.file.write_all(bytes) {
            Ok(()) => Ok(self),
            Err(source) => Err(Error::SpoolWrite { path: self.path.clone(), source }),
        }
    }

    /// In place of what is there.
    pub fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, at)
            .map_err(|source| Error::SpoolWrite { path: self.path.clone(), source })
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a file is left behind");
        }
    }
}

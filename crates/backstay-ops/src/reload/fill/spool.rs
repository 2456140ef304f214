//! A file for an archive that several sessions read at once: gone when it is dropped.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backstay_engine::postgres::leftovers;
use backstay_engine::postgres::reload::{Archive, OffsetPatch, RowOffsets};
use bytes::Bytes;

use crate::context::off_thread;
use crate::error::{Error, Result};

/// An archive that is written to such a file.
pub(in crate::reload) struct Spooling {
    file: SpoolFile,
    offsets: Option<RowOffsets>,
}

impl Spooling {
    pub fn begin(directory: &Path, bytes: u64) -> Result<Spooling> {
        Ok(Spooling { file: SpoolFile::make(directory, bytes)?, offsets: None })
    }

    /// Of the archive whose first byte comes next: said in the file, each session goes where
    /// its rows begin.
    pub fn find_rows(&mut self, archive: Option<&Archive>) {
        self.offsets = archive.map(RowOffsets::of);
    }

    pub async fn append(mut self, bytes: Bytes) -> Result<Spooling> {
        if let Some(offsets) = &mut self.offsets {
            offsets.push(&bytes);
        }
        let file = self.file;
        Ok(Spooling { file: off_thread(move || file.append(&bytes)).await?, ..self })
    }

    pub fn finish(self) -> Result<SpoolFile> {
        for OffsetPatch { at, bytes } in self.offsets.map(RowOffsets::finish).unwrap_or_default() {
            self.file.write_at(at, &bytes)?;
        }
        Ok(self.file)
    }
}

pub(in crate::reload) struct SpoolFile {
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

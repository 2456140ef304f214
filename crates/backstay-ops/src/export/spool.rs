//! Where an export puts together what it packs: a directory of its own, on a disk that may hold
//! the rows in plain text.

use std::fs::File;
use std::path::{Path, PathBuf};

use backstay_engine::postgres::leftovers;

use crate::error::{Error, Result};

/// A directory for ourselves, gone when it is dropped; what is left of one whose process
/// was killed goes with the next export.
pub(super) struct Spool {
    pub path: PathBuf,
    _held: File,
}

impl Spool {
    pub fn make(parent: &Path) -> Result<Spool> {
        let failed = |source: std::io::Error| Error::Spool { path: parent.to_owned(), source };
        std::fs::create_dir_all(parent).map_err(failed)?;
        // What was left there would count as room that is taken.
        leftovers::sweep(parent);
        let (path, _held) = leftovers::make_directory(parent).map_err(failed)?;
        Ok(Spool { path, _held })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a directory is left behind");
        }
    }
}

/// What the engine says of the room there, in the words of a spool.
pub(super) fn too_small(error: backstay_engine::Error) -> Error {
    match error {
        backstay_engine::Error::TargetTooSmall { path, needed, free } => {
            Error::SpoolTooSmall { path, free, needed }
        }
        other => other.into(),
    }
}

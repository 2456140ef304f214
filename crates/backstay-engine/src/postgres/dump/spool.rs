//! The directory in which a dump in the directory format lies while it is written.
//!
//! Private to us, made where the caller says, and gone when its value is dropped,
//! however the dump ended. Refuses a file system that has less room than the dump can need.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

use super::super::leftovers;
use crate::{Error, Result};

const TRIES: u32 = 20;
const TRY_AGAIN: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(in crate::postgres) struct Spool {
    /// Made by us.
    private: PathBuf,
    /// Made by the program that writes.
    directory: PathBuf,
    /// Nobody removes it as long as this is open.
    _held: File,
}

impl Spool {
    pub fn make(parent: &Path, needed: u64) -> Result<Spool> {
        let failed = |source: io::Error| Error::SpoolUnwritable { path: parent.to_owned(), source };
        let parent = parent.canonicalize().map_err(failed)?;
        // What was left there would count as room that is taken.
        leftovers::sweep(&parent);
        let room = rustix::fs::statvfs(&parent).map_err(|error| failed(error.into()))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if free < needed {
            return Err(Error::SpoolTooSmall { path: parent, needed, free });
        }
        let (private, held) = leftovers::make_directory(&parent).map_err(failed)?;
        let directory = private.join("dump");
        Ok(Spool { private, directory, _held: held })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // A worker that was killed a moment ago may still have made a file.
        for _ in 0..TRIES {
            match std::fs::remove_dir_all(&self.private) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(_) => std::thread::sleep(TRY_AGAIN),
            }
        }
        warn!(path = %self.private.display(), "a directory is left behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_is_private_and_leaves_nothing_behind() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let (one, two) = (Spool::make(parent.path(), 1).unwrap(), Spool::make(parent.path(), 1).unwrap());
        assert_ne!(one.directory(), two.directory());
        assert_eq!(std::fs::metadata(&one.private).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::create_dir(one.directory()).unwrap();
        std::fs::write(one.directory().join("toc.dat"), "x").unwrap();
        drop((one, two));
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_system_without_room_is_refused_before_anything_is_made() {
        let parent = tempfile::tempdir().unwrap();
        let error = Spool::make(parent.path(), u64::MAX).unwrap_err();
        assert!(matches!(error, Error::SpoolTooSmall { .. }), "{error}");
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}

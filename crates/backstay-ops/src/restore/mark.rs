//! The mark of a restore: tells half of a restore from somebody's data, and one that
//! still goes on from one that was interrupted.
//!
//! It lies in the directory from the first byte until all parts are there; then the
//! control file, which waits for its name, says the same, so that nothing of ours is
//! in a directory that can start. A restore holds a lock on either for as long as it
//! lives; the kernel lets the lock go however the restore ends. A file system without
//! locks is no reason to fail: there a living restore cannot be told apart.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tracing::debug;

const MARK: &str = "backstay.restoring";
const CONTROL_FILE_UNTIL_SEALED: &str = "global/pg_control.backstay-restoring";
const CONTROL_FILE: &str = "global/pg_control";

/// What a directory that is not empty holds of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Interrupted,
    /// Somebody writes there now.
    Running,
}

pub(super) fn look(directory: &Path) -> Found {
    let is_there = |name: &str| directory.join(name).exists();
    match () {
        () if [MARK, CONTROL_FILE_UNTIL_SEALED].iter().any(|name| is_held(&directory.join(name))) => {
            Found::Running
        }
        () if is_there(CONTROL_FILE) => Found::Nothing,
        () if is_there(MARK) || is_there(CONTROL_FILE_UNTIL_SEALED) => Found::Interrupted,
        () => Found::Nothing,
    }
}

fn is_held(path: &Path) -> bool {
    File::open(path)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK))
}

/// Held by a restore that goes on.
pub(super) struct Mark {
    directory: PathBuf,
    _lock: File,
}

impl Mark {
    /// Fails with `AlreadyExists` where another restore was faster.
    pub(super) fn set(directory: &Path) -> io::Result<Mark> {
        let file = File::create_new(directory.join(MARK))?;
        lock(&file, directory);
        Ok(Mark { directory: directory.to_owned(), _lock: file })
    }

    /// All parts are there: the control file says the rest of it.
    pub(super) fn hand_over(self) -> io::Result<Mark> {
        // Some file systems give a lock to those only who may write.
        let file = OpenOptions::new().write(true).open(self.directory.join(CONTROL_FILE_UNTIL_SEALED))?;
        lock(&file, &self.directory);
        fs::remove_file(self.directory.join(MARK))?;
        Ok(Mark { directory: self.directory, _lock: file })
    }
}

fn lock(file: &File, directory: &Path) {
    if let Err(error) = flock(file, FlockOperation::NonBlockingLockExclusive) {
        debug!(directory = %directory.display(), %error, "the mark of the restore cannot be locked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_that_goes_on_is_told_from_one_that_was_interrupted() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        assert_eq!(look(directory), Found::Nothing);
        let mark = Mark::set(directory).unwrap();
        assert_eq!(look(directory), Found::Running);
        let second = Mark::set(directory).map(drop).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
        drop(mark);
        assert_eq!(look(directory), Found::Interrupted);

        fs::remove_file(directory.join(MARK)).unwrap();
        let mark = Mark::set(directory).unwrap();
        fs::create_dir(directory.join("global")).unwrap();
        fs::write(directory.join(CONTROL_FILE_UNTIL_SEALED), "").unwrap();
        let mark = mark.hand_over().unwrap();
        assert!(!directory.join(MARK).exists());
        assert_eq!(look(directory), Found::Running, "it reaches the disk");
        drop(mark);
        assert_eq!(look(directory), Found::Interrupted);
        fs::write(directory.join(CONTROL_FILE), "").unwrap();
        assert_eq!(look(directory), Found::Nothing, "it is somebody's cluster");
    }
}

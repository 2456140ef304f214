//! Gives what lies complete in a directory its names in the one above.
//!
//! Each name is given by one renaming, so that a server finds all of what it has or nothing. Renamed
//! is what reached the disk before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::sync;
use crate::{Error, Result};

/// In their order, each durable before the next; the directory that they come from goes.
///
/// # Errors
///
/// [`Error::TargetNotEmpty`] where somebody has taken a name meanwhile.
pub(super) fn give(from: &Path, directory: &Path, names: &[PathBuf]) -> Result<()> {
    for name in names {
        let path = directory.join(name);
        rename(&from.join(name), &path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
                Error::TargetNotEmpty { path: directory.to_owned() }
            }
            _ => Error::Write { path, source },
        })?;
        sync(directory)?;
    }
    fs::remove_dir(from).map_err(|source| Error::Write { path: from.to_owned(), source })?;
    sync(directory)?;
    // Its name in the directory above, which may be new.
    directory.parent().map_or(Ok(()), sync)
}

/// Never in the place of what has the name.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Network file systems do not know the flag. A directory takes the place of an empty one alone,
        // and a hard link refuses a taken name.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if from.is_dir() => {
            Ok(rustix::fs::renameat(CWD, from, CWD, to)?)
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(from, to).and_then(|()| fs::remove_file(from))
        }
        other => Ok(other?),
    }
}

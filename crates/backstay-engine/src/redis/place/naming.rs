//! Gives what lies complete in a directory its names in the one above.
//!
//! Each name is given by one renaming; where the name is taken, both change places at once, and a
//! server finds all of the old or all of the new. Renamed is what reached the disk before.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::sync;
use crate::{Error, Result};

/// In their order, each durable before the next; names within `within` come into a directory that
/// is made for them. The directory that they come from goes.
///
/// # Errors
///
/// [`Error::TargetNotEmpty`] where somebody has taken a name meanwhile.
pub(super) fn give(from: &Path, directory: &Path, within: &str, names: &[PathBuf]) -> Result<()> {
    let failed = |path: PathBuf, source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
            Error::TargetNotEmpty { path: directory.to_owned() }
        }
        _ => Error::Write { path, source },
    };
    let inner = directory.join(within);
    let made = fs::DirBuilder::new().mode(0o700).create(&inner);
    made.map_err(|source| failed(inner.clone(), source))?;
    sync(directory)?;
    for name in names {
        let path = directory.join(name);
        rename(&from.join(name), &path).map_err(|source| failed(path.clone(), source))?;
        sync(path.parent().unwrap_or(directory))?;
    }
    for emptied in [from.join(within), from.to_owned()] {
        fs::remove_dir(&emptied).map_err(|source| Error::Write { path: emptied, source })?;
    }
    sync(directory)?;
    // Its name in the directory above, which may be new.
    directory.parent().map_or(Ok(()), sync)
}

/// More restores to one directory within a second nobody makes.
const SAME_SECOND_MAX: u32 = 100;
/// Says of a directory that the exchange with it has not come to its end.
const MARK: &str = "unfinished.txt";
const MARKED: &str = "A restore was interrupted while it exchanged the files of this directory with those in the one \
    above. Each of them is whole, and some of these may be the restored ones. Run the restore again: it sets aside what \
    is above, and touches nothing in here.\n";

/// What has the names changes places with what is to have them, and lies in a directory of its own
/// then. Where one name fails, those before it are taken back.
///
/// Names that nothing has come first: a server that looks for one of them started empty before, and
/// one that looks for another finds the old until it finds the new.
pub(super) fn exchange(from: &Path, directory: &Path, names: &[PathBuf], called: &str) -> Result<PathBuf> {
    super::write(&from.join(MARK), MARKED)
        .map_err(|source| Error::Write { path: from.join(MARK), source })?;
    sync(from)?;
    let aside = rename_aside(from, directory, called)?;
    let mark = aside.join(MARK);
    sync(directory)?;
    let mut done: Vec<(PathBuf, PathBuf, RenameFlags)> = Vec::new();
    let mut names = names.to_vec();
    names.sort_by_key(|name| fs::symlink_metadata(directory.join(name)).is_ok());
    for name in &names {
        let (new, path) = (aside.join(name), directory.join(name));
        let is_taken = fs::symlink_metadata(&path).is_ok();
        let flags = if is_taken { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        let given = rustix::fs::renameat_with(CWD, &new, CWD, &path, flags);
        let given = given.map_err(|error| Error::Write { path: path.clone(), source: error.into() });
        done.extend(given.is_ok().then_some((new, path, flags)));
        if let Err(error) = given.and_then(|()| sync(directory)).and_then(|()| sync(&aside)) {
            for (new, path, flags) in done.iter().rev() {
                // What cannot be taken back either, the mark tells.
                let _ = rustix::fs::renameat_with(CWD, path, CWD, new, *flags);
            }
            return Err(error);
        }
    }
    fs::remove_file(&mark).map_err(|source| Error::Write { path: mark, source })?;
    sync(&aside)?;
    Ok(aside)
}

/// Under this name, or a number behind it where others of the same second are kept.
fn rename_aside(from: &Path, directory: &Path, called: &str) -> Result<PathBuf> {
    let mut number = 1;
    loop {
        let aside =
            directory.join(if number == 1 { called.to_owned() } else { format!("{called}-{number}") });
        match rename(from, &aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < SAME_SECOND_MAX => {
                number += 1;
            }
            renamed => {
                renamed.map_err(|source| Error::Write { path: aside.clone(), source })?;
                return Ok(aside);
            }
        }
    }
}

/// Whether two names can change places here: known before anything is written.
pub(super) fn can_exchange(within: &Path) -> Result<bool> {
    let [one, other] = ["one", "other"].map(|name| within.join(name));
    let failed = |source| Error::Write { path: within.to_owned(), source };
    [&one, &other].into_iter().try_for_each(|path| super::write(path, "")).map_err(failed)?;
    let exchanged = rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
    [&one, &other].into_iter().try_for_each(fs::remove_file).map_err(failed)?;
    match exchanged {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(failed(error.into())),
    }
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

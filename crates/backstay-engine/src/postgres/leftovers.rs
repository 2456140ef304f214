//! Files and directories that lie in a spool for a while, and what processes that were
//! killed have left of them.
//!
//! Whoever makes one holds a lock on it as long as he lives, which the kernel takes from
//! him however he dies; a number of a process says nothing, for several machines or
//! containers may share a file system. Invariant: what somebody holds is never touched,
//! and nothing that another user made. Where a file system has no locks nothing is removed.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tracing::{info, warn};

const DIRECTORY: &str = ".backstay-spool-";
const FILE: &str = ".backstay-restore-";
/// In a directory: holds the lock.
const LOCK: &str = "lock";

/// `None` when somebody else took the lock in between and is about to remove it, or has
/// done so: a lock on what has no name keeps nobody away.
fn hold(path: &Path, file: File) -> Option<File> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => None,
        // Nobody removes what cannot be locked either.
        Ok(()) | Err(_) => is_named(path, &file).then_some(file),
    }
}

fn is_named(path: &Path, file: &File) -> bool {
    let number = |seen: Metadata| (seen.dev(), seen.ino());
    match (path.symlink_metadata(), file.metadata()) {
        (Ok(there), Ok(ours)) => number(there) == number(ours),
        _ => false,
    }
}

fn gone_or_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound)
}

/// Makes a private directory that is held as long as the file lives.
pub fn make_directory(parent: &Path) -> io::Result<(PathBuf, File)> {
    for number in 0u32.. {
        let path = parent.join(format!("{DIRECTORY}{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
        let lock = path.join(LOCK);
        match new_file(&lock).map(|file| hold(&lock, file)) {
            Ok(Some(lock)) => return Ok((path, lock)),
            Ok(None) => {}
            Err(error) if gone_or_there(&error) && parent.exists() => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Makes a private file that is held as long as it is open.
pub fn make_file(parent: &Path) -> io::Result<(PathBuf, File)> {
    for number in 0u32.. {
        let path = parent.join(format!("{FILE}{}-{number}", std::process::id()));
        match new_file(&path).map(|file| hold(&path, file)) {
            Ok(Some(file)) => return Ok((path, file)),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Removes what nobody holds. What cannot be removed hinders nobody.
pub fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_ours = entry.path().symlink_metadata().is_ok_and(|seen| {
            let is_of_us = seen.uid() == rustix::process::geteuid().as_raw();
            let is_kind =
                (name.starts_with(DIRECTORY) && seen.is_dir()) || (name.starts_with(FILE) && seen.is_file());
            is_of_us && is_kind
        });
        if !is_ours {
            continue;
        }
        let path = entry.path();
        let removed = if name.starts_with(DIRECTORY) { remove_directory(&path) } else { remove_file(&path) };
        match removed {
            Ok(true) => info!(path = %path.display(), "removed what a killed process had left"),
            Ok(false) => {}
            Err(error) => warn!(%error, path = %path.display(), "what a killed process has left stays"),
        }
    }
}

/// `None` when somebody holds it, or nobody can know.
fn unheld(path: &Path) -> io::Result<Option<File>> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(file))
}

fn remove_file(path: &Path) -> io::Result<bool> {
    let Some(_held) = unheld(path)? else { return Ok(false) };
    std::fs::remove_file(path).map(|()| true)
}

fn remove_directory(path: &Path) -> io::Result<bool> {
    let lock = path.join(LOCK);
    let _held = match unheld(&lock) {
        Ok(Some(held)) => Some(held),
        Ok(None) => return Ok(false),
        // Killed in between, or about to make it, who then finds it gone and goes on; a
        // directory that holds something is left.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if _held.is_some() {
        // The lock goes last: without it the rest would stay for ever.
        for entry in std::fs::read_dir(path)?.flatten().filter(|entry| entry.file_name() != LOCK) {
            let inner = entry.path();
            match inner.symlink_metadata()?.is_dir() {
                true => std::fs::remove_dir_all(&inner)?,
                false => std::fs::remove_file(&inner)?,
            }
        }
        std::fs::remove_file(&lock)?;
    }
    match std::fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(parent: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(parent)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_the_dead_left_goes_and_what_the_living_hold_stays() {
        let parent = tempfile::tempdir().unwrap();
        let (held, lock) = make_directory(parent.path()).unwrap();
        let (file, open) = make_file(parent.path()).unwrap();
        for _ in 0..2 {
            // A file of another name, and a link to a place that is not ours to empty.
            std::fs::write(parent.path().join(".backstay-spool"), "x").unwrap();
            let link = parent.path().join(".backstay-spool-1-9");
            let _ = std::os::unix::fs::symlink(&held, &link);
            sweep(parent.path());
            assert!(held.join(LOCK).exists() && file.exists());
        }
        std::fs::create_dir(held.join("dump")).unwrap();
        std::fs::write(held.join("dump/1.dat"), "rows").unwrap();
        std::fs::write(&file, "rows").unwrap();
        // As the kernel does for a process that is killed.
        drop((lock, open));
        sweep(parent.path());
        let (new, _lock) = make_directory(parent.path()).unwrap();
        let new = new.file_name().unwrap().to_str().unwrap().to_owned();
        let mut left = vec![".backstay-spool".to_owned(), ".backstay-spool-1-9".to_owned(), new];
        left.sort();
        assert_eq!(names(parent.path()), left);
    }

    #[test]
    fn what_was_removed_before_it_was_held_is_not_held() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join(".backstay-restore-1-0");
        let file = new_file(&path).unwrap();
        // A sweep came between the making and the lock, and another has the name since.
        std::fs::remove_file(&path).unwrap();
        assert!(hold(&path, file.try_clone().unwrap()).is_none());
        let other = new_file(&path).unwrap();
        assert!(hold(&path, file).is_none());
        assert!(hold(&path, other).is_some());
    }

    #[test]
    fn one_that_was_killed_before_it_held_anything_leaves_nothing_for_ever() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::create_dir(parent.path().join(".backstay-spool-7-0")).unwrap();
        std::fs::create_dir_all(parent.path().join(".backstay-spool-7-1/dump")).unwrap();
        sweep(parent.path());
        assert_eq!(names(parent.path()), [".backstay-spool-7-1"], "nobody knows whose it is");
    }
}

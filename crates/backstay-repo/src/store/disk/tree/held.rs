//! What is held by somebody who lives, and what nobody holds any more.
//!
//! The kernel lets a lock go however its holder dies; a file system without locks keeps
//! nobody away, and has nothing taken from it but by age.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use jiff::Timestamp;
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{FILE_MODE, LOCK, OPEN_DIRECTORY, Tree, UNFINISHED, file_name, is_named, modified};
use crate::store::{Operation, StoreError};

impl Tree {
    /// `None` when somebody else holds the lock.
    pub fn try_lock(&self) -> Result<Option<File>, StoreError> {
        let failed = |error: io::Error| StoreError::from_io(Operation::Open, LOCK, error);
        let open = || -> io::Result<(OwnedFd, File)> {
            let directory = self.directory(self.root_or_create()?, UNFINISHED)?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&directory, file_name(LOCK), flags, FILE_MODE)?;
            Ok((directory, File::from(file)))
        };
        let (directory, file) = open().map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            // There are no locks here.
            Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK | Errno::INVAL) => return Ok(Some(file)),
            Err(error) => return Err(failed(error.into())),
        }
        // A lock on a file that somebody has removed keeps nobody away.
        Ok(is_named(&directory, file_name(LOCK), &file).then_some(file))
    }

    /// Removes files without a name that nobody holds, and says how many.
    pub fn sweep_dead(&self) -> Result<u64, StoreError> {
        self.sweep_where(|directory, name, _| {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?;
            let locked = rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive);
            locked.is_ok().then(|| Some(File::from(opened)))
        })
    }

    pub fn sweep(&self, written_before: Timestamp) -> Result<u64, StoreError> {
        self.sweep_where(|_, _, seen| seen.is_some_and(|at| at < written_before).then_some(None))
    }

    /// Removes what is chosen by its name and the time when it was last written; what was
    /// chosen may be held until it is gone.
    fn sweep_where(
        &self,
        choose: impl Fn(&OwnedFd, &CStr, Option<Timestamp>) -> Option<Option<File>>,
    ) -> Result<u64, StoreError> {
        let failed = |error: io::Error| StoreError::from_io(Operation::Delete, UNFINISHED, error);
        let opened = self.root().and_then(|root| {
            Ok(rustix::fs::openat(root, UNFINISHED, OPEN_DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?)
        });
        let directory = match opened {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(failed(error)),
        };
        let mut swept = 0;
        for entry in Dir::read_from(&directory).map_err(|error| failed(error.into()))? {
            let entry = entry.map_err(|error| failed(error.into()))?;
            if !entry.file_name().to_bytes().starts_with(b"tmp-") {
                continue;
            }
            let written = match rustix::fs::statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => modified(&stat),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error.into())),
            };
            let Some(_held) = choose(&directory, entry.file_name(), written) else { continue };
            match rustix::fs::unlinkat(&directory, entry.file_name(), AtFlags::empty()) {
                Ok(()) => swept += 1,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(swept)
    }
}

//! The file system calls of the disk store and of the shelf, each on a thread that may
//! block.
//!
//! Every path is resolved from one open directory, so that a repository whose
//! file system is unmounted or replaced under a running process gives errors
//! and never a second, empty repository on the disk below.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::large_write;
use crate::layout::ObjectName;
use crate::store::{Operation, StoreError};

mod held;

/// A relative path whose segments were checked when it was made: none is empty, hidden,
/// `.` or `..`, so it stays below its root and never meets a file without a name.
pub(crate) trait TreePath: fmt::Display {
    fn as_path(&self) -> &str;
}

impl TreePath for ObjectName {
    fn as_path(&self) -> &str {
        self.as_str()
    }
}

/// What a look at a file tells.
pub(crate) struct Seen {
    pub size_bytes: u64,
    pub modified: Option<Timestamp>,
}

impl Seen {
    pub fn of(stat: &Stat) -> Self {
        Seen { size_bytes: stat.st_size as u64, modified: modified(stat) }
    }
}

/// Where files lie until they have their name. Hidden, so no object can meet it.
pub(crate) const UNFINISHED: &str = ".unfinished";
/// In a shelf: whoever changes what is there holds a lock on it. No sweep takes it away.
pub(crate) const LOCK: &str = ".unfinished/lock";
const DIRECTORY_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Directories remembered as durable; beyond that they are forgotten and brought
/// to the disk once more, which costs an fsync and nothing else.
const DURABLE_DIRECTORIES_MAX: usize = 4096;
/// How often a directory may vanish under a writer (the collector removes empty
/// ones) before it is called an error.
const DIRECTORY_ATTEMPTS: u32 = 16;
pub(super) const OPEN_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const OPEN_FILE: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// What else may lie in a tree, and with it what is done about links and directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Custody {
    /// Ours alone: a link is an error (what lies behind one would be left out of a
    /// listing in silence), and directories that become empty go.
    Sole,
    /// Others put files and links there and made the directories: a file is read through
    /// a link, a walk passes over it, and directories stay.
    Shared,
}

pub(crate) struct Tree {
    path: PathBuf,
    custody: Custody,
    root: OnceLock<OwnedFd>,
    durable: Mutex<HashSet<String>>,
}

/// A file without a name. Dropped before [`publish`](Unfinished::publish), it is removed.
pub(crate) struct Unfinished {
    operation: Operation,
    object: String,
    pub(super) file: File,
    temporary: String,
    tree: Arc<Tree>,
    root: OwnedFd,
    directory: OwnedFd,
    /// A write or a sync failed, or has not come back: what the file holds on the
    /// disk is not known any more, and asking again would not tell.
    failed: bool,
    done: bool,
}

impl Tree {
    pub fn new(path: PathBuf, custody: Custody) -> Self {
        Self { path, custody, root: OnceLock::new(), durable: Mutex::new(HashSet::new()) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn custody(&self) -> Custody {
        self.custody
    }

    /// The repository's directory, opened once; `NotFound` while it does not exist.
    pub fn root(&self) -> io::Result<&OwnedFd> {
        if let Some(root) = self.root.get() {
            return Ok(root);
        }
        let opened = rustix::fs::open(&self.path, OPEN_DIRECTORY, Mode::empty())?;
        Ok(self.root.get_or_init(|| opened))
    }

    fn root_or_create(&self) -> io::Result<&OwnedFd> {
        match self.root() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_durably(&self.path)?;
                self.root()
            }
            other => other,
        }
    }

    /// Opens (making it when needed) the directory of an object, durable up to the root.
    pub fn directory_of(&self, object: &str) -> io::Result<OwnedFd> {
        let root = self.root_or_create()?;
        let Some((parent, _)) = object.rsplit_once('/') else {
            return root.try_clone();
        };
        self.directory(root, parent)
    }

    fn directory(&self, root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
        let known = self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(path);
        if known {
            match rustix::fs::openat(root, path, OPEN_DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => {}
                other => return Ok(other?),
            }
        }
        let mut opened = root.try_clone()?;
        for segment in path.split('/') {
            match rustix::fs::mkdirat(&opened, segment, DIRECTORY_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            // Also when another process made it a moment ago: it may not have
            // come as far as its own fsync.
            sync(&opened)?;
            opened = rustix::fs::openat(&opened, segment, OPEN_DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        }
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.len() >= DURABLE_DIRECTORIES_MAX {
            durable.clear();
        }
        durable.insert(path.to_owned());
        Ok(opened)
    }

    /// Begins a file that is to become `object`.
    pub fn begin(
        self: &Arc<Self>,
        operation: Operation,
        object: &impl TreePath,
    ) -> Result<Unfinished, StoreError> {
        let failed = |error| StoreError::from_io(operation, object, error);
        let mut attempt = 0;
        loop {
            match self.try_begin(operation, object.as_path()) {
                // The directory was removed as empty between two of our calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < DIRECTORY_ATTEMPTS => {
                    attempt += 1;
                }
                other => return other.map_err(failed),
            }
        }
    }

    fn try_begin(self: &Arc<Self>, operation: Operation, object: &str) -> io::Result<Unfinished> {
        let root = self.root_or_create()?;
        let unfinished = self.directory(root, UNFINISHED)?;
        let directory = self.directory_of(object)?;
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(io::Error::from)?;
        let name = format!("tmp-{}", hex::encode(random));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&unfinished, &name, flags, FILE_MODE)?);
        if self.custody == Custody::Shared {
            // Whoever looks for what the dead have left sees that this has an owner.
            let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
            if locked == Err(Errno::WOULDBLOCK) || !is_named(&unfinished, &name, &file) {
                // One of them came between the two calls and has removed it.
                return Err(io::ErrorKind::NotFound.into());
            }
        }
        Ok(Unfinished {
            operation,
            object: object.to_owned(),
            file,
            temporary: format!("{UNFINISHED}/{name}"),
            tree: Arc::clone(self),
            root: root.try_clone()?,
            directory,
            failed: false,
            done: false,
        })
    }

    pub fn open_object(
        &self,
        operation: Operation,
        object: &impl TreePath,
    ) -> Result<(File, u64), StoreError> {
        let failed = |error: io::Error| StoreError::from_io(operation, object, error);
        let root = self.root().map_err(failed)?;
        let how = match self.custody {
            Custody::Sole => OFlags::NOFOLLOW,
            // Somebody's pipe must be an error and not a wait for its writer.
            Custody::Shared => OFlags::NONBLOCK,
        };
        let opened = rustix::fs::openat(root, object.as_path(), OPEN_FILE | how, Mode::empty())
            .map_err(|error| failed(error.into()))?;
        let stat = rustix::fs::fstat(&opened).map_err(|error| failed(error.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((File::from(opened), stat.st_size as u64)),
            FileType::Directory => Err(StoreError::NotFound { object: object.to_string() }),
            _ => Err(failed(io::Error::other("not a regular file"))),
        }
    }

    pub fn read_whole(&self, object: &impl TreePath, max_bytes: u64) -> Result<Bytes, StoreError> {
        let (file, size_bytes) = self.open_object(Operation::Get, object)?;
        if size_bytes > max_bytes {
            return Err(StoreError::TooLarge { object: object.to_string(), size_bytes, max_bytes });
        }
        read_exactly(&file, Operation::Get, object, 0, size_bytes)
    }

    pub fn read_range(&self, object: &impl TreePath, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let (file, size_bytes) = self.open_object(Operation::GetRange, object)?;
        let available = size_bytes.saturating_sub(offset);
        if available < length {
            return Err(StoreError::WrongRange {
                object: object.to_string(),
                offset,
                length,
                got: available,
            });
        }
        read_exactly(&file, Operation::GetRange, object, offset, length)
    }

    pub fn look_at(&self, object: &impl TreePath) -> Result<Seen, StoreError> {
        let failed = |error: io::Error| StoreError::from_io(Operation::Head, object, error);
        let root = self.root().map_err(failed)?;
        let links = if self.custody == Custody::Sole { AtFlags::SYMLINK_NOFOLLOW } else { AtFlags::empty() };
        let stat = rustix::fs::statat(root, object.as_path(), links).map_err(|error| failed(error.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Seen::of(&stat)),
            FileType::Directory => Err(StoreError::NotFound { object: object.to_string() }),
            _ => Err(failed(io::Error::other("not a regular file"))),
        }
    }

    /// Removes the file, durably, and in a tree of our own the directories that it leaves
    /// empty.
    pub fn remove(&self, object: &impl TreePath) -> Result<(), StoreError> {
        let failed = |error: io::Error| StoreError::from_io(Operation::Delete, object, error);
        let root = match self.root() {
            Ok(root) => root,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        match rustix::fs::unlinkat(root, object.as_path(), AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR) => return Ok(()),
            Err(error) => return Err(failed(error.into())),
        }
        let mut path = object.as_path();
        loop {
            let parent = path.rsplit_once('/').map(|(parent, _)| parent);
            match rustix::fs::openat(root, parent.unwrap_or("."), OPEN_DIRECTORY, Mode::empty()) {
                Ok(directory) => sync(&directory).map_err(failed)?,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error.into())),
            }
            let Some(parent) = parent.filter(|_| self.custody == Custody::Sole) else { return Ok(()) };
            // Not empty, or gone already, or not ours to remove: all are fine.
            if rustix::fs::unlinkat(root, parent, AtFlags::REMOVEDIR).is_err() {
                return Ok(());
            }
            self.durable.lock().unwrap_or_else(PoisonError::into_inner).remove(parent);
            path = parent;
        }
    }
}

impl Unfinished {
    fn file_name(&self) -> &str {
        file_name(&self.object)
    }

    /// The path that it has until it gets its name.
    pub fn temporary(&self) -> &str {
        &self.temporary
    }

    fn failed(&self, operation: Operation, error: impl Into<io::Error>) -> StoreError {
        StoreError::from_io(operation, &self.object, error.into())
    }

    /// Does what must not be tried twice. The mark is set beforehand, so that a
    /// thread which died in the middle leaves it as well.
    fn once(&mut self, work: impl FnOnce(&Self) -> io::Result<()>) -> Result<(), StoreError> {
        if self.failed {
            let earlier =
                io::Error::other("an earlier attempt to write it or to bring it to the disk failed");
            return Err(self.failed(self.operation, earlier));
        }
        self.failed = true;
        work(self).map_err(|error| self.failed(self.operation, error))?;
        self.failed = false;
        Ok(())
    }

    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.once(|unfinished| large_write::write_all_at(&unfinished.file, bytes, offset).map_err(lasting))
    }

    /// Makes the file durable, gives it its name unless that is taken, and makes
    /// the name durable. May be called again after an error, but for one in
    /// writing or syncing, which stays.
    pub fn publish(&mut self) -> Result<(), StoreError> {
        if self.done {
            return Ok(());
        }
        self.once(|unfinished| sync(&unfinished.file))?;
        let mut named = self.give_name();
        if named == Err(Errno::NOENT) && !self.is_named() {
            // The directory was removed as empty while the file was being written.
            self.directory =
                self.tree.directory_of(&self.object).map_err(|error| self.failed(self.operation, error))?;
            named = self.give_name();
        }
        match named {
            Ok(()) => {}
            // A server that lost its first answer repeats the call and reports the
            // name as taken, by our own file.
            Err(Errno::EXIST | Errno::NOENT) if self.is_named() => {}
            Err(Errno::EXIST) => {
                // The other one's name must be as durable as our word that it exists.
                self.once(|unfinished| sync(&unfinished.directory))?;
                return Err(StoreError::AlreadyExists { object: self.object.clone() });
            }
            Err(error) => return Err(self.failed(self.operation, error)),
        }
        self.once(|unfinished| sync(&unfinished.directory))?;
        self.done = true;
        // Left over where the name was given by a link; elsewhere it is gone.
        self.discard();
        Ok(())
    }

    /// Another name for the one that it was begun for, before it has any.
    pub fn call(&mut self, object: String) -> Result<(), StoreError> {
        let directory = self.tree.directory_of(&object);
        self.directory = directory.map_err(|error| StoreError::from_io(self.operation, &object, error))?;
        self.object = object;
        Ok(())
    }

    /// Makes the file durable and gives it its name, in the place of whatever has it.
    pub fn replace(&mut self) -> Result<(), StoreError> {
        self.once(|unfinished| sync(&unfinished.file))?;
        rustix::fs::renameat(&self.root, &*self.temporary, &self.directory, self.file_name())
            .map_err(|error| self.failed(self.operation, error))?;
        self.once(|unfinished| sync(&unfinished.directory))?;
        self.done = true;
        Ok(())
    }

    fn give_name(&self) -> Result<(), Errno> {
        let (from, name) = (&*self.temporary, self.file_name());
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.root, from, &self.directory, name, flags) {
            // Network file systems do not know the flag; a hard link refuses a taken name too.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(&self.root, from, &self.directory, name, AtFlags::empty())
            }
            other => other,
        }
    }

    fn is_named(&self) -> bool {
        is_named(&self.directory, self.file_name(), &self.file)
    }

    /// Whatever goes wrong here, the file has no name, and is swept later.
    pub fn discard(&mut self) {
        let _ = rustix::fs::unlinkat(&self.root, &*self.temporary, AtFlags::empty());
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.done {
            self.discard();
        }
    }
}

/// Whether the name is that of this file, and not of another by now.
fn is_named(directory: &OwnedFd, name: &str, file: &File) -> bool {
    let there = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    let ours = rustix::fs::fstat(file);
    matches!((there, ours), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// The part of a path after the last `/`.
pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Brings a file or a directory to the disk.
pub(crate) fn sync(opened: impl AsFd) -> io::Result<()> {
    rustix::fs::fsync(opened).map_err(|error| lasting(error.into()))
}

/// The kernel tells of bytes that it could not write once, and takes them for
/// written from then on: a second sync of the same file succeeds without them. So
/// an error in writing must not look like one that passes.
fn lasting(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem => error,
        _ => io::Error::other(error),
    }
}

/// Makes the directory and those above it that are missing, each durable in its parent.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_durably(parent)?;
    match rustix::fs::mkdir(path, DIRECTORY_MODE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    sync(File::open(parent)?)
}

fn read_exactly(
    file: &File,
    operation: Operation,
    object: &impl TreePath,
    offset: u64,
    length: u64,
) -> Result<Bytes, StoreError> {
    let mut bytes = vec![0; length as usize];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(bytes.into()),
        // It had that size a moment ago: something cuts files under us.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(StoreError::WrongRange { object: object.to_string(), offset, length, got: 0 })
        }
        Err(error) => Err(StoreError::from_io(operation, object, error)),
    }
}

fn modified(stat: &Stat) -> Option<Timestamp> {
    Timestamp::new(stat.st_mtime, i32::try_from(stat.st_mtime_nsec).ok()?).ok()
}

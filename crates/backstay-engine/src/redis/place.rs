//! A directory that a server starts on with what a backup holds.
//!
//! A server with `appendonly yes` ignores a snapshot that lies in its directory and starts empty,
//! and one without ignores the append-only files. So the snapshot lies there under both names, as
//! one file: servers replace both by renaming, and write into neither.
//!
//! Invariant: until everything has reached the disk nothing has a name that a server would load.
//! Then the manifest gets its name first, the snapshot the second, and the files that the manifest
//! lists the last. A server that appends starts empty on a base without its manifest, and writes
//! over it; one whose manifest lists a file that is missing ends. So that one finds nothing, or
//! ends, or finds all; and the other one has its snapshot before any append-only file has a name.
//! Only where no byte of the data has a name does a server start empty.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_model::error::Fault;
use backstay_model::parts::{ParentFile, PartKind, PartTarget, PartWriter};

use super::beside::{PATHS, USERS};
use super::error::RedisError;
use crate::snapshot::RdbCheck;
use crate::{Error, Result};

mod file_names;
mod naming;
mod standing;

pub use file_names::FileNames;
pub use standing::{Holder, check_stopped, holder};

/// Everything lies in there until it is whole.
const UNFINISHED: &str = "backstay-restoring";
/// A snapshot cannot say what the stream behind it made. A server that does not append would start
/// empty without one: of this it says that it is none, and ends.
pub(super) const GUARD: &str = "no snapshot: what was restored lies in the append-only files beside it, \
    so start the server with `appendonly yes`\n";
const PIECE: usize = 1 << 20;

/// Whether a directory is fit for so many bytes. Changes nothing.
///
/// # Errors
///
/// [`Error::TargetNotEmpty`], [`Error::TargetTooSmall`], [`Error::TargetUnusable`].
pub fn check(directory: &Path, needed: u64) -> Result<()> {
    match standing::is_empty(directory)? {
        true => room(directory, needed),
        false => Err(Error::TargetNotEmpty { path: directory.to_owned() }),
    }
}

/// What a restore that was not finished has left there.
pub fn remains(directory: &Path) -> Option<PathBuf> {
    Some(directory.join(UNFINISHED)).filter(|left| left.exists())
}

fn room(directory: &Path, needed: u64) -> Result<()> {
    let above = directory.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let unusable =
        |error: rustix::io::Errno| Error::TargetUnusable { path: directory.to_owned(), source: error.into() };
    let state = rustix::fs::statvfs(above).map_err(unusable)?;
    let free = state.f_bavail.saturating_mul(state.f_frsize);
    if free < needed {
        return Err(Error::TargetTooSmall { path: above.to_owned(), needed, free });
    }
    Ok(())
}

/// A directory that is being filled.
pub struct RedisPlace {
    directory: PathBuf,
    names: FileNames,
    snapshot: Arc<File>,
    /// What the server replays behind it.
    stream: Option<File>,
    /// What lies there goes into a directory of this name.
    set_aside: Option<String>,
}

impl RedisPlace {
    /// # Errors
    ///
    /// Those of [`check`], and where nothing can be written there.
    pub fn begin(directory: &Path, names: FileNames, length: u64) -> Result<RedisPlace> {
        check(directory, length)?;
        RedisPlace::make(directory, names, length)
    }

    /// In the directory of a stopped server, whose files go into a directory of this name in there.
    ///
    /// # Errors
    ///
    /// Those of [`check_stopped`], and [`RedisError::NoExchange`].
    pub fn begin_beside(
        directory: &Path,
        names: FileNames,
        length: u64,
        set_aside: String,
    ) -> Result<RedisPlace> {
        check_stopped(directory, &names, length)?;
        if standing::is_empty(directory)? {
            return RedisPlace::make(directory, names, length);
        }
        let place = RedisPlace::make(directory, names, length)?;
        if naming::can_exchange(&place.unfinished())? {
            return Ok(RedisPlace { set_aside: Some(set_aside), ..place });
        }
        let left = place.unfinished();
        fs::remove_dir_all(&left).map_err(|source| Error::Write { path: left, source })?;
        Err(RedisError::NoExchange { directory: directory.to_owned() }.into())
    }

    fn make(directory: &Path, names: FileNames, length: u64) -> Result<RedisPlace> {
        let unusable = |source: io::Error| Error::TargetUnusable { path: directory.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
        let unfinished = directory.join(UNFINISHED);
        let append_only = unfinished.join(&names.append_only_directory);
        let base = append_only.join(names.base());
        let make = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        make(&unfinished).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::TargetNotEmpty { path: directory.to_owned() },
            _ => Error::Write { path: unfinished.clone(), source },
        })?;
        make(&append_only).map_err(|source| Error::Write { path: append_only, source })?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&base);
        let file = file.map_err(|source| Error::Write { path: base.clone(), source })?;
        // Zeros are not written.
        file.set_len(length).map_err(|source| Error::Write { path: base, source })?;
        Ok(RedisPlace {
            directory: directory.to_owned(),
            names,
            snapshot: Arc::new(file),
            stream: None,
            set_aside: None,
        })
    }

    fn unfinished(&self) -> PathBuf {
        self.directory.join(UNFINISHED)
    }

    fn append_only(&self) -> PathBuf {
        self.unfinished().join(&self.names.append_only_directory)
    }

    fn base(&self) -> PathBuf {
        self.append_only().join(self.names.base())
    }

    fn increment(&self) -> PathBuf {
        self.append_only().join(self.names.increment())
    }

    /// Where the snapshot goes.
    pub fn snapshot(&self) -> Arc<dyn PartWriter> {
        Arc::new(Writer { file: Arc::clone(&self.snapshot), path: self.base() })
    }

    /// Adds to what the server replays behind the snapshot.
    pub fn add_stream(&mut self, bytes: &[u8]) -> Result<()> {
        let path = self.increment();
        let failed = |source| Error::Write { path: path.clone(), source };
        let file = match &mut self.stream {
            Some(file) => file,
            None => {
                let mut options = OpenOptions::new();
                let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
                self.stream.insert(file.map_err(failed)?)
            }
        };
        file.write_all(bytes).map_err(failed)
    }

    /// Only so many bytes of it: the rest is behind the target.
    pub fn cut_stream(&mut self, length: u64) -> Result<()> {
        let Some(file) = &self.stream else { return Ok(()) };
        file.set_len(length).map_err(|source| Error::Write { path: self.increment(), source })
    }

    /// Where the files beside it go: into a directory of their own.
    pub fn beside(&self) -> Arc<dyn PartTarget> {
        Arc::new(Beside(self.unfinished()))
    }

    /// Everything is written: makes it durable, looks at it once more, and gives it its names. Where
    /// what had them lies then.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`] where what lies there is not whole, and [`RedisError::Served`] where a
    /// server was started meanwhile.
    pub fn settle(self) -> Result<Option<PathBuf>> {
        self.complete()?;
        let unfinished = self.unfinished();
        match &self.set_aside {
            None => {
                let within = &self.names.append_only_directory;
                naming::give(&unfinished, &self.directory, within, &self.new_names()).map(|()| None)
            }
            Some(called) => {
                standing::refuse_served(&self.directory, &self.names)?;
                naming::exchange(&unfinished, &self.directory, &self.called(), called).map(Some)
            }
        }
    }

    /// As root, to whom the directory belongs: its server could not read what is root's.
    fn give_away(&self) -> Result<()> {
        let failed = |source| Error::Write { path: self.unfinished(), source };
        let owner = fs::metadata(&self.directory).map_err(failed)?;
        let mut left = vec![self.unfinished()];
        while let Some(path) = left.pop() {
            lchown(&path, Some(owner.uid()), Some(owner.gid())).map_err(failed)?;
            if path.is_dir() {
                for entry in fs::read_dir(&path).map_err(failed)? {
                    left.push(entry.map_err(failed)?.path());
                }
            }
        }
        Ok(())
    }

    /// Whole and on the disk, but for the names.
    fn complete(&self) -> Result<()> {
        let (unfinished, append_only) = (self.unfinished(), self.append_only());
        self.snapshot.sync_all().map_err(|source| Error::Write { path: self.base(), source })?;
        self.look()?;
        let snapshot = unfinished.join(&self.names.snapshot);
        let mut listed = self.names.manifest_text();
        let made = match &self.stream {
            None => fs::hard_link(self.base(), &snapshot),
            Some(stream) => {
                stream.sync_all().map_err(|source| Error::Write { path: self.increment(), source })?;
                listed.push_str(&self.names.increment_text());
                write(&snapshot, GUARD)
            }
        };
        made.map_err(|source| Error::Write { path: snapshot, source })?;
        let manifest = append_only.join(self.names.manifest());
        write(&manifest, &listed).map_err(|source| Error::Write { path: manifest, source })?;
        if self.set_aside.is_some() && rustix::process::geteuid().is_root() {
            self.give_away()?;
        }
        let beside = beside_of(&unfinished);
        let directories = beside.as_deref().into_iter().chain([append_only.as_path(), &unfinished]);
        directories.into_iter().try_for_each(sync)
    }

    /// What nothing in an empty directory has, the base last.
    fn new_names(&self) -> Vec<PathBuf> {
        let append_only = Path::new(&self.names.append_only_directory);
        let mut names = vec![append_only.join(self.names.manifest())];
        names.extend(self.beside_name());
        names.push(PathBuf::from(&self.names.snapshot));
        names.extend(self.stream.as_ref().map(|_| append_only.join(self.names.increment())));
        names.push(append_only.join(self.names.base()));
        names
    }

    fn beside_name(&self) -> Option<PathBuf> {
        beside_of(&self.unfinished()).and_then(|path| Some(path.file_name()?.into()))
    }

    /// The names that change places with those of a server, whose append-only files go as a whole.
    fn called(&self) -> Vec<PathBuf> {
        let beside = self.beside_name();
        let own = [&self.names.snapshot, &self.names.append_only_directory].map(PathBuf::from);
        beside.into_iter().chain(own).collect()
    }

    /// The bytes that a server would load.
    fn look(&self) -> Result<()> {
        let path = self.base();
        let mut file = File::open(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let (mut check, mut piece) = (RdbCheck::default(), vec![0; PIECE]);
        loop {
            let count = file.read(&mut piece).map_err(|source| Error::Read { path: path.clone(), source })?;
            if count == 0 {
                return check.finish().map(drop);
            }
            check.push(&piece[..count]);
        }
    }
}

/// The directory of the small files, where there are any.
fn beside_of(unfinished: &Path) -> Option<PathBuf> {
    let beside = unfinished.join(Path::new(USERS).parent()?);
    beside.is_dir().then_some(beside)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

pub(super) fn sync(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|open| open.sync_all());
    synced.map_err(|source| Error::Write { path: directory.to_owned(), source })
}

struct Writer {
    file: Arc<File>,
    path: PathBuf,
}

impl PartWriter for Writer {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let written = self.file.write_all_at(bytes, offset);
        Ok(written.map_err(|source| Error::Write { path: self.path.clone(), source })?)
    }

    fn finish(&self) -> Result<(), Fault> {
        let synced = self.file.sync_all();
        Ok(synced.map_err(|source| Error::Write { path: self.path.clone(), source })?)
    }
}

/// The small files, under the names that they have in the backup.
struct Beside(PathBuf);

impl PartTarget for Beside {
    fn create(&self, file: &ParentFile) -> Result<Option<Box<dyn PartWriter>>, Fault> {
        let PartKind::File(_) = file.spec.kind else { return Ok(None) };
        // A path out of a repository that somebody else wrote leads nowhere else.
        if !PATHS.contains(&file.spec.path.as_str()) {
            return Ok(None);
        }
        let path = self.0.join(&file.spec.path);
        let make = || {
            if let Some(above) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
            }
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)
        };
        let made = make().map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(Some(Box::new(Writer { file: Arc::new(made), path })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_comes_first_and_the_snapshot_before_what_is_listed() {
        let place = tempfile::TempDir::new().unwrap();
        let mut begun = RedisPlace::begin(&place.path().join("data"), FileNames::default(), 10).unwrap();
        let base = "appendonlydir/appendonly.aof.1.base.rdb";
        let leading = ["appendonlydir/appendonly.aof.manifest", "dump.rdb"];
        assert_eq!(begun.new_names(), [leading[0], leading[1], base].map(PathBuf::from));
        begun.add_stream(b"*1\r\n$4\r\nPING\r\n").unwrap();
        let increment = "appendonlydir/appendonly.aof.1.incr.aof";
        assert_eq!(begun.new_names(), [leading[0], leading[1], increment, base].map(PathBuf::from));
    }

    #[test]
    fn what_is_not_whole_gets_no_name_that_a_server_loads() {
        let place = tempfile::TempDir::new().unwrap();
        let into = place.path().join("data");
        let begun = RedisPlace::begin(&into, FileNames::default(), 10).unwrap();
        begun.snapshot().write_at(0, b"REDIS0011 and so on").unwrap();
        assert!(matches!(begun.settle(), Err(Error::Snapshot { .. })));
        let names: Vec<_> = fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [UNFINISHED]);
        assert!(matches!(check(&into, 1), Err(Error::TargetNotEmpty { .. })));
        assert!(matches!(check(&place.path().join("x"), u64::MAX), Err(Error::TargetTooSmall { .. })));
    }
}

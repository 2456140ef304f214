//! A directory that a server starts on with what a backup holds.
//!
//! A server with `appendonly yes` ignores a snapshot that lies in its directory and starts empty,
//! and one without ignores the append-only files. So the snapshot lies there under both names, as
//! one file: servers replace both by renaming, and write into neither.
//!
//! Invariant: until everything has reached the disk nothing has a name that a server would load;
//! the manifest of the append-only files gets its name last.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_model::error::Fault;
use backstay_model::parts::{ParentFile, PartKind, PartTarget, PartWriter};

use super::base::{MODULES, SETTINGS, USERS};
use crate::snapshot::RdbCheck;
use crate::{Error, Result};

/// What the snapshot is called until it is whole.
const UNFINISHED: &str = "backstay-restoring.rdb";
/// And what is replayed behind it.
const UNFINISHED_STREAM: &str = "backstay-restoring.aof";
const GUARD: &str = "no snapshot: what was restored lies in the append-only files beside it, \
    so start the server with `appendonly yes`\n";
const PIECE: usize = 1 << 20;

/// What the settings of a server call its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileNames {
    pub snapshot: String,
    pub append_only_directory: String,
    pub append_only: String,
    /// Whether the source appends.
    pub appends: bool,
}

impl Default for FileNames {
    fn default() -> Self {
        FileNames {
            snapshot: "dump.rdb".to_owned(),
            append_only_directory: "appendonlydir".to_owned(),
            append_only: "appendonly.aof".to_owned(),
            appends: false,
        }
    }
}

impl FileNames {
    /// Of the settings that lie in a backup. A name that leads elsewhere is not followed.
    pub fn of(settings: &[u8]) -> FileNames {
        let settings: serde_json::Value = serde_json::from_slice(settings).unwrap_or_default();
        let named = |name: &str, usual: String| match settings[name].as_str() {
            Some(name) if !name.is_empty() && !name.starts_with('.') && !name.contains('/') => {
                name.to_owned()
            }
            _ => usual,
        };
        let usual = FileNames::default();
        FileNames {
            snapshot: named("dbfilename", usual.snapshot),
            append_only_directory: named("appenddirname", usual.append_only_directory),
            append_only: named("appendfilename", usual.append_only),
            appends: settings["appendonly"].as_str() == Some("yes"),
        }
    }

    /// The snapshot as the base of the append-only files, in their directory.
    pub fn base(&self) -> String {
        format!("{}.1.base.rdb", self.append_only)
    }

    /// What names it to a server that appends; without it the server starts empty.
    pub fn manifest(&self) -> String {
        format!("{}.manifest", self.append_only)
    }

    pub fn manifest_text(&self) -> String {
        format!("file {} seq 1 type b\n", self.base())
    }
}

/// Whether a directory is fit for so many bytes. Changes nothing.
///
/// # Errors
///
/// [`Error::TargetNotEmpty`], [`Error::TargetTooSmall`], [`Error::TargetUnusable`].
pub fn check(directory: &Path, needed: u64) -> Result<()> {
    let unusable = |source: io::Error| Error::TargetUnusable { path: directory.to_owned(), source };
    match fs::read_dir(directory) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(Error::TargetNotEmpty { path: directory.to_owned() });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(error)),
    }
    let above = directory.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let state = rustix::fs::statvfs(above).map_err(|error| unusable(error.into()))?;
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
}

impl RedisPlace {
    /// # Errors
    ///
    /// Those of [`check`], and where nothing can be written there.
    pub fn begin(directory: &Path, names: FileNames, length: u64) -> Result<RedisPlace> {
        check(directory, length)?;
        let unusable = |source: io::Error| Error::TargetUnusable { path: directory.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
        let path = directory.join(UNFINISHED);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::TargetNotEmpty { path: directory.to_owned() },
            _ => Error::Write { path: path.clone(), source },
        })?;
        // Zeros are not written.
        file.set_len(length).map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(RedisPlace { directory: directory.to_owned(), names, snapshot: Arc::new(file), stream: None })
    }

    /// Where the snapshot goes.
    pub fn snapshot(&self) -> Arc<dyn PartWriter> {
        Arc::new(Writer { file: Arc::clone(&self.snapshot), path: self.directory.join(UNFINISHED) })
    }

    /// Adds to what the server replays behind the snapshot.
    pub fn add_stream(&mut self, bytes: &[u8]) -> Result<()> {
        let path = self.directory.join(UNFINISHED_STREAM);
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
        let path = self.directory.join(UNFINISHED_STREAM);
        file.set_len(length).map_err(|source| Error::Write { path, source })
    }

    /// Where the files beside it go: into a directory of their own.
    pub fn beside(&self) -> Arc<dyn PartTarget> {
        Arc::new(Beside(self.directory.clone()))
    }

    /// Everything is written: makes it durable, looks at it once more, and gives it its names.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`] where what lies there is not whole.
    pub fn settle(self) -> Result<()> {
        let unfinished = self.directory.join(UNFINISHED);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Write { path, source }
        };
        self.snapshot.sync_all().map_err(failed(&unfinished))?;
        self.look()?;
        let append_only = self.directory.join(&self.names.append_only_directory);
        fs::DirBuilder::new().mode(0o700).create(&append_only).map_err(failed(&append_only))?;
        let (as_base, as_snapshot) =
            (append_only.join(self.names.base()), self.directory.join(&self.names.snapshot));
        let mut listed = self.names.manifest_text();
        match &self.stream {
            None => fs::hard_link(&unfinished, &as_snapshot).map_err(failed(&as_snapshot))?,
            Some(stream) => {
                let made = self.directory.join(UNFINISHED_STREAM);
                stream.sync_all().map_err(failed(&made))?;
                let increment = format!("{}.1.incr.aof", self.names.append_only);
                let as_increment = append_only.join(&increment);
                fs::hard_link(&made, &as_increment).map_err(failed(&as_increment))?;
                fs::remove_file(&made).map_err(failed(&made))?;
                listed.push_str(&format!("file {increment} seq 1 type i\n"));
                guard(&as_snapshot).map_err(failed(&as_snapshot))?;
            }
        }
        fs::hard_link(&unfinished, &as_base).map_err(failed(&as_base))?;
        fs::remove_file(&unfinished).map_err(failed(&unfinished))?;
        sync(&append_only)?;
        for beside in [USERS, SETTINGS, MODULES].iter().filter_map(|path| Path::new(path).parent()).take(1) {
            let beside = self.directory.join(beside);
            if beside.is_dir() {
                sync(&beside)?;
            }
        }
        sync(&self.directory)?;
        let manifest = append_only.join(self.names.manifest());
        let made = append_only.join("backstay-restoring.manifest");
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&made)?;
            file.write_all(listed.as_bytes())?;
            file.sync_all()?;
            fs::hard_link(&made, &manifest)?;
            fs::remove_file(&made)
        };
        write().map_err(failed(&manifest))?;
        sync(&append_only)?;
        // Its name in the directory above, which may be new.
        self.directory.parent().map_or(Ok(()), sync)
    }

    /// The bytes that a server would load.
    fn look(&self) -> Result<()> {
        let path = self.directory.join(UNFINISHED);
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

/// A snapshot cannot say what the stream behind it made. A server that does not append would start
/// empty without one: of this it says that it is none, and ends.
fn guard(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(GUARD.as_bytes())?;
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
        if ![USERS, SETTINGS, MODULES].contains(&file.spec.path.as_str()) {
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
    fn files_are_called_as_the_source_called_them_and_never_lead_elsewhere() {
        let settings = br#"{"dbfilename":"a.rdb","appenddirname":"../up","appendfilename":""}"#;
        let names = FileNames::of(settings);
        assert_eq!(names, FileNames { snapshot: "a.rdb".to_owned(), ..FileNames::default() });
        assert_eq!(FileNames::of(b"not json"), FileNames::default());
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

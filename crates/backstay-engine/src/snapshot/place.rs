//! Files in a directory that was empty, each under a name of its own until all are good.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// Behind a name that is not given yet.
const UNFINISHED: &str = ".unfinished";

/// What is being put into a directory; taken back when it is dropped.
pub(crate) struct Files {
    directory: PathBuf,
    /// Made for this, the directory itself among them, from the outside in.
    directories: Vec<PathBuf>,
    /// In the order in which they get their names.
    files: Vec<PathBuf>,
    /// So many of them are each durable under their name before the next gets its own.
    leading: usize,
    /// Those that have their name, and which file it was given to: another's may have taken
    /// the place since, or have been there before.
    named: Vec<(PathBuf, Inode)>,
    is_committed: bool,
}

/// The device and the number of a file on it.
type Inode = (u64, u64);

fn inode(path: &Path) -> io::Result<Inode> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Files {
    pub fn begin(directory: &Path) -> Result<Files> {
        let mut files = Files {
            directory: directory.to_owned(),
            directories: Vec::new(),
            files: Vec::new(),
            leading: 0,
            named: Vec::new(),
            is_committed: false,
        };
        match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(Error::TargetNotEmpty { path: directory.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => files.make(directory.to_owned())?,
            Err(source) => return Err(Error::Write { path: directory.to_owned(), source }),
        }
        Ok(files)
    }

    fn make(&mut self, directory: PathBuf) -> Result<()> {
        let made = fs::DirBuilder::new().mode(0o700).create(&directory);
        made.map_err(|source| Error::Write { path: directory.clone(), source })?;
        self.directories.push(directory);
        Ok(())
    }

    /// A file that will have this name below the directory.
    pub fn create(&mut self, name: &Path) -> Result<File> {
        let path = self.make_room(name)?;
        let held = unfinished(&path);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&held);
        let file = opened.map_err(|source| Error::Write { path: held, source })?;
        self.files.push(path);
        Ok(file)
    }

    /// One of these files under a second name: the same file where there are links.
    pub fn twice(&mut self, name: &Path, again: &Path) -> Result<()> {
        let first = unfinished(&self.directory.join(name));
        let path = self.make_room(again)?;
        if fs::hard_link(&first, unfinished(&path)).is_ok() {
            self.files.push(path);
            return Ok(());
        }
        let mut copy = self.create(again)?;
        let copied = File::open(&first).and_then(|mut first| io::copy(&mut first, &mut copy));
        copied.map(drop).map_err(|source| Error::Write { path, source })
    }

    /// The directories above a file, and its path.
    fn make_room(&mut self, name: &Path) -> Result<PathBuf> {
        let mut parent = self.directory.clone();
        for part in name.parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            if !self.directories.contains(&parent) {
                self.make(parent.clone())?;
            }
        }
        Ok(self.directory.join(name))
    }

    /// All bytes are on the disk.
    pub fn sync(&mut self) -> Result<()> {
        for path in &self.files {
            let held = unfinished(path);
            let synced = File::open(&held).and_then(|file| file.sync_all());
            synced.map_err(|source| Error::Write { path: held, source })?;
        }
        Ok(())
    }

    /// These get their names before the others, in this order.
    pub fn lead(&mut self, names: &[&Path]) {
        for name in names.iter().rev() {
            let path = self.directory.join(name);
            if let Some(at) = self.files.iter().position(|file| *file == path) {
                let path = self.files.remove(at);
                self.files.insert(0, path);
            }
        }
        self.leading = names.len();
    }

    fn commit(&mut self) -> Result<()> {
        let files = self.files.clone();
        for (number, path) in files.iter().enumerate() {
            // Where none leads, the last one names the others to whoever reads them: it must not be
            // there without them after a power failure.
            if number > 0 && (number <= self.leading || number + 1 == files.len()) {
                self.sync_directories()?;
            }
            self.name(path)?;
        }
        self.sync_directories()?;
        self.is_committed = true;
        Ok(())
    }

    fn name(&mut self, path: &Path) -> Result<()> {
        let held = unfinished(path);
        let failed = |source| Error::Write { path: path.to_owned(), source };
        let own = inode(&held).map_err(failed)?;
        give_name(&held, path).map_err(failed)?;
        self.named.push((path.to_owned(), own));
        match fs::remove_file(&held) {
            // It was renamed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(failed),
        }
    }

    fn sync_directories(&self) -> Result<()> {
        let above = self.directory.parent().filter(|_| self.directories.contains(&self.directory));
        let own = std::iter::once(self.directory.as_path());
        for directory in self.directories.iter().map(PathBuf::as_path).chain(own).chain(above) {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(|source| Error::Write { path: directory.to_owned(), source })?;
        }
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if self.is_committed {
            return;
        }
        for path in &self.files {
            let _ = fs::remove_file(unfinished(path));
        }
        // As they came: what was safe half way there is so on the way back.
        for (path, own) in self.named.iter().rev() {
            if inode(path).is_ok_and(|there| there == *own) {
                let _ = fs::remove_file(path);
            }
        }
        for directory in self.directories.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Never in the place of a file that has the name.
fn give_name(held: &Path, path: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, held, CWD, path, RenameFlags::NOREPLACE) {
        // Network file systems do not know the flag; a hard link refuses a taken name too.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::hard_link(held, path),
        other => Ok(other?),
    }
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

/// Everything is there but the names.
pub struct Placed(Files);

impl Placed {
    pub(crate) fn of(files: Files) -> Self {
        Self(files)
    }

    /// Gives the files their names: those that lead, then the others in the order in which they were
    /// written; blocks.
    pub fn commit(mut self) -> Result<Vec<PathBuf>> {
        self.0.commit()?;
        Ok(std::mem::take(&mut self.0.files))
    }
}

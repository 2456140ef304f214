//! Goes through a data directory that a server is changing.
//!
//! Entries come in the bytewise order of their relative paths, directories before
//! what is in them; only the names of the directories on the way down are in
//! memory. What vanishes between being listed and being opened is no longer part
//! of the cluster and is passed over. Links are followed, because a backup that
//! holds only a link has lost the file, and each is told, because a restore makes
//! what it led to in its place; the links of tablespaces are the server's to remake.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use backstay_model::Finding;

use super::super::outcome::Outcome;
use super::super::rules::{self, Unlogged, Verdict};
use crate::{Error, Result};

pub(super) enum Found {
    Directory { path: String, metadata: Metadata },
    File { path: String, file: File, metadata: Metadata },
}

pub(super) struct Walk {
    root: PathBuf,
    /// The way down to where we are.
    way: Vec<Directory>,
    /// Tablespaces that existed when the backup began. Later ones are made by the log.
    tablespaces: Vec<u32>,
    /// `PG_15_202209061`: other versions' directories may lie beside it.
    version_directory: String,
    outcome: Outcome,
}

struct Directory {
    /// Relative, empty for the root.
    path: String,
    items: std::vec::IntoIter<Item>,
    unlogged: Unlogged,
    /// Device and inode: a link that leads back up would never end.
    identity: (u64, u64),
}

/// An entry, or the content of a directory. `a-b` sorts between `a` and `a/x`, so
/// the two come at different times.
struct Item {
    name: String,
    inside: bool,
}

impl Walk {
    pub(super) fn new(
        root: &Path,
        tablespaces: Vec<u32>,
        version_directory: String,
        outcome: Outcome,
    ) -> Result<Walk> {
        let mut walk =
            Walk { root: root.to_owned(), way: Vec::new(), tablespaces, version_directory, outcome };
        let metadata = fs::metadata(root).map_err(|source| Error::Read { path: root.to_owned(), source })?;
        match walk.list("", &metadata)? {
            Some(top) => walk.way.push(top),
            None => {
                let source = io::Error::from(io::ErrorKind::NotFound);
                return Err(Error::Read { path: root.to_owned(), source });
            }
        }
        Ok(walk)
    }

    pub(super) fn next(&mut self) -> Result<Option<Found>> {
        loop {
            let Some(directory) = self.way.last_mut() else { return Ok(None) };
            let Some(item) = directory.items.next() else {
                self.way.pop();
                continue;
            };
            if directory.unlogged.drops(&item.name) {
                continue;
            }
            let path = match directory.path.as_str() {
                "" => item.name,
                parent => format!("{parent}/{}", item.name),
            };
            let verdict = rules::verdict(&path);
            if verdict == Verdict::Skip || path == rules::CONTROL_FILE {
                continue;
            }
            if !self.is_ours(&path) {
                self.tell_stranger(&path, item.inside);
                continue;
            }
            if item.inside {
                if verdict == Verdict::Copy {
                    self.descend(&path)?;
                }
            } else if let Some(found) = self.look(path)? {
                return Ok(Some(found));
            }
        }
    }

    /// Whether an entry under `pg_tblspc` belongs to this cluster at this time.
    fn is_ours(&self, path: &str) -> bool {
        if let Some(number) = rules::tablespace_of(path) {
            return self.tablespaces.contains(&number);
        }
        match rules::tablespace_containing(path) {
            Some((_, inside)) => inside.split('/').next() == Some(self.version_directory.as_str()),
            None => true,
        }
    }

    /// A link that the server did not list belongs to a tablespace that was made since,
    /// and the log makes it again. Anything else with a number for its name would stop
    /// the recovery of a copy.
    fn tell_stranger(&self, path: &str, inside: bool) {
        let real = self.root.join(path);
        let is_strange = |metadata: Metadata| !metadata.is_symlink();
        if !inside && rules::tablespace_of(path).is_some() && real.symlink_metadata().is_ok_and(is_strange) {
            self.pass_over(path, "no tablespace that the server knows");
        }
    }

    fn look(&self, path: String) -> Result<Option<Found>> {
        let real = self.root.join(&path);
        let link = match fs::symlink_metadata(&real) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Read { path: real, source }),
        };
        let is_link = link.is_symlink();
        let metadata = if is_link {
            match fs::metadata(&real) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if real.is_symlink() {
                        self.pass_over(&path, "a link that leads nowhere");
                    }
                    return Ok(None);
                }
                Err(source) => return Err(Error::Read { path: real, source }),
            }
        } else {
            link
        };
        if metadata.is_dir() {
            if is_link && rules::tablespace_of(&path).is_none() && !self.leads_up(&metadata) {
                self.tell_link(&path, "directory");
            }
            return Ok(Some(Found::Directory { path, metadata }));
        }
        if !metadata.is_file() {
            let kind = metadata.file_type();
            // The server's own socket may lie here; it is nobody's loss.
            if !kind.is_socket() {
                self.pass_over(&path, "neither a file nor a directory");
            }
            return Ok(None);
        }
        match File::open(&real) {
            Ok(file) => {
                // Of the open file: the name may belong to another one by now.
                let metadata = file.metadata().map_err(|source| Error::Read { path: real, source })?;
                if is_link {
                    self.tell_link(&path, "file");
                }
                Ok(Some(Found::File { path, file, metadata }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path: real, source }),
        }
    }

    fn descend(&mut self, path: &str) -> Result<()> {
        let real = self.root.join(path);
        let metadata = match fs::metadata(&real) {
            Ok(metadata) if metadata.is_dir() => metadata,
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(Error::Read { path: real, source }),
        };
        if self.leads_up(&metadata) {
            self.pass_over(path, "a link to a directory above it");
            return Ok(());
        }
        if let Some(directory) = self.list(path, &metadata)? {
            self.way.push(directory);
        }
        Ok(())
    }

    fn leads_up(&self, metadata: &Metadata) -> bool {
        let identity = (metadata.dev(), metadata.ino());
        self.way.iter().any(|above| above.identity == identity)
    }

    /// The names in a directory, sorted; `None` when it is gone.
    fn list(&self, path: &str, metadata: &Metadata) -> Result<Option<Directory>> {
        let real = self.root.join(path);
        let failed = |source| Error::Read { path: real.clone(), source };
        let entries = match fs::read_dir(&real) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let mut items = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = match entry.file_name().into_string() {
                Ok(name) => name,
                Err(name) => {
                    self.pass_over(&format!("{path}/{}", name.display()), "its name is not UTF-8");
                    continue;
                }
            };
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() || kind.is_symlink() {
                items.push(Item { name: name.clone(), inside: true });
            }
            items.push(Item { name, inside: false });
        }
        items.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        let unlogged = match rules::is_relation_directory(path) {
            true => Unlogged::among(items.iter().map(|item| item.name.as_str())),
            false => Unlogged::default(),
        };
        Ok(Some(Directory {
            path: path.to_owned(),
            items: items.into_iter(),
            unlogged,
            identity: (metadata.dev(), metadata.ino()),
        }))
    }

    /// A log that has a disk of its own is on the disk of the data after a restore.
    fn tell_link(&self, path: &str, kind: &str) {
        let Ok(target) = fs::read_link(self.root.join(path)) else { return };
        self.outcome.find(Finding::info(
            path,
            format!("is a link to {}: a restore makes an ordinary {kind} in its place", target.display()),
            "leave room for it where `--into` leads, or move it after a restore and link it again with `ln -s`",
        ));
    }

    fn pass_over(&self, path: &str, what: &str) {
        self.outcome.find(Finding::warning(
            path,
            format!("is {what} and not part of the backup"),
            "move it out of the data directory (`SHOW data_directory`)",
        ));
    }
}

impl Item {
    /// The bytes by which paths are ordered.
    fn key(&self) -> impl Iterator<Item = u8> + '_ {
        self.name.bytes().chain(self.inside.then_some(b'/'))
    }
}

#[cfg(test)]
mod tests;

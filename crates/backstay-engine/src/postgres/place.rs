//! Puts a backup back into empty directories.
//!
//! Everything that can be known beforehand is refused before the first byte:
//! [`PlacePlan::check`] writes nothing. `pg_control` is written under another
//! name and gets its own only in [`PlaceTarget::seal`], after everything else has
//! reached the disk: a directory of an interrupted restore cannot start.

mod incarnation;
mod owner;
mod seal;
mod space;
mod stretch;
mod unconfigured;
mod write;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::facts::{Owner, Tablespace};
use crate::{Error, Result};

pub use self::seal::{SealOptions, Sealed, Settled};
pub use self::space::SpaceNeeded;
pub use self::write::PlaceTarget;

/// What a person asked for.
#[derive(Debug, Clone, Default)]
pub struct PlaceOptions {
    /// The new data directory: absent or empty.
    pub directory: PathBuf,
    /// The tablespaces of the backup.
    pub tablespaces: Vec<Tablespace>,
    /// Those that recovery will make at their old places, whatever was asked for.
    pub late_tablespaces: Vec<Tablespace>,
    /// `--tablespace OLD=NEW`: OLD is a location, a name or a number.
    pub moved: Vec<(String, PathBuf)>,
    /// Who owns the directories, where the backup knows it and we may decide it.
    pub owner: Option<Owner>,
}

/// Places that were found fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacePlan {
    pub directory: PathBuf,
    /// Where each tablespace goes, by its number.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// Whether any of them leaves its old place.
    pub is_moved: bool,
    /// Of those that were made while the backup ran. Recovery makes them again from
    /// the log, and expects the directory to be there.
    late_tablespaces: Vec<Tablespace>,
    owner: Option<Owner>,
}

impl PlacePlan {
    /// Looks at every place and writes nothing.
    pub fn check(options: &PlaceOptions, needed: &SpaceNeeded) -> Result<PlacePlan> {
        let directory = absolute(&options.directory)?;
        let (tablespaces, is_moved) = resolve_tablespaces(options)?;
        check_place(&directory)?;
        let mut seen = vec![directory.clone()];
        for location in tablespaces.values() {
            check_place(location)?;
            if seen.contains(location) {
                return Err(Error::TargetNotEmpty { path: location.clone() });
            }
            seen.push(location.clone());
        }
        for space in &options.late_tablespaces {
            check_place(Path::new(&space.location))?;
        }
        let late_tablespaces = options.late_tablespaces.clone();
        let plan =
            PlacePlan { directory, tablespaces, is_moved, late_tablespaces, owner: options.owner.clone() };
        needed.check(&plan)?;
        Ok(plan)
    }

    /// Every directory that the restored server needs before it starts.
    fn places(&self) -> impl Iterator<Item = &Path> {
        let late = self.late_tablespaces.iter().map(|space| Path::new(&space.location));
        std::iter::once(self.directory.as_path())
            .chain(self.tablespaces.values().map(PathBuf::as_path))
            .chain(late)
    }

    /// Makes the directories and begins.
    pub fn begin(self) -> Result<PlaceTarget> {
        PlaceTarget::new(self)
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|source| Error::TargetUnusable { path: path.to_owned(), source })
}

fn resolve_tablespaces(options: &PlaceOptions) -> Result<(BTreeMap<u32, PathBuf>, bool)> {
    // One whose location is relative lies inside the data directory and has no link.
    let linked = || options.tablespaces.iter().filter(|space| space.location.starts_with('/'));
    let mut places: BTreeMap<u32, PathBuf> =
        linked().map(|space| (space.oid, PathBuf::from(&space.location))).collect();
    for (old, new) in &options.moved {
        let trimmed = if old.len() > 1 { old.trim_end_matches('/') } else { old };
        let matching = |space: &&Tablespace| {
            space.location == trimmed || space.name == *old || space.oid.to_string() == *old
        };
        let Some(space) = linked().find(matching) else {
            return Err(Error::TablespaceUnknown { location: old.clone() });
        };
        places.insert(space.oid, absolute(new)?);
    }
    Ok((places, !options.moved.is_empty()))
}

/// A place is fit when it is absent and can be made, or is an empty directory
/// that can be written to.
fn check_place(path: &Path) -> Result<()> {
    let unusable = |source| Error::TargetUnusable { path: path.to_owned(), source };
    match fs::read_dir(path) {
        Ok(mut entries) => {
            if path.join("postmaster.pid").exists() {
                return Err(Error::TargetRunning { path: path.to_owned() });
            }
            if entries.next().is_some() {
                return Err(Error::TargetNotEmpty { path: path.to_owned() });
            }
            may_write(path).map_err(unusable)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = existing_ancestor(path);
            may_write(above).map_err(unusable)
        }
        Err(source) => Err(unusable(source)),
    }
}

fn may_write(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(path, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// The nearest directory above a path that is there.
fn existing_ancestor(path: &Path) -> &Path {
    path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests;

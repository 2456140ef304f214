//! How the dumps of an instance are made and kept, and the shelf where they lie.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_model::Secret;
use backstay_model::dump::retention::DumpKeep;
use backstay_model::dump::{DumpShape, Layout};
use backstay_repo::shelf::{DiskShelf, Shelf};
use jiff::{SignedDuration, Timestamp};

use crate::error::{Error, Result};

/// What is set for the dumps of one instance.
#[derive(Debug, Clone)]
pub struct DumpPolicy {
    /// Where they go: `file:///var/backups/orders`, or a path. `None` where nobody said.
    pub to: Option<String>,
    pub layout: Layout,
    /// The one of the instance's address: a pointer whose name says none leads to its dumps.
    pub database: Option<String>,
    pub shape: DumpShape,
    /// Of the compression; each has its own default.
    pub level: Option<i32>,
    pub passphrase: Option<Secret>,
    /// Those that older dumps may have instead: only for reading.
    pub older_passphrases: Vec<Secret>,
    /// Sessions that read, or write, at once.
    pub jobs: u32,
    /// Where a dump in the directory format lies while it is made. Left out, the shelf.
    pub spool: Option<PathBuf>,
    pub keep: DumpKeep,
    /// Reports of verifications older than this go, but never the newest.
    pub keep_reports: SignedDuration,
}

/// A quarter of a year, in which somebody looks.
pub const KEEP_REPORTS: SignedDuration = SignedDuration::from_hours(24 * 90);

/// A shelf, and the directory that it is.
pub(crate) struct Place {
    pub shelf: Arc<dyn Shelf>,
    pub directory: PathBuf,
}

impl DumpPolicy {
    /// What may open a dump, in the order in which it is tried.
    pub(crate) fn passphrases(&self) -> Vec<&Secret> {
        let mut distinct: Vec<&Secret> = Vec::new();
        for passphrase in self.passphrase.iter().chain(&self.older_passphrases) {
            if !distinct.contains(&passphrase) {
                distinct.push(passphrase);
            }
        }
        distinct
    }

    /// The directory of the shelf, where it is one.
    pub fn directory(&self) -> Option<PathBuf> {
        directory(self.to.as_deref()?).ok()
    }

    /// Where files lie for a while that are in nobody's way; made when it is not there.
    pub(crate) fn spool(&self) -> Result<PathBuf> {
        let spool = match &self.spool {
            Some(spool) => spool.clone(),
            None => self.place()?.directory,
        };
        std::fs::create_dir_all(&spool).map_err(|source| Error::Spool { path: spool.clone(), source })?;
        Ok(spool)
    }

    /// The time before which reports go.
    pub(super) fn reports_since(&self, now: Timestamp) -> Timestamp {
        now.checked_sub(self.keep_reports).unwrap_or(Timestamp::MIN)
    }

    pub(crate) fn place(&self) -> Result<Place> {
        let to = self.to.as_deref().ok_or(Error::NoShelf)?;
        let directory = directory(to)?;
        Ok(Place { shelf: Arc::new(DiskShelf::new(&directory)), directory })
    }
}

/// The directory that an address means. Shelves at a distance come with the stores at a
/// distance.
fn directory(to: &str) -> Result<PathBuf> {
    let wrong = |reason: &'static str| Error::ShelfAddress { to: to.to_owned(), reason };
    let path = match to.split_once("://") {
        Some(("file", rest)) => rest.strip_prefix("localhost").unwrap_or(rest),
        Some(_) => return Err(wrong("dumps go to a directory in this version: `file:///var/backups`")),
        None => to,
    };
    match path {
        "" => Err(wrong("it names no directory")),
        path if to.contains("://") && !path.starts_with('/') => {
            Err(wrong("the path after file:// begins with /"))
        }
        path => std::path::absolute(Path::new(path)).map_err(|_| wrong("it is no path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_is_a_path_or_its_address_and_nothing_at_a_distance() {
        for (to, path) in [
            ("file:///var/backups/my dumps", "/var/backups/my dumps"),
            ("file://localhost/srv", "/srv"),
            ("/srv/dumps", "/srv/dumps"),
        ] {
            assert_eq!(directory(to).unwrap(), Path::new(path));
        }
        assert!(directory("dumps").unwrap().is_absolute());
        for bad in ["s3://bucket/dumps", "file://relative", ""] {
            assert!(directory(bad).is_err(), "{bad}");
        }
    }
}

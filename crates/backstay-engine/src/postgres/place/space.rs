//! Whether there is room: asked of every file system before the first byte.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backstay_model::parts::{ParentFiles, PartKind};

use super::super::rules;
use super::{PlacePlan, existing_ancestor};
use crate::{Error, Result};

/// How many bytes a backup needs, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpaceNeeded {
    /// In the data directory itself.
    pub main: u64,
    /// In each tablespace, by its number.
    pub tablespaces: BTreeMap<u32, u64>,
    pub files: u64,
}

/// A file takes whole blocks of the file system.
const FILE_SYSTEM_BLOCK: u64 = 4096;

impl SpaceNeeded {
    /// Counts the files of a backup.
    pub fn of(files: &mut dyn ParentFiles) -> Result<SpaceNeeded> {
        let mut needed = SpaceNeeded::default();
        while let Some(file) = files.next().map_err(|source| Error::Parts { source })? {
            if let PartKind::File(shape) = file.spec.kind {
                needed.add(&file.spec.path, shape.size);
            }
        }
        Ok(needed)
    }

    pub fn add(&mut self, path: &str, size: u64) {
        let bytes = size.next_multiple_of(FILE_SYSTEM_BLOCK);
        self.files += 1;
        match rules::tablespace_containing(path) {
            Some((number, _)) => *self.tablespaces.entry(number).or_default() += bytes,
            None => self.main += bytes,
        }
    }

    /// Refuses when a file system has less than what comes to lie on it.
    pub(super) fn check(&self, plan: &PlacePlan) -> Result<()> {
        let mut main = self.main;
        let mut wanted: Vec<(&Path, u64)> = Vec::new();
        for (number, bytes) in &self.tablespaces {
            match plan.tablespaces.get(number) {
                Some(location) => wanted.push((location, *bytes)),
                None => main += bytes,
            }
        }
        wanted.push((&plan.directory, main));
        let mut by_device: BTreeMap<u64, (PathBuf, u64)> = BTreeMap::new();
        for (place, bytes) in wanted {
            let above = existing_ancestor(place);
            let failed = |source| Error::TargetUnusable { path: place.to_owned(), source };
            let device = std::fs::metadata(above).map_err(failed)?.dev();
            by_device.entry(device).or_insert_with(|| (above.to_owned(), 0)).1 += bytes;
        }
        for (path, needed) in by_device.into_values() {
            let free = free_bytes(&path)?;
            if free < needed {
                return Err(Error::TargetTooSmall { path, needed, free });
            }
        }
        Ok(())
    }
}

fn free_bytes(path: &Path) -> Result<u64> {
    let state = rustix::fs::statvfs(path)
        .map_err(|error| Error::TargetUnusable { path: path.to_owned(), source: error.into() })?;
    Ok(state.f_bavail.saturating_mul(state.f_frsize))
}

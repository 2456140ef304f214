//! Which records name a file: one that two dumps are made of outlives the first of them.
//!
//! Every record of the shelf counts, whatever instance it is of, and also one whose own
//! file is not to be found. A sidecar that could not be read may name anything beside it.

use std::collections::{BTreeMap, BTreeSet};

use backstay_model::dump::DumpRecord;
use backstay_repo::dump::HMAC_SUFFIX;
use backstay_repo::shelf::ShelfPath;

/// By what they name, the dumps whose records name it.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    by: BTreeMap<ShelfPath, BTreeSet<ShelfPath>>,
    /// Of the files that belong to another one, those that these are.
    parts: BTreeMap<ShelfPath, BTreeSet<ShelfPath>>,
    /// Directories, with `/` behind them.
    unknown: BTreeSet<String>,
}

impl Claims {
    pub fn add(&mut self, dump: &ShelfPath, sidecar: &ShelfPath, record: &DumpRecord) {
        let own = [Some(dump.clone()), Some(sidecar.clone()), dump.beside(HMAC_SUFFIX).ok()];
        for path in own.into_iter().flatten().chain(super::members(dump, record)) {
            self.by.entry(path).or_default().insert(dump.clone());
        }
        for path in super::members(dump, record) {
            self.parts.entry(path).or_default().insert(dump.clone());
        }
    }

    /// The dump that is not whole without this file, and is not among those that were removed.
    pub fn is_part_of(&self, path: &ShelfPath, removed: &BTreeSet<ShelfPath>) -> Option<&ShelfPath> {
        self.parts.get(path).into_iter().flatten().find(|dump| *dump != path && !removed.contains(*dump))
    }

    pub fn not_read(&mut self, sidecar: &ShelfPath) {
        self.unknown.insert(directory(sidecar).to_owned());
    }

    /// Somebody besides `own` needs it, who is not among those that were removed.
    pub fn is_of_another(&self, path: &ShelfPath, own: &ShelfPath, removed: &BTreeSet<ShelfPath>) -> bool {
        let others = self.by.get(path).into_iter().flatten();
        let is_named = others.filter(|dump| *dump != own).any(|dump| !removed.contains(dump));
        is_named || self.may_be_of_unread(path)
    }

    /// A sidecar beside it did not read, and may be of a dump that it belongs to.
    pub fn may_be_of_unread(&self, path: &ShelfPath) -> bool {
        self.unknown.contains(directory(path))
    }
}

fn directory(path: &ShelfPath) -> &str {
    path.as_str().strip_suffix(path.file_name()).unwrap_or_default()
}

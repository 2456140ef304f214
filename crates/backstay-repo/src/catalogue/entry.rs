//! What the catalogue keeps of one commit, and its JSON.

use std::collections::{BTreeSet, HashSet};

use backstay_model::{BackupId, BackupRecord, InstanceId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::layout::ObjectName;
use crate::store::ObjectMeta;
use crate::{Error, Result};

/// Another number is another program's catalogue: it is ignored and written anew.
const CATALOGUE_FORMAT: u32 = 1;

/// One object at `backups/`, as it was when it was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub id: BackupId,
    size_bytes: u64,
    /// Only ever compared with itself: by whose clock it is does not matter.
    modified: Option<Timestamp>,
    /// `None` for a tombstone.
    pub record: Option<BackupRecord>,
}

/// What a catalogue holds.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// Backups that were there and are not, until it is known why.
    missing: BTreeSet<BackupId>,
    changed: bool,
}

impl Remembered {
    /// Takes over what a listing found. A backup that it did not is missing.
    pub fn see(&mut self, entries: Vec<Entry>, there: &HashSet<BackupId>) {
        let missing: BTreeSet<BackupId> = self.backups().filter(|id| !there.contains(*id)).cloned().collect();
        self.changed |= missing != self.missing || entries != self.entries;
        (self.entries, self.missing) = (entries, missing);
    }

    /// Every backup that is remembered, tombstones not among them.
    pub fn backups(&self) -> impl Iterator<Item = &BackupId> {
        let present = self.entries.iter().filter(|entry| entry.record.is_some()).map(|entry| &entry.id);
        present.chain(&self.missing)
    }

    pub fn newest(&self) -> Option<&BackupId> {
        self.backups().max()
    }

    /// It is known why this one is gone.
    pub fn forget(&mut self, backup: &BackupId) {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.id != *backup);
        self.changed |= self.missing.remove(backup) || self.entries.len() != before;
    }

    pub fn is_changed(&self) -> bool {
        self.changed
    }
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    instance: &'a InstanceId,
    entries: &'a [Entry],
    missing: &'a BTreeSet<BackupId>,
}

#[derive(Deserialize)]
struct Read {
    format: u32,
    instance: InstanceId,
    entries: Vec<Entry>,
    #[serde(default)]
    missing: BTreeSet<BackupId>,
}

impl Entry {
    pub fn backup(object: &ObjectMeta, record: BackupRecord) -> Self {
        Self {
            id: record.id.clone(),
            size_bytes: object.size_bytes,
            modified: object.modified,
            record: Some(record),
        }
    }

    pub fn tombstone(id: BackupId, object: &ObjectMeta) -> Self {
        Self { id, size_bytes: object.size_bytes, modified: object.modified, record: None }
    }

    /// Whether the object that the store lists is still the one that was read.
    pub fn is_of(&self, object: &ObjectMeta) -> bool {
        self.size_bytes == object.size_bytes && self.modified == object.modified
    }

    /// Reading decimal digits may miss the last binary digit of a small fraction, and
    /// a list must not depend on whether it came from here. No such number is in a
    /// record today; one that is will have its manifest read each time.
    pub fn comes_back_the_same(&self) -> bool {
        serde_json::to_vec(self)
            .and_then(|json| serde_json::from_slice::<Self>(&json))
            .is_ok_and(|entry| entry == *self)
    }
}

pub(super) fn to_json(instance: &InstanceId, remembered: &Remembered) -> Result<Vec<u8>> {
    let Remembered { entries, missing, .. } = remembered;
    let document = Written { format: CATALOGUE_FORMAT, instance, entries, missing };
    serde_json::to_vec(&document).map_err(|error| Error::broken(error.to_string()))
}

pub(super) fn parse(name: &ObjectName, instance: &InstanceId, json: &[u8]) -> Result<Remembered> {
    let read: Read = serde_json::from_slice(json).map_err(|error| Error::damaged(name, error.to_string()))?;
    if read.format != CATALOGUE_FORMAT {
        return Err(Error::damaged(name, format!("it is of format {}", read.format)));
    }
    let ours = |entry: &Entry| {
        entry.record.as_ref().is_none_or(|record| record.id == entry.id && record.instance == *instance)
    };
    if read.instance != *instance || !read.entries.iter().all(ours) {
        return Err(Error::damaged(name, "it is of another instance"));
    }
    Ok(Remembered { entries: read.entries, missing: read.missing, changed: false })
}

//! What the catalogue keeps of one commit, and its JSON.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use backstay_model::{BackupId, BackupRecord, InstanceId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::layout::ObjectName;
use crate::store::ObjectMeta;
use crate::{Error, Result};

/// Another number is another program's catalogue: it is ignored and written anew.
const CATALOGUE_FORMAT: u32 = 2;

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
    /// Backups that were read once and of which there is no entry now, being gone or
    /// unreadable; and the newest backup that was known when each was last there.
    missing: BTreeMap<BackupId, BackupId>,
    /// Those among the entries whose marker was seen: when they go, it is known why,
    /// also after the marker has gone.
    condemned: BTreeSet<BackupId>,
    changed: bool,
}

/// A backup that is remembered and not listed.
pub(super) struct Absent {
    pub id: BackupId,
    /// The newest that was known when it was last there: so old is this memory.
    pub known_with: BackupId,
}

impl Remembered {
    /// Takes over what a listing found.
    pub fn see(&mut self, entries: Vec<Entry>, there: &HashSet<BackupId>) {
        let before = self.newest();
        let newest = there.iter().chain(&before).max().cloned();
        let read: HashSet<&BackupId> = entries.iter().map(|entry| &entry.id).collect();
        let mut missing = BTreeMap::new();
        for id in self.backups().filter(|id| !read.contains(id)) {
            // What lies there and does not open has not gone yet.
            let known_with = if there.contains(id) { &newest } else { &before };
            let known_with = self.missing.get(id).filter(|_| !there.contains(id)).or(known_with.as_ref());
            missing.insert(id.clone(), known_with.unwrap_or(id).clone());
        }
        let condemned: BTreeSet<BackupId> =
            self.condemned.iter().filter(|id| there.contains(*id)).cloned().collect();
        self.changed |= missing != self.missing || entries != self.entries || condemned != self.condemned;
        (self.entries, self.missing, self.condemned) = (entries, missing, condemned);
    }

    /// Every backup that somebody would miss: no tombstone, and none that is condemned.
    fn backups(&self) -> impl Iterator<Item = &BackupId> {
        let present = self.entries.iter().filter(|entry| entry.record.is_some()).map(|entry| &entry.id);
        present.chain(self.missing.keys()).filter(|id| !self.condemned.contains(*id))
    }

    pub fn absent(&self, there: &BTreeSet<&BackupId>) -> Vec<Absent> {
        let newest = self.newest();
        let gone = self.backups().filter(|id| !there.contains(id));
        gone.map(|id| Absent {
            id: id.clone(),
            known_with: self.missing.get(id).or(newest.as_ref()).unwrap_or(id).clone(),
        })
        .collect()
    }

    fn newest(&self) -> Option<BackupId> {
        self.entries.iter().map(|entry| &entry.id).chain(self.missing.keys()).max().cloned()
    }

    /// It was looked for while its marker would have been there: this one is missed
    /// for as long as the memory goes on.
    pub fn miss(&mut self, backup: &BackupId) {
        let newest = self.newest();
        if let (Some(known_with), Some(newest)) = (self.missing.get_mut(backup), newest)
            && *known_with < newest
        {
            *known_with = newest;
            self.changed = true;
        }
    }

    /// Takes over which markers there are: nobody misses what they name.
    pub fn see_markers(&mut self, condemned: &BTreeSet<BackupId>) {
        for id in condemned {
            if self.missing.remove(id).is_some() {
                self.changed = true;
            }
        }
        let known = self.entries.iter().map(|entry| &entry.id).filter(|id| condemned.contains(*id));
        let before = self.condemned.len();
        self.condemned.extend(known.cloned());
        self.changed |= self.condemned.len() != before;
    }

    /// It is known why this one is gone.
    pub fn forget(&mut self, backup: &BackupId) {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.id != *backup);
        self.changed |= self.missing.remove(backup).is_some() || self.entries.len() != before;
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
    missing: &'a BTreeMap<BackupId, BackupId>,
    condemned: &'a BTreeSet<BackupId>,
}

#[derive(Deserialize)]
struct Read {
    format: u32,
    instance: InstanceId,
    entries: Vec<Entry>,
    missing: BTreeMap<BackupId, BackupId>,
    condemned: BTreeSet<BackupId>,
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
    let Remembered { entries, missing, condemned, .. } = remembered;
    let document = Written { format: CATALOGUE_FORMAT, instance, entries, missing, condemned };
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
    let Read { entries, missing, condemned, .. } = read;
    Ok(Remembered { entries, missing, condemned, changed: false })
}

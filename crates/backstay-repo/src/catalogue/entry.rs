//! What the catalogue keeps of one commit, and its JSON.

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

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    instance: &'a InstanceId,
    entries: &'a [Entry],
}

#[derive(Deserialize)]
struct Read {
    format: u32,
    instance: InstanceId,
    entries: Vec<Entry>,
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

pub(super) fn to_json(instance: &InstanceId, entries: &[Entry]) -> Result<Vec<u8>> {
    let document = Written { format: CATALOGUE_FORMAT, instance, entries };
    serde_json::to_vec(&document).map_err(|error| Error::broken(error.to_string()))
}

pub(super) fn parse(name: &ObjectName, instance: &InstanceId, json: &[u8]) -> Result<Vec<Entry>> {
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
    Ok(read.entries)
}

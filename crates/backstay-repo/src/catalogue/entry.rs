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
    /// The last binary digit of a fraction may not survive being written in decimal
    /// digits, and a list must not depend on whether it came from here.
    amplification_bits: u64,
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
            amplification_bits: record.statistics.restore_amplification.to_bits(),
            record: Some(record),
        }
    }

    pub fn tombstone(id: BackupId, object: &ObjectMeta) -> Self {
        Self {
            id,
            size_bytes: object.size_bytes,
            modified: object.modified,
            record: None,
            amplification_bits: 0,
        }
    }

    /// Whether the object that the store lists is still the one that was read.
    pub fn is_of(&self, object: &ObjectMeta) -> bool {
        self.size_bytes == object.size_bytes && self.modified == object.modified
    }

    /// Facts are the engine's, and may hold fractions of their own.
    pub fn comes_back_the_same(&self) -> bool {
        serde_json::to_vec(self)
            .and_then(|json| serde_json::from_slice::<Self>(&json))
            .is_ok_and(|entry| entry.mended() == *self)
    }

    fn mended(mut self) -> Self {
        if let Some(record) = &mut self.record {
            record.statistics.restore_amplification = f64::from_bits(self.amplification_bits);
        }
        self
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
    let entries: Vec<Entry> = read.entries.into_iter().map(Entry::mended).collect();
    let ours = |entry: &Entry| {
        entry.record.as_ref().is_none_or(|record| record.id == entry.id && record.instance == *instance)
    };
    if read.instance != *instance || !entries.iter().all(ours) {
        return Err(Error::damaged(name, "it is of another instance"));
    }
    Ok(entries)
}

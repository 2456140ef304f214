//! The manifest: what one backup is and which objects a restore of it needs
//! (`docs/format.md`, section 8). It is the truth, and it is written last.

use std::collections::BTreeMap;

use backstay_model::{BackupId, BackupRecord};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::layout::{InstanceLayout, ObjectName};
use crate::map::RootPlace;
use crate::{Error, Result};

pub const MANIFEST_FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub record: BackupRecord,
    /// `(map object, frame)` of the root frames, in this session's maps.
    pub root: Vec<(u32, u32)>,
    /// Everything a restore reads, by the session that wrote it.
    pub objects: Vec<SessionObjects>,
    /// The newest backups that the writer saw and retention had not let go, in the
    /// order of their ids: a store that lost one of them shows less than its newest
    /// manifest remembers.
    #[serde(default, deserialize_with = "ids_or_a_digest")]
    pub known_backups: Vec<BackupId>,
}

/// The first manifests had a digest of all ids there, from which none can be told.
fn ids_or_a_digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BackupId>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Known {
        Ids(Vec<BackupId>),
        Digest(#[expect(dead_code, reason = "nothing can be read from it")] String),
    }
    Ok(match Known::deserialize(deserializer)? {
        Known::Ids(ids) => ids,
        Known::Digest(_) => Vec::new(),
    })
}

/// The objects of one session that a backup needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionObjects {
    pub session: BackupId,
    pub packs: Vec<PackUse>,
    /// `(number, size)`
    pub maps: Vec<(u32, u64)>,
}

/// One pack and how much of it a backup uses. In JSON `[number, size, raw, live]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u64, u64, u64)", into = "(u32, u64, u64, u64)")]
pub struct PackUse {
    pub number: u32,
    /// Of the object.
    pub size: u64,
    /// Raw bytes of all its frames.
    pub raw_bytes: u64,
    /// Raw bytes that this backup's blocks make use of.
    pub live_bytes: u64,
}

impl From<(u32, u64, u64, u64)> for PackUse {
    fn from((number, size, raw_bytes, live_bytes): (u32, u64, u64, u64)) -> Self {
        Self { number, size, raw_bytes, live_bytes }
    }
}

impl From<PackUse> for (u32, u64, u64, u64) {
    fn from(pack: PackUse) -> Self {
        (pack.number, pack.size, pack.raw_bytes, pack.live_bytes)
    }
}

/// What lies at `backups/<session>`.
#[derive(Debug, Clone, PartialEq)]
pub enum Commit {
    Backup(Box<Manifest>),
    /// The session was declared dead before it committed.
    Tombstone(Tombstone),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    pub at: Timestamp,
    pub why: String,
}

#[derive(Serialize, Deserialize)]
struct TombstoneDocument {
    format: u32,
    tombstone: Tombstone,
}

impl Commit {
    /// Reads the JSON of a commit object. Fails closed: a newer format, or anything
    /// that is neither a manifest nor a tombstone, is an error and never an absence.
    pub fn parse(name: &ObjectName, json: &[u8]) -> Result<Self> {
        let wrong = |error: serde_json::Error| Error::damaged(name, error.to_string());
        let value: serde_json::Value = serde_json::from_slice(json).map_err(wrong)?;
        let format = value.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if format > u64::from(MANIFEST_FORMAT) {
            return Err(Error::NewerFormat { found: format as u32, known: MANIFEST_FORMAT });
        }
        if value.get("tombstone").is_some() {
            let document: TombstoneDocument = serde_json::from_value(value).map_err(wrong)?;
            return Ok(Commit::Tombstone(document.tombstone));
        }
        Ok(Commit::Backup(Box::new(serde_json::from_value(value).map_err(wrong)?)))
    }
}

impl Tombstone {
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let document = TombstoneDocument { format: MANIFEST_FORMAT, tombstone: self.clone() };
        serde_json::to_vec(&document).map_err(|error| Error::broken(error.to_string()))
    }
}

impl Manifest {
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::broken(error.to_string()))
    }

    pub fn root_place(&self) -> RootPlace {
        RootPlace { session: self.record.id.clone(), frames: self.root.clone() }
    }

    /// The names of all packs and maps, for the collector.
    pub fn needed_objects(&self) -> Vec<ObjectName> {
        let layout = InstanceLayout::new(self.record.instance.clone());
        let mut names = Vec::new();
        for objects in &self.objects {
            names.extend(objects.packs.iter().map(|pack| layout.pack(&objects.session, pack.number)));
            names.extend(objects.maps.iter().map(|(number, _)| layout.map(&objects.session, *number)));
        }
        names
    }

    pub fn packs(&self) -> impl Iterator<Item = (&BackupId, &PackUse)> {
        self.objects.iter().flat_map(|objects| objects.packs.iter().map(|pack| (&objects.session, pack)))
    }

    pub fn maps(&self) -> impl Iterator<Item = (&BackupId, u32, u64)> {
        self.objects
            .iter()
            .flat_map(|objects| objects.maps.iter().map(|(number, size)| (&objects.session, *number, *size)))
    }
}

/// Groups packs and maps by session, in the order of sessions.
pub fn group_objects(
    packs: impl IntoIterator<Item = (BackupId, PackUse)>,
    maps: impl IntoIterator<Item = (BackupId, u32, u64)>,
) -> Vec<SessionObjects> {
    fn of(sessions: &mut BTreeMap<BackupId, SessionObjects>, session: BackupId) -> &mut SessionObjects {
        let empty = SessionObjects { session: session.clone(), packs: Vec::new(), maps: Vec::new() };
        sessions.entry(session).or_insert(empty)
    }
    let mut sessions = BTreeMap::new();
    for (session, pack) in packs {
        of(&mut sessions, session).packs.push(pack);
    }
    for (session, number, size) in maps {
        of(&mut sessions, session).maps.push((number, size));
    }
    for objects in sessions.values_mut() {
        objects.packs.sort_by_key(|pack| pack.number);
        objects.maps.sort_unstable();
    }
    sessions.into_values().collect()
}

//! The names of all objects of a repository, and the only place that makes them.
//!
//! A name is a relative path of short segments that every file system and every
//! object store takes as it is. What a name means (whose pack, which session) is
//! read back here too, because the collector decides by names.
//!
//! Refuses: segments that are empty, begin with a dot, or hold anything but
//! letters, digits, `.`, `_` and `-`; so a name never leaves the repository and
//! never meets the hidden temporary files of a store.

use std::fmt;
use std::str::FromStr;

use backstay_model::{BackupId, InstanceId, LogId, LogSpan};

/// Longest object name in bytes: well below the 1024 of S3 and the 4096 of a path.
pub const NAME_MAX: usize = 512;
/// Longest segment: what common file systems take, less room for `.tmp-` names.
pub const SEGMENT_MAX: usize = 200;
/// Bytes of a backup id, which is also the name of a session.
const SESSION_LENGTH: usize = 21;

/// Where the description of the repository lies; it is written last by `init`.
pub const DESCRIPTION: &str = "backstay.json";
const INTENTS: &str = "intents";
const KEYS: &str = "keys";
const ROTATIONS: &str = "rotations";
const COLLECTIONS: &str = "collections";
const CATALOGUE: &str = "catalogue";
const COPIES: &str = "copies";
const PROBE: &str = "probe";
const LOG: &str = "log";
const HISTORY: &str = "history";
const GAP: &str = "gap";

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an object name: segments of letters, digits, '.', '_' and '-', joined by '/'")]
pub struct NameError(pub String);

fn is_segment(segment: &str) -> bool {
    (1..=SEGMENT_MAX).contains(&segment.len())
        && !segment.starts_with('.')
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// `<instance>/intents` and all below it.
fn is_of_intents(path: &str) -> bool {
    path.split('/').nth(1) == Some(INTENTS)
}

/// The name of one object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the last `/`.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Whether it is an intent or a heartbeat of any instance.
    pub fn is_of_intents(&self) -> bool {
        is_of_intents(&self.0)
    }

    pub fn is_under(&self, prefix: &Prefix) -> bool {
        prefix.0.is_empty()
            || self.0.strip_prefix(prefix.0.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl FromStr for ObjectName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = text.len() <= NAME_MAX && text.split('/').all(is_segment);
        if good { Ok(Self(text.to_owned())) } else { Err(NameError(text.to_owned())) }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for ObjectName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for ObjectName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A directory of names: whole segments, never the beginning of one. The empty
/// prefix is the whole repository.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Prefix(String);

impl Prefix {
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// Whether all below it are intents or heartbeats of one instance.
    pub fn is_of_intents(&self) -> bool {
        is_of_intents(&self.0)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Prefix {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Ok(Self::root());
        }
        text.parse::<ObjectName>().map(|name| Self(name.0))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `backstay.json`
pub fn description() -> ObjectName {
    ObjectName(DESCRIPTION.to_owned())
}

/// `keys/<slot>-<random>`
pub fn key_slot(slot: &str, random: u64) -> Result<ObjectName, NameError> {
    format!("{KEYS}/{slot}-{random:016x}").parse()
}

/// `keys`
pub fn key_slots() -> Prefix {
    Prefix(KEYS.to_owned())
}

/// `rotations/<generations>`: what a rotation of the key decided, until it is done.
pub fn rotation(generations: usize) -> Result<ObjectName, NameError> {
    format!("{ROTATIONS}/{generations:06}").parse()
}

/// `rotations`
pub fn rotations() -> Prefix {
    Prefix(ROTATIONS.to_owned())
}

/// `collections/<run>`
pub fn collection(run: &str) -> Result<ObjectName, NameError> {
    format!("{COLLECTIONS}/{run}").parse()
}

/// `collections`
pub fn collections() -> Prefix {
    Prefix(COLLECTIONS.to_owned())
}

/// `copies/<name>`: in a directory of this machine, never in a repository.
pub(crate) fn copy(name: &ObjectName) -> ObjectName {
    ObjectName(format!("{COPIES}/{name}"))
}

/// The copies of what lies below `prefix`.
pub(crate) fn copies(prefix: &Prefix) -> Prefix {
    Prefix(format!("{COPIES}/{}", prefix.0))
}

/// What a copy is of.
pub(crate) fn copied(copy: &ObjectName) -> Option<ObjectName> {
    copy.0.strip_prefix(COPIES)?.strip_prefix('/').map(|name| ObjectName(name.to_owned()))
}

/// `probe/<random>-<step>`: what `init` writes to see what a store does.
pub fn probe(random: u64, step: u32) -> ObjectName {
    ObjectName(format!("{PROBE}/{random:016x}-{step}"))
}

/// `probe`
pub fn probes() -> Prefix {
    Prefix(PROBE.to_owned())
}

/// Whether the first segment of the repository is an instance's and not ours.
pub fn is_instance(segment: &str) -> Option<InstanceId> {
    segment.parse().ok()
}

/// The names of one instance's objects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InstanceLayout {
    instance: InstanceId,
}

/// An object that a session wrote and that no one may delete while a backup or a
/// living session needs it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataObject {
    pub session: BackupId,
    pub number: u32,
}

/// Where log was given up: how far it was received, and how far the server had written, on
/// a timeline that may have been another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GapPlace {
    pub from: u64,
    pub server: u64,
}

/// One object of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogItem {
    Span(LogSpan),
    History,
    Gap(GapPlace),
}

impl InstanceLayout {
    pub fn new(instance: InstanceId) -> Self {
        Self { instance }
    }

    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    fn name(&self, rest: impl fmt::Display) -> ObjectName {
        ObjectName(format!("{}/{rest}", self.instance))
    }

    fn prefix(&self, rest: impl fmt::Display) -> Prefix {
        Prefix(format!("{}/{rest}", self.instance))
    }

    /// `<instance>`
    pub fn all(&self) -> Prefix {
        Prefix(self.instance.to_string())
    }

    /// `<instance>/intents/<session>/<n>`: 0 is the intent, the others heartbeats.
    pub fn intent(&self, session: &BackupId, number: u32) -> ObjectName {
        self.name(format_args!("{INTENTS}/{session}/{number:06}"))
    }

    pub fn intents(&self) -> Prefix {
        self.prefix(INTENTS)
    }

    pub fn intents_of(&self, session: &BackupId) -> Prefix {
        self.prefix(format_args!("{INTENTS}/{session}"))
    }

    /// `<instance>/packs/<session>-<n>`
    pub fn pack(&self, session: &BackupId, number: u32) -> ObjectName {
        self.name(format_args!("packs/{session}-{number:06}"))
    }

    pub fn packs(&self) -> Prefix {
        self.prefix("packs")
    }

    /// `<instance>/maps/<session>/<n>`
    pub fn map(&self, session: &BackupId, number: u32) -> ObjectName {
        self.name(format_args!("maps/{session}/{number:06}"))
    }

    pub fn maps(&self) -> Prefix {
        self.prefix("maps")
    }

    /// `<instance>/backups/<session>`: the manifest or a tombstone, whichever came first.
    pub fn backup(&self, session: &BackupId) -> ObjectName {
        self.name(format_args!("backups/{session}"))
    }

    pub fn backups(&self) -> Prefix {
        self.prefix("backups")
    }

    /// `<instance>/condemned/<session>`
    pub fn condemned(&self, session: &BackupId) -> ObjectName {
        self.name(format_args!("condemned/{session}"))
    }

    pub fn all_condemned(&self) -> Prefix {
        self.prefix("condemned")
    }

    /// Everything of the log.
    pub fn log(&self) -> Prefix {
        self.prefix(LOG)
    }

    /// `<instance>/log/<lineage>/<timeline>`
    ///
    /// # Errors
    ///
    /// When the words of the engine cannot be segments of a name.
    pub fn log_of(&self, log: &LogId) -> Result<Prefix, NameError> {
        format!("{}/{LOG}/{}/{}", self.instance, log.lineage, log.timeline).parse()
    }

    /// `<instance>/log/<lineage>/<timeline>/<start>-<end>`: positions as sixteen digits, so
    /// that names are in the order of positions.
    pub fn log_object(&self, log: &LogId, span: LogSpan) -> Result<ObjectName, NameError> {
        format!("{}/{:016X}-{:016X}", self.log_of(log)?.as_str(), span.start, span.end).parse()
    }

    /// `<instance>/log/<lineage>/<timeline>/history`: where the timeline came from.
    pub fn log_history(&self, log: &LogId) -> Result<ObjectName, NameError> {
        format!("{}/{HISTORY}", self.log_of(log)?.as_str()).parse()
    }

    /// `<instance>/log/<lineage>/<timeline>/gap-<from>-<server>`: log that was given up, and why.
    pub fn log_gap(&self, log: &LogId, gap: GapPlace) -> Result<ObjectName, NameError> {
        format!("{}/{GAP}-{:016X}-{:016X}", self.log_of(log)?.as_str(), gap.from, gap.server).parse()
    }

    /// What an object below [`log`](Self::log) is; `None` for what is none of ours.
    pub fn log_object_of(&self, name: &ObjectName) -> Option<(LogId, LogItem)> {
        let (place, item) = self.rest(name, LOG)?.rsplit_once('/')?;
        let (lineage, timeline) = place.split_once('/').filter(|(_, timeline)| !timeline.contains('/'))?;
        let item = match item.split_once('-') {
            None if item == HISTORY => LogItem::History,
            None => return None,
            Some((GAP, places)) => {
                let (from, server) = places.split_once('-')?;
                LogItem::Gap(GapPlace { from: position(from)?, server: position(server)? })
            }
            Some((start, end)) => LogItem::Span(LogSpan::new(position(start)?, position(end)?)?),
        };
        Some((LogId { lineage: lineage.to_owned(), timeline: timeline.to_owned() }, item))
    }

    /// `<instance>/proofs/<id>`
    pub fn proof(&self, id: &str) -> Result<ObjectName, NameError> {
        format!("{}/proofs/{id}", self.instance).parse()
    }

    pub fn proofs(&self) -> Prefix {
        self.prefix("proofs")
    }

    /// `<instance>/holds/<session>-<n>`
    pub fn hold(&self, session: &BackupId, number: u32) -> ObjectName {
        self.name(format_args!("holds/{session}-{number:06}"))
    }

    pub fn holds(&self) -> Prefix {
        self.prefix("holds")
    }

    /// Which backup is held, and the number of the hold: its name says it, should it not open.
    pub fn hold_of(&self, name: &ObjectName) -> Option<DataObject> {
        numbered(self.rest(name, "holds")?, b'-')
    }

    /// `<instance>/deletions/<session>-<n>`
    pub fn deletion(&self, session: &BackupId, number: u32) -> ObjectName {
        self.name(format_args!("deletions/{session}-{number:06}"))
    }

    pub fn deletions(&self) -> Prefix {
        self.prefix("deletions")
    }

    /// Which backup is about to be deleted, and the number of the note.
    pub fn deletion_of(&self, name: &ObjectName) -> Option<DataObject> {
        numbered(self.rest(name, "deletions")?, b'-')
    }

    /// `<instance>/findings/<id>`
    pub fn finding(&self, id: &str) -> Result<ObjectName, NameError> {
        format!("{}/findings/{id}", self.instance).parse()
    }

    pub fn findings(&self) -> Prefix {
        self.prefix("findings")
    }

    /// `catalogue/<instance>`: in a directory of this machine, never in a repository.
    pub fn catalogue(&self) -> ObjectName {
        ObjectName(format!("{CATALOGUE}/{}", self.instance))
    }

    fn rest<'n>(&self, name: &'n ObjectName, directory: &str) -> Option<&'n str> {
        let rest = name.0.strip_prefix(self.instance.as_str())?.strip_prefix('/')?;
        rest.strip_prefix(directory)?.strip_prefix('/')
    }

    /// Whose backup (or tombstone) it is.
    pub fn session_of_backup(&self, name: &ObjectName) -> Option<BackupId> {
        self.rest(name, "backups")?.parse().ok()
    }

    pub fn session_of_condemned(&self, name: &ObjectName) -> Option<BackupId> {
        self.rest(name, "condemned")?.parse().ok()
    }

    pub fn intent_of(&self, name: &ObjectName) -> Option<DataObject> {
        numbered(self.rest(name, INTENTS)?, b'/')
    }

    /// The session and number of a pack or a map; `None` for anything else.
    pub fn data_object_of(&self, name: &ObjectName) -> Option<DataObject> {
        if let Some(rest) = self.rest(name, "packs") {
            return numbered(rest, b'-');
        }
        numbered(self.rest(name, "maps")?, b'/')
    }
}

/// Sixteen hexadecimal digits, none of them small.
fn position(digits: &str) -> Option<u64> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    let good = digits.len() == 16 && digits.bytes().all(is_digit);
    good.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// `<session><separator><digits>`
fn numbered(rest: &str, separator: u8) -> Option<DataObject> {
    if rest.as_bytes().get(SESSION_LENGTH) != Some(&separator) {
        return None;
    }
    let session = rest.get(..SESSION_LENGTH)?.parse().ok()?;
    let digits = rest.get(SESSION_LENGTH + 1..)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(DataObject { session, number: digits.parse().ok()? })
}

#[cfg(test)]
mod tests;

//! What a backup says of itself: the part of the manifest that people and plans read.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::id::{BackupId, InstanceId};
use crate::position::Position;

/// The kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    Postgresql,
    Influxdb,
    /// Valkey as well.
    Redis,
}

impl EngineKind {
    /// As its people write it.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Postgresql => "PostgreSQL",
            EngineKind::Influxdb => "InfluxDB",
            EngineKind::Redis => "Redis",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            EngineKind::Postgresql => "postgresql",
            EngineKind::Influxdb => "influxdb",
            EngineKind::Redis => "redis",
        })
    }
}

/// What was read and stored. Every backup is full by description: its maps name
/// every block, wherever it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupType {
    Full,
    Incremental,
}

impl fmt::Display for BackupType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupType::Full => f.pad("full"),
            BackupType::Incremental => f.pad("incremental"),
        }
    }
}

impl FromStr for BackupType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(BackupType::Full),
            "incremental" => Ok(BackupType::Incremental),
            other => Err(format!("{other:?} is neither full nor incremental")),
        }
    }
}

/// Sizes of one backup, in bytes unless the name says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Statistics {
    /// Regular files.
    pub files: u64,
    /// What a restore writes.
    pub logical_bytes: u64,
    /// What was read from the server or its directory.
    pub read_bytes: u64,
    /// What the parent did not have, before compression.
    pub new_bytes: u64,
    /// What was written to the store for this backup: packs and maps.
    pub stored_bytes: u64,
    /// Frames a restore reads, over the frames a fresh full backup would have
    /// (estimated from the live bytes of each pack). 1.0 is best.
    pub restore_amplification: f64,
}

/// One committed backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupRecord {
    pub id: BackupId,
    pub instance: InstanceId,
    pub engine: EngineKind,
    #[serde(rename = "type")]
    pub backup_type: BackupType,
    /// The backup whose blocks were compared with; not needed to restore this one.
    pub parent: Option<BackupId>,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// Counts the backups of the instance as they were taken: times are those of a
    /// clock, and a clock can be wrong. 0 in records that do not say it.
    #[serde(default)]
    pub sequence: u64,
    /// Where replay must begin.
    pub start_position: Option<Position>,
    /// Where the copy is consistent: replay must reach it.
    pub stop_position: Option<Position>,
    /// `17.2`, as the server says it.
    pub engine_version: String,
    pub encrypted: bool,
    pub statistics: Statistics,
    /// What the engine noted: settings, identifiers, tablespaces, labels.
    pub facts: serde_json::Value,
    /// What the engine found while reading, such as pages with wrong checksums.
    pub findings: Vec<Finding>,
}

impl BackupRecord {
    /// By this, the backups of one instance are in the order in which they were taken.
    pub fn order(&self) -> (u64, Timestamp, &BackupId) {
        (self.sequence, self.finished_at, &self.id)
    }

    /// The engine found nothing wrong with what it read. A backup that is not clean
    /// is as whole as one that is: it holds what the database held.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.level != crate::FindingLevel::Error)
    }
}

//! One backup as lists and reports show it: the record, flattened, and what later
//! operations learned about it.
//!
//! The field names are a written contract: they are only added to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::hold::Hold;
use crate::id::{BackupId, InstanceId};
use crate::lsn::TimelineId;
use crate::record::{BackupRecord, BackupType, EngineKind};

/// That retention let a backup go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condemned {
    /// Since when; not known when its marker does not open. The grace that began then
    /// is never over.
    pub at: Option<Timestamp>,
}

impl From<Timestamp> for Condemned {
    fn from(at: Timestamp) -> Self {
        Self { at: Some(at) }
    }
}

/// What is known of a backup beyond its own record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackupMarks {
    pub condemned: Option<Condemned>,
    /// It may not go, whatever retention says.
    pub hold: Option<Hold>,
    pub verified_at: Option<Timestamp>,
    pub drilled_at: Option<Timestamp>,
    /// Whether that drill brought it back.
    pub drill_sound: Option<bool>,
    /// What verifications found; any of level error means that it is damaged.
    pub findings: Vec<Finding>,
}

impl BackupMarks {
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == crate::FindingLevel::Error)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupSummary {
    pub id: BackupId,
    pub instance: InstanceId,
    pub engine: EngineKind,
    #[serde(rename = "type")]
    pub backup_type: BackupType,
    pub parent: Option<BackupId>,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub duration_seconds: f64,
    /// Counts the backups of the instance as they were taken, whatever a clock said.
    #[serde(default)]
    pub sequence: u64,
    /// `1@0/3000028` for PostgreSQL.
    pub start_position: Option<String>,
    pub stop_position: Option<String>,
    pub timeline: Option<TimelineId>,
    pub logical_bytes: u64,
    pub read_bytes: u64,
    pub new_bytes: u64,
    pub stored_bytes: u64,
    pub files: u64,
    pub restore_amplification: f64,
    pub engine_version: String,
    pub encrypted: bool,
    /// Until when it may not expire; in the year 9999 for one that is held until that is taken back.
    pub hold: Option<Timestamp>,
    #[serde(default)]
    pub hold_reason: Option<String>,
    /// Whether retention has let it go; it can be restored until it is deleted.
    #[serde(default)]
    pub condemned: bool,
    /// Since when; `null` for a condemned backup whose marker does not open.
    pub condemned_at: Option<Timestamp>,
    pub verified_at: Option<Timestamp>,
    pub drilled_at: Option<Timestamp>,
    /// Whether the last drill of it brought it back; `null` when there was none.
    #[serde(default)]
    pub drill_sound: Option<bool>,
    /// Whether stored data of it is damaged: it cannot be restored as it is.
    #[serde(default)]
    pub damaged: bool,
    /// Whether something was wrong with what it holds before it was stored, such as pages
    /// with wrong checksums: it can be restored, and comes back as wrong.
    #[serde(default)]
    pub wrong_pages: bool,
    /// What the engine found while it was taken, then what verifications found.
    pub findings: Vec<Finding>,
}

impl BackupSummary {
    pub fn new(record: &BackupRecord, marks: BackupMarks) -> Self {
        let statistics = &record.statistics;
        let (damaged, wrong_pages) = (marks.is_damaged(), !record.is_clean());
        let mut findings = record.findings.clone();
        findings.extend(marks.findings);
        Self {
            id: record.id.clone(),
            instance: record.instance.clone(),
            engine: record.engine,
            backup_type: record.backup_type,
            parent: record.parent.clone(),
            started_at: record.started_at,
            finished_at: record.finished_at,
            duration_seconds: record.finished_at.duration_since(record.started_at).as_secs_f64(),
            sequence: record.sequence,
            start_position: record.start_position.as_ref().map(ToString::to_string),
            stop_position: record.stop_position.as_ref().map(ToString::to_string),
            timeline: record.stop_position.as_ref().and_then(crate::Position::timeline),
            logical_bytes: statistics.logical_bytes,
            read_bytes: statistics.read_bytes,
            new_bytes: statistics.new_bytes,
            stored_bytes: statistics.stored_bytes,
            files: statistics.files,
            restore_amplification: statistics.restore_amplification,
            engine_version: record.engine_version.clone(),
            encrypted: record.encrypted,
            hold: marks.hold.as_ref().map(|hold| hold.until),
            hold_reason: marks.hold.and_then(|hold| hold.reason),
            condemned: marks.condemned.is_some(),
            condemned_at: marks.condemned.and_then(|condemned| condemned.at),
            verified_at: marks.verified_at,
            drilled_at: marks.drilled_at,
            drill_sound: marks.drill_sound,
            damaged,
            wrong_pages,
            findings,
        }
    }
}

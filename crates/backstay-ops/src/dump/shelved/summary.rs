//! One dump as lists show it: all its names in one row. The field names are those of the
//! list of backups where they mean the same; they are only added to.

use backstay_model::dump::{DumpCipher, DumpContent, DumpRecord, DumpShape, DumpWarning, DumpedTable, Tier};
use backstay_model::{BackupId, EngineKind, Finding, InstanceId};
use jiff::Timestamp;
use serde::Serialize;

use super::{Presence, Shelved, ShelvedFile};
use crate::dump::report::DumpState;

/// One name of a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TierFile {
    pub tier: Tier,
    /// Relative to the shelf.
    pub path: String,
    /// It is there, and nothing is known against it.
    pub good: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DumpSummary {
    pub id: BackupId,
    pub instance: InstanceId,
    pub engine: EngineKind,
    /// Always `dump`.
    #[serde(rename = "type")]
    pub backup_type: &'static str,
    /// Always null: a dump needs no other.
    pub parent: Option<BackupId>,
    /// The first of those that were taken together.
    pub set: Option<BackupId>,
    pub environment: Option<String>,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub duration_seconds: f64,
    pub start_position: Option<String>,
    pub stop_position: Option<String>,
    /// Always null: nothing can be recovered on a dump.
    pub timeline: Option<u32>,
    pub logical_bytes: u64,
    pub read_bytes: u64,
    pub new_bytes: u64,
    pub stored_bytes: u64,
    /// Names under which it lies.
    pub files: u64,
    pub engine_version: Option<String>,
    pub encrypted: bool,
    pub hold: Option<Timestamp>,
    pub hold_reason: Option<String>,
    pub verified_at: Option<Timestamp>,
    pub drilled_at: Option<Timestamp>,
    /// None of its files is good.
    pub damaged: bool,
    pub adopted: bool,
    /// Taken of what a restore was about to change.
    pub safety: bool,
    #[serde(flatten)]
    pub content: DumpContent,
    #[serde(flatten)]
    pub shape: DumpShape,
    pub shelf: String,
    /// Of its first tier.
    pub path: String,
    pub tiers: Vec<TierFile>,
    pub findings: Vec<Finding>,
}

/// Everything about one dump.
#[derive(Debug, Clone, Serialize)]
pub struct DumpDetail {
    #[serde(flatten)]
    pub summary: DumpSummary,
    pub sha256: String,
    pub compression_ratio: f64,
    pub database_bytes: Option<u64>,
    pub system_identifier: Option<String>,
    pub tool_version: Option<String>,
    pub backstay_version: String,
    pub extensions: std::collections::BTreeMap<String, String>,
    pub tables: Vec<DumpedTable>,
    pub warnings: Vec<DumpWarning>,
}

impl DumpDetail {
    pub fn new(summary: DumpSummary, record: DumpRecord) -> Self {
        Self {
            summary,
            sha256: record.sha256,
            compression_ratio: record.compression_ratio,
            database_bytes: record.database_bytes,
            system_identifier: record.system_identifier,
            tool_version: record.tool_version,
            backstay_version: record.backstay_version,
            extensions: record.extensions,
            tables: record.tables,
            warnings: record.warnings,
        }
    }
}

impl Shelved {
    /// The dumps, newest first, each once.
    pub fn summaries(&self) -> Vec<DumpSummary> {
        let mut summaries: Vec<DumpSummary> = Vec::new();
        for file in &self.files {
            // Names of one dump stand beside each other: they have one time and one id.
            match summaries.last_mut().filter(|last| last.id == file.record().id) {
                Some(summary) => self.add(summary, file),
                None => {
                    let mut summary = self.begin(file);
                    self.add(&mut summary, file);
                    summaries.push(summary);
                }
            }
        }
        summaries
    }

    fn begin(&self, file: &ShelvedFile) -> DumpSummary {
        let record = file.record();
        let of_members: u64 = record.members.iter().map(|member| member.stored_bytes).sum();
        DumpSummary {
            id: record.id.clone(),
            instance: record.instance.clone(),
            engine: record.engine,
            backup_type: "dump",
            parent: None,
            set: record.set.clone(),
            environment: record.environment.clone(),
            started_at: record.started_at,
            finished_at: record.finished_at,
            duration_seconds: record.duration_seconds,
            start_position: record.position.clone(),
            stop_position: record.position.clone(),
            timeline: None,
            logical_bytes: record.raw_bytes + of_members,
            read_bytes: record.raw_bytes + of_members,
            new_bytes: record.stored_bytes + of_members,
            stored_bytes: record.stored_bytes + of_members,
            files: 0,
            engine_version: record.server_version.clone(),
            encrypted: record.shape.cipher != DumpCipher::None,
            hold: None,
            hold_reason: None,
            verified_at: None,
            drilled_at: None,
            damaged: true,
            adopted: record.adopted,
            safety: record.safety,
            content: record.content.clone(),
            shape: record.shape,
            shelf: self.shelf.clone(),
            path: file.path.to_string(),
            tiers: Vec::new(),
            findings: Vec::new(),
        }
    }

    fn add(&self, summary: &mut DumpSummary, file: &ShelvedFile) {
        let (path, record) = (file.path.to_string(), file.record());
        summary.files += 1;
        if let Some(hold) = file.dump.hold.as_ref().filter(|hold| summary.hold < Some(hold.until)) {
            (summary.hold, summary.hold_reason) = (Some(hold.until), hold.reason.clone());
        }
        summary.damaged &= !file.is_good();
        if let Some(seen) = self.report().and_then(|report| report.of(&path, record)) {
            if seen.state != DumpState::Unseen {
                summary.verified_at = summary.verified_at.max(Some(seen.verified_at));
            }
            if file.presence != Presence::Gone && seen.state != DumpState::Gone {
                summary.findings.extend(seen.findings.iter().cloned());
            }
        }
        match file.presence {
            Presence::Gone => summary.findings.push(Finding::error(
                self.full(&file.path),
                "the file is gone, its sidecar is there",
                self.instead(record),
            )),
            Presence::File { size_bytes } | Presence::Link { size_bytes }
                if size_bytes != record.stored_bytes && summary.findings.is_empty() =>
            {
                summary.findings.push(super::wrong_size(self, file, size_bytes));
            }
            Presence::File { .. } | Presence::Link { .. } => {}
        }
        summary.tiers.push(TierFile { tier: file.dump.tier, path, good: file.is_good() });
    }
}

//! How an instance is: what could be lost, how long it would take, and whether
//! that is within the objectives.
//!
//! A number that nobody measured is absent, never zero.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::drill::DrillReport;
use crate::finding::Finding;
use crate::id::{BackupId, InstanceId};
use crate::lsn::TimelineId;
use crate::record::EngineKind;
use crate::summary::BackupSummary;
use crate::target::RecoveryTarget;

mod archive;

pub use archive::{ArchiveState, ArchiveStatus, SlotStatus};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Ok,
    /// It answers, but not as it should.
    Degraded,
    /// It does not answer.
    Down,
    /// Nobody could look.
    Unknown,
}

/// A span of instants to which the instance can be restored, both ends included: a base,
/// and the log behind it as far as it goes without a hole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryWindow {
    pub from: Timestamp,
    pub to: Timestamp,
    pub timeline: Option<TimelineId>,
    pub from_position: Option<String>,
    pub to_position: Option<String>,
}

/// Log that is missing between a base and other log: no instant in it can be restored to,
/// nor any behind it before the next base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The last commit before it.
    pub from: Timestamp,
    /// The first commit behind it, where there is one.
    pub to: Option<Timestamp>,
    pub why: String,
    /// When it was decided to go on behind it; `None` for one that nobody decided.
    #[serde(default)]
    pub given_up_at: Option<Timestamp>,
    pub timeline: TimelineId,
    pub from_position: String,
    /// `None` where nothing has come from behind it yet.
    pub to_position: Option<String>,
    /// The base from which what lies behind it can be reached, and when that ended; `None`
    /// where there is no such base.
    pub backup: Option<BackupId>,
    pub reachable_from: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastDrill {
    pub at: Timestamp,
    pub backup: BackupId,
    pub target: RecoveryTarget,
    /// `None` when no server answered.
    pub recovery_time_seconds: Option<f64>,
    pub sound: bool,
    pub findings: Vec<Finding>,
}

impl From<&DrillReport> for LastDrill {
    fn from(report: &DrillReport) -> Self {
        Self {
            at: report.at,
            backup: report.backup.clone(),
            target: report.target.clone(),
            recovery_time_seconds: report.recovery_time_seconds,
            sound: report.sound,
            findings: report.findings.clone(),
        }
    }
}

/// What is promised for an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Objectives {
    /// At most this much may be lost.
    pub rpo: Option<Duration>,
    /// At most this long may a recovery take.
    pub rto: Option<Duration>,
}

/// The objectives beside what was measured; `None` where there is no objective.
/// An objective that nobody has measured against is missed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ObjectivesReport {
    pub rpo_seconds: Option<f64>,
    pub rpo_met: Option<bool>,
    pub rto_seconds: Option<f64>,
    pub rto_met: Option<bool>,
}

impl Objectives {
    pub fn compare(
        &self,
        point_age_seconds: Option<f64>,
        last_drill: Option<&LastDrill>,
    ) -> ObjectivesReport {
        let rpo_seconds = self.rpo.map(|rpo| rpo.as_secs_f64());
        let rto_seconds = self.rto.map(|rto| rto.as_secs_f64());
        let time = last_drill.filter(|drill| drill.sound).and_then(|drill| drill.recovery_time_seconds);
        let met = |measured: Option<f64>, limit: f64| measured.is_some_and(|measured| measured <= limit);
        ObjectivesReport {
            rpo_seconds,
            rpo_met: rpo_seconds.map(|limit| met(point_age_seconds, limit)),
            rto_seconds,
            rto_met: rto_seconds.map(|limit| met(time, limit)),
        }
    }
}

/// What `status` tells of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    pub instance: InstanceId,
    pub engine: EngineKind,
    pub health: Health,
    /// Why the health is what it is, when it is not `ok`.
    pub health_reason: Option<String>,
    pub recovery_windows: Vec<RecoveryWindow>,
    pub holes: Vec<Hole>,
    /// How old the newest point is to which the instance can be restored.
    pub recovery_point_age_seconds: Option<f64>,
    pub archive: ArchiveStatus,
    pub last_backup: Option<BackupSummary>,
    pub last_drill: Option<LastDrill>,
    pub objectives: ObjectivesReport,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drill(seconds: f64, sound: bool) -> LastDrill {
        LastDrill {
            at: "2026-11-21T04:00:00Z".parse().unwrap(),
            backup: "20261121T024300Z-7q3f".parse().unwrap(),
            target: RecoveryTarget::Latest,
            recovery_time_seconds: Some(seconds),
            sound,
            findings: Vec::new(),
        }
    }

    #[test]
    fn an_objective_is_met_only_by_a_measurement() {
        let objectives = Objectives { rpo: Some(Duration::from_secs(5)), rto: Some(Duration::from_secs(60)) };
        let good = objectives.compare(Some(5.0), Some(&drill(59.0, true)));
        assert_eq!((good.rpo_met, good.rto_met), (Some(true), Some(true)));
        let late = objectives.compare(Some(5.1), Some(&drill(61.0, true)));
        assert_eq!((late.rpo_met, late.rto_met), (Some(false), Some(false)));
        let nothing = objectives.compare(None, None);
        assert_eq!((nothing.rpo_met, nothing.rto_met), (Some(false), Some(false)));
        let unsound = objectives.compare(Some(1.0), Some(&drill(1.0, false)));
        assert_eq!(unsound.rto_met, Some(false));
    }

    #[test]
    fn without_an_objective_nothing_is_met_or_missed() {
        let report = Objectives::default().compare(Some(1.0), None);
        assert_eq!((report.rpo_met, report.rto_met), (None, None));
    }
}

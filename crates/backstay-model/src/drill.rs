//! What a restore drill proved: the checks, the seconds, and the record of both.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, FindingLevel};
use crate::id::{BackupId, InstanceId};
use crate::target::RecoveryTarget;

/// One question asked of a restored server, and both answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub expected: String,
    pub found: String,
    pub ok: bool,
}

impl Check {
    /// A check that holds when both texts are the same.
    pub fn equal(name: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        let (expected, found) = (expected.into(), found.into());
        Self { name: name.into(), ok: expected == found, expected, found }
    }
}

/// A restored server was started and questioned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    pub at: Timestamp,
    pub sound: bool,
    pub checks: Vec<Check>,
}

/// What `drill` tells, and what is stored of it as a proof. A step that was not done
/// to its end has no seconds: a number that nobody measured is absent, never zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillReport {
    pub instance: InstanceId,
    pub backup: BackupId,
    pub target: RecoveryTarget,
    pub at: Timestamp,
    pub sound: bool,
    pub place_seconds: Option<f64>,
    pub recover_seconds: Option<f64>,
    pub prove_seconds: Option<f64>,
    /// From the first byte placed to a server that answers: place and recover.
    pub recovery_time_seconds: Option<f64>,
    /// What was placed; with `place_seconds` it is the measured rate of a restore.
    pub restored_bytes: u64,
    pub checks: Vec<Check>,
    pub findings: Vec<Finding>,
    /// Where the restored directory lies, when it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_at: Option<String>,
}

impl DrillReport {
    /// Sound is what passed every check and has no finding of level error.
    pub fn judge(checks: &[Check], findings: &[Finding]) -> bool {
        !checks.is_empty()
            && checks.iter().all(|check| check.ok)
            && findings.iter().all(|finding| finding.level < FindingLevel::Error)
    }

    /// Bytes a second that the restore reached, if anything was there to measure.
    pub fn place_rate(&self) -> Option<f64> {
        // Shorter than this is noise: a few files from the cache.
        const SHORTEST_SECONDS: f64 = 0.05;
        let seconds = self.place_seconds.filter(|seconds| *seconds >= SHORTEST_SECONDS)?;
        (self.restored_bytes > 0).then(|| self.restored_bytes as f64 / seconds)
    }

    /// Whether this backup came back whole. A drill that had to pass over a newer one is
    /// not sound, and says nothing against the one that it took.
    pub fn brought_back(&self) -> bool {
        let is_of_another =
            |finding: &Finding| finding.subject.parse::<BackupId>().is_ok_and(|id| id != self.backup);
        self.prove_seconds.is_some()
            && self.checks.iter().all(|check| check.ok)
            && self
                .findings
                .iter()
                .all(|finding| finding.level != FindingLevel::Error || is_of_another(finding))
    }

    /// What was wrong, in one line: an error that was found, or a check that failed.
    pub fn fault(&self) -> Option<String> {
        let error = self.findings.iter().find(|finding| finding.level == FindingLevel::Error);
        let error = error.and_then(|finding| {
            finding.message.lines().next().map(|line| format!("{}: {line}", finding.subject))
        });
        let check = || {
            let failed = self.checks.iter().find(|check| !check.ok)?;
            Some(format!("{}: {} was expected, and {} found", failed.name, failed.expected, failed.found))
        };
        error.or_else(check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_without_a_single_check_has_proved_nothing() {
        assert!(!DrillReport::judge(&[], &[]));
        let good = Check::equal("databases", "2", "2");
        let bad = Check::equal("databases", "2", "1");
        assert!(DrillReport::judge(std::slice::from_ref(&good), &[]));
        assert!(!DrillReport::judge(&[good.clone(), bad], &[]));
        let note = Finding::info("orders", "took long", "`backstay status`");
        let fault = Finding::error("orders", "index is broken", "`REINDEX`");
        assert!(DrillReport::judge(std::slice::from_ref(&good), std::slice::from_ref(&note)));
        assert!(!DrillReport::judge(&[good], &[note, fault]));
    }

    /// As the first versions stored it.
    const OLD: &str = r#"{
        "instance": "orders", "backup": "20261121T024300Z-7q3f", "target": "latest",
        "at": "2026-11-21T04:00:00Z", "sound": true, "place_seconds": 2.0, "recover_seconds": 0.5,
        "prove_seconds": 1.0, "recovery_time_seconds": 2.5, "restored_bytes": 4096, "checks": [], "findings": []
    }"#;

    #[test]
    fn a_proof_of_an_earlier_version_reads_as_ever() {
        let report: DrillReport = serde_json::from_str(OLD).unwrap();
        assert_eq!((report.recovery_time_seconds, report.place_rate()), (Some(2.5), Some(2048.0)));
        assert_eq!(report.fault(), None);
    }

    #[test]
    fn a_newer_backup_that_was_passed_over_says_nothing_against_the_one_that_came_back() {
        let mut report: DrillReport = serde_json::from_str(OLD).unwrap();
        report.findings.push(Finding::error("20261122T024300Z-7q3f", "it is damaged", "`backstay verify`"));
        report.sound = DrillReport::judge(&report.checks, &report.findings);
        assert!(!report.sound && report.brought_back());
        report.findings.push(Finding::error("base/1/1259", "page 3 is wrong", "`backstay verify`"));
        assert!(!report.brought_back());
        report.findings.clear();
        report.checks.push(Check::equal("recovery", "recovered", "did not start"));
        assert!(!report.brought_back());
    }

    #[test]
    fn a_fault_is_told_in_one_line_and_what_was_not_done_has_no_seconds() {
        let mut report: DrillReport = serde_json::from_str(OLD).unwrap();
        report.place_seconds = None;
        assert_eq!(report.place_rate(), None);
        report.checks.push(Check::equal("recovery", "recovered", "did not start"));
        assert_eq!(report.fault().unwrap(), "recovery: recovered was expected, and did not start found");
        report.findings.push(Finding::warning("backup 1", "was passed over", "`backstay backup`"));
        report.findings.push(Finding::error("backup 2", "it did not start:\nFATAL", "`backstay drill`"));
        assert_eq!(report.fault().unwrap(), "backup 2: it did not start:");
    }
}

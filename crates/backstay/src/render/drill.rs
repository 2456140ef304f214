//! What drills proved, and how long recovery took.

use backstay_model::drill::DrillReport;
use backstay_model::{InstanceId, RecoveryTarget};
use serde::Serialize;

use super::errors::Told;
use super::lines::{findings, labelled, quiet, size, span};
use super::table::{Align, Table};
use super::{Output, Tone};

/// What became of the drill of one instance.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Drilled {
    Ended(DrillReport),
    /// Nobody knows whether the backup is sound: it is neither `true` nor `false`.
    NotToTheEnd {
        instance: InstanceId,
        backup: Option<String>,
        /// None where it was to be any instant.
        target: Option<RecoveryTarget>,
        sound: Option<bool>,
        error: Told,
    },
}

impl Drilled {
    pub fn not_to_the_end(instance: &InstanceId, target: Option<&RecoveryTarget>, error: Told) -> Self {
        let (instance, target) = (instance.clone(), target.cloned());
        Drilled::NotToTheEnd { instance, backup: None, target, sound: None, error }
    }
}

/// The others were told as errors, when they happened.
pub fn all(output: &Output, drilled: &[Drilled]) -> String {
    let ended = drilled.iter().filter_map(|one| match one {
        Drilled::Ended(report) => Some(report),
        Drilled::NotToTheEnd { .. } => None,
    });
    reports(output, ended)
}

fn reports<'a>(output: &Output, reports: impl Iterator<Item = &'a DrillReport>) -> String {
    // A copy that is kept must be found.
    let is_quiet = |report: &DrillReport| output.quiet && report.sound && report.kept_at.is_none();
    let blocks = reports.map(|report| match is_quiet(report) {
        true => quiet(output, &format!("{}: drill of {}", report.instance, report.backup), &report.findings),
        false => one(output, report),
    });
    let blocks: Vec<String> = blocks.filter(|block| !block.is_empty()).collect();
    blocks.join("\n")
}

fn one(output: &Output, report: &DrillReport) -> String {
    let verdict = match report.sound {
        true => output.paint(Tone::Good, "proved"),
        false => output.paint(Tone::Bad, "NOT proved"),
    };
    let mut text = format!("{}: backup {} {verdict}\n", report.instance, report.backup);
    let mut line = |label: &str, value: String| text.push_str(&labelled(label, &value));
    if report.target != RecoveryTarget::Latest {
        line("restored to", report.target.to_string());
    }
    let mut took = |label: &str, seconds: Option<f64>, what: &str| {
        if let Some(seconds) = seconds {
            line(label, span(seconds) + what);
        }
    };
    took("recovery time", report.recovery_time_seconds, "");
    took("place", report.place_seconds, &format!(" ({})", size(report.restored_bytes)));
    took("recover", report.recover_seconds, "");
    took("prove", report.prove_seconds, "");
    if let Some(path) = &report.kept_at {
        line("kept at", path.clone());
    }
    text.push_str(&checks(&report.checks));
    text.push_str(&findings(output, &report.findings));
    text
}

/// The questions asked of a restored server, and the answers.
pub fn checks(checks: &[backstay_model::drill::Check]) -> String {
    if checks.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("  CHECK", Align::Left),
        ("EXPECTED", Align::Right),
        ("FOUND", Align::Right),
        ("RESULT", Align::Left),
    ]);
    for check in checks {
        table.row([
            format!("  {}", check.name),
            check.expected.clone(),
            check.found.clone(),
            if check.ok { "ok".to_owned() } else { "WRONG".to_owned() },
        ]);
    }
    table.text()
}

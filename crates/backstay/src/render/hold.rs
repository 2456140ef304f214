//! What is held now, and what is not any more.

use backstay_ops::hold::HoldReport;

use super::Output;
use super::lines::{findings, held, quiet};

pub fn report(output: &Output, report: &HoldReport) -> String {
    if output.quiet {
        return quiet(output, "hold", &report.findings);
    }
    let what = if report.backup_type == "dump" { "dump" } else { "backup" };
    let now = match report.hold {
        Some(until) => held(until, report.hold_reason.as_deref()),
        None if report.was_held => "not held any more, and left to retention".to_owned(),
        None => "was not held".to_owned(),
    };
    format!("{}: {what} {}: {now}\n{}", report.instance, report.id, findings(output, &report.findings))
}

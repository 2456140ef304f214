//! What drills proved, and how long recovery took.

use backstay_model::drill::DrillReport;

use super::lines::{findings, labelled, quiet, size, span};
use super::table::{Align, Table};
use super::{Output, Tone};

pub fn reports(output: &Output, reports: &[DrillReport]) -> String {
    // A copy that is kept must be found.
    let is_quiet = |report: &DrillReport| output.quiet && report.sound && report.kept_at.is_none();
    let blocks = reports.iter().map(|report| match is_quiet(report) {
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
    line("recovery time", span(report.recovery_time_seconds));
    line("place", format!("{} ({})", span(report.place_seconds), size(report.restored_bytes)));
    line("recover", span(report.recover_seconds));
    line("prove", span(report.prove_seconds));
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

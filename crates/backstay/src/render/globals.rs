//! What a restore of roles and tablespaces is going to do, and what it did.

use backstay_ops::reload::globals::{GlobalsPlan, GlobalsReport};

use super::Output;
use super::lines::{findings, labelled, quiet, span};

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// The plan as `--dry-run` shows it, and as every restore shows it first.
pub fn plan(output: &Output, plan: &GlobalsPlan) -> String {
    let mut text = format!("restore roles and tablespaces of {}\n", plan.instance);
    let mut line = |label: &str, value: String| text.push_str(&labelled(label, &value));
    line("dump", plan.dump.to_string());
    line("file", plan.file.clone());
    line("server", plan.server.clone());
    line("makes", listed(&plan.make));
    line("leaves as it is", listed(&plan.left));
    text.push_str(&findings(output, &plan.findings));
    text
}

/// What was made. The first `told` findings were shown with the plan.
pub fn done(output: &Output, report: &GlobalsReport, told: usize) -> String {
    let plan = &report.plan;
    let new = plan.findings.get(told..).unwrap_or_default();
    if output.quiet {
        return quiet(output, &format!("{}: dump {} at {}", plan.instance, plan.dump, plan.server), new);
    }
    let mut text = format!(
        "{}: made {} at {} from dump {} in {}\n",
        plan.instance,
        listed(&report.made),
        plan.server,
        plan.dump,
        span(report.duration_seconds),
    );
    text.push_str(&findings(output, new));
    text
}

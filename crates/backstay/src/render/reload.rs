//! What a restore of a dump is going to do, and what it did.

use backstay_model::plan::reload::{Destination, ReloadPlan};
use backstay_ops::reload::ReloadReport;

use super::Output;
use super::dumps;
use super::lines::{findings, labelled, quiet, size, span, steps};

/// The plan as `--dry-run` shows it, and as every restore shows it first.
pub fn plan(output: &Output, plan: &ReloadPlan) -> String {
    let name = plan.destination.name();
    let how = match &plan.destination {
        Destination::Database { .. } => format!("into database {name}"),
        Destination::Swap { .. } => format!("in the place of database {name}"),
    };
    let mut text = format!("restore a dump of {} {how}\n", plan.instance);
    let mut line = |label: &str, value: String| text.push_str(&labelled(label, &value));
    line("dump", format!("{} of {}", plan.dump, dumps::content(&plan.content)));
    line("file", plan.file.clone());
    line("server", plan.server.clone());
    line("writes", format!("about {}", size(plan.raw_bytes)));
    text.push_str(&steps(&plan.steps));
    text.push_str(&findings(output, &plan.findings));
    text
}

/// What was restored. The first `told` findings were shown with the plan.
pub fn done(output: &Output, report: &ReloadReport, told: usize) -> String {
    let plan = &report.plan;
    let name = plan.destination.name();
    let new = plan.findings.get(told..).unwrap_or_default();
    if output.quiet {
        return quiet(output, &format!("{}: dump {} in database {name}", plan.instance, plan.dump), new);
    }
    let mut text = format!(
        "{}: restored {} from dump {} into database {name} in {}\n",
        plan.instance,
        size(report.restored_bytes),
        plan.dump,
        span(report.duration_seconds),
    );
    if let Some(safety) = &report.safety {
        text.push_str(&labelled("as it was before", &format!("dump {}", safety.record.id)));
    }
    if let Some(kept) = &report.kept {
        text.push_str(&labelled(
            "the old one",
            &format!("is kept as {kept}; `DROP DATABASE \"{kept}\"` removes it"),
        ));
    }
    text.push_str(&findings(output, new));
    text
}

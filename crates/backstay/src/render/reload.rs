//! What a restore of a dump is going to do, and what it did.

use backstay_model::plan::reload::{Destination, ReloadChecks, ReloadPlan};
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
        Destination::Test { .. } => "to see whether it can be".to_owned(),
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
    let is_test = matches!(plan.destination, Destination::Test { .. });
    if output.quiet {
        let at = match (is_test, report.sound) {
            (true, true) => "can be restored".to_owned(),
            (true, false) => "cannot be restored as it was".to_owned(),
            (false, _) => format!("in database {name}"),
        };
        return quiet(output, &format!("{}: dump {} {at}", plan.instance, plan.dump), new);
    }
    let (bytes, time) = (size(report.restored_bytes), span(report.duration_seconds));
    let mut text = match is_test {
        true => {
            let verdict = if report.sound { "can be restored" } else { "cannot be restored as it was" };
            format!(
                "{}: dump {} {verdict}: {bytes} were, in {time}, and are dropped again\n",
                plan.instance, plan.dump
            )
        }
        false => {
            format!(
                "{}: restored {bytes} from dump {} into database {name} in {time}\n",
                plan.instance, plan.dump
            )
        }
    };
    if let Some(checks) = &report.checks {
        text.push_str(&labelled("looked at", &checked(checks)));
    }
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

fn checked(checks: &ReloadChecks) -> String {
    let kinds = [
        (checks.relations, "relations"),
        (checks.indexes, "indexes"),
        (checks.constraints, "constraints"),
        (checks.views, "materialised views"),
        (checks.sequences, "sequences"),
    ];
    let kinds = kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let read = format!("{} rows of {} tables", checks.rows_read, checks.tables_read);
    kinds.chain([read]).collect::<Vec<_>>().join(", ")
}

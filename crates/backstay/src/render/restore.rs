//! What a restore is going to do, and what it did.

use std::path::Path;

use backstay_engine::postgres::starting::Starting;
use backstay_engine::redis::sync::is_replication_id;
use backstay_model::RecoveryTarget;
use backstay_model::plan::RestorePlan;
use backstay_model::plan::restore::EndOfTransaction;
use backstay_ops::restore::RestoreReport;

use super::drill::checks;
use super::lines::{count, findings, labelled, size, span, steps, time};
use super::{Output, Tone};

/// The plan as `--dry-run` shows it, and as every restore shows it first.
pub fn plan(output: &Output, plan: &RestorePlan) -> String {
    let mut text = format!("restore {} to {}\n", plan.instance, target(&plan.target));
    let mut line = |label: &str, value: String| text.push_str(&labelled(label, &value));
    match &plan.base {
        Some(base) => line("from backup", base.to_string()),
        None => line("from backup", "none".to_owned()),
    }
    if let Some(reached) = &plan.reached {
        let position = reached.position.as_ref().map(|position| format!(" ({position})")).unwrap_or_default();
        line("state of", format!("{}{position}", time(reached.time)));
        if let Some(last) = &reached.last_transaction {
            line("last transaction", transaction(last));
        }
        if let Some(next) = &reached.stops_before {
            line("stops before", transaction(next));
        }
    }
    let of_stream = plan.recovery.as_ref().is_some_and(|recovery| is_replication_id(&recovery.lineage));
    for range in &plan.log {
        let (timeline, from, to) = (range.timeline, range.from, range.to);
        line(
            "log",
            match of_stream {
                true => format!("offset {} → {} ({})", from.0, to.0, size(range.bytes)),
                false => format!("timeline {timeline}, {from} → {to} ({})", size(range.bytes)),
            },
        );
    }
    if plan.base.is_some() {
        line("writes", format!("{} in {}", size(plan.bytes), count(plan.files, "file", "files")));
        line("expected", format!("about {}", span(plan.expected_seconds)));
    }
    for space in &plan.tablespaces {
        line("tablespace", format!("{}: {} → {}", space.name, space.old, space.new));
    }
    if !plan.steps.is_empty() {
        text.push_str(&steps(&plan.steps));
    }
    text.push_str(&findings(output, &plan.findings));
    text
}

/// With the fractions of a second: two of them lie less than one apart.
fn transaction(end: &EndOfTransaction) -> String {
    format!("{} at {} ({})", end.transaction, end.time, end.position)
}

fn target(target: &RecoveryTarget) -> String {
    match target {
        RecoveryTarget::Latest => "the latest state".to_owned(),
        RecoveryTarget::Immediate => "the end of the backup".to_owned(),
        other => other.to_string(),
    }
}

/// What was restored, and what to do with it. The first `told` findings were shown
/// with the plan.
pub fn done(output: &Output, report: &RestoreReport, told: usize, into: &Path) -> String {
    let base = report.plan.base.as_ref().map(|base| format!(" from {base}")).unwrap_or_default();
    let mut text = format!(
        "{}: restored {}{base} into {} in {}\n",
        report.plan.instance,
        size(report.restored_bytes),
        into.display(),
        span(report.duration_seconds),
    );
    if let Some(seconds) = report.recovery_time_seconds {
        text.push_str(&labelled("recovery time", &span(seconds)));
    }
    match &report.proof {
        Some(proof) => {
            let verdict = match proof.sound {
                true => output.paint(Tone::Good, "proved: it started and answered"),
                false => output.paint(Tone::Bad, "NOT proved"),
            };
            text.push_str(&labelled("proof", &verdict));
            text.push_str(&checks(&proof.checks));
        }
        None if report.can_be_proved && report.is_summed_up => {
            text.push_str(&labelled("proof", "the checksum of its source; `--start` starts it and looks"));
        }
        None if report.can_be_proved => {
            text.push_str(&labelled("proof", "none; `--start` starts it and looks"));
        }
        None if report.is_summed_up => {
            text.push_str(&labelled("proof", "the checksum of its source; no server was started"));
        }
        None => text.push_str(&labelled("proof", "none; no server was started")),
    }
    text.push_str(&findings(output, report.plan.findings.get(told..).unwrap_or_default()));
    match &report.starting {
        Some(Starting::Command(line)) => text.push_str(&labelled("start it with", line)),
        Some(Starting::Needs(what)) => text.push_str(&labelled("to start it", &format!("it needs {what}"))),
        None => {}
    }
    text
}

//! What a collection deleted, or would delete.

use backstay_model::policy::LogReason;
use backstay_ops::collect::{CollectReport, LogDeletion};

use super::Output;
use super::lines::{count, findings, quiet, size};
use super::table::{Align, Table};

pub fn report(output: &Output, report: &CollectReport) -> String {
    if output.quiet && report.executed {
        return quiet(output, "collection", &report.findings);
    }
    let objects = count(report.deleted_objects, "object that nothing needs", "objects that nothing needs");
    let mut text = match report.executed {
        true => format!("deleted {objects}, {} freed\n", size(report.freed_bytes)),
        false => format!("would delete {objects} and free {}\n", size(report.freed_bytes)),
    };
    for deletion in &report.log {
        let verb = if report.executed { "deleted" } else { "would delete" };
        text.push_str(&format!("  {verb} {}\n", log_of(deletion)));
    }
    if report.deleted_notes > 0 {
        let notes = count(report.deleted_notes, "old note", "old notes");
        let verb = if report.executed { "deleted" } else { "would delete" };
        text.push_str(&format!("  {verb} {notes} of verifications and drills that say nothing any more\n"));
    }
    for ended in &report.ended_sessions {
        let host = ended.host.as_ref().map(|host| format!(" on {host}")).unwrap_or_default();
        let why = if ended.process_gone { "its process is gone" } else { "it gave no sign of life" };
        text.push_str(&format!(
            "  interrupted backup {} of {}{host}: {why}\n",
            ended.session, ended.instance
        ));
    }
    // A dry run is asked for to see the list; after the deed the sum is enough.
    if !report.executed && !report.deletions.is_empty() {
        let mut table =
            Table::new(&[("  OBJECT", Align::Left), ("SIZE", Align::Right), ("WHY", Align::Left)]);
        for deletion in &report.deletions {
            let why = serde_json::to_value(deletion.reason).ok();
            let why = why.as_ref().and_then(|why| why.as_str()).unwrap_or_default().replace('-', " ");
            table.row([format!("  {}", deletion.object), size(deletion.size_bytes), why]);
        }
        text.push_str(&table.text());
    }
    text + &findings(output, &report.findings)
}

/// `log of orders, timeline 1, up to 0/5000000: 64.0 MiB in 12 objects: older than …`
pub fn log_of(deletion: &LogDeletion) -> String {
    let what = match (&deletion.reason, deletion.to) {
        (_, Some(to)) => format!("up to {to}"),
        (LogReason::Superseded, None) => "in small parts".to_owned(),
        (_, None) => "all of it".to_owned(),
    };
    format!(
        "log of {}, timeline {}, {what}: {} in {}: {}",
        deletion.instance,
        deletion.timeline,
        size(deletion.freed_bytes),
        count(deletion.objects, "object", "objects"),
        deletion.reason
    )
}

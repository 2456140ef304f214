//! Dumps: what was taken, and what opens it.

pub mod kept;

use backstay_model::dump::DumpContent;
use backstay_ops::dump::{DumpReport, DumpedFile};

use super::Output;
use super::lines::{findings, labelled, quiet, size, span};

pub fn taken(output: &Output, report: &DumpReport) -> String {
    if output.quiet {
        return quiet(output, "dump", &report.findings);
    }
    let mut text = String::new();
    for dump in &report.dumps {
        text.push_str(&one(dump));
    }
    text.push_str(&findings(output, &report.findings));
    text
}

fn one(dump: &DumpedFile) -> String {
    let record = &dump.record;
    let mut text = format!(
        "{}: dump {} of {} in {}: {} from {}\n",
        record.instance,
        record.id,
        content(&record.content),
        span(record.duration_seconds),
        size(record.stored_bytes),
        size(record.raw_bytes),
    );
    let directory = dump.shelf.strip_prefix("file://").unwrap_or(&dump.shelf);
    for path in &dump.paths {
        text.push_str(&labelled(&path.tier.to_string(), &format!("{directory}/{}", path.path)));
    }
    text.push_str(&labelled("opened with", &record.shape.opened_with()));
    text
}

pub fn content(content: &DumpContent) -> String {
    match content {
        DumpContent::Database { database } => database.clone(),
        DumpContent::Parts { database, tables, schemas } => {
            let parts = if tables.is_empty() { schemas } else { tables };
            format!("{} of {database}", parts.join(", "))
        }
        DumpContent::Globals => "roles and tablespaces".to_owned(),
        DumpContent::Cluster { databases } => databases.join(", "),
        DumpContent::Server => "the whole server".to_owned(),
    }
}

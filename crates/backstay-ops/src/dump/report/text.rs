//! The report as a person reads it in a pager, years later and without Backstay.

use std::fmt::Write;

use backstay_model::ByteSize;
use backstay_model::dump::DumpContent;

use super::{DumpState, FileVerdict, VerificationReport};

pub(super) fn of(report: &VerificationReport) -> String {
    let mut text = format!(
        "Verification of the dumps in {}\nby Backstay {}, {}, level {}\n\n",
        report.shelf, report.backstay_version, report.verified_at, report.level
    );
    let number = |state| report.files.iter().filter(|seen| seen.state == state).count();
    let counted = [DumpState::Good, DumpState::Damaged, DumpState::Gone, DumpState::Unseen]
        .map(|state| format!("{} {}", number(state), word(state)));
    let verdict = if report.sound { "SOUND" } else { "NOT SOUND" };
    let files = report.files.len();
    // Writing to a string does not fail.
    let _ = writeln!(text, "{verdict}: {files} files, {}\n", counted.join(", "));
    for seen in &report.files {
        one(&mut text, seen);
    }
    if !report.findings.is_empty() {
        text.push_str("\nNot of one dump:\n");
    }
    for finding in &report.findings {
        let _ = writeln!(text, "  {}: {}\n    {}", finding.subject, finding.message, finding.remedy);
    }
    text
}

fn one(text: &mut String, seen: &FileVerdict) {
    let what = match &seen.content {
        DumpContent::Database { database } => format!("database {database}"),
        DumpContent::Parts { database, .. } => format!("parts of database {database}"),
        DumpContent::Globals => "roles and tablespaces".to_owned(),
        DumpContent::Cluster { databases } => format!("databases {}", databases.join(", ")),
        DumpContent::Server => "the whole server".to_owned(),
    };
    let state = match seen.state {
        DumpState::Good => "good".to_owned(),
        other => word(other).to_uppercase(),
    };
    let size = ByteSize(seen.stored_bytes);
    let _ = writeln!(text, "{state:<12}{}", seen.path);
    let _ = writeln!(text, "            {what} of {}, dump {}, {size}", seen.instance, seen.id);
    let _ = writeln!(text, "            seen {}, level {}", seen.verified_at, seen.level);
    for finding in &seen.findings {
        let _ = writeln!(text, "            {}", finding.message);
        let _ = writeln!(text, "            {}", finding.remedy);
    }
}

fn word(state: DumpState) -> &'static str {
    match state {
        DumpState::Good => "good",
        DumpState::Damaged => "damaged",
        DumpState::Gone => "gone",
        DumpState::Unseen => "not seen",
    }
}

//! What a verification found, and what it looked at of the dumps.

use backstay_model::verify::VerifyReport;
use backstay_ops::dump::report::{DumpState, FileVerdict};

use super::lines::{count, findings, size, time};
use super::table::{Align, Table};
use super::{Output, Tone, dumps};

pub fn report(output: &Output, report: &VerifyReport) -> String {
    let verdict = if report.sound {
        output.paint(Tone::Good, "sound")
    } else if report.exit_code() == VerifyReport::EXIT_UNSEEN {
        output.paint(Tone::Doubtful, "could not look at everything")
    } else {
        output.paint(Tone::Bad, "NOT sound")
    };
    let mut text = format!(
        "{}: {verdict}; {} and {} read\n",
        report.subject,
        count(report.objects_read, "object", "objects"),
        size(report.bytes_read)
    );
    text.push_str(&findings(output, &report.findings));
    if !report.unseen.is_empty() {
        text.push_str("not seen:\n");
        text.push_str(&findings(output, &report.unseen));
    }
    text
}

/// Each name that was looked at; nothing where there was none, or nobody wants to hear.
pub fn dumps(output: &Output, seen: &[FileVerdict]) -> String {
    if seen.is_empty() || output.quiet {
        return String::new();
    }
    let mut table = Table::new(&[
        ("  DUMP", Align::Left),
        ("TIER", Align::Left),
        ("OF", Align::Left),
        ("FINISHED", Align::Left),
        ("STATE", Align::Left),
        ("FILE", Align::Left),
    ]);
    for seen in seen {
        let state = match seen.state {
            DumpState::Good => "good",
            DumpState::Damaged => "DAMAGED",
            DumpState::Gone => "GONE",
            DumpState::Unseen => "not seen",
        };
        table.row([
            format!("  {}", seen.id),
            seen.tier.to_string(),
            dumps::content(&seen.content),
            time(seen.finished_at),
            state.to_owned(),
            seen.path.clone(),
        ]);
    }
    table.text()
}

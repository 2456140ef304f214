//! What a verification found.

use backstay_model::verify::VerifyReport;

use super::lines::{count, findings, size};
use super::{Output, Tone};

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

//! An export: the files, what they are, and what opens them.

use backstay_model::dump::{DumpCipher, DumpCompression};
use backstay_ops::export::ExportReport;

use super::Output;
use super::lines::{findings, labelled, quiet, size, span};

pub fn report(output: &Output, report: &ExportReport) -> String {
    if output.quiet {
        return quiet(output, "export", &report.findings);
    }
    let mut text = format!(
        "{}: {} {} of {} exported in {}: {} from {}\n",
        report.instance,
        if report.backup_type == "dump" { "dump" } else { "backup" },
        report.id,
        report.of,
        span(report.duration_seconds),
        size(report.stored_bytes),
        size(report.raw_bytes),
    );
    for file in &report.files {
        text.push_str(&labelled("file", &file.path));
        if let Some(authentication) = &file.authentication {
            text.push_str(&labelled("authentication", authentication));
        }
    }
    let packed = match report.shape.compression {
        DumpCompression::None => "not compressed".to_owned(),
        DumpCompression::Inside => "compressed inside".to_owned(),
        other => other.to_string(),
    };
    let sealed = match report.shape.cipher {
        DumpCipher::None => "not encrypted".to_owned(),
        other => format!("encrypted for {other}"),
    };
    text.push_str(&labelled("packed", &format!("{packed}, {sealed}")));
    text.push_str(&labelled("opened with", &report.opened_with));
    text.push_str(&findings(output, &report.findings));
    text
}

//! The small pieces every view is made of: labelled lines, times, spans, findings.

use backstay_model::{ByteSize, Finding, FindingLevel, Hold};
use jiff::Timestamp;

use super::{Output, Tone};

/// Room for the longest label and two blanks.
const LABEL_WIDTH: usize = 20;

/// `  label             text`
pub fn labelled(label: &str, text: &str) -> String {
    format!("  {label:<LABEL_WIDTH$}{text}\n")
}

/// `2026-11-21 02:43:00Z`: read aloud and sorted more easily than with a `T`.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `held until 2027-01-01 00:00:00Z (audit)`
pub fn held(until: Timestamp, reason: Option<&str>) -> String {
    let hold = Hold { until, reason: None };
    let mut text = if hold.has_end() { format!("held until {}", time(until)) } else { "held".to_owned() };
    if let Some(reason) = reason {
        text.push_str(&format!(" ({reason})"));
    }
    text
}

/// A measured or expected span, as exact as a person needs it.
pub fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{:.1} s", seconds.max(0.0)),
        0..=59 => format!("{whole} s"),
        60..=3599 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..=86_399 => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {:02} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// What is done, one after the other.
pub fn steps<S: std::fmt::Display>(steps: &[S]) -> String {
    let mut text = "  steps\n".to_owned();
    for (number, step) in steps.iter().enumerate() {
        text.push_str(&format!("    {}. {step}\n", number + 1));
    }
    text
}

pub fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

/// `1 file`, `2 files`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// All that `--quiet` leaves of work that went well: what a person should see to.
/// Nothing at all is the usual case, so that a job of every night sends no mail.
pub fn quiet(output: &Output, subject: &str, all: &[Finding]) -> String {
    let grave: Vec<Finding> =
        all.iter().filter(|finding| finding.level != FindingLevel::Info).cloned().collect();
    if grave.is_empty() { String::new() } else { format!("{subject}\n{}", findings(output, &grave)) }
}

/// Each finding on a line, with the remedy below it.
pub fn findings(output: &Output, findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let (tone, word) = match finding.level {
            FindingLevel::Error => (Tone::Bad, "error"),
            FindingLevel::Warning => (Tone::Doubtful, "warning"),
            FindingLevel::Info => (Tone::Strong, "info"),
        };
        text.push_str(&format!("  {}: {}: {}\n", output.paint(tone, word), finding.subject, finding.message));
        if !finding.remedy.is_empty() {
            text.push_str(&format!("      remedy: {}\n", finding.remedy));
        }
    }
    text
}

//! What was taken in of what other programs left.

use backstay_ops::adopt::{AdoptReport, Fate};

use super::lines::{count, time};
use super::table::{Align, Table};
use super::{Output, dumps};

/// What the arguments say of the words.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    pub dry_run: bool,
    /// The directory is where the configuration says that dumps lie.
    pub is_shelf: bool,
}

pub fn all(output: &Output, report: &AdoptReport, shown: Shown) -> String {
    let mut table = Table::new(&[
        ("FILE", Align::Left),
        ("FATE", Align::Left),
        ("OF", Align::Left),
        ("TAKEN", Align::Left),
        ("WHAT", Align::Left),
    ]);
    let mut adopted = 0;
    for file in &report.files {
        let (fate, of, taken, what) = match &file.fate {
            Fate::Adopted { record, what } => {
                adopted += 1;
                let fate = if shown.dry_run { "would be adopted" } else { "adopted" };
                (fate, dumps::content(&record.content), time(record.finished_at), what.clone())
            }
            Fate::Known => ("known", String::new(), String::new(), "it has its sidecar".to_owned()),
            Fate::Pointer { dump } => {
                ("pointer", String::new(), String::new(), format!("a copy of dump {dump}, left as it is"))
            }
            Fate::Later { what } => ("left alone", String::new(), String::new(), what.clone()),
            Fate::Closed { reason } => ("CLOSED", String::new(), String::new(), reason.clone()),
            Fate::Damaged { reason } => ("DAMAGED", String::new(), String::new(), reason.clone()),
        };
        table.row([file.path.clone(), fate.to_owned(), of, taken, what]);
    }
    let mut text = String::new();
    let is_told = !output.quiet || !report.is_sound();
    if is_told && !report.files.is_empty() {
        text.push_str(&table.text());
    }
    if output.quiet {
        return text;
    }
    let verb = if shown.dry_run { "would be adopted" } else { "adopted" };
    text.push_str(&format!(
        "{}: {} {verb}, {} no dumps\n",
        report.directory,
        count(adopted, "dump", "dumps"),
        count(report.others, "file is", "files are"),
    ));
    if adopted > 0 && !shown.dry_run && !shown.is_shelf {
        text.push_str(&format!(
            "  to list, verify and restore them, set `dump.to` to \"{}\"\n",
            report.directory
        ));
    }
    text
}

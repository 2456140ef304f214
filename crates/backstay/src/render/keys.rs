//! The keys that open the repository.

use std::path::{Path, PathBuf};

use backstay_model::Finding;
use backstay_ops::key::{KeySlot, RotateReport};
use backstay_ops::kit::KitReport;
use serde::Serialize;

use super::Output;
use super::lines::{count, time};
use super::table::{Align, Table};

pub fn list(slots: &[KeySlot]) -> String {
    let mut table = Table::new(&[("KEY", Align::Left), ("KIND", Align::Left), ("MADE", Align::Left)]);
    for slot in slots {
        table.row([slot.name.clone(), slot.kind.clone(), time(slot.created)]);
    }
    table.text()
}

/// A rotation and what became of the kit.
#[derive(Debug, Serialize)]
pub struct Rotated {
    #[serde(flatten)]
    pub rotated: RotateReport,
    #[serde(flatten)]
    pub kit: KitReport,
}

pub fn rotated(output: &Output, report: &Rotated) -> String {
    let Rotated { rotated, kit } = report;
    let mut text = String::new();
    if let Some(at) = rotated.finished {
        text.push_str(&format!(
            "finished the rotation of {}; no new key was drawn: run `backstay key rotate` again\n",
            time(at)
        ));
    }
    text.push_str(&format!("generation {} seals what is written from now on\n", rotated.generation));
    text.push_str(&list(&rotated.slots));
    if let Some(directory) = kit.recovery_kit.as_ref().filter(|_| !output.quiet) {
        text.push_str(&format!("{}\n", renewed(directory)));
    }
    text
}

/// What a person has to do with a kit that was written again.
pub fn renewed(kit: &Path) -> String {
    format!("wrote the recovery kit again, {}: put it in the place of every copy", kit.display())
}

/// A kit that was asked for.
#[derive(Debug, Serialize)]
pub struct Kit {
    pub recovery_kit: PathBuf,
    pub files: Vec<PathBuf>,
    /// Slots of the kit that the repository has not.
    pub findings: Vec<Finding>,
}

pub fn kit(report: &Kit) -> String {
    let files = count(report.files.len() as u64, "file", "files");
    format!("wrote the recovery kit, {files}: {}\n", report.recovery_kit.display())
}

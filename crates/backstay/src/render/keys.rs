//! The keys that open the repository.

use backstay_ops::key::{KeySlot, RotateReport};

use super::Output;
use super::lines::time;
use super::table::{Align, Table};

pub fn list(slots: &[KeySlot]) -> String {
    let mut table = Table::new(&[("KEY", Align::Left), ("KIND", Align::Left), ("MADE", Align::Left)]);
    for slot in slots {
        table.row([slot.name.clone(), slot.kind.clone(), time(slot.created)]);
    }
    table.text()
}

pub fn rotated(output: &Output, report: &RotateReport) -> String {
    let mut text = format!("generation {} seals what is written from now on\n", report.generation);
    text.push_str(&list(&report.slots));
    if !output.quiet {
        text.push_str(
            "the key slots in the recovery kit are those of before: copy keys/ of the store into it\n",
        );
    }
    text
}

//! The settings in force.

use serde_json::Value;

use crate::config::origin::Shown;
use crate::verbs::config::CheckReport;

use super::table::{Align, Table};
use super::{Output, Tone};

pub fn shown(rows: &[Shown], origin: bool) -> String {
    if origin {
        let mut table =
            Table::new(&[("SETTING", Align::Left), ("VALUE", Align::Left), ("ORIGIN", Align::Left)]);
        for row in rows {
            table.row([row.key.clone(), value(row), row.origin.clone()]);
        }
        return table.text();
    }
    let mut table = Table::new(&[("SETTING", Align::Left), ("VALUE", Align::Left)]);
    for row in rows {
        table.row([row.key.clone(), value(row)]);
    }
    table.text()
}

fn value(row: &Shown) -> String {
    match &row.value {
        None => "not set".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// What a check of the configuration saw, each error with its causes and hints.
pub fn checked(output: &Output, report: &CheckReport, connect: bool) -> String {
    if output.quiet && report.sound {
        return String::new();
    }
    let mut text = String::new();
    for checked in &report.checks {
        let word = match checked.ok {
            true => output.paint(Tone::Good, "ok"),
            false => output.paint(Tone::Bad, "WRONG"),
        };
        match &checked.error {
            None => text.push_str(&format!("{}: {word}, {}\n", checked.subject, checked.detail)),
            Some(told) => {
                text.push_str(&format!("{}: {word}\n", checked.subject));
                for line in told.text(false).lines() {
                    text.push_str(&format!("  {line}\n"));
                }
            }
        }
    }
    if report.checks.len() == 1 && !output.quiet {
        text.push_str(
            "no instance yet: fill in a section [instance.NAME]; `backstay config reference` explains it\n",
        );
    }
    text.push_str(&match (report.sound, connect) {
        (true, true) => format!("{}: everything answers\n", report.config),
        (true, false) => {
            format!("{}: correct; `--connect` reaches the servers and the store too\n", report.config)
        }
        (false, _) => format!("{}: not correct\n", report.config),
    });
    text
}

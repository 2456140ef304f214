//! Backups: the list, one in full, and the line that ends a `backup`.

use std::fmt::Write;

use backstay_model::summary::BackupSummary;
use backstay_ops::list::BackupDetail;

use super::Output;
use super::lines::{count, findings, held, labelled, quiet, size, span, time};
use super::table::{Align, Table};

pub fn list(output: &Output, backups: &[BackupSummary]) -> String {
    if backups.is_empty() {
        return if output.quiet {
            String::new()
        } else {
            "no backups yet; `backstay backup` takes one\n".to_owned()
        };
    }
    let mut table = Table::new(&[
        ("BACKUP", Align::Left),
        ("INSTANCE", Align::Left),
        ("TYPE", Align::Left),
        ("FINISHED", Align::Left),
        ("TOOK", Align::Right),
        ("DATA", Align::Right),
        ("NEW", Align::Right),
        ("STORED", Align::Right),
        ("STATE", Align::Left),
    ]);
    for backup in backups {
        table.row([
            backup.id.to_string(),
            backup.instance.to_string(),
            backup.backup_type.to_string(),
            time(backup.finished_at),
            span(backup.duration_seconds),
            size(backup.logical_bytes),
            size(backup.new_bytes),
            size(backup.stored_bytes),
            state(backup),
        ]);
    }
    table.text()
}

/// The words that matter before a restore, the gravest first.
fn state(backup: &BackupSummary) -> String {
    let mut words = Vec::new();
    if backup.damaged {
        words.push("damaged");
    }
    if backup.wrong_pages {
        words.push("wrong pages");
    }
    if backup.condemned {
        words.push("condemned");
    }
    if backup.drill_sound == Some(false) {
        words.push("drill failed");
    } else if backup.drilled_at.is_some() {
        words.push("drilled");
    } else if backup.verified_at.is_some() {
        words.push("verified");
    } else {
        words.push("not proved");
    }
    if !backup.encrypted {
        words.push("not encrypted");
    }
    let mut words = words.join(", ");
    if let Some(until) = backup.hold {
        words.push_str(&format!(", {}", held(until, backup.hold_reason.as_deref())));
    }
    words
}

pub fn show(output: &Output, detail: &BackupDetail) -> String {
    let BackupDetail { summary: backup, facts } = detail;
    let mut text = format!("{} of {}\n", backup.id, backup.instance);
    let mut line = |label: &str, value: String| text.push_str(&labelled(label, &value));
    line("type", backup.backup_type.to_string());
    line("engine", format!("{} {}", backup.engine, backup.engine_version));
    if let Some(parent) = &backup.parent {
        line("compared with", format!("{parent} (not needed to restore)"));
    }
    line("started", time(backup.started_at));
    line("finished", format!("{}, took {}", time(backup.finished_at), span(backup.duration_seconds)));
    if let (Some(start), Some(stop)) = (&backup.start_position, &backup.stop_position) {
        line("position", format!("{start} to {stop}"));
    }
    line("data", format!("{} in {}", size(backup.logical_bytes), count(backup.files, "file", "files")));
    line("read", size(backup.read_bytes));
    line("new", size(backup.new_bytes));
    line("stored", size(backup.stored_bytes));
    line(
        "amplification",
        format!("{:.2} (1.00 is a restore that reads nothing twice)", backup.restore_amplification),
    );
    line("state", state(backup));
    line("encrypted", if backup.encrypted { "yes".to_owned() } else { "NO".to_owned() });
    line("verified", backup.verified_at.map_or("never".to_owned(), time));
    let ended = if backup.drill_sound == Some(false) { ", NOT sound" } else { "" };
    line("drilled", backup.drilled_at.map_or("never".to_owned(), |at| time(at) + ended));
    if backup.condemned {
        line(
            "condemned",
            match backup.condemned_at {
                Some(at) => format!("{}, can be restored until it is deleted", time(at)),
                None => "since an unknown time: its marker cannot be read, and it stays".to_owned(),
            },
        );
    }
    if let Some(until) = backup.hold {
        line("hold", held(until, backup.hold_reason.as_deref()));
    }
    if let Some(table) = facts.as_object().filter(|table| !table.is_empty()) {
        text.push_str("  facts\n");
        for (name, value) in table {
            fact(&mut text, name, value);
        }
    }
    text.push_str(&findings(output, &backup.findings));
    text
}

/// One line for each fact; those of a group carry its name.
fn fact(text: &mut String, name: &str, value: &serde_json::Value) {
    match value {
        serde_json::Value::Object(group) => {
            for (below, value) in group {
                fact(text, &format!("{name}.{below}"), value);
            }
        }
        serde_json::Value::String(value) => {
            let _ = writeln!(text, "    {name}: {value}");
        }
        other => {
            let _ = writeln!(text, "    {name}: {other}");
        }
    }
}

/// The end of a `backup`, one instance.
pub fn taken(output: &Output, backup: &BackupSummary) -> String {
    if output.quiet {
        return quiet(output, &format!("{}: backup {}", backup.instance, backup.id), &backup.findings);
    }
    let mut text = format!(
        "{}: {} backup {} in {}: {} in {}, {} new, {} stored\n",
        backup.instance,
        backup.backup_type,
        backup.id,
        span(backup.duration_seconds),
        size(backup.logical_bytes),
        count(backup.files, "file", "files"),
        size(backup.new_bytes),
        size(backup.stored_bytes),
    );
    if let Some(parent) = &backup.parent {
        text.push_str(&labelled("compared with", parent.as_str()));
    }
    text.push_str(&findings(output, &backup.findings));
    text
}

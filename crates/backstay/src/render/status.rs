//! How each instance is: what could be lost, how long it would take, what is promised.

use std::collections::BTreeSet;

use backstay_model::TimelineId;
use backstay_model::status::{ArchiveState, ArchiveStatus, Health, Hole, InstanceStatus, LastDrill};

use super::lines::{findings, labelled, size, span, time};
use super::{Output, Tone};

pub fn status(output: &Output, instances: &[InstanceStatus]) -> String {
    let blocks: Vec<String> = instances.iter().map(|instance| one(output, instance)).collect();
    blocks.join("\n")
}

fn one(output: &Output, status: &InstanceStatus) -> String {
    let (tone, health) = match status.health {
        Health::Ok => (Tone::Good, "ok"),
        Health::Degraded => (Tone::Doubtful, "degraded"),
        Health::Down => (Tone::Bad, "down"),
        Health::Unknown => (Tone::Doubtful, "unknown"),
    };
    let reason = status.health_reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let mut text =
        format!("{} ({}): {}{reason}\n", status.instance, status.engine, output.paint(tone, health));
    let mut line = |label: &str, value: String| text.push_str(&labelled(label, &value));
    line("last backup", last_backup(status));
    line("can be restored to", windows(status));
    for text in holes(status) {
        line("hole", text);
    }
    line("would be lost", lost(status));
    line("would take", recovery_time(status));
    line("archive", archive(&status.archive));
    if let Some(slot) = slot(&status.archive) {
        line("slot", slot);
    }
    if let Some(drill) = &status.last_drill {
        text.push_str(&findings(output, &drill.findings));
    }
    text
}

fn last_backup(status: &InstanceStatus) -> String {
    match &status.last_backup {
        None => "none; `backstay backup` takes one".to_owned(),
        Some(backup) => format!(
            "{} {}, {}, {} stored, took {}",
            backup.id,
            backup.backup_type,
            size(backup.logical_bytes),
            size(backup.stored_bytes),
            span(backup.duration_seconds)
        ),
    }
}

fn windows(status: &InstanceStatus) -> String {
    // More than a handful is a wall of times; `list` has them all.
    const SHOWN: usize = 3;
    let windows = &status.recovery_windows;
    let timelines: BTreeSet<TimelineId> = windows.iter().filter_map(|window| window.timeline).collect();
    let mut texts: Vec<String> = windows
        .iter()
        .rev()
        .take(SHOWN)
        .map(|window| {
            // One timeline is the usual case, and goes without saying.
            let timeline = window.timeline.filter(|_| timelines.len() > 1);
            let timeline = timeline.map(|number| format!(" on timeline {number}")).unwrap_or_default();
            match window.from == window.to {
                true => format!("{}{timeline}", time(window.to)),
                false => format!("{} to {}{timeline}", time(window.from), time(window.to)),
            }
        })
        .collect();
    if windows.len() > SHOWN {
        texts.push(format!("and {} earlier", windows.len() - SHOWN));
    }
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}

/// Newest first, as the windows are.
fn holes(status: &InstanceStatus) -> Vec<String> {
    const SHOWN: usize = 5;
    let mut texts: Vec<String> = status.holes.iter().rev().take(SHOWN).map(hole).collect();
    if status.holes.len() > SHOWN {
        texts.push(format!("and {} earlier; `--json` tells them all", status.holes.len() - SHOWN));
    }
    texts
}

fn hole(hole: &Hole) -> String {
    let instants = match hole.to {
        Some(to) => format!("{} to {}", time(hole.from), time(to)),
        None => format!("from {} on", time(hole.from)),
    };
    let positions = match &hole.to_position {
        Some(to) => format!("{} to {to}", hole.from_position),
        None => format!("from {} on", hole.from_position),
    };
    let again = match (&hole.backup, hole.reachable_from) {
        (Some(backup), Some(at)) => format!("again from {} on, with backup {backup}", time(at)),
        _ => "nothing behind it can be restored to".to_owned(),
    };
    format!("{instants} ({positions}): {}; {again}", hole.why)
}

fn archive(archive: &ArchiveStatus) -> String {
    let state = match archive.state {
        ArchiveState::Off => return "off: only the ends of the backups can be restored to".to_owned(),
        ArchiveState::Running if archive.pushed => "running, pushed by the server",
        ArchiveState::Running => "running",
        ArchiveState::Stopped => "NOT running",
        ArchiveState::Unknown => "not known, the server could not be asked",
    };
    let mut text = state.to_owned();
    match &archive.position {
        Some(position) => text.push_str(&format!("; stored up to {position}")),
        None => text.push_str("; nothing is stored yet"),
    }
    match archive.lag_bytes {
        Some(0) => text.push_str(", all that there is"),
        Some(lag) => text.push_str(&format!(", {} behind the server", size(lag))),
        None => {}
    }
    if let Some(age) = archive.newest_commit_age_seconds {
        let newest = if archive.backlog_bytes.is_some() { "word of the server" } else { "commit" };
        text.push_str(&format!("; newest {newest} {} old", span(age)));
    }
    if let Some(bytes) = archive.backlog_bytes {
        text.push_str(&format!("; the server keeps {} of it for an archive that was away", size(bytes)));
    }
    text
}

fn slot(archive: &ArchiveStatus) -> Option<String> {
    let slot = archive.slot.as_ref()?;
    let mut text = slot.name.clone();
    if let Some(status) = &slot.wal_status {
        text.push_str(&format!(": {status}"));
    }
    if let Some(held) = slot.retained_bytes {
        text.push_str(&format!(", the server holds {} for it", size(held)));
    }
    if let Some(limit) = slot.limit_bytes {
        text.push_str(&format!(", at most {}", size(limit)));
    }
    if let Some(limit) = archive.max_lag {
        text.push_str(&format!("; archive.max_lag is {}", size(limit.max_bytes)));
    }
    Some(text)
}

fn lost(status: &InstanceStatus) -> String {
    let objectives = &status.objectives;
    let measured = match status.recovery_point_age_seconds {
        Some(age) => format!("what was written in the last {}", span(age)),
        None => "everything".to_owned(),
    };
    measured + &objective(objectives.rpo_seconds, objectives.rpo_met)
}

fn recovery_time(status: &InstanceStatus) -> String {
    let objectives = &status.objectives;
    let measured = match &status.last_drill {
        Some(LastDrill { sound: true, at, recovery_time_seconds: Some(seconds), .. }) => {
            format!("{}, measured by the drill of {}", span(*seconds), time(*at))
        }
        Some(drill) => {
            format!("not known: the drill of {} was NOT sound, of backup {}", time(drill.at), drill.backup)
        }
        None => "not known; `backstay drill` measures it".to_owned(),
    };
    measured + &objective(objectives.rto_seconds, objectives.rto_met)
}

fn objective(seconds: Option<f64>, met: Option<bool>) -> String {
    match (seconds, met) {
        (Some(seconds), Some(met)) => {
            format!("; objective {}: {}", span(seconds), if met { "met" } else { "MISSED" })
        }
        _ => String::new(),
    }
}

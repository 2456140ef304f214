//! How each instance is: what could be lost, how long it would take, what is promised.

use backstay_model::status::{ArchiveState, Health, InstanceStatus, LastDrill};

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
    for hole in &status.holes {
        line("hole", format!("{} to {}: {}", time(hole.from), time(hole.to), hole.why));
    }
    line("would be lost", lost(status));
    line("would take", recovery_time(status));
    line(
        "archive",
        match status.archive.state {
            ArchiveState::Off => "off: only the ends of the backups can be restored to".to_owned(),
        },
    );
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
    let mut texts: Vec<String> = windows
        .iter()
        .rev()
        .take(SHOWN)
        .map(|window| match window.from == window.to {
            true => time(window.to),
            false => format!("{} to {}", time(window.from), time(window.to)),
        })
        .collect();
    if windows.len() > SHOWN {
        texts.push(format!("and {} earlier", windows.len() - SHOWN));
    }
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
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

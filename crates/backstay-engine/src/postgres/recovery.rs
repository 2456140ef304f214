//! What a restored server is told of its recovery: from where it gets log, how far it goes,
//! and what it does there.
//!
//! One target at most, with the timeline by its number: what PostgreSQL calls the latest one
//! need not be one that the base can reach. The settings of the old life that would make
//! the copy a standby, or wait for one, are put out of force.

use std::fmt;

use backstay_model::plan::restore::Recovery;
use backstay_model::{RecoveryTarget, Secret, TargetAction};
use jiff::Timestamp;

/// Tells a server that it is to recover with log of an archive, and then to open.
const RECOVERY_SIGNAL: &str = "recovery.signal";
/// Tells it to go on recovering until it is promoted.
const STANDBY_SIGNAL: &str = "standby.signal";

/// The line before the settings of a recovery.
pub(super) const REASON: &str =
    "# how it recovers; without recovery.signal or standby.signal none of this is read";

/// What is out of force however it recovers: the old life's ways to other servers.
const OLD_WAYS: [&str; 2] = ["primary_slot_name", "synchronous_standby_names"];

/// Settings of a recovery, as `postgresql.auto.conf` holds them, and the file that makes
/// the server read them.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoverySettings {
    pub(super) signal: &'static str,
    settings: Vec<(&'static str, String)>,
}

/// Without the values: an address of a server may hold a password.
impl fmt::Debug for RecoverySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.settings.iter().map(|(name, _)| *name).collect();
        f.debug_struct("RecoverySettings").field("signal", &self.signal).field("settings", &names).finish()
    }
}

impl RecoverySettings {
    /// A standby, which goes on to any later timeline that the archive shows, and streams
    /// from a server where one is named.
    pub fn standby(restore_command: &str, primary_conninfo: Option<&Secret>) -> RecoverySettings {
        let conninfo = primary_conninfo.map(Secret::reveal).unwrap_or_default();
        let settings = [
            ("restore_command", restore_command),
            ("recovery_target_timeline", "latest"),
            ("hot_standby", "on"),
            ("primary_conninfo", conninfo),
        ];
        let settings = settings.into_iter().chain(OLD_WAYS.map(|name| (name, "")));
        RecoverySettings {
            signal: STANDBY_SIGNAL,
            settings: settings.map(|(name, value)| (name, value.to_owned())).collect(),
        }
    }

    pub fn new(recovery: &Recovery, restore_command: &str) -> RecoverySettings {
        let mut settings = vec![
            ("restore_command", restore_command.to_owned()),
            ("recovery_target_timeline", recovery.timeline.to_string()),
            ("recovery_target_action", recovery.action.to_string()),
        ];
        let target = match &recovery.target {
            RecoveryTarget::Latest => None,
            RecoveryTarget::Immediate => Some(("recovery_target", "immediate".to_owned())),
            RecoveryTarget::Time(time) => Some(("recovery_target_time", in_utc(*time))),
            RecoveryTarget::Lsn(lsn) => Some(("recovery_target_lsn", lsn.to_string())),
            // The log numbers transactions with 32 bits.
            RecoveryTarget::Xid(xid) => Some(("recovery_target_xid", (*xid as u32).to_string())),
            RecoveryTarget::Name(name) => Some(("recovery_target_name", name.clone())),
            // Of another engine: the plan refuses it.
            RecoveryTarget::Offset(_) => None,
        };
        if let Some(target) = target {
            settings.push(target);
            let inclusive = if recovery.exclusive { "off" } else { "on" };
            settings.push(("recovery_target_inclusive", inclusive.to_owned()));
        }
        if recovery.action == TargetAction::Pause {
            // A server that cannot be read cannot pause, and shuts down instead.
            settings.push(("hot_standby", "on".to_owned()));
        }
        for name in OLD_WAYS.into_iter().chain(["primary_conninfo"]) {
            settings.push((name, String::new()));
        }
        RecoverySettings { signal: RECOVERY_SIGNAL, settings }
    }

    /// Lines to be added to the file.
    pub fn lines(&self) -> String {
        let mut text = format!("{REASON}\n");
        for (name, value) in &self.settings {
            text.push_str(&format!("{name} = '{}'\n", escaped(value)));
        }
        text
    }
}

/// With an offset in numbers: names of time zones mean different things to different servers.
fn in_utc(time: Timestamp) -> String {
    let time = Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time);
    time.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}

/// A value between quotes, as the server reads its files.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\'', "''")
}

#[cfg(test)]
mod tests {
    use backstay_model::{Lsn, TimelineId};

    use super::*;

    fn recovery(target: &str) -> Recovery {
        Recovery {
            lineage: "1".to_owned(),
            segment_bytes: 16 << 20,
            own_to: Lsn(0x4000000),
            timeline: TimelineId(2),
            target: target.parse().unwrap(),
            exclusive: false,
            action: TargetAction::Promote,
            to: Lsn(0x5000000),
            stop: None,
            last: None,
        }
    }

    #[test]
    fn there_is_one_target_and_none_for_the_latest_state() {
        for (target, line) in [
            ("2026-11-21T04:30:00.25+02:00", "recovery_target_time = '2026-11-21 02:30:00.250000+00'"),
            ("lsn:0/3000028", "recovery_target_lsn = '0/3000028'"),
            ("xid:4294968000", "recovery_target_xid = '704'"),
            ("name:it's \\ here", "recovery_target_name = 'it''s \\\\ here'"),
        ] {
            let lines = RecoverySettings::new(&recovery(target), "fetch").lines();
            assert!(lines.lines().any(|found| found == line), "{lines}");
            assert!(lines.contains("recovery_target_inclusive = 'on'\n"), "{lines}");
        }
        let lines = RecoverySettings::new(&recovery("latest"), "'/a b' %f \"%p\"").lines();
        assert!(lines.contains("restore_command = '''/a b'' %f \"%p\"'\n"), "{lines}");
        assert!(lines.contains("recovery_target_timeline = '2'\n"), "{lines}");
        assert!(!lines.contains("inclusive"), "{lines}");
        let standby =
            RecoverySettings::standby("fetch", Some(&Secret::new("host=db password='secret' port=1")));
        assert_eq!(standby.signal, "standby.signal");
        let lines = standby.lines();
        assert!(lines.contains("primary_conninfo = 'host=db password=''secret'' port=1'\n"), "{lines}");
        assert!(
            lines.contains("recovery_target_timeline = 'latest'\n") && !lines.contains("action"),
            "{lines}"
        );
        assert!(!format!("{standby:?}").contains("secret"), "{standby:?}");
        let paused = Recovery { action: TargetAction::Pause, exclusive: true, ..recovery("xid:7") };
        let lines = RecoverySettings::new(&paused, "fetch").lines();
        assert!(lines.contains("hot_standby = 'on'\n") && lines.contains("inclusive = 'off'\n"), "{lines}");
    }
}

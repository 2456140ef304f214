//! Which process of which machine a session is, so that its end is noticed at
//! once where it can be seen.

use std::fs;

use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// Where `/proc/<pid>/stat` says in which clock tick after the boot the process
/// began, counted from the field behind the name in brackets.
const STAT_START_FIELD: usize = 19;

/// One process. A number alone says nothing: numbers are used again, and every
/// container counts its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub host: String,
    /// Drawn anew by the kernel at every boot.
    pub boot_id: Option<String>,
    /// The set of process numbers that this one is from.
    pub pid_namespace: Option<String>,
    pub pid: u32,
    /// Clock ticks from the boot to the start of the process.
    pub started_ticks: Option<u64>,
}

enum Stat {
    Running { started_ticks: u64 },
    Ended,
    Unreadable,
}

fn stat_of(pid: u32) -> Stat {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return Stat::Unreadable };
    // The name may hold anything, brackets too: the last one ends it.
    let Some((_, fields)) = text.rsplit_once(") ") else { return Stat::Unreadable };
    let mut fields = fields.split(' ');
    if matches!(fields.next(), Some("Z" | "X")) {
        return Stat::Ended;
    }
    match fields.nth(STAT_START_FIELD - 1).and_then(|ticks| ticks.parse().ok()) {
        Some(started_ticks) => Stat::Running { started_ticks },
        None => Stat::Unreadable,
    }
}

impl ProcessIdentity {
    /// This process.
    pub fn current() -> Self {
        let pid = std::process::id();
        let started_ticks = match stat_of(pid) {
            Stat::Running { started_ticks } => Some(started_ticks),
            Stat::Ended | Stat::Unreadable => None,
        };
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let pid_namespace = fs::read_link("/proc/self/ns/pid").ok();
        Self {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            boot_id: boot_id.map(|id| id.trim().to_owned()),
            pid_namespace: pid_namespace.map(|link| link.to_string_lossy().into_owned()),
            pid,
            started_ticks,
        }
    }

    /// Whether the other process is gone, as far as it can be seen from this one:
    /// `None` from another machine, boot or container.
    pub fn sees_gone(&self, other: &ProcessIdentity) -> Option<bool> {
        let here = self.host == other.host
            && self.boot_id.is_some()
            && self.boot_id == other.boot_id
            && self.pid_namespace.is_some()
            && self.pid_namespace == other.pid_namespace;
        if !here {
            return None;
        }
        let pid = i32::try_from(other.pid).ok().and_then(Pid::from_raw)?;
        // A process of another user is there, although it may not be signalled.
        if rustix::process::test_kill_process(pid) == Err(Errno::SRCH) {
            return Some(true);
        }
        Some(match (stat_of(other.pid), other.started_ticks) {
            (Stat::Ended, _) => true,
            (Stat::Running { started_ticks }, Some(began)) => started_ticks != began,
            (Stat::Running { .. } | Stat::Unreadable, _) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself_and_the_end_of_its_child() {
        let me = ProcessIdentity::current();
        assert!(me.started_ticks.is_some());
        assert_eq!(me.sees_gone(&me), Some(false));

        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("cat is on every machine");
        let mut other = me.clone();
        other.pid = child.id();
        other.started_ticks = match stat_of(other.pid) {
            Stat::Running { started_ticks } => Some(started_ticks),
            Stat::Ended | Stat::Unreadable => panic!("the child runs"),
        };
        assert_eq!(me.sees_gone(&other), Some(false));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(me.sees_gone(&other), Some(true));
    }

    #[test]
    fn a_number_that_was_used_again_is_another_process() {
        let me = ProcessIdentity::current();
        let before = ProcessIdentity { started_ticks: Some(1), ..me.clone() };
        assert_eq!(me.sees_gone(&before), Some(true));
    }

    #[test]
    fn nothing_is_said_of_other_machines_boots_and_containers() {
        let me = ProcessIdentity::current();
        let gone = ProcessIdentity { started_ticks: Some(1), ..me.clone() };
        for other in [
            ProcessIdentity { host: "elsewhere".into(), ..gone.clone() },
            ProcessIdentity { boot_id: Some("another".into()), ..gone.clone() },
            ProcessIdentity { boot_id: None, ..gone.clone() },
            ProcessIdentity { pid_namespace: Some("pid:[1]".into()), ..gone },
        ] {
            assert_eq!(me.sees_gone(&other), None, "{other:?}");
        }
    }
}

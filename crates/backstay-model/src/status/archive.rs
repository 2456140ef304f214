//! How the archive of a log is, beside the server that writes it.
//!
//! Refuses to call a server well whose log nobody takes although somebody should: that is
//! found out on the day of a restore, or when its disk is full.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::size::ByteSize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveState {
    /// No log is archived: only the ends of the backups can be reached.
    Off,
    /// Somebody takes the log.
    Running,
    /// Nobody takes it, and somebody should.
    Stopped,
    /// The server could not be asked.
    Unknown,
}

/// The replication slot that holds the log for the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    pub name: String,
    /// `reserved`, `extended`, `unreserved` or `lost`, as the server says it.
    pub wal_status: Option<String>,
    /// What the server holds for it on its own disk.
    pub retained_bytes: Option<u64>,
    /// So much it holds at most; `None` for without end.
    pub limit_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArchiveStatus {
    pub state: ArchiveState,
    /// The log is in the store up to here.
    pub position: Option<String>,
    /// The server has written, or replayed, up to here.
    pub source_position: Option<String>,
    pub lag_bytes: Option<u64>,
    /// The server gives its log away by itself, with `archive_command`.
    pub pushed: bool,
    /// And what it gave last was not taken.
    pub push_fails: bool,
    /// The last commit that the store has.
    pub newest_commit_at: Option<Timestamp>,
    pub newest_commit_age_seconds: Option<f64>,
    pub slot: Option<SlotStatus>,
}

impl ArchiveStatus {
    /// Where nothing is archived, and nothing should be.
    pub fn off() -> Self {
        Self {
            state: ArchiveState::Off,
            position: None,
            source_position: None,
            lag_bytes: None,
            pushed: false,
            push_fails: false,
            newest_commit_at: None,
            newest_commit_age_seconds: None,
            slot: None,
        }
    }

    /// What is not as it should be, the worst first, with a command that helps.
    pub fn fault(&self, instance: &str) -> Option<String> {
        let slot_is = |status: &str| {
            self.slot
                .as_ref()
                .filter(|slot| slot.wal_status.as_deref() == Some(status))
                .map(|slot| &slot.name)
        };
        if let Some(name) = slot_is("lost") {
            return Some(format!(
                "the server has let go of log that nobody had received: its slot {name} is lost; \
                 drop it, and `backstay backup {instance}` makes a base behind the hole"
            ));
        }
        if let Some(name) = slot_is("unreserved") {
            return Some(format!(
                "the server is about to let go of log that nobody has received yet: its slot {name} is \
                 unreserved; `backstay archive {instance}` receives it"
            ));
        }
        if self.push_fails && self.pushed {
            return Some(
                "the server cannot give its log away: its `archive_command` fails, see the log of the server"
                    .to_owned(),
            );
        }
        if self.state == ArchiveState::Stopped {
            return Some(format!(
                "the archive does not run: nobody takes the log of the server; `backstay archive {instance}` does"
            ));
        }
        let (held, limit) = self.slot.as_ref().and_then(|slot| slot.retained_bytes.zip(slot.limit_bytes))?;
        (held > limit / 2).then(|| {
            format!(
                "the archive is behind: the server holds {} of log for it, and lets go of it at {}",
                ByteSize(held),
                ByteSize(limit)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(state: ArchiveState, wal_status: &str, held: u64, limit: Option<u64>) -> ArchiveStatus {
        let slot = SlotStatus {
            name: "backstay_orders".to_owned(),
            wal_status: Some(wal_status.to_owned()),
            retained_bytes: Some(held),
            limit_bytes: limit,
        };
        ArchiveStatus { state, slot: Some(slot), ..ArchiveStatus::off() }
    }

    #[test]
    fn whatever_keeps_log_from_the_archive_is_a_fault_and_the_worst_comes_first() {
        use ArchiveState::{Running, Stopped};
        for (status, word) in [
            (archive(Running, "reserved", 1 << 20, None), None),
            (archive(Running, "extended", 50, Some(100)), None),
            (archive(Running, "extended", 51, Some(100)), Some("is behind")),
            (archive(Stopped, "reserved", 51, Some(100)), Some("does not run")),
            (archive(Stopped, "unreserved", 101, Some(100)), Some("about to let go")),
            (archive(Stopped, "lost", 0, Some(100)), Some("is lost")),
            (
                ArchiveStatus { pushed: true, push_fails: true, ..ArchiveStatus::off() },
                Some("`archive_command`"),
            ),
            (ArchiveStatus { pushed: false, push_fails: true, ..ArchiveStatus::off() }, None),
            (ArchiveStatus::off(), None),
        ] {
            let fault = status.fault("orders");
            assert_eq!(fault.is_some(), word.is_some(), "{status:?}: {fault:?}");
            assert!(word.is_none_or(|word| fault.unwrap().contains(word)), "{word:?}");
        }
    }
}

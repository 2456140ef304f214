//! How the archive of a log is, beside the server that writes it.
//!
//! Refuses to call a server well whose log nobody takes although somebody should: that is
//! found out on the day of a restore, or when its disk is full.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::log::{LagLevel, LagLimit, OnMaxLag};
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
    /// Bytes of its stream that a server without slots keeps for an archive that comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog_bytes: Option<u64>,
    /// How much the server may hold for the archive, and what is done when it does.
    #[serde(default)]
    pub max_lag: Option<LagLimit>,
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
            backlog_bytes: None,
            max_lag: None,
        }
    }

    /// What the server holds for the archive beside what it may hold.
    fn lag(&self) -> Option<(LagLevel, u64, LagLimit)> {
        let (held, limit) = self.slot.as_ref()?.retained_bytes.zip(self.max_lag)?;
        Some((limit.level(held), held, limit))
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
                 `backstay archive {instance} --accept-gap` goes on behind it, with a new base"
            ));
        }
        if let Some(name) = slot_is("unreserved") {
            return Some(format!(
                "the server is about to let go of log that nobody has received yet: its slot {name} is \
                 unreserved; `backstay archive {instance}` receives it"
            ));
        }
        if let Some((LagLevel::Reached, held, limit)) = self.lag() {
            let next = match limit.on_max_lag {
                OnMaxLag::Alert => "it goes on holding until its disk is full".to_owned(),
                OnMaxLag::Gap => {
                    format!(
                        "`backstay archive {instance}` drops its slot and goes on behind it, with a new base"
                    )
                }
            };
            return Some(format!(
                "the server holds {} of log for the archive, and archive.max_lag is {}: {next}",
                ByteSize(held),
                ByteSize(limit.max_bytes)
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
        if let Some((LagLevel::Half, held, limit)) = self.lag() {
            return Some(format!(
                "the archive is behind: the server holds {} of log for it, more than half of archive.max_lag, {}",
                ByteSize(held),
                ByteSize(limit.max_bytes)
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

    #[test]
    fn a_server_that_holds_more_than_it_may_comes_before_an_archive_that_does_not_run() {
        let fault = |held, wal_status, on_max_lag, state| {
            let max_lag = Some(LagLimit { max_bytes: 64 << 20, on_max_lag });
            let status = ArchiveStatus { max_lag, ..archive(state, wal_status, held, None) };
            status.fault("orders").unwrap_or_default()
        };
        use ArchiveState::{Running, Stopped};
        assert_eq!(fault(32 << 20, "reserved", OnMaxLag::Alert, Running), "");
        assert!(
            fault(33 << 20, "reserved", OnMaxLag::Alert, Running)
                .contains("more than half of archive.max_lag")
        );
        assert!(fault(33 << 20, "reserved", OnMaxLag::Alert, Stopped).contains("does not run"));
        assert!(
            fault(64 << 20, "reserved", OnMaxLag::Alert, Stopped)
                .contains("archive.max_lag is 64.0 MiB: it goes on")
        );
        assert!(fault(64 << 20, "extended", OnMaxLag::Gap, Running).contains("drops its slot"));
        assert!(fault(64 << 20, "unreserved", OnMaxLag::Gap, Running).contains("about to let go"));
        assert!(fault(64 << 20, "lost", OnMaxLag::Gap, Running).contains("--accept-gap"));
    }
}

//! Whether a session still lives, as one observer sees it.
//!
//! A wrong verdict is never unsafe: a session that is declared dead learns it at
//! its commit. It only costs the work of that session, or lets garbage lie longer.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::intent::Intent;
use super::process::ProcessIdentity;

/// A session without a heartbeat for this long looks dead. Three times the
/// longest pause that a busy store and a retried call may cause.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Lives,
    /// Its process is gone: seen by an observer on the same machine.
    ProcessGone,
    /// No heartbeat during a whole lease, measured by the observer's clock alone.
    Silent,
}

/// What an earlier observation of the same session showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observation {
    pub heartbeat: u32,
    /// When it first showed that heartbeat.
    pub since: Timestamp,
}

pub(super) fn judge(
    observer: &ProcessIdentity,
    intent: Option<&Intent>,
    heartbeat: u32,
    earlier: Option<Observation>,
    now: Timestamp,
    lease: Duration,
) -> Verdict {
    // That the process is there says little: a daemon outlives its sessions by months.
    if intent.and_then(|intent| observer.sees_gone(&intent.process)) == Some(true) {
        return Verdict::ProcessGone;
    }
    let lease = SignedDuration::try_from(lease).unwrap_or(SignedDuration::MAX);
    match earlier {
        Some(earlier) if earlier.heartbeat == heartbeat && now.duration_since(earlier.since) >= lease => {
            Verdict::Silent
        }
        _ => Verdict::Lives,
    }
}

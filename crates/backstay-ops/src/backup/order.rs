//! The order of backups, kept when the clock is wrong.
//!
//! Which backup is the newest, which one a rule keeps and which one goes is decided by
//! their times. A clock that is behind would make what was taken last the oldest: a
//! restore would bring an older state, and retention would let the newest go. So a
//! backup never counts as taken before one that was there when it began.

use backstay_model::{BackupRecord, Finding};
use jiff::{SignedDuration, Timestamp};

/// Clocks of several machines differ by this much without anything being wrong.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(5);
const NEXT: SignedDuration = SignedDuration::from_millis(1);

/// The earliest time at which a new backup may count as begun.
pub(super) fn not_before(newest: Option<&BackupRecord>) -> Option<Timestamp> {
    newest?.finished_at.saturating_add(NEXT).ok()
}

/// What to say of a clock that is before the newest backup.
pub(super) fn finding(newest: Option<&BackupRecord>, now: Timestamp) -> Option<Finding> {
    let BackupRecord { id, finished_at, .. } = newest?;
    (finished_at.duration_since(now) > TOLERANCE).then(|| {
        Finding::warning(
            "the clock",
            format!("says {now:.0}, and {id} was finished at {finished_at:.0}: this backup counts as taken after it"),
            "set the clock of this machine, or let `backstay expire` drop a backup that is from the future",
        )
    })
}

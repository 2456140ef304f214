//! A backup that was finished later than now: a clock is wrong, or was.
//!
//! The order of backups does not depend on clocks. Ages do: what is from the future has
//! none, and a recovery point whose age nobody knows meets no objective.

use backstay_model::{BackupRecord, Finding};
use jiff::{SignedDuration, Timestamp};

/// Clocks of several machines differ by this much without anything being wrong.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(5);

pub(crate) fn is_from_the_future(record: &BackupRecord, now: Timestamp) -> bool {
    record.finished_at.duration_since(now) > TOLERANCE
}

/// What to say of it beside a new backup.
pub(crate) fn finding(newest: &BackupRecord, now: Timestamp) -> Option<Finding> {
    is_from_the_future(newest, now).then(|| {
        Finding::warning(
            "the clock",
            format!(
                "says {now:.0}, and the backup before, {}, was finished at {:.0}: one of the two times is wrong; \
                 the order of the backups is kept",
                newest.id, newest.finished_at
            ),
            "set the clock of this machine right; if it is, that backup stays until its time has passed",
        )
    })
}

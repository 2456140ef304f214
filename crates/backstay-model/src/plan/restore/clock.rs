//! Whether the times in the log are to be trusted.
//!
//! A server stops at the first transaction that ended later than the target, by its own clock at
//! the time. Where that was set back, times come twice, and what a person remembers as "a
//! quarter past ten" may be either. The restore is what the server makes of it; it is
//! told before anything is written.

use jiff::SignedDuration;

use super::RestoreRequest;
use super::log::{SetBack, Sighting, USUAL_DISORDER};
use crate::finding::Finding;
use crate::lsn::Lsn;
use crate::record::BackupRecord;

/// What is to be told of the clock, for a base that ended at `stop` and what was seen behind it.
pub(super) fn doubt(
    request: &RestoreRequest,
    base: &BackupRecord,
    stop: Lsn,
    seen: &Sighting,
) -> Option<Finding> {
    let fact = match (seen.set_back, &seen.before) {
        (Some(SetBack { from, to }), _) => {
            format!(
                "the times in the log go back from {from} to {to}: it was set, or another server took over"
            )
        }
        (None, Some(last)) if last.at > stop.0 => {
            // By our clock the base was begun before that transaction ended, for that is behind its end.
            let behind = base.started_at.duration_since(last.time);
            if behind <= USUAL_DISORDER {
                return None;
            }
            let behind = SignedDuration::from_secs(behind.as_secs());
            format!(
                "it was {behind:#} behind that of this program: a transaction behind the end of backup {} ended at {}, \
                 and the backup began at {}",
                base.id, last.time, base.started_at
            )
        }
        _ => return None,
    };
    Some(Finding::warning(
        format!("the clock of {}", request.instance),
        format!(
            "{fact}; the server stops at the first transaction that ended after {} by its own clock",
            request.target
        ),
        "the lines above name what is there and what is not; `--to lsn:…` or `--to xid:…` depends on no clock",
    ))
}

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
use crate::record::{BackupRecord, EngineKind};

/// What is to be told of the clock, for a base that ended at `stop` and what was seen behind it.
pub(super) fn doubt(
    request: &RestoreRequest,
    base: &BackupRecord,
    stop: Lsn,
    seen: &Sighting,
) -> Option<Finding> {
    let words = if base.engine == EngineKind::Redis { OF_STREAM } else { OF_RECORDS };
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
                "it was {behind:#} behind that of this program: {} behind the end of backup {} ended at {}, and the \
                 backup began at {}",
                words.one, base.id, last.time, base.started_at
            )
        }
        _ => return None,
    };
    let stops = words.stops;
    Some(Finding::warning(
        format!("the clock of {}", request.instance),
        format!("{fact}; {stops} after {} by that clock", request.target),
        words.hint,
    ))
}

struct Words {
    one: &'static str,
    stops: &'static str,
    hint: &'static str,
}

const OF_RECORDS: Words = Words {
    one: "a transaction",
    stops: "the server stops at the first transaction that ended",
    hint: "the lines above name what is there and what is not; `--to lsn:…` or `--to xid:…` depends on no clock",
};
/// A stream has the times of the archive.
const OF_STREAM: Words = Words {
    one: "a command",
    stops: "the restore stops before the first command that came",
    hint: "the lines above name what is there and what is not; `--to offset:…` depends on no clock",
};

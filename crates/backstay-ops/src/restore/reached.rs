//! Whether a recovery came to where it was told to go.
//!
//! PostgreSQL opens a server that has replayed less as readily as one that has replayed
//! everything. So what it says of itself is compared with what the log holds: the last
//! transaction that should be there, and the first that should not.

use backstay_engine::postgres::reached::ReachedPoint;
use backstay_model::drill::Check;
use backstay_model::plan::restore::Recovery;
use backstay_model::{LogMarkKind, Lsn, RecoveryTarget, TargetAction};

/// The start of a record is a multiple of this behind the end of the one before.
const ALIGNMENT: u64 = 8;

pub(super) fn checks(recovery: &Recovery, reached: &ReachedPoint) -> Vec<Check> {
    let mut checks = vec![position(recovery, reached)];
    if let Some(last) = &recovery.last {
        let found = reached.last_transaction.map_or_else(|| "none".to_owned(), |time| time.to_string());
        // A log that is archived goes on meanwhile, and so does the latest state; and the
        // record at a position may itself be the end of a transaction.
        let may_be_later =
            !recovery.exclusive && matches!(recovery.target, RecoveryTarget::Latest | RecoveryTarget::Lsn(_));
        let ok = reached.last_transaction.is_some_and(|time| {
            time == last.time || (may_be_later && reached.replayed >= Some(Lsn(last.at)))
        });
        let expected = last.time.to_string();
        checks.push(Check { name: "last transaction".to_owned(), expected, found, ok });
    }
    if recovery.action == TargetAction::Pause {
        let state = |is_paused| if is_paused { "paused" } else { "open" };
        checks.push(Check::equal("at the target", state(true), state(reached.is_paused)));
    }
    checks
}

fn position(recovery: &Recovery, reached: &ReachedPoint) -> Check {
    let (least, below) = bounds(recovery);
    let expected = match below {
        Some(below) => format!("from {least} to before {below}"),
        None => format!("at least {least}"),
    };
    let ok = reached.replayed.is_some_and(|at| at >= least && below.is_none_or(|below| at < below));
    let found = reached.replayed.map_or_else(|| "nothing replayed".to_owned(), |at| at.to_string());
    Check { name: "replayed to".to_owned(), expected, found, ok }
}

/// The least position that is right, and the first behind that is wrong.
fn bounds(recovery: &Recovery) -> (Lsn, Option<Lsn>) {
    let last = recovery.last.as_ref().map_or(Lsn(0), |last| Lsn(last.at));
    match (&recovery.stop, &recovery.target) {
        // It stops before the end of that transaction.
        (Some(stop), RecoveryTarget::Time(_)) => (last, Some(Lsn(stop.at))),
        (Some(stop), _) if recovery.exclusive && !matches!(stop.kind, LogMarkKind::Point { .. }) => {
            (last, Some(Lsn(stop.at)))
        }
        (Some(stop), _) => (Lsn(stop.at), Some(Lsn(stop.at) + ALIGNMENT)),
        (None, RecoveryTarget::Lsn(wanted)) if !recovery.exclusive => (*wanted + 1, None),
        (None, _) => (last, None),
    }
}

#[cfg(test)]
mod tests {
    use backstay_model::{LogMark, TimelineId};
    use jiff::Timestamp;

    use super::*;

    fn ended(at: u64, second: i64) -> LogMark {
        let time = Timestamp::from_second(second).unwrap();
        LogMark { at, time, kind: LogMarkKind::Commit { transaction: at } }
    }

    fn recovery(target: &str, stop: Option<LogMark>, last: Option<LogMark>) -> Recovery {
        Recovery {
            lineage: "1".to_owned(),
            segment_bytes: 16 << 20,
            own_to: Lsn(0),
            timeline: TimelineId(1),
            target: target.parse().unwrap(),
            exclusive: false,
            action: TargetAction::Promote,
            to: Lsn(900),
            stop,
            last,
        }
    }

    fn is_right(recovery: &Recovery, at: u64, second: i64) -> bool {
        let reached = ReachedPoint {
            replayed: Some(Lsn(at)),
            last_transaction: Timestamp::from_second(second).ok(),
            is_paused: false,
            timeline: None,
        };
        checks(recovery, &reached).iter().all(|check| check.ok)
    }

    #[test]
    fn less_or_more_than_was_asked_for_is_noticed() {
        let time = recovery("2026-11-21T00:00:00Z", Some(ended(700, 7)), Some(ended(600, 6)));
        assert!(is_right(&time, 600, 6) && is_right(&time, 690, 6));
        assert!(!is_right(&time, 590, 6) && !is_right(&time, 700, 6) && !is_right(&time, 650, 5));
        let xid = recovery("xid:700", Some(ended(700, 7)), Some(ended(700, 7)));
        assert!(is_right(&xid, 704, 7) && !is_right(&xid, 712, 7) && !is_right(&xid, 696, 7));
        let before =
            Recovery { exclusive: true, ..recovery("xid:700", Some(ended(700, 7)), Some(ended(600, 6))) };
        assert!(is_right(&before, 640, 6) && !is_right(&before, 700, 6) && !is_right(&before, 640, 7));
        let latest = recovery("latest", None, Some(ended(800, 8)));
        assert!(is_right(&latest, 800, 8) && is_right(&latest, 1000, 9) && !is_right(&latest, 700, 7));
        let lsn = recovery("lsn:0/320", None, Some(ended(600, 6)));
        assert!(is_right(&lsn, 0x321, 6) && !is_right(&lsn, 0x320, 6));
    }
}

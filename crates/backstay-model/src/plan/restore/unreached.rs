//! What to say when no base reaches the target: why, and the nearest instants on both
//! sides that can be restored, each with the command for it.

use super::judge::Why;
use super::{Refusal, RestoreRequest, reach};
use crate::error::ErrorKind;
use crate::log::{LogMark, LogMarkKind};
use crate::lsn::Lsn;
use crate::position::Position;
use crate::record::BackupRecord;
use crate::summary::BackupMarks;
use crate::target::RecoveryTarget;

type Backup = (BackupRecord, BackupMarks);

/// One of the two sides.
struct Nearest {
    said: String,
    hint: String,
}

/// `why` holds a reason for each base that was tried, newest first.
pub(super) fn refusal(
    request: &RestoreRequest,
    why: &[(&BackupRecord, Why)],
    newest_first: &[&Backup],
) -> Refusal {
    if why.iter().all(|(_, why)| *why == Why::NoLog) {
        return reach::outside(request, newest_first);
    }
    let (instance, target) = (&request.instance, &request.target);
    let after = why.iter().rfind(|(_, why)| *why == Why::Before).map(|(record, _)| after(request, record));
    let behind = || {
        why.iter().filter_map(|(record, why)| match why {
            Why::Behind { end, last, hole_to, is_hole, gap } => {
                Some((record, end, last, hole_to.as_ref(), gap.as_deref(), *is_hole))
            }
            _ => None,
        })
    };
    // What was not found may lie in a hole, also in one before the newest base.
    let may_lie_anywhere = matches!(target, RecoveryTarget::Xid(_) | RecoveryTarget::Name(_));
    let in_hole = behind().find(|(.., is_hole)| *is_hole && may_lie_anywhere);
    let behind = in_hole.or_else(|| behind().next());
    let (reason, before, after) = match behind {
        Some((record, end, last, hole_to, gap, is_hole)) => {
            let reason = match (is_hole, target) {
                (true, _) => {
                    let to = hole_to.map(|to| format!(" to {}", place(to))).unwrap_or_default();
                    let why = gap.map(|gap| format!(" ({gap})")).unwrap_or_default();
                    match end {
                        Position::Wal { timeline, lsn } => {
                            format!("the log has a hole on timeline {timeline}, from {lsn}{to}{why}")
                        }
                        Position::Stream { .. } => format!("the stream has a hole, from {end}{to}{why}"),
                    }
                }
                (false, RecoveryTarget::Xid(_)) => {
                    format!("no such transaction ended in the log from {} to its end at {end}", record.id)
                }
                (false, RecoveryTarget::Name(_)) => {
                    format!("no such point is in the log from {} to its end at {end}", record.id)
                }
                (false, _) => format!("the log ends at {end}"),
            };
            // Behind a hole life goes on with the first base that ended there.
            let next = || {
                let behind = |record: &BackupRecord| {
                    hole_to
                        .zip(record.stop_position.as_ref())
                        .is_some_and(|(hole_to, stop)| is_behind(stop, hole_to))
                };
                let mut oldest_first = newest_first.iter().rev();
                let sound = oldest_first.find(|(record, marks)| behind(record) && !marks.is_damaged());
                sound.map(|(record, _)| self::after(request, record))
            };
            let before = before(request, record, last.as_ref(), is_hole);
            (reason, Some(before), after.or_else(next))
        }
        None => match why.iter().find_map(|(_, why)| match why {
            Why::Apart { reason } => Some(reason.clone()),
            _ => None,
        }) {
            Some(reason) if after.is_none() => (reason, None, None),
            _ => (
                "it lies before the end of the first backup that could be used for it".to_owned(),
                None,
                after,
            ),
        },
    };
    let said: Vec<&str> = before.iter().chain(&after).map(|nearest| nearest.said.as_str()).collect();
    let nearest = match said.as_slice() {
        [] => String::new(),
        [only] => format!("; the nearest is {only}"),
        both => format!("; the nearest are {}", both.join(" and ")),
    };
    let hints = before.into_iter().chain(after).map(|nearest| nearest.hint);
    let status = format!("`backstay status {instance}` shows every instant that can be reached");
    Refusal::new(
        ErrorKind::Unrecoverable,
        format!("{target} of {instance} cannot be reached: {reason}{nearest}"),
        hints.chain([status]).collect(),
    )
}

/// As it is said beside another place of the same log.
fn place(position: &Position) -> String {
    match position {
        Position::Wal { lsn, .. } => lsn.to_string(),
        Position::Stream { offset, .. } => offset.to_string(),
    }
}

/// Whether a base ended at a place or behind it, of the same log.
fn is_behind(stop: &Position, place: &Position) -> bool {
    match (stop, place) {
        (Position::Wal { lsn, .. }, Position::Wal { lsn: place, .. }) => lsn >= place,
        (
            Position::Stream { replication_id, offset },
            Position::Stream { replication_id: of, offset: place },
        ) => replication_id == of && offset >= place,
        _ => false,
    }
}

/// The last instant before the place where the replay would end.
fn before(request: &RestoreRequest, base: &BackupRecord, last: Option<&LogMark>, is_hole: bool) -> Nearest {
    let instance = &request.instance;
    let Some(last) = last else {
        return Nearest {
            said: format!("{} (the end of backup {})", base.finished_at, base.id),
            hint: format!(
                "`backstay restore {instance} --backup {} --to immediate` restores {}",
                base.id, base.finished_at
            ),
        };
    };
    let command = match &last.kind {
        // The very end can be reached, but not stopped at.
        _ if !is_hole => format!("backstay restore {instance} --to latest"),
        LogMarkKind::Commit { transaction } => format!("backstay restore {instance} --to xid:{transaction}"),
        // Another stream may have the same offset.
        LogMarkKind::Instant => {
            format!("backstay restore {instance} --to offset:{} --backup {}", last.at, base.id)
        }
        _ => format!("backstay restore {instance} --to lsn:{} --exclusive", Lsn(last.at)),
    };
    let (at, done) = match last.kind {
        LogMarkKind::Instant => (last.at.to_string(), "written"),
        _ => (Lsn(last.at).to_string(), "committed"),
    };
    Nearest {
        said: format!("{} ({at})", last.time),
        hint: format!("`{command}` restores everything that was {done} by {}", last.time),
    }
}

/// The end of a base that is too new.
fn after(request: &RestoreRequest, base: &BackupRecord) -> Nearest {
    let position = base.stop_position.as_ref().map(|position| format!(" ({})", place(position)));
    let position = position.unwrap_or_default();
    let instance = &request.instance;
    Nearest {
        said: format!("{}{position}", base.finished_at),
        hint: format!(
            "`backstay restore {instance} --backup {} --to immediate` restores {}",
            base.id, base.finished_at
        ),
    }
}

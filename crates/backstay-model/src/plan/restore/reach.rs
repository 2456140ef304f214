//! Which base reaches the target.
//!
//! Where no log is archived, the reachable instants are the ends of the backups. Every
//! target that cannot be reached is refused with the nearest instants named: half of
//! what was asked for would be worse than a clear no.

use super::judge::{self, Verdict, Way};
use super::log::{KnownLog, LogQuestion};
use super::{Refusal, RestoreRequest, not_clean, not_proved, same_offset, unreached};
use crate::error::ErrorKind;
use crate::finding::{Finding, FindingLevel};
use crate::id::BackupId;
use crate::lsn::Lsn;
use crate::position::Position;
use crate::record::BackupRecord;
use crate::summary::BackupMarks;
use crate::target::RecoveryTarget;

pub(super) struct Choice<'a> {
    pub base: &'a BackupRecord,
    /// Nothing, where the log inside of the base is all that is replayed.
    pub way: Option<Box<Way>>,
    pub findings: Vec<Finding>,
}

/// Why there is no choice.
pub(super) enum NoChoice {
    Refused(Refusal),
    /// It depends on what is in the log.
    Asks(Box<LogQuestion>),
}

impl From<Refusal> for NoChoice {
    fn from(refusal: Refusal) -> Self {
        NoChoice::Refused(refusal)
    }
}

impl From<Box<LogQuestion>> for NoChoice {
    fn from(question: Box<LogQuestion>) -> Self {
        NoChoice::Asks(question)
    }
}

type Backup = (BackupRecord, BackupMarks);

/// The base, or the one reason why there is none. `newest_first` holds all
/// backups of the instance.
pub(super) fn choose_base<'a>(
    request: &RestoreRequest,
    newest_first: &[&'a Backup],
    unreadable: &[(BackupId, String)],
    log: &KnownLog,
) -> Result<Choice<'a>, NoChoice> {
    let instance = &request.instance;
    let wanted_or_all = |id: &BackupId| request.backup.as_ref().is_none_or(|wanted| wanted == id);
    let not_opening = unreadable.iter().find(|(id, _)| wanted_or_all(id));
    if let Some((id, reason)) = not_opening
        && (request.backup.is_some() || newest_first.is_empty())
    {
        return Err(cannot_be_read(request, id, reason, newest_first).into());
    }
    if newest_first.is_empty() {
        return Err(NoChoice::Refused(Refusal::new(
            ErrorKind::NotFound,
            format!("there is no backup of {instance}"),
            vec![format!("`backstay backup {instance}` makes one")],
        )));
    }
    if let Some(wanted) = &request.backup {
        let Some((record, marks)) = newest_first.iter().find(|(record, _)| record.id == *wanted) else {
            return Err(NoChoice::Refused(Refusal::new(
                ErrorKind::NotFound,
                format!("there is no backup {wanted} of {instance}"),
                vec![format!("`backstay list {instance}` shows the backups")],
            )));
        };
        let way = match judge::judge(request, record, log)? {
            Verdict::No(why) => {
                return Err(unreached::refusal(request, &[(record, why)], newest_first).into());
            }
            Verdict::Refused(refusal) => return Err(refusal.into()),
            _ if marks.is_damaged() => return Err(damaged(request, record, marks, newest_first).into()),
            Verdict::Log(way) => Some(way),
            Verdict::Alone => None,
        };
        return Ok(Choice { base: record, way, findings: told_of(record, marks, newest_first).collect() });
    }

    // What is reachable at all, sound or not: a damaged backup must be named and
    // not be taken for one that never was.
    let mut why = Vec::new();
    let mut passed: Vec<&Backup> = Vec::new();
    let mut chosen = None;
    for backup in newest_first.iter().copied() {
        let (record, marks) = backup;
        match judge::judge(request, record, log)? {
            Verdict::No(reason) => why.push((record, reason)),
            Verdict::Refused(refusal) => return Err(refusal.into()),
            _ if marks.is_damaged() => passed.push(backup),
            Verdict::Alone => {
                chosen = Some((backup, None));
                break;
            }
            Verdict::Log(way) => {
                chosen = Some((backup, Some(way)));
                break;
            }
        }
    }
    let Some(((base, marks), way)) = chosen else {
        return Err(match passed.first() {
            Some((newest, marks)) => damaged(request, newest, marks, newest_first).into(),
            None => unreached::refusal(request, &why, newest_first).into(),
        });
    };
    if let Some(refusal) = same_offset::refusal(request, base, newest_first, log) {
        return Err(refusal.into());
    }
    let mut findings: Vec<Finding> =
        passed.iter().map(|(newer, marks)| passed_over(newer, marks, base)).collect();
    // An id begins with the time of its start, so this compares times.
    findings.extend(unreadable.iter().filter(|(id, _)| *id > base.id).map(|(id, reason)| {
        Finding::error(
            id.as_str(),
            format!(
                "this newer backup of {instance} cannot be read ({reason}); the restore takes {}, which ended {}",
                base.id, base.finished_at
            ),
            format!("`backstay verify {instance}` names what is damaged"),
        )
    }));
    findings.extend(told_of(base, marks, newest_first));
    Ok(Choice { base, way, findings })
}

/// What a person should know of a base that is taken.
fn told_of(
    base: &BackupRecord,
    marks: &BackupMarks,
    newest_first: &[&Backup],
) -> impl Iterator<Item = Finding> + use<> {
    let not_clean = not_clean::finding(base, newest_first).into_iter();
    let not_proved = not_proved::finding(base, marks, newest_first);
    not_clean.chain(not_proved).chain(condemned_note(base, marks))
}

fn stop(record: &BackupRecord) -> Option<Lsn> {
    record.stop_position.as_ref().and_then(Position::lsn)
}

/// Whether the end of this backup is what the target asks for.
pub(super) fn ends_at(record: &BackupRecord, target: &RecoveryTarget) -> bool {
    match target {
        RecoveryTarget::Latest | RecoveryTarget::Immediate => true,
        RecoveryTarget::Time(time) => record.finished_at == *time,
        RecoveryTarget::Lsn(lsn) => stop(record) == Some(*lsn),
        RecoveryTarget::Offset(offset) => {
            matches!(&record.stop_position, Some(Position::Stream { offset: stop, .. }) if stop == offset)
        }
        RecoveryTarget::Xid(_) | RecoveryTarget::Name(_) => false,
    }
}

pub(super) fn outside(request: &RestoreRequest, newest_first: &[&Backup]) -> Refusal {
    let sound: Vec<&BackupRecord> =
        newest_first.iter().filter(|(_, marks)| !marks.is_damaged()).map(|(record, _)| record).collect();
    let reaches_before: Box<dyn Fn(&BackupRecord) -> bool + '_> = match &request.target {
        RecoveryTarget::Time(time) => Box::new(|record| record.finished_at <= *time),
        RecoveryTarget::Lsn(lsn) => Box::new(|record| stop(record).is_some_and(|stop| stop <= *lsn)),
        // Where a transaction or a name lies is not known: the newest backup is the best offer.
        _ => Box::new(|_| true),
    };
    let before = sound.iter().find(|record| reaches_before(record));
    let after = sound.iter().rfind(|record| !reaches_before(record));
    let place = |record: &BackupRecord| match &record.stop_position {
        Some(position) => format!("{} ({position})", record.finished_at),
        None => record.finished_at.to_string(),
    };
    let nearest = match (before, after) {
        (Some(before), Some(after)) => format!("; the nearest are {} and {}", place(before), place(after)),
        (Some(only), None) | (None, Some(only)) => format!("; the nearest is {}", place(only)),
        (None, None) => String::new(),
    };
    let instance = &request.instance;
    let hints = before
        .into_iter()
        .chain(after)
        .map(|record| {
            format!("`backstay restore {instance} --backup {}` restores {}", record.id, record.finished_at)
        })
        .chain([format!("`backstay status {instance}` shows every instant that can be reached")])
        .collect();
    let target = &request.target;
    Refusal::new(
        ErrorKind::Unrecoverable,
        format!(
            "{target} of {instance} cannot be reached: no log is archived, so only the ends of its backups can be restored{nearest}"
        ),
        hints,
    )
}

fn damaged(
    request: &RestoreRequest,
    record: &BackupRecord,
    marks: &BackupMarks,
    newest_first: &[&Backup],
) -> Refusal {
    let instance = &request.instance;
    let mut sound = newest_first.iter().filter(|(_, marks)| !marks.is_damaged()).map(|(record, _)| record);
    // The one before; for the oldest, the one after.
    let oldest_sound = sound.clone().next_back();
    let instead = sound.find(|other| other.order() < record.order()).or(oldest_sound);
    let hint = match instead {
        Some(other) => format!(
            "`backstay restore {instance} --backup {}` restores the one that ended {}",
            other.id, other.finished_at
        ),
        None => format!(
            "`backstay verify {instance}` names what is damaged; `backstay backup {instance}` makes a new one"
        ),
    };
    let only = if instead.is_none() { ", and no backup of it is sound" } else { "" };
    Refusal::new(
        ErrorKind::Corrupt,
        format!("backup {} of {instance} is damaged ({}){only}", record.id, first_fault(marks)),
        vec![hint],
    )
}

fn cannot_be_read(
    request: &RestoreRequest,
    id: &BackupId,
    reason: &str,
    newest_first: &[&Backup],
) -> Refusal {
    let instance = &request.instance;
    let mut sound = newest_first.iter().filter(|(_, marks)| !marks.is_damaged()).map(|(record, _)| record);
    let newest_sound = sound.clone().next();
    let hint = match sound.find(|other| other.id < *id).or(newest_sound) {
        Some(other) => format!(
            "`backstay restore {instance} --backup {}` restores the one that ended {}",
            other.id, other.finished_at
        ),
        None => format!("`backstay verify {instance}` names what is damaged"),
    };
    Refusal::new(
        ErrorKind::Corrupt,
        format!("backup {id} of {instance} cannot be read ({reason})"),
        vec![hint],
    )
}

fn passed_over(newer: &BackupRecord, marks: &BackupMarks, base: &BackupRecord) -> Finding {
    let instance = &base.instance;
    Finding::error(
        newer.id.as_str(),
        format!(
            "this newer backup of {instance} is damaged ({}); the restore takes the one before, {}, which ended {}",
            first_fault(marks),
            base.id,
            base.finished_at
        ),
        format!(
            "`backstay verify {}` names what is damaged; `backstay restore {instance} --backup ID` chooses another",
            newer.id
        ),
    )
}

fn first_fault(marks: &BackupMarks) -> String {
    let mut faults = marks.findings.iter().filter(|finding| finding.level == FindingLevel::Error);
    let Some(first) = faults.next() else { return "for an unknown reason".to_owned() };
    match faults.count() {
        0 => format!("{}: {}", first.subject, first.message),
        more => format!("{}: {}, and {more} more", first.subject, first.message),
    }
}

fn condemned_note(record: &BackupRecord, marks: &BackupMarks) -> Option<Finding> {
    let since = match marks.condemned?.at {
        Some(at) => format!("at {at}; it can vanish after the grace window"),
        None => "at a time that cannot be read; it stays until its marker is removed".to_owned(),
    };
    Some(Finding::warning(
        record.id.as_str(),
        format!("retention let this backup go {since}"),
        "`backstay expire --dry-run` shows what goes and when",
    ))
}

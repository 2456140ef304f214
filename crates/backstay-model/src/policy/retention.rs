//! Retention: which backups stay, why, and which may go.
//!
//! Grandfather, father, son: the newest backup of each of the last so many hours,
//! days, ISO weeks, months and years *that have one*. Counting periods that have
//! a backup, and not days of the calendar, means that nothing goes because
//! backups stopped coming. Periods are those of UTC.
//!
//! Invariants, each held by a property test: the last sound backup stays, and the
//! last one without wrong pages, even when they were condemned before; what goes
//! now also goes later, whatever is added meanwhile; a second run over what is
//! left lets nothing more go; damage never makes a backup go earlier.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::hold::Hold;
use crate::id::{BackupId, InstanceId};
use crate::record::BackupRecord;
use crate::summary::BackupMarks;

mod floor;
mod period;

use floor::Floor;
pub use period::Period;

/// What to keep. All zero keeps everything: a policy that nobody wrote must not
/// delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionPolicy {
    /// The newest so many backups.
    pub last: u32,
    /// The newest backup of each of the last so many hours that have one.
    pub hourly: u32,
    /// The newest backup of each of the last so many days that have one.
    pub daily: u32,
    /// The newest backup of each of the last so many ISO weeks that have one.
    pub weekly: u32,
    /// The newest backup of each of the last so many months that have one.
    pub monthly: u32,
    /// The newest backup of each of the last so many years that have one.
    pub yearly: u32,
    /// Everything needed for any point of the last so many days.
    pub within_days: u32,
    /// Never fewer sound backups than this, whatever the rules say.
    pub minimum: u32,
}

impl RetentionPolicy {
    /// No rule says what to keep, so everything is kept.
    pub fn keeps_everything(&self) -> bool {
        let RetentionPolicy { last, hourly, daily, weekly, monthly, yearly, within_days, minimum: _ } = *self;
        [last, hourly, daily, weekly, monthly, yearly, within_days].iter().all(|count| *count == 0)
    }

    fn count(&self, period: Period) -> u32 {
        match period {
            Period::Backup => self.last,
            Period::Hour => self.hourly,
            Period::Day => self.daily,
            Period::Week => self.weekly,
            Period::Month => self.monthly,
            Period::Year => self.yearly,
        }
    }
}

/// Why a backup stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepReason {
    NoPolicy,
    /// The `nth` newest of its kind, of so many that are kept.
    Nth {
        period: Period,
        nth: u32,
        of: u32,
    },
    WithinDays(u32),
    /// The base from which the first point of the window is reached.
    StartOfWindow(u32),
    LastSound,
    /// Newer ones are as whole as they were taken, but the engine found pages
    /// wrong while it read them.
    LastClean,
    Minimum {
        nth: u32,
        of: u32,
    },
    /// Somebody said so.
    Held(Hold),
    /// It ended after the instant for which the plan is made.
    Later,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeepReason::NoPolicy => f.write_str("no retention is set"),
            KeepReason::Nth { period, nth, of } => write!(f, "{period} {nth} of {of}"),
            KeepReason::WithinDays(days) => write!(f, "within {days} days"),
            KeepReason::StartOfWindow(days) => write!(f, "start of the window of {days} days"),
            KeepReason::LastSound => f.write_str("the last sound backup"),
            KeepReason::LastClean => f.write_str("the last backup without wrong pages"),
            KeepReason::Minimum { nth, of } => write!(f, "minimum {nth} of {of}"),
            KeepReason::Held(hold) => hold.fmt(f),
            KeepReason::Later => f.write_str("later than the time asked for"),
        }
    }
}

impl Serialize for KeepReason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kept {
    pub id: BackupId,
    pub finished_at: Timestamp,
    pub reasons: Vec<KeepReason>,
}

/// A backup that may go, or is going.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Expired {
    pub id: BackupId,
    pub finished_at: Timestamp,
    /// Whether it is condemned already; when not, this plan is the first to say so.
    pub condemned: bool,
    /// Since when; `None` also for a condemned backup whose marker does not open.
    pub condemned_at: Option<Timestamp>,
    /// From when its manifest may be deleted: never, when since when is not known.
    pub deletable_at: Option<Timestamp>,
}

/// What `expire` does to one instance. Newest first in both lists.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExpirePlan {
    pub instance: InstanceId,
    pub as_of: Timestamp,
    pub keep: Vec<Kept>,
    pub expire: Vec<Expired>,
    /// What was seen on the way and is in nobody's way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

impl ExpirePlan {
    /// Those whose grace window is over at the time of the plan.
    pub fn deletable(&self) -> impl Iterator<Item = &Expired> {
        self.expire
            .iter()
            .filter(|expired| expired.condemned && expired.deletable_at.is_some_and(|at| at <= self.as_of))
    }

    /// Those that nobody has condemned yet.
    pub fn to_condemn(&self) -> impl Iterator<Item = &Expired> {
        self.expire.iter().filter(|expired| !expired.condemned)
    }
}

/// Plans what may go at `as_of`. `grace` is the time between the condemnation
/// and the deletion: the time to change one's mind.
pub fn plan_expire(
    instance: &InstanceId,
    backups: &[(BackupRecord, BackupMarks)],
    policy: &RetentionPolicy,
    as_of: Timestamp,
    grace: SignedDuration,
) -> ExpirePlan {
    let mut newest_first: Vec<_> =
        backups.iter().filter(|(record, _)| record.instance == *instance).collect();
    newest_first.sort_by(|(a, _), (b, _)| b.order().cmp(&a.order()));

    let mut reasons: BTreeMap<&BackupId, Vec<KeepReason>> = BTreeMap::new();
    let present: Vec<_> = newest_first
        .iter()
        .copied()
        .filter(|(record, marks)| marks.condemned.is_none() && record.finished_at <= as_of)
        .collect();
    let all: Vec<&BackupRecord> = present.iter().map(|(record, _)| record).collect();
    let sound: Vec<&BackupRecord> =
        present.iter().filter(|(_, marks)| !marks.is_damaged()).map(|(record, _)| record).collect();

    for (record, marks) in &newest_first {
        if record.finished_at > as_of {
            reasons.entry(&record.id).or_default().push(KeepReason::Later);
        }
        // Also one that was let go before: it can be restored, and is not deleted.
        if let Some(hold) = marks.hold.as_ref().filter(|hold| hold.is_in_force(as_of)) {
            reasons.entry(&record.id).or_default().push(KeepReason::Held(hold.clone()));
        }
    }
    if policy.keeps_everything() {
        for record in &all {
            reasons.entry(&record.id).or_default().push(KeepReason::NoPolicy);
        }
    }
    // Once over the sound ones, so that a damaged backup does not take the place
    // of a sound one; once over all, so that damage alone lets nothing go.
    for set in [&sound, &all] {
        for (id, reason) in by_rules(set, policy, as_of) {
            let of_backup = reasons.entry(id).or_default();
            let known = of_backup.iter().any(|other| same_rule(other, &reason));
            if !known {
                of_backup.push(reason);
            }
        }
    }
    let floor = Floor::of(&newest_first, as_of);
    for (record, reason) in floor.reasons(policy.minimum) {
        let of_backup = reasons.entry(&record.id).or_default();
        if !of_backup.iter().any(|other| same_rule(other, &reason)) {
            of_backup.push(reason);
        }
    }
    if let Some(newest) = floor.all.first() {
        // Sound or not, what is left of the newest may be all there is.
        reasons.entry(&newest.id).or_insert_with(|| vec![KeepReason::Minimum { nth: 1, of: 1 }]);
    }

    let mut plan = ExpirePlan {
        instance: instance.clone(),
        as_of,
        keep: Vec::new(),
        expire: Vec::new(),
        findings: Vec::new(),
    };
    for (record, marks) in newest_first {
        match reasons.remove(&record.id) {
            Some(reasons) => {
                plan.keep.push(Kept { id: record.id.clone(), finished_at: record.finished_at, reasons });
            }
            None => plan.expire.push(Expired {
                id: record.id.clone(),
                finished_at: record.finished_at,
                condemned: marks.condemned.is_some(),
                condemned_at: marks.condemned.and_then(|condemned| condemned.at),
                deletable_at: match marks.condemned {
                    Some(condemned) => condemned.at,
                    None => Some(as_of),
                }
                .map(|since| since.checked_add(grace).unwrap_or(Timestamp::MAX)),
            }),
        }
    }
    plan
}

/// What the rules keep of a set of backups, newest first.
fn by_rules<'a>(
    newest_first: &[&'a BackupRecord],
    policy: &RetentionPolicy,
    as_of: Timestamp,
) -> Vec<(&'a BackupId, KeepReason)> {
    let mut kept = Vec::new();
    for period in Period::ALL {
        let of = policy.count(period);
        let (mut nth, mut last_key) = (0, None);
        for record in newest_first {
            let key = period.key(record);
            if last_key.as_ref() == Some(&key) {
                continue;
            }
            last_key = Some(key);
            nth += 1;
            if nth > of {
                break;
            }
            kept.push((&record.id, KeepReason::Nth { period, nth, of }));
        }
    }
    let days = policy.within_days;
    if days > 0 {
        let window = SignedDuration::from_hours(24 * i64::from(days));
        let start = as_of.checked_sub(window).unwrap_or(Timestamp::MIN);
        for record in newest_first {
            let within = record.finished_at > start;
            let reason = if within { KeepReason::WithinDays(days) } else { KeepReason::StartOfWindow(days) };
            kept.push((&record.id, reason));
            if !within {
                break;
            }
        }
    }
    kept
}

/// Whether two reasons are the same rule, perhaps with another number.
fn same_rule(a: &KeepReason, b: &KeepReason) -> bool {
    match (a, b) {
        (KeepReason::Nth { period: a, .. }, KeepReason::Nth { period: b, .. }) => a == b,
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

#[cfg(test)]
mod tests;

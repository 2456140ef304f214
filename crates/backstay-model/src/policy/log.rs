//! Which log may go: what no base that is there needs.
//!
//! A base needs the log from its own beginning on, on its timeline and on every one that a
//! restore gets to from it. What is older than the oldest need of a timeline goes, and a
//! timeline to which no base leads goes as a whole.
//!
//! Invariant: log behind the end of any base, on any way that it may still go, stays. A base
//! with a hole right behind it needs nothing: it has its own log in itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Serialize, Serializer};

use crate::id::BackupId;
use crate::log::LogSpan;
use crate::log::history::reachable;
use crate::lsn::{Lsn, TimelineId};
use crate::plan::restore::{KnownLog, LineageLog};
use crate::plan::window::LoggedBase;

/// Why log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogReason {
    /// Older than what the oldest base needs.
    BeforeOldest(BackupId),
    /// No base leads to this timeline.
    OffTheWay,
    /// No base of that cluster is there any more.
    OtherCluster,
    /// A larger object holds the same.
    Superseded,
}

impl fmt::Display for LogReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogReason::BeforeOldest(id) => write!(f, "older than the oldest backup that needs log, {id}"),
            LogReason::OffTheWay => f.write_str("no backup leads to this timeline"),
            LogReason::OtherCluster => f.write_str("no backup of that cluster is there"),
            LogReason::Superseded => f.write_str("larger objects hold the same"),
        }
    }
}

impl Serialize for LogReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What goes of one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogExpiry {
    pub lineage: String,
    pub timeline: TimelineId,
    /// What ends here or before; `None` for all of it, with its history.
    pub to: Option<Lsn>,
    pub reason: LogReason,
}

impl LogExpiry {
    pub fn takes(&self, span: LogSpan) -> bool {
        self.to.is_none_or(|to| span.end <= to.0)
    }
}

/// What may go while these bases are there: all of them, the damaged and the condemned too.
pub fn plan_log(known: &KnownLog, bases: &[LoggedBase<'_>]) -> Vec<LogExpiry> {
    let mut by_lineage: BTreeMap<&str, Vec<&LoggedBase<'_>>> = BTreeMap::new();
    for base in bases {
        by_lineage.entry(&base.log.lineage).or_default().push(base);
    }
    let mut goes = Vec::new();
    if by_lineage.is_empty() {
        // The first one may be on its way.
        return goes;
    }
    for (name, log) in &known.lineages {
        let bases = by_lineage.get(name.as_str());
        let timelines: BTreeSet<TimelineId> =
            log.timelines.keys().chain(log.histories.keys()).copied().collect();
        for timeline in timelines {
            let fate = match bases {
                Some(bases) => of_timeline(log, timeline, bases),
                None => Some((None, LogReason::OtherCluster)),
            };
            goes.extend(fate.map(|(to, reason)| LogExpiry { lineage: name.clone(), timeline, to, reason }));
        }
    }
    goes
}

fn of_timeline(
    log: &LineageLog,
    timeline: TimelineId,
    bases: &[&LoggedBase<'_>],
) -> Option<(Option<Lsn>, LogReason)> {
    let oldest = bases.iter().filter_map(|base| Some((need(log, timeline, base)?, base.id))).min();
    if let Some((from, id)) = oldest {
        return Some((Some(from), LogReason::BeforeOldest(id.clone())));
    }
    let newest = log.timelines.keys().chain(log.histories.keys()).max().copied();
    let newest = newest.max(bases.iter().map(|base| base.end.0).max());
    let is_known = timeline.0 == 1 || log.histories.contains_key(&timeline);
    let leads = bases.iter().any(|base| base.way(log, timeline).is_some());
    (is_known && !leads && Some(timeline) < newest).then_some((None, LogReason::OffTheWay))
}

/// From where on a base needs this timeline.
fn need(log: &LineageLog, timeline: TimelineId, base: &LoggedBase<'_>) -> Option<Lsn> {
    let legs = base.way(log, timeline)?;
    let reach = reachable(&legs, &log.along(&legs))?;
    let (first, last) = (legs.first()?, legs.last()?);
    let segment = base.log.segment_bytes.max(1);
    let floor = |lsn: Lsn| Lsn(lsn.0 / segment * segment);
    if legs.len() == 1 {
        let has_log = reach.lsn > first.from || !reach.stopped_by_hole;
        // What it did while it ran is asked for as well: for the times of commits.
        return has_log.then(|| floor(base.start));
    }
    (reach.timeline == timeline || !reach.stopped_by_hole).then(|| floor(last.from))
}

/// Those that lie within another one each.
pub fn superseded(spans: &[LogSpan]) -> Vec<LogSpan> {
    let mut sorted = spans.to_vec();
    // Whatever holds another comes before it.
    sorted.sort_unstable_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    let mut furthest = 0;
    let mut within = Vec::new();
    for span in sorted {
        match span.end <= furthest {
            true => within.push(span),
            false => furthest = span.end,
        }
    }
    within
}

#[cfg(test)]
mod tests;

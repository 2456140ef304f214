//! Which positions of a log can be restored to, and what keeps the others from it.
//!
//! A window is what one or more bases reach without a hole, on one timeline. A hole lies
//! between log that is there, or between a base and the log behind it. Both are found from
//! positions alone; the instants around them stand in the marks of the log, which whoever
//! shows them looks up.
//!
//! Invariant: a position within a window is one that a restore plan accepts.

use std::collections::{BTreeMap, BTreeSet};

use super::restore::{BaseLog, KnownLog, LineageLog, Stretch};
use crate::id::BackupId;
use crate::log::history::{History, Leg, Reachable, reachable};
use crate::log::{Coverage, LogSpan};
use crate::lsn::{Lsn, TimelineId};
use crate::position::Position;
use crate::record::BackupRecord;

mod instant;

pub use instant::any_instant;

/// A base, and where it stands in the log of its lineage.
#[derive(Debug, Clone, Copy)]
pub struct LoggedBase<'a> {
    pub id: &'a BackupId,
    pub log: &'a BaseLog,
    pub start: Lsn,
    pub end: (TimelineId, Lsn),
}

impl<'a> LoggedBase<'a> {
    /// `None` where the record does not say it.
    pub fn of(record: &'a BackupRecord, known: &'a KnownLog) -> Option<LoggedBase<'a>> {
        let log = known.bases.get(&record.id)?;
        if let Some(point) = known.points.get(&record.id) {
            return Some(LoggedBase {
                id: &record.id,
                log,
                start: point.at,
                end: (point.timeline, point.at),
            });
        }
        let stop = record.stop_position.as_ref()?;
        Some(LoggedBase {
            id: &record.id,
            log,
            start: record.start_position.as_ref().and_then(Position::lsn)?,
            end: (stop.timeline()?, stop.lsn()?),
        })
    }

    /// The way from its end to a timeline, from the segment on of which the archive is asked.
    pub fn way(&self, lineage: &LineageLog, to: TimelineId) -> Option<Vec<Leg>> {
        lineage.way(self.log, self.end, to)
    }

    /// Where the archive goes on behind it.
    fn from(&self, lineage: &LineageLog) -> Lsn {
        let legs = self.way(lineage, self.end.0).unwrap_or_default();
        legs.first().map_or(self.end.1, |first| first.from)
    }
}

/// Positions on one timeline, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionWindow {
    pub timeline: TimelineId,
    pub from: Lsn,
    pub to: Lsn,
    /// The base at whose end it begins; `None` where it begins with the timeline.
    pub begins_with: Option<BackupId>,
    /// The newest base in it, or before it.
    pub newest: BackupId,
    /// The log before its beginning, and before its end, as a replay reads it.
    pub before: Vec<Stretch>,
    pub within: Vec<Stretch>,
}

/// Log that is missing, and keeps restores from what lies behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionHole {
    pub timeline: TimelineId,
    pub span: LogSpan,
    /// The last base before it, and the first from which what lies behind it is reached.
    pub last: Option<BackupId>,
    pub again: Option<BackupId>,
}

/// All of one lineage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows {
    /// In the order of timelines and positions.
    pub windows: Vec<PositionWindow>,
    pub holes: Vec<PositionHole>,
    /// How far the newest base gets on the way to the newest timeline; `None` where there is
    /// no base, or no way.
    pub newest: Option<Reachable>,
    pub newest_timeline: Option<TimelineId>,
}

/// What can be reached from bases of one lineage, oldest first, with its log.
pub fn windows(lineage: &LineageLog, bases: &[LoggedBase<'_>]) -> Windows {
    let mut found = Windows::default();
    let mut missing: BTreeMap<TimelineId, Vec<LogSpan>> = BTreeMap::new();
    let known = lineage.timelines.keys().chain(lineage.histories.keys()).copied();
    let timelines: BTreeSet<TimelineId> = known.chain(bases.iter().map(|base| base.end.0)).collect();
    for target in &timelines {
        let mut reached = Vec::new();
        for base in bases {
            let Some(legs) = base.way(lineage, *target) else { continue };
            let along = lineage.along(&legs);
            if let Some(reach) = reachable(&legs, &along).filter(|reach| reach.timeline == *target) {
                reached.push(window(lineage, base, &legs, reach));
            }
            for (timeline, span) in needed(&legs, &along) {
                let there = along.get(&timeline).cloned().unwrap_or_default();
                missing.entry(timeline).or_default().extend(there.missing(&span));
            }
        }
        found.windows.extend(joined(reached));
    }
    for (timeline, spans) in missing {
        found.holes.extend(holes(lineage, bases, timeline, &spans.into_iter().collect()));
    }
    found.newest_timeline = timelines.last().copied();
    if let (Some(base), Some(newest)) = (bases.last(), found.newest_timeline) {
        let legs = base.way(lineage, newest);
        found.newest = legs.and_then(|legs| reachable(&legs, &lineage.along(&legs)));
    }
    found
}

fn window(lineage: &LineageLog, base: &LoggedBase<'_>, legs: &[Leg], reach: Reachable) -> PositionWindow {
    let begins = legs.last().filter(|_| legs.len() > 1).map(|leg| leg.from);
    let from = begins.unwrap_or(base.end.1);
    // Where the archive has nothing behind a base, its own log ends with it.
    let goes_on = begins.is_some() || legs.first().is_some_and(|first| reach.lsn > first.from);
    let to = if goes_on { reach.lsn.max(from) } else { from };
    PositionWindow {
        timeline: reach.timeline,
        from,
        to,
        begins_with: begins.is_none().then(|| base.id.clone()),
        newest: base.id.clone(),
        before: lineage.stretches(legs, base.start, from),
        within: lineage.stretches(legs, base.start, to),
    }
}

/// Windows of one timeline that touch are one.
fn joined(mut windows: Vec<PositionWindow>) -> Vec<PositionWindow> {
    windows.sort_by_key(|window| (window.from, window.to));
    let mut all: Vec<PositionWindow> = Vec::new();
    for window in windows {
        match all.last_mut().filter(|last| window.from <= last.to) {
            Some(last) => {
                last.newest = window.newest;
                if window.to >= last.to {
                    (last.to, last.within) = (window.to, window.within);
                }
            }
            None => all.push(window),
        }
    }
    all
}

/// The log that a replay on this way needs, where there is some behind it.
fn needed(legs: &[Leg], along: &BTreeMap<TimelineId, Coverage>) -> Vec<(TimelineId, LogSpan)> {
    let end = |leg: &Leg| along.get(&leg.timeline).and_then(Coverage::end);
    let each = legs.iter().enumerate().filter_map(|(number, leg)| {
        let goes_on = legs[number + 1..].iter().any(|later| end(later).is_some_and(|end| end > later.from.0));
        let until = match leg.to {
            Some(switch) if goes_on => switch.0,
            Some(switch) => end(leg)?.min(switch.0),
            None => end(leg)?,
        };
        Some((leg.timeline, LogSpan::new(leg.from.0, until)?))
    });
    each.collect()
}

/// What is missing on one timeline, parted where a base lies in it.
fn holes(
    lineage: &LineageLog,
    bases: &[LoggedBase<'_>],
    timeline: TimelineId,
    missing: &Coverage,
) -> Vec<PositionHole> {
    let own = bases.iter().filter(|base| base.end.0 == timeline);
    let begins: BTreeSet<u64> = own.map(|base| base.from(lineage).0).collect();
    let there = lineage.timelines.get(&timeline).map(Coverage::spans).unwrap_or_default();
    let mut holes = Vec::new();
    for span in missing.spans() {
        let within = begins.range(span.start + 1..span.end).copied();
        let edges: Vec<u64> = [span.start].into_iter().chain(within).chain([span.end]).collect();
        for pair in edges.windows(2) {
            let Some(span) = LogSpan::new(pair[0], pair[1]) else { continue };
            let behind_log = there.iter().any(|log| log.end == span.start);
            // Between two bases before any log, nothing was ever promised.
            if begins.contains(&span.start) && begins.contains(&span.end) && !behind_log {
                continue;
            }
            let is_past = |base: &LoggedBase<'_>| base.from(lineage).0 >= span.end;
            let passed = bases.iter().filter(|base| leads_over(lineage, base, timeline, span));
            holes.push(PositionHole {
                timeline,
                span,
                last: passed.clone().rfind(|base| !is_past(base)).map(|base| base.id.clone()),
                again: passed.clone().find(|base| is_past(base)).map(|base| base.id.clone()),
            });
        }
    }
    holes
}

/// Whether a span lies on the way that the life of a base took, or would take.
fn leads_over(lineage: &LineageLog, base: &LoggedBase<'_>, timeline: TimelineId, span: LogSpan) -> bool {
    let history = |timeline| lineage.histories.get(&timeline).map(|history: &History| &history.ancestors);
    let came_over = history(base.end.0)
        .is_some_and(|of| of.iter().any(|(ancestor, switch)| *ancestor == timeline && switch.0 >= span.end));
    base.end.0 == timeline || came_over || base.way(lineage, timeline).is_some()
}

#[cfg(test)]
mod tests;

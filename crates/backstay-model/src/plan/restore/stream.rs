//! Whether one base of Redis reaches the target, with the stream behind it.
//!
//! A snapshot is the state at one position, and the stream behind it can be cut between any two
//! commands. Its marks say until when what lies before them had come, by the clock of the
//! archive. So a time is the last mark that is not later: everything before it had come by then,
//! and what lies behind it had not.

use jiff::Timestamp;

use super::judge::{Verdict, Way, Why};
use super::log::{BasePoint, KnownLog, LineageLog, LogQuestion, Sighting, Sought, Stretch};
use super::{LogRange, Reached, Recovery, Refusal, RestoreRequest, clock};
use crate::error::ErrorKind;
use crate::log::history::{Leg, reachable};
use crate::log::{LogMark, LogSpan};
use crate::lsn::{Lsn, TimelineId};
use crate::record::BackupRecord;
use crate::target::{RecoveryTarget, TargetAction, TargetTimeline};

/// The verdict, or what must be known first.
pub(super) fn judge(
    request: &RestoreRequest,
    record: &BackupRecord,
    log: &KnownLog,
) -> Result<Verdict, Box<LogQuestion>> {
    if let Some(refusal) = not_for_streams(request) {
        return Ok(Verdict::Refused(refusal));
    }
    let alone = |why: Why| match super::reach::ends_at(record, &request.target) {
        true => Verdict::Alone,
        false => Verdict::No(why),
    };
    if request.target == RecoveryTarget::Immediate {
        return Ok(Verdict::Alone);
    }
    let known = log.bases.get(&record.id).and_then(|base| Some((base, log.lineages.get(&base.lineage)?)));
    let (Some((base, lineage)), Some(point)) = (known, log.points.get(&record.id)) else {
        return Ok(alone(Why::NoLog));
    };
    let newest = lineage.timelines.keys().chain(lineage.histories.keys()).max().copied();
    let newest = newest.unwrap_or(point.timeline).max(point.timeline);
    let Some(legs) = lineage.way(base, (point.timeline, point.at), newest) else {
        let reason = format!(
            "no way leads from {} to where the stream is",
            lineage.position(point.timeline, point.at)
        );
        return Ok(Verdict::No(Why::Apart { reason }));
    };
    let along = lineage.along(&legs);
    let Some(reach) = reachable(&legs, &along) else { return Ok(alone(Why::NoLog)) };
    let stream = Stream { request, record, log, lineage, name: &base.lineage, legs: &legs, point };
    let end = (reach.timeline, reach.lsn);
    let hole_to = along
        .get(&reach.timeline)
        .and_then(|there| there.spans().iter().map(|span| Lsn(span.start)).find(|start| *start > reach.lsn));
    let missing = LogSpan { start: reach.lsn.0, end: hole_to.map_or(reach.lsn.0 + 1, |to| to.0) };
    let gap = lineage.gap(reach.timeline, missing).filter(|_| reach.stopped_by_hole);
    let behind = |last: Option<LogMark>| Why::Behind {
        end: lineage.position(reach.timeline, reach.lsn),
        last,
        hole_to: hole_to.map(|to| lineage.position(reach.timeline, to)),
        is_hole: reach.stopped_by_hole,
        gap: gap.map(ToString::to_string),
    };
    let is_empty = reach.lsn <= point.at;
    match &request.target {
        RecoveryTarget::Latest if reach.stopped_by_hole => {
            Ok(Verdict::No(behind(stream.sought(end.1, Sought::Last)?.before)))
        }
        RecoveryTarget::Latest if is_empty => Ok(Verdict::Alone),
        RecoveryTarget::Latest => {
            let last = stream.sought(end.1, Sought::Last)?.before;
            Ok(stream.to(end, last, None))
        }
        RecoveryTarget::Offset(wanted) if *wanted < point.at.0 => Ok(Verdict::No(Why::Before)),
        RecoveryTarget::Offset(wanted) if *wanted == point.at.0 => Ok(Verdict::Alone),
        RecoveryTarget::Offset(wanted) if *wanted > reach.lsn.0 => {
            Ok(Verdict::No(behind(stream.sought(end.1, Sought::Last)?.before)))
        }
        RecoveryTarget::Offset(wanted) => {
            let last = stream.sought(Lsn(*wanted), Sought::Last)?.before;
            Ok(stream.to((timeline_at(&legs, Lsn(*wanted)), Lsn(*wanted)), last, None))
        }
        RecoveryTarget::Time(time) => stream.time(*time, end, behind),
        _ => Ok(alone(Why::NoLog)),
    }
}

struct Stream<'a> {
    request: &'a RestoreRequest,
    record: &'a BackupRecord,
    log: &'a KnownLog,
    lineage: &'a LineageLog,
    /// Of the lineage.
    name: &'a str,
    legs: &'a [Leg],
    point: &'a BasePoint,
}

impl Stream<'_> {
    fn sought(&self, to: Lsn, sought: Sought) -> Result<Sighting, Box<LogQuestion>> {
        let stretches = self.lineage.stretches(self.legs, self.point.at, to);
        self.log.ask(LogQuestion { lineage: self.name.to_owned(), stretches, sought }).cloned()
    }

    fn time(
        &self,
        time: Timestamp,
        end: (TimelineId, Lsn),
        behind: impl Fn(Option<LogMark>) -> Why,
    ) -> Result<Verdict, Box<LogQuestion>> {
        let exclusive = self.request.stop.exclusive;
        let seen = self.sought(end.1, Sought::Time { time, exclusive })?;
        let clock = clock::doubt(self.request, self.record, self.point.at, &seen);
        let Some(next) = seen.stop else {
            // The very last mark is an instant that is known to its end.
            return Ok(match &seen.before {
                Some(last) if last.time == time && !exclusive => {
                    self.to((timeline_at(self.legs, Lsn(last.at)), Lsn(last.at)), seen.before.clone(), clock)
                }
                _ => Verdict::No(behind(seen.before)),
            });
        };
        let Some(last) = seen.before else {
            // Nothing had come behind the snapshot yet: it is the state, if it was made by then. A mark right
            // where it stands says so, and one before it may say the contrary, by the clock of the
            // archive; without either it had been made when it had been sent.
            let before = Stretch { timeline: self.point.timeline, from: Lsn(0), to: self.point.at };
            let question =
                LogQuestion { lineage: self.name.to_owned(), stretches: vec![before], sought: Sought::Last };
            let is_made = match &self.log.ask(question)?.before {
                Some(last) if last.time > time => false,
                Some(last) if last.at == self.point.at.0 => true,
                _ => self.record.finished_at <= time,
            };
            let is_at_once = is_made && next.at > self.point.at.0;
            return Ok(if is_at_once { Verdict::Alone } else { Verdict::No(Why::Before) });
        };
        if last.at <= self.point.at.0 {
            return Ok(Verdict::Alone);
        }
        Ok(self.to((timeline_at(self.legs, Lsn(last.at)), Lsn(last.at)), Some(last), clock))
    }

    fn to(
        &self,
        end: (TimelineId, Lsn),
        last: Option<LogMark>,
        clock: Option<crate::finding::Finding>,
    ) -> Verdict {
        let (timeline, lsn) = end;
        let stretches = self.lineage.stretches(self.legs, self.point.at, lsn).into_iter();
        let log = stretches.map(|stretch| LogRange {
            timeline: stretch.timeline,
            from: stretch.from,
            to: stretch.to,
            bytes: stretch.to - stretch.from,
        });
        let reached = Reached {
            time: last.as_ref().map_or(self.point.made_at, |last| last.time),
            position: Some(self.lineage.position(timeline, lsn).to_string()),
            last_transaction: None,
            stops_before: None,
        };
        let recovery = Recovery {
            lineage: self.name.to_owned(),
            segment_bytes: 1,
            own_to: self.point.at,
            timeline,
            target: self.request.target.clone(),
            exclusive: self.request.stop.exclusive,
            action: self.request.stop.action,
            to: lsn,
            stop: None,
            last,
        };
        Verdict::Log(Box::new(Way { recovery, log: log.collect(), reached, clock }))
    }
}

/// The timeline on which a way passes a position.
fn timeline_at(legs: &[Leg], lsn: Lsn) -> TimelineId {
    let leg = legs.iter().find(|leg| leg.to.is_none_or(|switch| lsn <= switch)).or(legs.last());
    leg.map_or(TimelineId(1), |leg| leg.timeline)
}

/// What only the log of PostgreSQL has.
fn not_for_streams(request: &RestoreRequest) -> Option<Refusal> {
    let (target, instance) = (&request.target, &request.instance);
    let foreign = match target {
        RecoveryTarget::Lsn(_) | RecoveryTarget::Xid(_) | RecoveryTarget::Name(_) => {
            Some(format!("{target} is a target of PostgreSQL, and {instance} is Redis"))
        }
        _ => None,
    };
    let exclusive = request.stop.exclusive && !matches!(target, RecoveryTarget::Time(_));
    let option = match request.stop {
        _ if exclusive => Some("--exclusive"),
        stop if stop.timeline != TargetTimeline::Latest => Some("--target-timeline"),
        stop if stop.action != TargetAction::Promote => Some("--target-action"),
        _ => None,
    };
    let message = foreign.or(option.map(|option| format!("{option} is not for {target} of Redis")))?;
    let hint = "`--to` takes latest, immediate, a time such as 2026-05-03T14:30:00Z, or offset:12345";
    Some(Refusal::new(ErrorKind::Invalid, message, vec![hint.to_owned()]))
}

#[cfg(test)]
mod tests;

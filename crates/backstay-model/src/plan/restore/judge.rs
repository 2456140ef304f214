//! Whether one base reaches the target, with the log that follows it.
//!
//! Everything is decided by positions: where the replay from this base would stop, and
//! whether that lies behind the base's end and before the end of the log. Times are those
//! of the server, read from the log; a base's own time, which is of another clock, counts
//! only where the log says nothing.

use jiff::{SignedDuration, Timestamp};

use super::log::{BaseLog, KnownLog, LineageLog, LogQuestion, Sought, Stretch};
use super::{EndOfTransaction, LogRange, Reached, Recovery, Refusal, RestoreRequest, clock};
use crate::error::ErrorKind;
use crate::finding::Finding;
use crate::log::history::{Leg, reachable};
use crate::log::{LogMark, LogMarkKind, LogSpan};
use crate::lsn::{Lsn, TimelineId};
use crate::position::Position;
use crate::record::{BackupRecord, EngineKind};
use crate::target::{RecoveryTarget, TargetAction, TargetTimeline};

/// A clock of ours that is wrong by more than this is found out elsewhere. Bases that ended
/// so long behind a target are not looked at any closer.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_hours(1);

pub(super) enum Verdict {
    /// It ends there: nothing but its own log is replayed.
    Alone,
    /// With log behind it.
    Log(Box<Way>),
    No(Why),
    /// Of no base, whichever is tried.
    Refused(Refusal),
}

/// How a replay gets to the target.
pub(super) struct Way {
    pub recovery: Recovery,
    pub log: Vec<LogRange>,
    pub reached: Reached,
    /// Times in the log that are not what a person takes them for.
    pub clock: Option<Finding>,
}

/// Why a base does not reach the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    NoLog,
    /// The target lies before the end of this base.
    Before,
    /// It is not on the way to the timeline, or there is no such timeline.
    Apart {
        reason: String,
    },
    /// The target lies behind what can be replayed from here.
    Behind {
        end: Position,
        last: Option<LogMark>,
        hole_to: Option<Position>,
        is_hole: bool,
        /// Why there is one, where somebody decided that.
        gap: Option<String>,
    },
}

/// The verdict, or what must be known first.
pub(super) fn judge(
    request: &RestoreRequest,
    record: &BackupRecord,
    log: &KnownLog,
) -> Result<Verdict, Box<LogQuestion>> {
    if record.engine == EngineKind::Redis {
        return super::stream::judge(request, record, log);
    }
    if let RecoveryTarget::Offset(_) = request.target {
        return Ok(Verdict::Refused(offset_of_a_stream(request)));
    }
    let ends_somewhere = matches!(request.target, RecoveryTarget::Latest | RecoveryTarget::Immediate);
    if request.stop.exclusive && ends_somewhere {
        return Ok(Verdict::Refused(nothing_to_leave_out(request)));
    }
    let verdict = with_log(request, record, log)?;
    let timeline = record.stop_position.as_ref().and_then(Position::timeline);
    Ok(match (&verdict, request.stop.timeline) {
        (Verdict::Alone, _) if request.stop.action == TargetAction::Pause => {
            Verdict::Refused(no_pause_at_the_end(request))
        }
        (Verdict::Alone, TargetTimeline::Number(number)) if timeline != Some(number) => {
            let reason = format!("backup {} ends before timeline {number} begins", record.id);
            Verdict::No(Why::Apart { reason })
        }
        _ => verdict,
    })
}

fn with_log(
    request: &RestoreRequest,
    record: &BackupRecord,
    log: &KnownLog,
) -> Result<Verdict, Box<LogQuestion>> {
    let alone = |why: Why| match super::reach::ends_at(record, &request.target) {
        true => Verdict::Alone,
        false => Verdict::No(why),
    };
    let (start, stop) = (lsn(&record.start_position), lsn(&record.stop_position));
    let timeline = record.stop_position.as_ref().and_then(Position::timeline);
    let known = log.bases.get(&record.id).and_then(|base| Some((base, log.lineages.get(&base.lineage)?)));
    let (Some((base, lineage)), Some(start), Some(stop), Some(timeline)) = (known, start, stop, timeline)
    else {
        return Ok(alone(Why::NoLog));
    };
    if request.target == RecoveryTarget::Immediate {
        return Ok(Verdict::Alone);
    }
    let legs = match legs(request, lineage, base, (timeline, stop)) {
        Ok(legs) => legs,
        Err(reason) => return Ok(Verdict::No(Why::Apart { reason })),
    };
    let Some(first) = legs.first().copied() else { return Ok(alone(Why::NoLog)) };
    let along = lineage.along(&legs);
    let Some(reach) = reachable(&legs, &along) else { return Ok(alone(Why::NoLog)) };
    let candidate = Candidate { request, record, log, lineage, base, legs: &legs, start, stop };
    let there = (reach.timeline, reach.lsn);
    let hole_to = along
        .get(&reach.timeline)
        .and_then(|there| there.spans().iter().map(|span| Lsn(span.start)).find(|start| *start > reach.lsn));
    let missing = LogSpan { start: reach.lsn.0, end: hole_to.map_or(reach.lsn.0 + 1, |to| to.0) };
    let gap = lineage.gap(reach.timeline, missing).filter(|_| reach.stopped_by_hole);
    let behind = |last: Option<LogMark>| Why::Behind {
        end: Position::Wal { timeline: reach.timeline, lsn: reach.lsn },
        last,
        hole_to: hole_to.map(|lsn| Position::Wal { timeline: reach.timeline, lsn }),
        is_hole: reach.stopped_by_hole,
        gap: gap.map(ToString::to_string),
    };
    let is_empty = reach.timeline == first.timeline && reach.lsn <= first.from;
    match &request.target {
        RecoveryTarget::Latest if reach.stopped_by_hole => {
            Ok(Verdict::No(behind(candidate.last_to(reach.lsn)?)))
        }
        RecoveryTarget::Latest if is_empty => Ok(Verdict::Alone),
        RecoveryTarget::Latest if request.stop.action == TargetAction::Pause => {
            Ok(Verdict::Refused(no_pause_at_the_end(request)))
        }
        RecoveryTarget::Latest => {
            let last = candidate.last_to(reach.lsn)?;
            Ok(candidate.way(there, None, last))
        }
        RecoveryTarget::Lsn(wanted) if *wanted < stop => Ok(alone(Why::Before)),
        RecoveryTarget::Lsn(wanted) if *wanted >= reach.lsn || is_empty => {
            Ok(alone(behind(candidate.last_to(reach.lsn)?)))
        }
        RecoveryTarget::Lsn(wanted) => {
            let last = candidate.last_to(*wanted)?;
            Ok(candidate.way((timeline_at(&legs, *wanted), *wanted), None, last))
        }
        RecoveryTarget::Time(time) => candidate.time(*time, there, alone, behind),
        RecoveryTarget::Xid(xid) => {
            // The log numbers transactions with 32 bits, and starts again after four billion.
            let sought = Sought::Transaction(*xid as u32);
            candidate.one(sought, there, behind)
        }
        RecoveryTarget::Name(name) => candidate.one(Sought::Name(name.clone()), there, behind),
        RecoveryTarget::Immediate | RecoveryTarget::Offset(_) => Ok(Verdict::Alone),
    }
}

/// The way from the end of a base to the timeline that was asked for.
fn legs(
    request: &RestoreRequest,
    lineage: &LineageLog,
    base: &BaseLog,
    end: (TimelineId, Lsn),
) -> Result<Vec<Leg>, String> {
    let to = |target: TimelineId| lineage.way(base, end, target);
    let newest = lineage.timelines.keys().chain(lineage.histories.keys()).max().copied();
    let (target, legs) = match request.stop.timeline {
        TargetTimeline::Current => (end.0, to(end.0)),
        TargetTimeline::Latest => {
            let newest = newest.unwrap_or(end.0).max(end.0);
            (newest, to(newest))
        }
        TargetTimeline::Number(number) => {
            let is_known = number == end.0
                || lineage.timelines.contains_key(&number)
                || lineage.histories.contains_key(&number);
            if !is_known {
                return Err(format!("no timeline {number} is archived"));
            }
            (number, to(number))
        }
    };
    legs.ok_or_else(|| match lineage.histories.contains_key(&target) || target.0 == 1 {
        true => format!("timeline {target} did not come from {}@{}, where it ended", end.0, end.1),
        false => format!("the history of timeline {target} is not archived"),
    })
}

struct Candidate<'a> {
    request: &'a RestoreRequest,
    record: &'a BackupRecord,
    log: &'a KnownLog,
    lineage: &'a LineageLog,
    base: &'a BaseLog,
    legs: &'a [Leg],
    start: Lsn,
    stop: Lsn,
}

type Asked<T> = Result<T, Box<LogQuestion>>;

impl Candidate<'_> {
    fn ask(&self, stretches: Vec<Stretch>, sought: Sought) -> Asked<super::log::Sighting> {
        let question = LogQuestion { lineage: self.base.lineage.clone(), stretches, sought };
        self.log.ask(question).cloned()
    }

    /// The last transaction that ended up to there.
    fn last_to(&self, to: Lsn) -> Asked<Option<LogMark>> {
        let stretches = self.lineage.stretches(self.legs, self.start, to);
        Ok(self.ask(stretches, Sought::Last)?.before)
    }

    fn time(
        &self,
        time: Timestamp,
        end: (TimelineId, Lsn),
        alone: impl Fn(Why) -> Verdict,
        behind: impl Fn(Option<LogMark>) -> Why,
    ) -> Asked<Verdict> {
        let ended = self.record.finished_at;
        if ended.duration_since(time) > CLOCKS_DIFFER {
            return Ok(Verdict::No(Why::Before));
        }
        let time = in_microseconds(time);
        let exclusive = self.request.stop.exclusive;
        let stretches = self.lineage.stretches(self.legs, self.start, end.1);
        let seen = self.ask(stretches, Sought::Time { time, exclusive })?;
        let clock = clock::doubt(self.request, self.record, self.stop, &seen);
        let Some(stop) = seen.stop else { return Ok(alone(behind(seen.before))) };
        // The server itself says that it had passed the end of the base by then; else our
        // clock does.
        let is_behind = seen.before.as_ref().is_some_and(|before| before.at > self.stop.0) || ended <= time;
        // A server that meets it before it is consistent opens there, later than asked.
        if stop.at <= self.stop.0 || !is_behind || self.holds_later(time)? {
            return Ok(alone(Why::Before));
        }
        let at = (timeline_at(self.legs, Lsn(stop.at)), Lsn(stop.at));
        Ok(match self.way(at, Some(stop), seen.before) {
            Verdict::Log(way) => Verdict::Log(Box::new(Way { clock, ..*way })),
            other => other,
        })
    }

    /// Whether the log says that the base has transactions that ended later than this: a
    /// clock of ours that is slow would not.
    fn holds_later(&self, time: Timestamp) -> Asked<bool> {
        let Some(first) = self.legs.first() else { return Ok(false) };
        let before = Stretch { timeline: first.timeline, from: Lsn(0), to: self.start };
        let last = self.ask(vec![before], Sought::Last)?.before;
        Ok(last.is_some_and(|last| last.time > time))
    }

    /// A transaction or a name.
    fn one(
        &self,
        sought: Sought,
        end: (TimelineId, Lsn),
        behind: impl Fn(Option<LogMark>) -> Why,
    ) -> Asked<Verdict> {
        let stretches = self.lineage.stretches(self.legs, self.start, end.1);
        let seen = self.ask(stretches, sought)?;
        let Some(stop) = seen.stop else { return Ok(Verdict::No(behind(seen.before))) };
        if let Some(again) = &seen.again {
            return Ok(Verdict::Refused(twice(self.request, &stop, again)));
        }
        if let LogMarkKind::Abort { transaction } = stop.kind {
            return Ok(Verdict::Refused(rolled_back(self.request, transaction, &stop)));
        }
        if stop.at <= self.stop.0 {
            return Ok(Verdict::No(Why::Before));
        }
        Ok(self.way((timeline_at(self.legs, Lsn(stop.at)), Lsn(stop.at)), Some(stop), seen.before))
    }

    fn way(&self, end: (TimelineId, Lsn), stop: Option<LogMark>, before: Option<LogMark>) -> Verdict {
        let is_time = matches!(self.request.target, RecoveryTarget::Time(_));
        // What replay stops at is part of it, unless it stops before that.
        let is_last_in = |mark: &LogMark| {
            matches!(mark.kind, LogMarkKind::Commit { .. }) && !is_time && !self.request.stop.exclusive
        };
        let last = stop.clone().filter(is_last_in).or(before);
        let (timeline, lsn) = end;
        let target = self.legs.last().map_or(timeline, |leg| leg.timeline);
        // Short of the switch, the log of the way ends: what follows it is not archived.
        let follows = if self.request.target == RecoveryTarget::Latest { timeline } else { target };
        let own_to = self.legs.first().map_or(self.stop, |first| first.from);
        let log = self.lineage.stretches(self.legs, self.stop, lsn).into_iter();
        let log = log.map(|stretch| LogRange {
            timeline: stretch.timeline,
            from: stretch.from,
            to: stretch.to,
            bytes: stretch.to - stretch.from,
        });
        let time = last.as_ref().map_or(self.record.finished_at, |last| last.time);
        let position = Some(Position::Wal { timeline, lsn }.to_string());
        let last_there = last.clone().filter(|last| last.at > self.start.0);
        let reached = Reached {
            time,
            position,
            last_transaction: last_there.as_ref().and_then(EndOfTransaction::of),
            stops_before: stop
                .as_ref()
                .filter(|stop| last.as_ref() != Some(*stop))
                .and_then(EndOfTransaction::of),
        };
        let recovery = Recovery {
            lineage: self.base.lineage.clone(),
            segment_bytes: self.base.segment_bytes,
            own_to,
            timeline: follows,
            target: self.request.target.clone(),
            exclusive: self.request.stop.exclusive,
            action: self.request.stop.action,
            to: lsn,
            stop,
            last: last_there,
        };
        Verdict::Log(Box::new(Way { recovery, log: log.collect(), reached, clock: None }))
    }
}

fn lsn(position: &Option<Position>) -> Option<Lsn> {
    position.as_ref().and_then(Position::lsn)
}

/// PostgreSQL counts no finer.
pub(super) fn in_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// The timeline on which a way passes a position.
fn timeline_at(legs: &[Leg], lsn: Lsn) -> TimelineId {
    let leg = legs.iter().find(|leg| leg.to.is_none_or(|switch| lsn <= switch)).or(legs.last());
    leg.map_or(TimelineId(1), |leg| leg.timeline)
}

fn no_pause_at_the_end(request: &RestoreRequest) -> Refusal {
    Refusal::new(
        ErrorKind::Invalid,
        "a server pauses at a point within the log: at the end of it, or of a backup, it opens".to_owned(),
        vec![format!(
            "leave `--target-action` out, or name a point with `--to`: `backstay status {}` shows what there is",
            request.instance
        )],
    )
}

fn offset_of_a_stream(request: &RestoreRequest) -> Refusal {
    Refusal::new(
        ErrorKind::Invalid,
        format!("{} is a target of Redis, and {} is PostgreSQL", request.target, request.instance),
        vec!["`--to` takes latest, immediate, a time such as 2026-05-03T14:30:00Z, lsn:0/3000028, xid:1234 or name:before-deploy".to_owned()],
    )
}

fn nothing_to_leave_out(request: &RestoreRequest) -> Refusal {
    Refusal::new(
        ErrorKind::Invalid,
        format!("nothing can be left out at {}: it names no transaction", request.target),
        vec!["`--exclusive` goes with a time, lsn:… or xid:… in `--to`".to_owned()],
    )
}

fn twice(request: &RestoreRequest, first: &LogMark, again: &LogMark) -> Refusal {
    let (target, instance) = (&request.target, &request.instance);
    let place = |mark: &LogMark| format!("{} at {}", Lsn(mark.at), mark.time);
    let hint = |mark: &LogMark, which: &str| {
        format!("`backstay restore {instance} --to lsn:{} --exclusive` restores the {which}", Lsn(mark.at))
    };
    Refusal::new(
        ErrorKind::Invalid,
        format!("{target} of {instance} is in the log more than once: {} and {}", place(first), place(again)),
        vec![hint(first, "first"), hint(again, "second")],
    )
}

fn rolled_back(request: &RestoreRequest, transaction: u64, mark: &LogMark) -> Refusal {
    let instance = &request.instance;
    Refusal::new(
        ErrorKind::Unrecoverable,
        format!(
            "transaction {transaction} of {instance} never committed: it was rolled back at {}",
            mark.time
        ),
        vec![format!(
            "`backstay restore {instance} --to lsn:{} --exclusive` restores the state at that moment",
            Lsn(mark.at)
        )],
    )
}

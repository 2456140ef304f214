//! What is known of the archived log when a restore is planned.
//!
//! Which bytes there are is known from the start. What is marked in them (the ends of
//! transactions, with their times) is not, for nobody reads a month of log to plan a
//! restore of yesterday: a plan that must know asks a [`LogQuestion`], is given the
//! answer, and is made again.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::id::BackupId;
use crate::log::history::{self, History, Leg};
use crate::log::{Coverage, LogGap, LogMark, LogMarkKind, LogSpan};
use crate::lsn::{Lsn, TimelineId};
use crate::position::Position;

/// All timelines of one lineage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineageLog {
    pub timelines: BTreeMap<TimelineId, Coverage>,
    pub histories: BTreeMap<TimelineId, History>,
    /// Why some of it is missing, as far as that was decided.
    pub gaps: Vec<LogGap>,
    /// How servers call each, where the log is a stream of Redis.
    pub replication_ids: BTreeMap<TimelineId, String>,
}

/// Whose log a base is replayed with, and in which pieces it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseLog {
    pub lineage: String,
    pub segment_bytes: u64,
    /// The segment in which the base ends is complete in it: the server began another one.
    pub ends_its_segment: bool,
}

/// The log of an instance, and what was found in it so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownLog {
    pub lineages: BTreeMap<String, LineageLog>,
    pub bases: BTreeMap<BackupId, BaseLog>,
    /// Where bases stand whose records name their log otherwise, and that begin and end at once.
    pub points: BTreeMap<BackupId, BasePoint>,
    pub answers: Vec<(LogQuestion, Sighting)>,
}

/// A base that is the state at one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasePoint {
    pub timeline: TimelineId,
    pub at: Lsn,
    /// It was the state then, by the clock of the server.
    pub made_at: Timestamp,
}

impl KnownLog {
    /// What was found, or the question that is to be answered first.
    pub(super) fn ask(&self, question: LogQuestion) -> Result<&Sighting, Box<LogQuestion>> {
        let answer = self.answers.iter().find(|(asked, _)| *asked == question);
        answer.map(|(_, sighting)| sighting).ok_or_else(|| Box::new(question))
    }
}

impl LineageLog {
    /// A position in the words of its engine.
    pub fn position(&self, timeline: TimelineId, lsn: Lsn) -> Position {
        match self.replication_ids.get(&timeline) {
            Some(id) => Position::Stream { replication_id: id.clone(), offset: lsn.0 },
            None => Position::Wal { timeline, lsn },
        }
    }

    /// The way from the end of a base to a timeline; `None` where none is known. It begins where
    /// the log of the archive is needed, which is not the end of the base itself: a server asks
    /// for whole segments.
    pub(crate) fn way(&self, base: &BaseLog, end: (TimelineId, Lsn), to: TimelineId) -> Option<Vec<Leg>> {
        let from_scratch = History::default();
        let history = self.histories.get(&to).unwrap_or(&from_scratch);
        let mut legs = history::way(end, to, history)?;
        if let Some(first) = legs.first_mut() {
            let segment = base.segment_bytes.max(1);
            let begin = Lsn(end.1.0 / segment * segment);
            let next = Lsn(end.1.0.div_ceil(segment) * segment);
            // Where another timeline went on in the segment of the end, that one's is needed.
            let is_left_within = first.to.is_some_and(|switch| switch < next);
            first.from = if base.ends_its_segment && !is_left_within { next } else { begin };
        }
        Some(legs)
    }

    /// Why log is missing there, where somebody decided that.
    pub fn gap(&self, timeline: TimelineId, missing: LogSpan) -> Option<&LogGap> {
        // Between the note and the moment at which the log went on, the server wrote more.
        let goes_on_missing = |gap: &LogGap| {
            let between = LogSpan::new(gap.from.0, missing.start);
            let there = self.timelines.get(&timeline);
            gap.timeline == timeline
                && gap.from.0 <= missing.start
                && between
                    .is_none_or(|between| there.is_none_or(|there| there.missing(&between) == [between]))
        };
        // A timeline between that did not lead to where the server was lost nothing with it.
        let is_on_the_way = |gap: &LogGap| {
            gap.timeline == timeline
                || gap.server_timeline == timeline
                || self
                    .histories
                    .get(&gap.server_timeline)
                    .is_none_or(|way| way.ancestors.iter().any(|(ancestor, _)| *ancestor == timeline))
        };
        let mut newest_first = self.gaps.iter().rev();
        newest_first.find(|gap| is_on_the_way(gap) && gap.explains(timeline, missing) || goes_on_missing(gap))
    }

    /// What there is for each leg of a way. A segment in which a timeline changed is kept
    /// under the new name as well, from its beginning: what lies before the switch there is
    /// what the old timeline has.
    pub(crate) fn along(&self, legs: &[Leg]) -> BTreeMap<TimelineId, Coverage> {
        let of = |timeline: TimelineId| {
            self.timelines.get(&timeline).map(|there| there.spans().to_vec()).unwrap_or_default()
        };
        let mut along = BTreeMap::new();
        for (number, leg) in legs.iter().enumerate() {
            let mut spans = of(leg.timeline);
            if let (Some(switch), Some(next)) = (leg.to, legs.get(number + 1)) {
                let copied = of(next.timeline);
                spans.extend(
                    copied.iter().filter_map(|span| LogSpan::new(span.start, span.end.min(switch.0))),
                );
            }
            along.insert(leg.timeline, spans.into_iter().collect());
        }
        along
    }

    /// The log of a way from a position on, to where it is followed; each stretch in the
    /// timeline that has it.
    pub(crate) fn stretches(&self, legs: &[Leg], from: Lsn, to: Lsn) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        let mut at = from;
        for leg in legs {
            let end = leg.to.map_or(to, |switch| switch.min(to));
            let own = self.timelines.get(&leg.timeline).and_then(|there| there.reach(at.0));
            // What the old one lacks before the switch, the new one has.
            let until = if leg.to.is_some() { own.map_or(at, |own| Lsn(own).min(end)) } else { end };
            if at < until {
                stretches.push(Stretch { timeline: leg.timeline, from: at, to: until });
                at = until;
            }
        }
        stretches
    }
}

/// A part of the log of one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub timeline: TimelineId,
    /// Marks at this position belong to what came before.
    pub from: Lsn,
    pub to: Lsn,
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// The end of the last transaction.
    Last,
    /// The first transaction that ended later, or, where it is exclusive, at that time.
    Time {
        time: Timestamp,
        exclusive: bool,
    },
    /// As the log numbers it: with 32 bits.
    Transaction(u32),
    Name(String),
}

impl Sought {
    fn is(&self, mark: &LogMark) -> bool {
        match (self, &mark.kind) {
            (Sought::Last, _) => false,
            (Sought::Time { time, exclusive }, _) => {
                is_end(mark) && if *exclusive { mark.time >= *time } else { mark.time > *time }
            }
            (
                Sought::Transaction(wanted),
                LogMarkKind::Commit { transaction } | LogMarkKind::Abort { transaction },
            ) => u64::from(*wanted) == *transaction,
            (Sought::Name(wanted), LogMarkKind::Point { name }) => wanted == name,
            (Sought::Transaction(_) | Sought::Name(_), _) => false,
        }
    }
}

/// Whether a transaction ended there.
fn is_end(mark: &LogMark) -> bool {
    !matches!(mark.kind, LogMarkKind::Point { .. })
}

/// What a plan must know of the marks in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuestion {
    pub lineage: String,
    /// In the order of a replay. Not all of their bytes need be there.
    pub stretches: Vec<Stretch>,
    pub sought: Sought,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    pub stop: Option<LogMark>,
    /// The same once more.
    pub again: Option<LogMark>,
    /// The last end of a transaction before the stop; before the end, where there is none.
    pub before: Option<LogMark>,
    /// How the times go back before the stop, the last time that they do: among the marks that were
    /// looked at, which are those before it.
    #[serde(default)]
    pub set_back: Option<SetBack>,
}

/// Transactions that ended later, with earlier times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetBack {
    pub from: Timestamp,
    pub to: Timestamp,
}

/// A server notes the time of a transaction a moment before its end is in the log, so that those that end
/// together come in any order.
pub(super) const USUAL_DISORDER: SignedDuration = SignedDuration::from_secs(10);

/// Finds the answer to a question while marks go by.
#[derive(Debug, Clone)]
pub struct Search {
    sought: Sought,
    sighting: Sighting,
    /// The latest time so far, and up to where.
    latest: Option<Timestamp>,
    compared_to: u64,
}

impl Search {
    pub fn new(sought: Sought) -> Search {
        Search { sought, sighting: Sighting::default(), latest: None, compared_to: 0 }
    }

    /// In the order of a replay.
    pub fn see(&mut self, mark: &LogMark) {
        let found = self.sought.is(mark);
        if self.sighting.stop.is_none() && !found && is_end(mark) {
            self.compare(mark.at, mark.time, mark.time);
        }
        match (&self.sighting.stop, found) {
            (None, true) => self.sighting.stop = Some(mark.clone()),
            (None, false) if is_end(mark) => self.sighting.before = Some(mark.clone()),
            (Some(_), true) if self.sighting.again.is_none() => self.sighting.again = Some(mark.clone()),
            _ => {}
        }
    }

    /// Marks up to here, of which none [may be within](Self::may_be_within), and which nobody
    /// looks at: the earliest and the latest of their times.
    pub fn pass(&mut self, to: u64, first: Timestamp, last: Timestamp) {
        if self.sighting.stop.is_none() {
            self.compare(to, first, last);
        }
    }

    /// Compares times with those before them. What two objects hold comes twice.
    fn compare(&mut self, at: u64, first: Timestamp, last: Timestamp) {
        if !matches!(self.sought, Sought::Time { .. }) || at <= self.compared_to {
            return;
        }
        self.compared_to = at;
        if let Some(latest) = self.latest.filter(|latest| latest.duration_since(first) > USUAL_DISORDER) {
            self.sighting.set_back = Some(SetBack { from: latest, to: first });
            // What comes now is compared with the clock as it is now.
            self.latest = None;
        }
        self.latest = self.latest.max(Some(last));
    }

    /// Nothing that follows changes the answer.
    pub fn is_over(&self) -> bool {
        matches!(self.sought, Sought::Time { .. }) && self.sighting.stop.is_some()
    }

    /// Whether what is looked for may be among marks whose times are these.
    pub fn may_be_within(&self, first: Timestamp, last: Timestamp) -> bool {
        match &self.sought {
            Sought::Last => false,
            Sought::Time { time, .. } => last >= *time,
            Sought::Transaction(_) | Sought::Name(_) => first <= last,
        }
    }

    pub fn end(self) -> Sighting {
        self.sighting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::history::way;

    fn ended(at: u64, second: i64) -> LogMark {
        let time = Timestamp::from_second(second).unwrap();
        LogMark { at, time, kind: LogMarkKind::Commit { transaction: at } }
    }

    fn search(sought: Sought, marks: &[LogMark]) -> Sighting {
        let mut search = Search::new(sought);
        for mark in marks {
            if !search.is_over() {
                search.see(mark);
            }
        }
        search.end()
    }

    #[test]
    fn a_time_is_passed_by_the_first_transaction_that_ended_later_as_postgresql_sees_it() {
        let marks = [ended(10, 1), ended(20, 2), ended(30, 2), ended(40, 3), ended(50, 2)];
        let at = |second, exclusive| {
            let time = Timestamp::from_second(second).unwrap();
            let seen = search(Sought::Time { time, exclusive }, &marks);
            (seen.stop.map(|mark| mark.at), seen.before.map(|mark| mark.at))
        };
        assert_eq!(at(2, false), (Some(40), Some(30)));
        assert_eq!(at(2, true), (Some(20), Some(10)));
        assert_eq!(at(0, false), (Some(10), None));
        assert_eq!(at(3, false), (None, Some(50)));
        assert_eq!(at(3, true), (Some(40), Some(30)));
    }

    #[test]
    fn a_clock_that_was_set_back_is_noticed_up_to_the_stop_and_the_usual_disorder_is_not() {
        let time = |second| Timestamp::from_second(second).unwrap();
        let seen = |until, marks: &[LogMark]| {
            let found = search(Sought::Time { time: time(until), exclusive: false }, marks).set_back;
            found.map(|set| (set.from.as_second(), set.to.as_second()))
        };
        let ordinary = [ended(10, 100), ended(20, 95), ended(30, 104), ended(40, 200)];
        assert_eq!(seen(150, &ordinary), None);
        let set_back = [ended(10, 100), ended(20, 30), ended(30, 31), ended(40, 200), ended(50, 20)];
        assert_eq!(seen(150, &set_back), Some((100, 30)));
        assert_eq!(seen(99, &set_back), None, "it stops before that");
        assert_eq!(seen(300, &set_back), Some((200, 20)));
        // What is passed over counts as well.
        let mut passes = Search::new(Sought::Time { time: time(150), exclusive: false });
        for (to, first, last) in [(10, 100, 110), (20, 105, 112), (30, 30, 31), (30, 100, 110)] {
            passes.pass(to, time(first), time(last));
        }
        let set_back = passes.clone().end().set_back.unwrap();
        assert_eq!((set_back.from.as_second(), set_back.to.as_second()), (112, 30));
        passes.see(&ended(40, 200));
        passes.pass(50, time(1), time(1));
        assert_eq!(passes.end().set_back.unwrap().to.as_second(), 30, "it stops before that");
        // The beginning of a segment comes again under the name of the next timeline.
        let twice = [ended(10, 100), ended(20, 130), ended(10, 100), ended(20, 130), ended(30, 140)];
        assert_eq!(seen(139, &twice), None);
    }

    #[test]
    fn a_name_that_comes_twice_is_seen_twice_and_is_no_end_of_a_transaction() {
        let point = |at| LogMark {
            at,
            time: Timestamp::from_second(1).unwrap(),
            kind: LogMarkKind::Point { name: "deploy".to_owned() },
        };
        let seen =
            search(Sought::Name("deploy".to_owned()), &[ended(10, 1), point(20), ended(30, 1), point(40)]);
        assert_eq!(
            (seen.stop, seen.again, seen.before),
            (Some(point(20)), Some(point(40)), Some(ended(10, 1)))
        );
        let seen = search(Sought::Transaction(30), &[ended(10, 1), point(20), ended(30, 1)]);
        assert_eq!((seen.stop, seen.again), (Some(ended(30, 1)), None));
        assert_eq!(search(Sought::Last, &[ended(10, 1), point(20)]).before, Some(ended(10, 1)));
    }

    #[test]
    fn a_gap_goes_on_until_log_is_there_again() {
        let gap = |from, server| LogGap {
            timeline: TimelineId(1),
            from: Lsn(from),
            server_timeline: TimelineId(1),
            server: Lsn(server),
            at: Timestamp::UNIX_EPOCH,
            reason: crate::log::GapReason::SlotLost,
            slot: "s".to_owned(),
            held_bytes: None,
            max_lag_bytes: None,
        };
        let spans = [LogSpan { start: 0, end: 100 }, LogSpan { start: 400, end: 500 }];
        let log = LineageLog {
            timelines: [(TimelineId(1), spans.into_iter().collect::<Coverage>())].into(),
            gaps: vec![gap(100, 200)],
            ..LineageLog::default()
        };
        let found = |timeline, start, end| log.gap(TimelineId(timeline), LogSpan { start, end }).is_some();
        // A base lies in it, and what was missing behind that was written after the note.
        assert!(found(1, 100, 250) && found(1, 300, 400));
        assert!(!found(1, 500, 600) && !found(1, 50, 100) && !found(2, 300, 400));
    }

    #[test]
    fn what_the_old_timeline_lacks_before_the_switch_the_new_one_has() {
        let history = History::parse("1 0/350 x\n").unwrap();
        let legs = way((TimelineId(1), Lsn(0x100)), TimelineId(2), &history).unwrap();
        let span = |start, end| LogSpan::new(start, end).into_iter().collect::<Coverage>();
        let log = LineageLog {
            timelines: [(TimelineId(1), span(0, 0x300)), (TimelineId(2), span(0x300, 0x900))].into(),
            ..LineageLog::default()
        };
        let reached = crate::log::history::reachable(&legs, &log.along(&legs)).unwrap();
        assert_eq!(
            (reached.timeline, reached.lsn, reached.stopped_by_hole),
            (TimelineId(2), Lsn(0x900), false)
        );
        let stretch =
            |timeline, from, to| Stretch { timeline: TimelineId(timeline), from: Lsn(from), to: Lsn(to) };
        assert_eq!(
            log.stretches(&legs, Lsn(0x180), Lsn(0x800)),
            [stretch(1, 0x180, 0x300), stretch(2, 0x300, 0x800)]
        );
        assert_eq!(log.stretches(&legs, Lsn(0x180), Lsn(0x200)), [stretch(1, 0x180, 0x200)]);
    }
}

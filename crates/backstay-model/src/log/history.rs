//! Where a timeline of PostgreSQL came from, and how far a replay gets on the way to it.
//!
//! A `.history` file names every ancestor with the position at which the next one went on.
//! A replay follows that way: each ancestor to its switch, the last one as far as its log
//! goes. What an ancestor wrote behind its switch belongs to an abandoned life.

use std::collections::BTreeMap;

use crate::log::Coverage;
use crate::lsn::{Lsn, TimelineId};

/// What a `.history` file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The ancestors, oldest first, each with where the next one goes on.
    pub ancestors: Vec<(TimelineId, Lsn)>,
}

/// A line that is none of a history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the history is not a timeline and a position: {text:?}")]
pub struct HistoryError {
    pub line: usize,
    pub text: String,
}

impl History {
    /// As PostgreSQL reads it: blanks between the fields, the reason is for people, lines
    /// that are empty or begin with `#` are passed over, and timelines ascend.
    pub fn parse(text: &str) -> Result<History, HistoryError> {
        let mut history = History::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || HistoryError { line: number + 1, text: line.chars().take(80).collect() };
            let mut fields = line.split_whitespace();
            let timeline =
                fields.next().and_then(|field| field.parse().ok()).map(TimelineId).ok_or_else(wrong)?;
            let switch: Lsn = fields.next().and_then(|field| field.parse().ok()).ok_or_else(wrong)?;
            if history.ancestors.last().is_some_and(|(before, _)| *before >= timeline) {
                return Err(wrong());
            }
            history.ancestors.push((timeline, switch));
        }
        Ok(history)
    }
}

/// One timeline on the way of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    pub timeline: TimelineId,
    pub from: Lsn,
    /// Where the next timeline goes on; `None` for the last one.
    pub to: Option<Lsn>,
}

/// The way from a position on a timeline to another timeline. `None` when that one did not
/// come from there: its ancestors do not hold the timeline, or left it before the position.
pub fn way(from: (TimelineId, Lsn), to: TimelineId, history: &History) -> Option<Vec<Leg>> {
    let (timeline, position) = from;
    if timeline == to {
        return Some(vec![Leg { timeline, from: position, to: None }]);
    }
    let first = history.ancestors.iter().position(|(ancestor, _)| *ancestor == timeline)?;
    let mut legs = Vec::new();
    let mut at = position;
    for (ancestor, switch) in &history.ancestors[first..] {
        if *switch < at {
            return None;
        }
        legs.push(Leg { timeline: *ancestor, from: at, to: Some(*switch) });
        at = *switch;
    }
    legs.push(Leg { timeline: to, from: at, to: None });
    Some(legs)
}

/// How far a replay gets, and what keeps it from going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reachable {
    pub timeline: TimelineId,
    pub lsn: Lsn,
    /// Log of this way lies behind it and cannot be reached: a hole.
    pub stopped_by_hole: bool,
}

/// Follows the way as far as the log is there. The base brings its own log to where the way
/// begins, so nothing of it is needed before.
pub fn reachable(legs: &[Leg], log: &BTreeMap<TimelineId, Coverage>) -> Option<Reachable> {
    let first = legs.first()?;
    let mut reached = Reachable { timeline: first.timeline, lsn: first.from, stopped_by_hole: false };
    for (number, leg) in legs.iter().enumerate() {
        let there = log.get(&leg.timeline);
        let reach = there.and_then(|there| there.reach(leg.from.0)).unwrap_or(leg.from.0);
        let end = leg.to.map_or(reach, |to| reach.min(to.0));
        reached = Reachable { timeline: leg.timeline, lsn: Lsn(end), stopped_by_hole: false };
        match leg.to {
            Some(to) if end >= to.0 => {}
            // Short of the switch, everything that follows is behind a hole.
            Some(_) => {
                let of_later = legs[number + 1..]
                    .iter()
                    .any(|later| log.get(&later.timeline).is_some_and(|there| there.end().is_some()));
                let of_this = there.and_then(Coverage::end).is_some_and(|last| last > end);
                reached.stopped_by_hole = of_later || of_this;
                return Some(reached);
            }
            None => {
                reached.stopped_by_hole = there.and_then(Coverage::end).is_some_and(|last| last > end);
            }
        }
    }
    Some(reached)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::LogSpan;

    fn history(lines: &str) -> History {
        History::parse(lines).unwrap()
    }

    fn log(spans: &[(u32, u64, u64)]) -> BTreeMap<TimelineId, Coverage> {
        let timelines: std::collections::BTreeSet<u32> =
            spans.iter().map(|(timeline, _, _)| *timeline).collect();
        let of = |timeline: u32| {
            let own = spans.iter().filter(move |(own, _, _)| *own == timeline);
            own.filter_map(|(_, start, end)| LogSpan::new(*start, *end)).collect::<Coverage>()
        };
        timelines.into_iter().map(|timeline| (TimelineId(timeline), of(timeline))).collect()
    }

    #[test]
    fn a_history_is_read_as_postgresql_writes_it() {
        let text =
            "1\t0/3000000\tno recovery target specified\n\n# by hand\n2\t0/5000A28\tbefore 2026-11-21\n";
        let ancestors = vec![(TimelineId(1), Lsn(0x3000000)), (TimelineId(2), Lsn(0x5000a28))];
        assert_eq!(history(text).ancestors, ancestors);
        assert_eq!(History::parse(""), Ok(History::default()));
        for wrong in ["x\t0/1\t", "1", "1 0/x", "2 0/1\n1 0/2", "1 0/1\n1 0/2"] {
            assert!(History::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_way_leads_over_every_switch_and_not_from_an_abandoned_end() {
        let history = history("1 0/300 x\n2 0/500 x\n");
        let leg = |timeline, from, to: Option<u64>| Leg {
            timeline: TimelineId(timeline),
            from: Lsn(from),
            to: to.map(Lsn),
        };
        let from = |timeline, lsn| (TimelineId(timeline), Lsn(lsn));
        assert_eq!(
            way(from(1, 0x100), TimelineId(3), &history),
            Some(vec![leg(1, 0x100, Some(0x300)), leg(2, 0x300, Some(0x500)), leg(3, 0x500, None)])
        );
        assert_eq!(
            way(from(2, 0x500), TimelineId(3), &history),
            Some(vec![leg(2, 0x500, Some(0x500)), leg(3, 0x500, None)])
        );
        // It was taken behind the place at which the other life began.
        assert_eq!(way(from(1, 0x301), TimelineId(3), &history), None);
        assert_eq!(way(from(4, 0x100), TimelineId(3), &history), None);
        assert_eq!(way(from(3, 0x900), TimelineId(3), &history), Some(vec![leg(3, 0x900, None)]));
    }

    #[test]
    fn a_replay_gets_to_the_first_hole_on_its_way_and_past_none() {
        let history = history("1 0/300 x\n2 0/500 x\n");
        let from = (TimelineId(1), Lsn(0x100));
        let legs = way(from, TimelineId(3), &history).unwrap();
        let reach = |spans: &[(u32, u64, u64)]| {
            let reached = reachable(&legs, &log(spans)).unwrap();
            (reached.timeline.0, reached.lsn.0, reached.stopped_by_hole)
        };
        assert_eq!(reach(&[(1, 0, 0x400), (2, 0x200, 0x600), (3, 0x400, 0x900)]), (3, 0x900, false));
        assert_eq!(
            reach(&[(1, 0, 0x400), (2, 0x200, 0x600), (3, 0x400, 0x700), (3, 0x800, 0x900)]),
            (3, 0x700, true)
        );
        assert_eq!(reach(&[(1, 0, 0x400), (2, 0x200, 0x450), (3, 0x400, 0x900)]), (2, 0x450, true));
        assert_eq!(reach(&[(1, 0, 0x280)]), (1, 0x280, false));
        assert_eq!(reach(&[(1, 0x200, 0x400)]), (1, 0x100, true));
        assert_eq!(reach(&[]), (1, 0x100, false));
    }
}

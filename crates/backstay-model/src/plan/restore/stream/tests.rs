use super::super::log::{BaseLog, Search};
use super::super::tests::{record, request};
use super::super::{MeasuredRates, RestorePlan, plan_recovery};
use super::*;
use crate::Position;
use crate::log::history::History;
use crate::log::{Coverage, LogMarkKind};
use crate::record::EngineKind;
use crate::summary::BackupMarks;

const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";

fn time(text: &str) -> Timestamp {
    format!("2026-11-21T{text}Z").parse().unwrap()
}

/// One of the ten seconds, in which a hundred bytes come.
fn mark(second: u64) -> LogMark {
    LogMark { at: second * 100, time: time(&format!("10:00:{second:02}")), kind: LogMarkKind::Instant }
}

/// Bases at these offsets, each made at its second, and the stream of these spans.
fn plan(bases: &[u64], spans: &[(u32, u64, u64)], to: &str) -> RestorePlan {
    let backups: Vec<_> = bases
        .iter()
        .enumerate()
        .map(|(number, offset)| {
            let position = Position::Stream { replication_id: FIRST.to_owned(), offset: *offset };
            let record = BackupRecord {
                engine: EngineKind::Redis,
                start_position: Some(position.clone()),
                stop_position: Some(position),
                sequence: number as u64,
                // Sending it took a while.
                finished_at: time("10:00:55"),
                ..record(number as u8 + 1)
            };
            (record, BackupMarks::default())
        })
        .collect();
    let mut lineage = LineageLog::default();
    for timeline in [1, 2] {
        let own = spans.iter().filter(|(of, ..)| *of == timeline);
        let there: Coverage = own.filter_map(|(_, from, to)| LogSpan::new(*from, *to)).collect();
        if !there.spans().is_empty() {
            lineage.timelines.insert(TimelineId(timeline), there);
        }
    }
    lineage.replication_ids.insert(TimelineId(1), FIRST.to_owned());
    if lineage.timelines.contains_key(&TimelineId(2)) {
        lineage.replication_ids.insert(TimelineId(2), SECOND.to_owned());
        lineage.histories.insert(TimelineId(2), History::parse("1\t0/258\tx\n").unwrap());
    }
    let base = BaseLog { lineage: FIRST.to_owned(), segment_bytes: 1, ends_its_segment: true };
    let mut known = KnownLog { lineages: [(FIRST.to_owned(), lineage)].into(), ..KnownLog::default() };
    for ((record, _), offset) in backups.iter().zip(bases) {
        known.bases.insert(record.id.clone(), base.clone());
        let made_at = mark(offset / 100).time;
        let point = BasePoint { timeline: TimelineId(1), at: Lsn(*offset), made_at };
        known.points.insert(record.id.clone(), point);
    }
    for _ in 0..20 {
        match plan_recovery(&request(to), &backups, &[], &known, MeasuredRates::default()) {
            Ok(plan) => return plan,
            Err(question) => {
                let mut search = Search::new(question.sought.clone());
                for stretch in &question.stretches {
                    let there = &known.lineages[FIRST].timelines[&stretch.timeline];
                    let marks = (0..60).map(mark).filter(|mark| {
                        stretch.from.0 < mark.at
                            && mark.at <= stretch.to.0
                            && there.around(mark.at - 1).is_some()
                    });
                    for mark in marks {
                        if !search.is_over() {
                            search.see(&mark);
                        }
                    }
                }
                known.answers.push((*question, search.end()));
            }
        }
    }
    panic!("it asks without an end");
}

/// The base by its number, where the stream is cut, and which of it is replayed.
fn planned(bases: &[u64], spans: &[(u32, u64, u64)], to: &str) -> (usize, u64, Vec<(u32, u64, u64)>) {
    let plan = plan(bases, spans, to);
    let base = plan.base.unwrap_or_else(|| panic!("{to}: {:?}", plan.refusals));
    let number = (0..bases.len()).find(|number| record(*number as u8 + 1).id == base).unwrap();
    let to = plan.recovery.map_or(bases[number], |recovery| recovery.to.0);
    (number, to, plan.log.iter().map(|range| (range.timeline.0, range.from.0, range.to.0)).collect())
}

#[test]
fn a_time_is_the_last_mark_that_is_not_later_from_the_newest_base_before_it() {
    let spans = [(1, 100, 1000)];
    let at = |to: &str| planned(&[100, 500], &spans, to);
    assert_eq!(at("2026-11-21T10:00:03Z"), (0, 300, vec![(1, 100, 300)]));
    assert_eq!(at("2026-11-21T10:00:03.9Z"), (0, 300, vec![(1, 100, 300)]));
    assert_eq!(at("2026-11-21T10:00:04.5Z"), (0, 400, vec![(1, 100, 400)]));
    // The snapshot itself, before anything had come behind it.
    assert_eq!(at("2026-11-21T10:00:05.5Z"), (1, 500, vec![]));
    assert_eq!(at("2026-11-21T10:00:08Z"), (1, 800, vec![(1, 500, 800)]));
    assert_eq!(at("2026-11-21T10:00:10Z"), (1, 1000, vec![(1, 500, 1000)]));
    assert_eq!(at("latest"), (1, 1000, vec![(1, 500, 1000)]));
    assert_eq!(at("immediate"), (1, 500, vec![]));
    assert_eq!(at("offset:500"), (1, 500, vec![]));
    assert_eq!(at("offset:499"), (0, 499, vec![(1, 100, 499)]));
    assert_eq!(at("offset:1000"), (1, 1000, vec![(1, 500, 1000)]));
    for (to, words) in [
        ("2026-11-21T10:00:10.1Z", "the log ends at 11111111@1000"),
        ("2026-11-21T10:00:00.5Z", "before the end of the first backup"),
        ("offset:99", "before the end of the first backup"),
        ("offset:1001", "the log ends at 11111111@1000"),
        ("lsn:0/100", "a target of PostgreSQL"),
        ("xid:7", "a target of PostgreSQL"),
    ] {
        let plan = plan(&[100, 500], &spans, to);
        assert!(plan.refusals[0].message.contains(words), "{to}: {:?}", plan.refusals);
    }
}

#[test]
fn a_hole_is_refused_with_what_lies_on_both_sides() {
    let spans = [(1, 100, 400), (1, 600, 1000)];
    let refused = plan(&[100, 700], &spans, "2026-11-21T10:00:06Z");
    let message = &refused.refusals[0].message;
    assert!(message.contains("the stream has a hole, from 11111111@400 to 600"), "{message}");
    assert!(message.contains("10:00:04Z (400) and 2026-11-21T10:00:55Z (700)"), "{message}");
    assert!(refused.refusals[0].hints[0].contains("--to offset:400"), "{:?}", refused.refusals);
    assert_eq!(planned(&[100, 700], &spans, "latest"), (1, 1000, vec![(1, 700, 1000)]));
    assert_eq!(planned(&[100, 700], &spans, "2026-11-21T10:00:03Z"), (0, 300, vec![(1, 100, 300)]));
    let refused = plan(&[100], &spans, "latest");
    assert!(refused.refusals[0].message.contains("has a hole"), "{:?}", refused.refusals);
}

#[test]
fn another_server_that_took_over_goes_on_in_the_same_offsets() {
    // The first was received further than the second knew.
    let spans = [(1, 100, 600), (2, 600, 900)];
    assert_eq!(planned(&[100], &spans, "latest"), (0, 900, vec![(1, 100, 600), (2, 600, 900)]));
    let plan = plan(&[100], &spans, "2026-11-21T10:00:07Z");
    assert_eq!(plan.reached.unwrap().position.unwrap(), "22222222@700");
}

#[test]
fn without_a_stream_only_the_snapshot_is_there() {
    assert_eq!(planned(&[100], &[], "latest"), (0, 100, vec![]));
    let plan = plan(&[100], &[], "2026-11-21T10:00:30Z");
    assert!(plan.refusals[0].message.contains("cannot be reached"), "{:?}", plan.refusals);
}

#[test]
fn a_snapshot_is_the_state_of_a_time_only_where_a_mark_at_its_place_says_so() {
    let spans = [(1, 100, 1000)];
    let at = |to: &str| planned(&[100, 450], &spans, to);
    // Between two marks nobody knows whether it was made by then: the clock of its server may be any.
    assert_eq!(at("2026-11-21T10:00:04.5Z"), (0, 400, vec![(1, 100, 400)]));
    // What came before it came later.
    assert_eq!(at("2026-11-21T10:00:03.5Z"), (0, 300, vec![(1, 100, 300)]));
    assert_eq!(at("2026-11-21T10:00:05.5Z"), (1, 500, vec![(1, 450, 500)]));
    // A hole before it proves nothing, either.
    let refused = plan(&[100, 450], &[(1, 100, 300), (1, 450, 1000)], "2026-11-21T10:00:04.5Z");
    assert!(refused.refusals[0].message.contains("has a hole"), "{:?}", refused.refusals);
}

//! Plans with a log: every minute of the day is a segment, and transactions end on minutes.

use super::*;
use crate::log::history::History;
use crate::log::{Coverage, LogMark, LogMarkKind, LogSpan};
use crate::target::TargetTimeline;

const LINEAGE: &str = "65F0A1B2C3D4E5F6";
const SEGMENT: u64 = 16 << 20;

fn at(hour: u8, minute: u8) -> u64 {
    (u64::from(hour) * 60 + u64::from(minute)) * SEGMENT
}

/// A transaction that ended then, numbered by its minute.
fn ended(hour: u8, minute: u8) -> LogMark {
    let time = format!("2026-11-21T{hour:02}:{minute:02}:00Z").parse().unwrap();
    let transaction = u64::from(hour) * 60 + u64::from(minute);
    LogMark { at: at(hour, minute) + 0x100, time, kind: LogMarkKind::Commit { transaction } }
}

/// The backup that ran for the first half of this hour.
fn base(hour: u8) -> (BackupRecord, BackupMarks) {
    let position = |lsn: u64| Some(Position::Wal { timeline: TimelineId(1), lsn: Lsn(lsn) });
    let record = BackupRecord {
        start_position: position(at(hour, 0) + 0x28),
        stop_position: position(at(hour, 30) + 0x28),
        sequence: u64::from(hour),
        ..record(hour)
    };
    (record, BackupMarks::default())
}

/// A world to plan in: what is stored, and what is marked in it.
struct World {
    backups: Vec<(BackupRecord, BackupMarks)>,
    log: KnownLog,
    marks: Vec<(u32, LogMark)>,
}

impl World {
    /// `spans` are a timeline with its first and its last position.
    fn new(bases: &[u8], spans: &[(u32, u64, u64)], marks: &[(u32, LogMark)]) -> World {
        let backups: Vec<_> = bases.iter().map(|hour| base(*hour)).collect();
        let mut lineage = LineageLog::default();
        for timeline in spans.iter().map(|(timeline, _, _)| *timeline) {
            let own = spans.iter().filter(|(of, _, _)| *of == timeline);
            let coverage: Coverage = own.filter_map(|(_, from, to)| LogSpan::new(*from, *to)).collect();
            lineage.timelines.insert(TimelineId(timeline), coverage);
        }
        let of = BaseLog { lineage: LINEAGE.to_owned(), segment_bytes: SEGMENT, ends_its_segment: true };
        let log = KnownLog {
            lineages: [(LINEAGE.to_owned(), lineage)].into(),
            bases: backups.iter().map(|(record, _)| (record.id.clone(), of.clone())).collect(),
            ..KnownLog::default()
        };
        World { backups, log, marks: marks.to_vec() }
    }

    fn with_history(mut self, timeline: u32, text: &str) -> World {
        let lineage = self.log.lineages.get_mut(LINEAGE).unwrap();
        lineage.histories.insert(TimelineId(timeline), History::parse(text).unwrap());
        self
    }

    /// Makes the plan, and answers what it asks from the marks whose bytes are there.
    fn plan(&self, request: &RestoreRequest) -> RestorePlan {
        let mut log = self.log.clone();
        for _ in 0..50 {
            match plan_recovery(request, &self.backups, &[], &log, MeasuredRates::default()) {
                Ok(plan) => return plan,
                Err(question) => {
                    let answer = self.answer(&question);
                    log.answers.push((*question, answer));
                }
            }
        }
        panic!("it asks without an end");
    }

    fn answer(&self, question: &LogQuestion) -> Sighting {
        let mut search = Search::new(question.sought.clone());
        for stretch in &question.stretches {
            let there = &self.log.lineages[&question.lineage].timelines[&stretch.timeline];
            for (timeline, mark) in &self.marks {
                let is_there = there.around(mark.at - 1).is_some();
                let is_in = stretch.from.0 < mark.at && mark.at <= stretch.to.0;
                if *timeline == stretch.timeline.0 && is_there && is_in && !search.is_over() {
                    search.see(mark);
                }
            }
        }
        search.end()
    }
}

fn every_ten_minutes(timeline: u32, from: u8, to: u8) -> Vec<(u32, LogMark)> {
    (from..to).flat_map(|hour| (0..6).map(move |ten| (timeline, ended(hour, ten * 10 + 5)))).collect()
}

/// Two bases, at one and at three, and the log from one to five.
fn world() -> World {
    World::new(&[1, 3], &[(1, at(1, 0), at(5, 0))], &every_ten_minutes(1, 1, 5))
}

fn exclusive(target: &str) -> RestoreRequest {
    let mut request = request(target);
    request.stop.exclusive = true;
    request
}

#[test]
fn the_base_is_the_newest_that_ended_before_the_target() {
    for (target, hour) in [
        ("2026-11-21T04:00:00Z", 3),
        ("2026-11-21T03:40:00Z", 3),
        // It runs, or ended after it.
        ("2026-11-21T03:10:00Z", 1),
        ("2026-11-21T02:59:00Z", 1),
        ("2026-11-21T01:36:00Z", 1),
        ("xid:255", 3),
        ("xid:185", 1),
        ("xid:125", 1),
        ("latest", 3),
    ] {
        let plan = world().plan(&request(target));
        assert_eq!(plan.base, Some(base(hour).0.id), "{target}: {:?}", plan.refusals);
        let recovery = plan.recovery.unwrap();
        assert!(recovery.to > base(hour).0.stop_position.unwrap().lsn().unwrap(), "{target}");
        assert_eq!(recovery.own_to, Lsn(at(hour, 31)), "the base brings its last segment");
        assert!(!plan.log.is_empty() && plan.log.iter().all(|range| range.from < range.to), "{target}");
    }
}

#[test]
fn what_is_reached_is_the_last_transaction_that_comes_back() {
    let reached = |request: RestoreRequest| {
        let plan = world().plan(&request);
        let last = plan.recovery.unwrap().last.unwrap();
        assert_eq!(plan.reached.unwrap().time, last.time);
        last.time.to_string()
    };
    assert_eq!(reached(request("2026-11-21T04:15:00Z")), "2026-11-21T04:15:00Z");
    assert_eq!(reached(exclusive("2026-11-21T04:15:00Z")), "2026-11-21T04:05:00Z");
    assert_eq!(reached(request("2026-11-21T04:19:00Z")), "2026-11-21T04:15:00Z");
    assert_eq!(reached(request("xid:255")), "2026-11-21T04:15:00Z");
    assert_eq!(reached(exclusive("xid:255")), "2026-11-21T04:05:00Z");
    assert_eq!(reached(request("latest")), "2026-11-21T04:55:00Z");
    let position = Lsn(ended(4, 15).at + 8);
    assert_eq!(reached(request(&format!("lsn:{position}"))), "2026-11-21T04:15:00Z");
}

#[test]
fn a_target_that_is_not_in_the_log_is_refused_with_what_is_nearest() {
    for (target, words) in [
        ("2026-11-21T01:20:00Z", &["before the end of the first", "nearest is 2026-11-21T01:30:00Z"][..]),
        ("2026-11-20T00:00:00Z", &["before the end of the first", "nearest is 2026-11-21T01:30:00Z"]),
        ("lsn:0/28", &["before the end of the first"]),
        ("2026-11-21T04:55:00Z", &["the log ends at", "nearest is 2026-11-21T04:55:00Z"]),
        ("2026-11-22T00:00:00Z", &["the log ends at", "nearest is 2026-11-21T04:55:00Z"]),
        ("lsn:F/0", &["the log ends at"]),
        ("xid:9999", &["no such transaction"]),
        ("name:nowhere", &["no such point"]),
    ] {
        let plan = world().plan(&request(target));
        assert_eq!((plan.base, plan.refusals.len()), (None, 1), "{target}");
        let refusal = &plan.refusals[0];
        assert_eq!(refusal.kind, ErrorKind::Unrecoverable);
        for word in words {
            assert!(refusal.message.contains(word), "no {word:?} in {}", refusal.message);
        }
        assert!(refusal.hints.iter().all(|hint| hint.contains('`') && !hint.ends_with('.')), "{refusal:?}");
    }
}

#[test]
fn no_plan_crosses_a_hole_and_both_sides_are_named() {
    let spans = [(1, at(1, 0), at(2, 0)), (1, at(2, 20), at(5, 0))];
    let world = World::new(&[1, 3], &spans, &every_ten_minutes(1, 1, 5));
    let behind = format!("lsn:{}", Lsn(at(2, 40)));
    for target in ["2026-11-21T02:10:00Z", "2026-11-21T02:40:00Z", "xid:155", &behind] {
        let plan = world.plan(&request(target));
        let refusal = plan.refusals.first().unwrap_or_else(|| panic!("{target}: {plan:?}"));
        for word in ["a hole on timeline 1", "2026-11-21T01:55:00Z", "2026-11-21T03:30:00Z"] {
            assert!(refusal.message.contains(word), "{target}: no {word:?} in {}", refusal.message);
        }
        assert!(refusal.hints[0].contains("--to xid:115"), "{:?}", refusal.hints);
        assert!(refusal.hints[1].contains(base(3).0.id.as_str()), "{:?}", refusal.hints);
    }
    assert_eq!(world.plan(&request("2026-11-21T01:50:00Z")).base, Some(base(1).0.id));
    assert_eq!(world.plan(&request("latest")).base, Some(base(3).0.id));
    let old = RestoreRequest { backup: Some(base(1).0.id), ..request("latest") };
    assert!(world.plan(&old).refusals[0].message.contains("a hole"));
}

#[test]
fn a_hole_that_the_base_fills_itself_is_none() {
    // The archive begins in the segment behind the end of the base.
    let world = World::new(&[1], &[(1, at(1, 31), at(3, 0))], &every_ten_minutes(1, 1, 3));
    assert_eq!(world.plan(&request("latest")).recovery.unwrap().to, Lsn(at(3, 0)));
    let late = World::new(&[1], &[(1, at(1, 32), at(3, 0))], &every_ten_minutes(1, 1, 3));
    assert!(late.plan(&request("latest")).refusals[0].message.contains("a hole"));
    assert_eq!(late.plan(&request("immediate")).recovery, None);
}

#[test]
fn without_log_behind_it_a_base_is_restored_alone() {
    let world = World::new(&[1, 3], &[(1, at(1, 0), at(2, 0))], &every_ten_minutes(1, 1, 2));
    let plan = world.plan(&request("latest"));
    assert_eq!((plan.base, plan.recovery, plan.log.len()), (Some(base(3).0.id), None, 0));
}

#[test]
fn each_life_behind_a_promotion_is_reached_by_its_timeline() {
    let switch = Lsn(at(2, 0) + 0x80);
    let mut marks = every_ten_minutes(1, 1, 3);
    marks.extend(every_ten_minutes(2, 2, 4));
    let spans = [(1, at(1, 0), at(3, 0)), (2, at(2, 0), at(4, 0))];
    let world = World::new(&[1], &spans, &marks).with_history(2, &format!("1\t{switch}\tx\n"));
    let plan = |target: &str, timeline: TargetTimeline| {
        let mut request = request(target);
        request.stop.timeline = timeline;
        world.plan(&request)
    };
    let latest = plan("latest", TargetTimeline::Latest);
    let timelines: Vec<u32> = latest.log.iter().map(|range| range.timeline.0).collect();
    assert_eq!((timelines, latest.recovery.unwrap().timeline), (vec![1, 2], TimelineId(2)));
    for timeline in [TargetTimeline::Current, TargetTimeline::Number(TimelineId(1))] {
        let old = plan("latest", timeline).recovery.unwrap();
        assert_eq!((old.timeline, old.to), (TimelineId(1), Lsn(at(3, 0))));
    }
    let refused = plan("latest", TargetTimeline::Number(TimelineId(7)));
    assert!(refused.refusals[0].message.contains("no timeline 7"), "{:?}", refused.refusals);
    // One that was taken behind the place where the other life began.
    let behind = World::new(&[2], &spans, &marks).with_history(2, &format!("1\t{switch}\tx\n"));
    let refused = behind.plan(&request("latest"));
    assert!(refused.refusals[0].message.contains("did not come from 1@"), "{:?}", refused.refusals);
    let mut old = request("latest");
    old.stop.timeline = TargetTimeline::Current;
    assert_eq!(behind.plan(&old).base, Some(base(2).0.id));
}

#[test]
fn a_slow_clock_of_ours_brings_no_base_that_holds_more_than_was_asked_for() {
    let mut world = world();
    // Taken at three by the server's clock, and at one by ours.
    world.backups[1].0.finished_at = "2026-11-21T01:40:00Z".parse().unwrap();
    let plan = world.plan(&request("2026-11-21T02:40:00Z"));
    assert_eq!(plan.base, Some(base(1).0.id), "{:?}", plan.refusals);
}

#[test]
fn what_can_mean_two_things_or_nothing_is_refused() {
    let point =
        |minute| LogMark { kind: LogMarkKind::Point { name: "deploy".to_owned() }, ..ended(4, minute) };
    let mut marks = every_ten_minutes(1, 1, 5);
    let aborted = LogMark { kind: LogMarkKind::Abort { transaction: 900 }, ..ended(4, 50) };
    marks.extend([(1, point(20)), (1, point(40)), (1, aborted)]);
    let world = World::new(&[1, 3], &[(1, at(1, 0), at(5, 0))], &marks);
    let refusal = |request: &RestoreRequest| world.plan(request).refusals[0].clone();
    let twice = refusal(&request("name:deploy"));
    assert!(twice.kind == ErrorKind::Invalid && twice.message.contains("more than once"), "{twice:?}");
    assert_eq!(twice.hints.len(), 2);
    assert!(refusal(&request("xid:900")).message.contains("never committed"));
    for target in ["latest", "immediate"] {
        let mut pause = request(target);
        pause.stop.action = TargetAction::Pause;
        assert_eq!(refusal(&pause).kind, ErrorKind::Invalid, "{target}");
        assert_eq!(refusal(&exclusive(target)).kind, ErrorKind::Invalid, "{target}");
    }
}

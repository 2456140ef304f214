use super::*;
use crate::log::Coverage;
use crate::log::history::History;
use crate::plan::restore::BaseLog;

type Base = (&'static str, u32, u64);

/// What goes, as `lineage/timeline: to reason`. Bases `(lineage, timeline, end)` began 8 bytes
/// before their end, and segments have 0x10 bytes.
fn goes(log: &[(&str, u32, u64, u64)], histories: &[(&str, u32, &str)], bases: &[Base]) -> Vec<String> {
    let mut known = KnownLog::default();
    for (lineage, timeline, start, end) in log {
        let of = known.lineages.entry((*lineage).to_owned()).or_default();
        let there = of.timelines.entry(TimelineId(*timeline)).or_default();
        *there = there.spans().iter().copied().chain(LogSpan::new(*start, *end)).collect::<Coverage>();
    }
    for (lineage, timeline, text) in histories {
        let of = known.lineages.entry((*lineage).to_owned()).or_default();
        of.histories.insert(TimelineId(*timeline), History::parse(text).unwrap());
    }
    let stored: Vec<(BackupId, BaseLog, TimelineId, u64)> = bases
        .iter()
        .enumerate()
        .map(|(number, (lineage, timeline, end))| {
            let id = format!("20261121T0243{number:02}Z-7q3f").parse().unwrap();
            let log = BaseLog { lineage: (*lineage).to_owned(), segment_bytes: 0x10, ends_its_segment: true };
            (id, log, TimelineId(*timeline), *end)
        })
        .collect();
    let bases: Vec<LoggedBase<'_>> = stored
        .iter()
        .map(|(id, log, timeline, end)| LoggedBase {
            id,
            log,
            start: Lsn(end.saturating_sub(8)),
            end: (*timeline, Lsn(*end)),
        })
        .collect();
    let told = plan_log(&known, &bases).into_iter().map(|expiry| {
        let why = match &expiry.reason {
            LogReason::BeforeOldest(id) => {
                format!("before {}", bases.iter().position(|base| base.id == id).unwrap())
            }
            LogReason::OffTheWay => "off the way".to_owned(),
            LogReason::OtherCluster => "other cluster".to_owned(),
            LogReason::Superseded => "superseded".to_owned(),
        };
        let to = expiry.to.map_or("all".to_owned(), |to| format!("{:x}", to.0));
        format!("{}/{}: {to} {why}", expiry.lineage, expiry.timeline)
    });
    told.collect()
}

#[test]
fn what_is_older_than_the_oldest_base_goes_and_nothing_behind_it() {
    let log = [("A", 1, 0x100, 0x500)];
    assert_eq!(goes(&log, &[], &[("A", 1, 0x248), ("A", 1, 0x348)]), ["A/1: 240 before 0"]);
    assert_eq!(goes(&log, &[], &[("A", 1, 0x348), ("A", 1, 0x248)]), ["A/1: 240 before 1"]);
    // From where it began, which may be a segment earlier than where it ended.
    assert_eq!(goes(&log, &[], &[("A", 1, 0x244)]), ["A/1: 230 before 0"]);
    // The log is not there yet behind the only base: what is before it is of no use.
    assert_eq!(goes(&log, &[], &[("A", 1, 0x608)]), ["A/1: 600 before 0"]);
}

#[test]
fn without_any_base_nothing_goes() {
    assert!(goes(&[("A", 1, 0x100, 0x500)], &[], &[]).is_empty());
}

#[test]
fn a_base_with_a_hole_behind_it_keeps_only_its_own_log() {
    let log = [("A", 1, 0x100, 0x240), ("A", 1, 0x280, 0x500)];
    assert_eq!(goes(&log, &[], &[("A", 1, 0x248), ("A", 1, 0x348)]), ["A/1: 340 before 1"]);
    // Up to the hole it has some, and keeps it.
    assert_eq!(goes(&log, &[], &[("A", 1, 0x208), ("A", 1, 0x348)]), ["A/1: 200 before 0"]);
    // It is the only one: what lies behind the hole stays, should the hole be filled.
    assert!(goes(&log, &[], &[("A", 1, 0x248)]).is_empty());
}

#[test]
fn log_on_the_way_from_a_base_to_later_timelines_stays() {
    let log = [("A", 1, 0x100, 0x320), ("A", 2, 0x300, 0x500), ("A", 3, 0x4f0, 0x600)];
    let histories = [("A", 2, "1 0/308 x\n"), ("A", 3, "1 0/308 x\n2 0/4f8 x\n")];
    let of = |bases: &[Base]| goes(&log, &histories, bases);
    assert_eq!(of(&[("A", 1, 0x248)]), ["A/1: 240 before 0", "A/2: 300 before 0", "A/3: 4f0 before 0"]);
    // A base on the second: the first is of no use any more.
    assert_eq!(of(&[("A", 2, 0x408)]), ["A/1: all off the way", "A/2: 400 before 0", "A/3: 4f0 before 0"]);
    assert_eq!(of(&[("A", 3, 0x588)]), ["A/1: all off the way", "A/2: all off the way", "A/3: 580 before 0"]);
    // It ended behind the switch: an abandoned life, from which nothing leads to the others.
    assert_eq!(of(&[("A", 1, 0x318)]), ["A/1: 310 before 0", "A/2: all off the way"]);
}

#[test]
fn a_timeline_whose_history_is_not_known_stays() {
    let log = [("A", 2, 0x300, 0x500), ("A", 3, 0x4f0, 0x600)];
    assert_eq!(goes(&log, &[("A", 3, "2 0/4f8 x\n")], &[("A", 3, 0x588)]), ["A/3: 580 before 0"]);
}

#[test]
fn the_log_of_another_cluster_goes_with_its_last_base() {
    let log = [("A", 1, 0x100, 0x500), ("B", 1, 0x100, 0x200)];
    assert_eq!(
        goes(&log, &[], &[("A", 1, 0x248), ("B", 1, 0x128)]),
        ["A/1: 240 before 0", "B/1: 120 before 1"]
    );
    assert_eq!(goes(&log, &[], &[("B", 1, 0x128)]), ["A/1: all other cluster", "B/1: 120 before 0"]);
}

#[test]
fn small_objects_go_when_a_larger_one_holds_all_of_them() {
    let span = |start, end| LogSpan { start, end };
    let spans =
        [span(0, 16), span(0, 4), span(4, 16), span(12, 20), span(16, 20), span(30, 32), span(20, 24)];
    assert_eq!(superseded(&spans), [span(0, 4), span(4, 16), span(16, 20)]);
    assert!(superseded(&[span(0, 4), span(4, 8)]).is_empty());
}

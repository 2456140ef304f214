use super::*;

/// `(timeline, start, end)` of the bases, in segments of 0x10.
struct Case {
    lineage: LineageLog,
    bases: Vec<(BackupId, BaseLog, TimelineId, u64)>,
}

fn case(log: &[(u32, u64, u64)], histories: &[(u32, &str)], bases: &[(u32, u64)]) -> Case {
    let mut spans: BTreeMap<TimelineId, Vec<LogSpan>> = BTreeMap::new();
    for (timeline, start, end) in log {
        spans.entry(TimelineId(*timeline)).or_default().extend(LogSpan::new(*start, *end));
    }
    let lineage = LineageLog {
        timelines: spans
            .into_iter()
            .map(|(timeline, spans)| (timeline, spans.into_iter().collect()))
            .collect(),
        histories: histories
            .iter()
            .map(|(timeline, text)| (TimelineId(*timeline), History::parse(text).unwrap()))
            .collect(),
        gaps: Vec::new(),
        ..LineageLog::default()
    };
    let base = |(number, (timeline, end)): (usize, &(u32, u64))| {
        let id = format!("20261121T0243{number:02}Z-7q3f").parse().unwrap();
        let log = BaseLog { lineage: "A".to_owned(), segment_bytes: 0x10, ends_its_segment: true };
        (id, log, TimelineId(*timeline), *end)
    };
    Case { lineage, bases: bases.iter().enumerate().map(base).collect() }
}

impl Case {
    fn windows(&self) -> Windows {
        let bases: Vec<LoggedBase<'_>> = self
            .bases
            .iter()
            .map(|(id, log, timeline, end)| LoggedBase {
                id,
                log,
                start: Lsn(end.saturating_sub(8)),
                end: (*timeline, Lsn(*end)),
            })
            .collect();
        windows(&self.lineage, &bases)
    }

    /// `1: 108-300, 500-500; hole 300-500 again 2`, bases by their number.
    fn told(&self) -> Vec<String> {
        let found = self.windows();
        let number = |id: &Option<BackupId>| match id {
            Some(id) => self.bases.iter().position(|base| base.0 == *id).unwrap().to_string(),
            None => "-".to_owned(),
        };
        let windows = found
            .windows
            .iter()
            .map(|window| format!("{}: {:x}-{:x}", window.timeline, window.from.0, window.to.0));
        let holes = found.holes.iter().map(|hole| {
            let (last, again) = (number(&hole.last), number(&hole.again));
            format!("{}: no {:x}-{:x}, from {last} to {again}", hole.timeline, hole.span.start, hole.span.end)
        });
        windows.chain(holes).collect()
    }

    fn is_stopped(&self) -> Option<bool> {
        self.windows().newest.map(|newest| newest.stopped_by_hole)
    }
}

#[test]
fn without_log_only_the_ends_of_bases_are_reached_and_nothing_is_missing() {
    let case = case(&[], &[], &[(1, 0x108), (1, 0x208)]);
    assert_eq!(case.told(), ["1: 108-108", "1: 208-208"]);
    assert_eq!(case.is_stopped(), Some(false));
    assert_eq!(super::windows(&LineageLog::default(), &[]), Windows::default());
}

#[test]
fn log_without_a_hole_makes_one_window_of_all_bases() {
    let bases = [(1, 0x108), (1, 0x208)];
    let told = |log: &[(u32, u64, u64)]| case(log, &[], &bases).told();
    assert_eq!(told(&[(1, 0x100, 0x180), (1, 0x180, 0x345)]), ["1: 108-345"]);
    // Log before the first base is of no use, and no hole.
    assert_eq!(told(&[(1, 0x40, 0x345)]), ["1: 108-345"]);
    assert_eq!(told(&[(1, 0x40, 0x50), (1, 0x60, 0x345)]), ["1: 108-345"]);
    // A base brings the segment in which it ends; so far the archive need not have it.
    assert_eq!(told(&[(1, 0x110, 0x345)]), ["1: 108-345"]);
}

#[test]
fn a_hole_ends_a_window_until_a_base_behind_it() {
    let log = [(1, 0x100, 0x180), (1, 0x1a0, 0x345)];
    let before = case(&log, &[], &[(1, 0x108)]);
    assert_eq!(before.told(), ["1: 108-180", "1: no 180-1a0, from 0 to -"]);
    assert_eq!(before.is_stopped(), Some(true));
    let mended = case(&log, &[], &[(1, 0x108), (1, 0x208)]);
    assert_eq!(mended.told(), ["1: 108-180", "1: 208-345", "1: no 180-1a0, from 0 to 1"]);
    assert_eq!(mended.is_stopped(), Some(false));
    // One that ended within it parts it.
    let within = case(&log, &[], &[(1, 0x108), (1, 0x188), (1, 0x208)]);
    assert_eq!(
        within.told(),
        [
            "1: 108-180",
            "1: 188-188",
            "1: 208-345",
            "1: no 180-190, from 0 to 1",
            "1: no 190-1a0, from 1 to 2"
        ]
    );
}

#[test]
fn what_was_before_the_archive_began_is_a_hole_behind_the_last_base_alone() {
    let early = [(1, 0x108), (1, 0x208)];
    let behind = case(&[(1, 0x300, 0x345)], &[], &early);
    assert_eq!(behind.told(), ["1: 108-108", "1: 208-208", "1: no 210-300, from 1 to -"]);
    assert_eq!(behind.is_stopped(), Some(true));
}

#[test]
fn each_timeline_has_a_window_from_where_it_began() {
    let history = [(2, "1 0/300 x\n")];
    let bases = [(1, 0x108), (2, 0x408)];
    let told = |log: &[(u32, u64, u64)]| case(log, &history, &bases).told();
    // What the old timeline wrote behind the switch is another life, and can be reached.
    assert_eq!(told(&[(1, 0x100, 0x320), (2, 0x300, 0x545)]), ["1: 108-320", "2: 300-545"]);
    // The last segment of the old one is in the new one's.
    assert_eq!(told(&[(1, 0x100, 0x2f8), (2, 0x2f0, 0x545)]), ["1: 108-2f8", "2: 300-545"]);
    // Short of the switch there is a hole, and the new timeline begins with its base.
    assert_eq!(
        told(&[(1, 0x100, 0x280), (2, 0x300, 0x545)]),
        ["1: 108-280", "2: 408-545", "1: no 280-300, from 0 to 1"]
    );
    assert_eq!(
        told(&[(1, 0x100, 0x320), (2, 0x310, 0x545)]),
        ["1: 108-320", "2: 300-300", "2: 408-545", "2: no 300-310, from 0 to 1"]
    );
    // No log of the new one: the old one just ends.
    assert_eq!(told(&[(1, 0x100, 0x280)]), ["1: 108-280", "2: 408-408"]);
}

#[test]
fn without_its_history_nobody_gets_onto_a_timeline() {
    let case = case(&[(1, 0x100, 0x320), (2, 0x300, 0x545)], &[], &[(1, 0x108)]);
    assert_eq!(case.told(), ["1: 108-320"]);
    assert_eq!((case.is_stopped(), case.windows().newest_timeline), (None, Some(TimelineId(2))));
}

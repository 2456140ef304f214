use std::sync::{Arc, Mutex};

use super::super::super::STREAM_CUT_BYTES;
use super::super::keeper::SharedInstants;
use super::*;
use crate::archive::sealing::Marking;

fn line(end: u64, marks: &[(u64, i64)]) -> Line {
    let log = LogId { lineage: "a".repeat(40), timeline: "00000001".to_owned() };
    Line {
        log,
        replication_id: "a".repeat(40),
        reader: CommandReader::new(end, 3),
        marks: marks.to_vec(),
        witnesses: Vec::new(),
    }
}

#[test]
fn what_was_written_down_is_there_again_as_far_as_it_was_whole() {
    let place = tempfile::tempdir().unwrap();
    let mut instants = Instants::open(place.path()).unwrap();
    assert_eq!(instants.last(), None);
    let lines = [line(10, &[]), line(50, &[(20, 5), (45, 9)]), line(90, &[(90, 12)])];
    for line in &lines {
        instants.add(line.clone()).unwrap();
    }
    let log = &lines[0].log;
    drop(instants);
    let path = place.path().join(FILES[1]);
    assert!(!place.path().join(FILES[0]).exists());
    let written = fs::read(&path).unwrap();
    let written = &written[..written.iter().rposition(|byte| *byte == b'\n').unwrap() + 1];
    for cut in 0..written.len() {
        fs::write(&path, &written[..cut]).unwrap();
        let whole = written[..cut].iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(parse(&fs::read(&path).unwrap()).0, lines[..whole], "{cut}");
    }
    // One that rotted takes its own times along, and nothing else.
    let second = written.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut rotten = written.to_vec();
    rotten[second + 20] ^= 0x80;
    assert_eq!(parse(&rotten), (vec![lines[0].clone(), lines[2].clone()], written.len()));
    fs::write(&path, written).unwrap();
    // One that was begun and not written to its end.
    fs::write(place.path().join(FILES[0]), &written[..written.len() / 2]).unwrap();
    let instants = Instants::open(place.path()).unwrap();
    assert_eq!(instants.lines, lines);
    let at = |start, end| {
        let marks = instants.marks(log, LogSpan { start, end });
        marks.iter().map(|mark| (mark.at, mark.time.as_microsecond())).collect::<Vec<_>>()
    };
    assert_eq!((at(20, 90), at(10, 20)), (vec![(45, 9), (90, 12)], vec![(20, 5)]));
    let state = |from, at| instants.state_before(log, from, at).map(|(_, reader)| reader.at());
    assert_eq!((state(50, 50), state(10, 49), state(11, 49)), (Some(50), Some(10), None));
}

#[test]
fn what_follows_a_line_that_had_no_room_is_read_again() {
    let place = tempfile::tempdir().unwrap();
    let mut instants = Instants::open(place.path()).unwrap();
    let lines = [line(10, &[]), line(20, &[(15, 3)]), line(30, &[(25, 4)])];
    instants.add(lines[0].clone()).unwrap();
    // One that cannot be written to; then as much of the line as there was room for.
    let unwritable = File::open(place.path().join(FILES[1])).unwrap();
    let file = std::mem::replace(&mut instants.file, unwritable);
    assert!(instants.add(lines[1].clone()).is_err());
    instants.file = file;
    instants.file.write_all_at(&text_of(&lines[1]).as_bytes()[..20], instants.written).unwrap();
    for line in &lines[1..] {
        instants.add(line.clone()).unwrap();
    }
    drop(instants);
    assert_eq!(Instants::open(place.path()).unwrap().lines, lines);
}

/// What lies in the spool of the log of all lines here.
fn lying(start: u64, end: u64) -> [SpooledSpan; 1] {
    [SpooledSpan { log: line(0, &[]).log, span: LogSpan { start, end }, last_file: start, is_certain: true }]
}

#[test]
fn of_what_lies_there_the_times_stay_and_the_states_where_a_span_begins() {
    let cut = STREAM_CUT_BYTES;
    let witness = |offset| Witness { offset, databases: BTreeMap::new() };
    let mut lines: Vec<Line> =
        [(7, 0), (50, 50), (50, 0), (90, 80), (cut, cut), (cut + 9, cut + 9), (cut + 20, cut + 18)]
            .into_iter()
            .map(|(end, mark)| {
                let marks = [(mark, mark as i64)];
                Line {
                    witnesses: vec![witness(end), witness(end + 1)],
                    ..line(end, if mark == 0 { &[] } else { &marks })
                }
            })
            .collect();
    // Another stretch, as behind a hole, and another log.
    lines.extend([line(3 * cut + 5, &[]), line(3 * cut + 8, &[(3 * cut + 7, 9)])]);
    let other = LogId { timeline: "00000002".to_owned(), ..lines[0].log.clone() };
    lines.push(Line { log: other.clone(), ..line(4 * cut + 1, &[]) });
    let marks = |lines: &[Line]| lines.iter().flat_map(|line| line.marks.clone()).collect::<Vec<_>>();
    let before = marks(&lines);
    let spooled = [lying(7, cut + 20), lying(3 * cut + 5, 3 * cut + 8)].concat();
    joining::join(&mut lines, &spooled);
    assert_eq!(marks(&lines), before);
    let ends: Vec<u64> = lines.iter().map(Line::end).collect();
    assert_eq!(ends, [7, cut, 3 * cut + 5, 3 * cut + 8, 4 * cut + 1]);
    assert_eq!(lines[4].log, other);
    let offsets = |line: &Line| line.witnesses.iter().map(|one| one.offset).collect::<Vec<_>>();
    assert_eq!(offsets(&lines[1]), [90, 91, cut, cut + 1], "the newest of each");
}

fn as_written(reader: &CommandReader) -> serde_json::Value {
    serde_json::to_value(reader).unwrap()
}

/// A stream, cut into flushes wherever they fall: their lines, and all marks.
fn stream_of(flushes: u64, begun: u64) -> (Vec<u8>, Vec<Line>) {
    let mut bytes = Vec::new();
    let mut number = 0u64;
    while bytes.len() < flushes as usize * 200 {
        number += 1;
        let command = match number % 50 {
            7 => "*1\r\n$5\r\nMULTI\r\n".to_owned(),
            12 => "*1\r\n$4\r\nEXEC\r\n".to_owned(),
            30 => format!("*2\r\n$6\r\nSELECT\r\n$1\r\n{}\r\n", number % 9),
            _ => format!("*3\r\n$3\r\nSET\r\n$8\r\n{number:08}\r\n$12\r\nvalue\r\nvalue\r\n"),
        };
        bytes.extend_from_slice(command.as_bytes());
    }
    let mut reader = CommandReader::new(begun, 3);
    let mut lines = vec![Line { reader: reader.clone(), ..line(begun, &[]) }];
    let mut time = 1_700_000_000_000_000;
    let mut last = begun;
    for flush in bytes.chunks(200) {
        let mut marks = Vec::new();
        // As the keeper does, one ends at each cut.
        let to_cut = (STREAM_CUT_BYTES - reader.at() % STREAM_CUT_BYTES) as usize;
        for flush in [&flush[..to_cut.min(flush.len())], &flush[to_cut.min(flush.len())..]] {
            for came in flush.chunks(20) {
                reader.push(came).unwrap();
                time += 25_000;
                if reader.boundary() > last {
                    last = reader.boundary();
                    marks.push((last, time));
                }
            }
            if !flush.is_empty() {
                lines.push(Line { reader: reader.clone(), ..line(0, &std::mem::take(&mut marks)) });
            }
        }
    }
    (bytes, lines)
}

#[test]
fn the_lines_are_few_however_long_the_store_is_away_and_any_span_has_its_state_and_its_times() {
    // In memory: each line is waited for.
    let place = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "." }).unwrap();
    let begun = STREAM_CUT_BYTES - 1_000_017;
    let (bytes, lines) = stream_of(100_000, begun);
    let mut instants = Instants::open(place.path()).unwrap();
    let mut most = (0, 0);
    for (number, line) in lines.iter().enumerate() {
        instants.add(line.clone()).unwrap();
        if number % 256 == 0 {
            instants.forget(&lying(begun, line.end()));
        }
        most = (most.0.max(instants.lines.len()), most.1.max(instants.written));
    }
    assert!(most.0 < 50_000 && most.1 < 18 << 20, "{most:?}");
    instants.written = instants.grown;
    instants.forget(&lying(begun, lines.last().unwrap().end()));
    // The beginning, the cuts, and where it goes on.
    let cuts = lines.iter().filter(|line| line.end().is_multiple_of(STREAM_CUT_BYTES)).count();
    assert_eq!((instants.lines.len(), cuts), (2 + cuts, 3));
    drop(instants);

    let instants = Instants::open(place.path()).unwrap();
    assert_eq!(as_written(&instants.last().unwrap().reader), as_written(&lines.last().unwrap().reader));
    let end = lines.last().unwrap().end();
    let kept = instants.marks(&lines[0].log, LogSpan { start: begun, end });
    assert!(kept.len() <= 1 << 18, "{}", kept.len());
    let shared = SharedInstants(Arc::new(Mutex::new(instants)));
    let all: Vec<(u64, i64)> = lines.iter().flat_map(|line| line.marks.clone()).collect();
    // Before the first that stayed there is the beginning.
    for mark in all.iter().step_by(997).skip(1) {
        let found = &kept[kept.partition_point(|one| one.time.as_microsecond() <= mark.1) - 1];
        let found = (found.at, found.time.as_microsecond());
        assert!(found <= *mark && all.binary_search(&found).is_ok(), "{mark:?} {found:?}");
        // Who asks for that time gets all that had come a moment before.
        let before = all[..all.partition_point(|one| one.1 <= mark.1 - 160_000)].last();
        assert!(before.is_none_or(|before| *before <= found), "{mark:?} {found:?}");
    }
    // Whatever was stored before, a span may begin where any flush ended.
    for line in lines.iter().step_by(9973).chain(lines.last()) {
        let start = begun.max(line.end() / STREAM_CUT_BYTES * STREAM_CUT_BYTES);
        let span = LogSpan { start: line.end(), end };
        let lying = &bytes[(start - begun) as usize..];
        let facts: SpanFacts = serde_json::from_value(shared.facts(&line.log, lying, start, span)).unwrap();
        assert_eq!(as_written(&facts.reader), as_written(&line.reader));
        assert_eq!(facts.replication_id, line.replication_id);
    }
}

#[test]
fn what_is_not_needed_goes_when_it_is_much_and_the_last_line_stays() {
    let place = tempfile::tempdir().unwrap();
    let mut instants = Instants::open(place.path()).unwrap();
    let marks: Vec<(u64, i64)> = (0..100).map(|at| (at, at as i64)).collect();
    let log = line(0, &[]).log;
    for number in 1..=3000u64 {
        instants.add(line(number * 10, &marks)).unwrap();
        instants.forget(&lying(number * 10 - 5, number * 10));
    }
    assert_eq!(instants.lines.len(), 1);
    assert!(instants.written < GROWN);
    // Of another stream nothing lies there any more.
    let other = LogId { timeline: "00000002".to_owned(), ..log };
    instants.add(Line { log: other, ..line(30_001, &[]) }).unwrap();
    instants.forget(&[]);
    assert_eq!(instants.lines.len(), 1);
    drop(instants);
    assert_eq!(Instants::open(place.path()).unwrap().last().unwrap().end(), 30_001);
}

#[test]
fn a_line_that_was_not_written_to_its_end_is_written_over() {
    let place = tempfile::tempdir().unwrap();
    let mut instants = Instants::open(place.path()).unwrap();
    let long: Vec<(u64, i64)> = (0..100).map(|at| (at, at as i64)).collect();
    instants.add(line(10, &[])).unwrap();
    // As a write ends that fails half-way.
    let half = text_of(&line(20, &long));
    instants.file.write_all_at(&half.as_bytes()[..half.len() - 9], instants.written).unwrap();
    instants.add(line(30, &[(25, 7)])).unwrap();
    drop(instants);
    let instants = Instants::open(place.path()).unwrap();
    assert_eq!(instants.lines, [line(10, &[]), line(30, &[(25, 7)])]);
}

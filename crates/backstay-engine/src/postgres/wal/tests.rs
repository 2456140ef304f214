use backstay_model::LogMarkKind;

use super::page::field;
use super::*;

const SEGMENT: u64 = 64 << 10;
const SYSTEM: u64 = 7_000_000_000_000_000_001;

/// Writes a log as a server does.
struct Writer {
    log: Vec<u8>,
    previous: u64,
    from: u64,
}

impl Writer {
    fn new(from: u64) -> Writer {
        Writer { log: Vec::new(), previous: 0, from }
    }

    fn position(&self) -> u64 {
        self.from + self.log.len() as u64
    }

    fn page(&mut self, rest: u32) {
        let at = self.position();
        assert_eq!(at % PAGE_BYTES, 0);
        let is_long = at.is_multiple_of(SEGMENT);
        let info = u16::from(rest > 0) | if is_long { 2 } else { 0 };
        self.log.extend([0x16, 0xd1]);
        self.log.extend(info.to_le_bytes());
        self.log.extend(1u32.to_le_bytes());
        self.log.extend(at.to_le_bytes());
        self.log.extend(rest.to_le_bytes());
        self.log.extend([0; 4]);
        if is_long {
            self.log.extend(SYSTEM.to_le_bytes());
            self.log.extend((SEGMENT as u32).to_le_bytes());
            self.log.extend((PAGE_BYTES as u32).to_le_bytes());
        }
    }

    fn record(&mut self, xid: u32, manager: u8, info: u8, data: &[u8]) {
        while !self.position().is_multiple_of(8) {
            self.log.push(0);
        }
        if self.position().is_multiple_of(PAGE_BYTES) {
            self.page(0);
        }
        let begun_at = self.position();
        let mut record = Vec::new();
        let total = RECORD_HEADER_BYTES + 5 + data.len();
        record.extend((total as u32).to_le_bytes());
        record.extend(xid.to_le_bytes());
        record.extend(self.previous.to_le_bytes());
        record.extend([info, manager, 0, 0, 1, 2, 3, 4, 254]);
        record.extend((data.len() as u32).to_le_bytes());
        record.extend(data);
        self.previous = begun_at;
        let mut left = &record[..];
        while !left.is_empty() {
            if self.position().is_multiple_of(PAGE_BYTES) {
                self.page(left.len() as u32);
            }
            let room = (PAGE_BYTES - self.position() % PAGE_BYTES) as usize;
            let (now, later) = left.split_at(room.min(left.len()));
            self.log.extend(now);
            left = later;
        }
    }

    fn commit(&mut self, xid: u32) {
        self.record(xid, 1, 0, &(i64::from(xid) * 1_000_000).to_le_bytes());
    }

    /// Of any length, of no interest.
    fn heap(&mut self, length: usize) {
        self.record(3, 10, 0, &vec![0xff; length]);
    }

    fn switch(&mut self) {
        self.record(0, 0, 0x40, &[]);
        while !self.position().is_multiple_of(SEGMENT) {
            self.log.push(0);
        }
    }
}

/// Records of every length around the borders of pages and segments.
fn sample() -> Vec<u8> {
    let mut writer = Writer::new(SEGMENT);
    for xid in 0..60 {
        writer.heap(xid as usize * 131 % 4000 + 17_000 * usize::from(xid % 9 == 4));
        writer.commit(xid + 1);
        if xid == 30 {
            writer.switch();
        }
    }
    let mut name = [0; 64];
    name[..6].copy_from_slice(b"before");
    writer.record(0, 0, 0x70, &[&5i64.to_le_bytes()[..], &name].concat());
    writer.log
}

fn read(from: u64, log: &[u8], piece: usize) -> Result<(LogReader, Vec<LogMark>), LogDamage> {
    read_with(LogReader::new(Lsn(from), SEGMENT, Some(SYSTEM)), log, piece)
}

fn read_with(
    mut reader: LogReader,
    log: &[u8],
    piece: usize,
) -> Result<(LogReader, Vec<LogMark>), LogDamage> {
    let mut marks = Vec::new();
    for piece in log.chunks(piece) {
        reader.push(piece, &mut marks)?;
    }
    Ok((reader, marks))
}

#[test]
fn a_record_without_its_sum_is_not_believed_where_sums_are_looked_at() {
    // Nothing of the sample has one: with those of a server, `log_stream` reads real log.
    for piece in [1, 7, 100_000] {
        let mut reader = LogReader::new(Lsn(SEGMENT), SEGMENT, Some(SYSTEM)).with_sums();
        let failed = sample().chunks(piece).find_map(|bytes| reader.push(bytes, &mut Vec::new()).err());
        assert!(matches!(failed, Some(LogDamage::Sum { .. })), "{failed:?}");
        assert_eq!(reader.valid_to(), None);
    }
}

#[test]
fn every_commit_is_found_whatever_the_pieces_are() {
    let log = sample();
    let (_, expected) = read(SEGMENT, &log, usize::MAX).unwrap();
    let commits = expected.iter().filter(|mark| matches!(mark.kind, LogMarkKind::Commit { .. }));
    assert_eq!(commits.count(), 60);
    assert_eq!(expected[60].kind, LogMarkKind::Point { name: "before".to_owned() });
    for piece in [1, 7, 24, 8192, 40_000] {
        let (reader, marks) = read(SEGMENT, &log, piece).unwrap();
        assert_eq!(marks, expected, "pieces of {piece}");
        // Segments of a size that only the log itself says.
        let (reader_of_any, marks) =
            read_with(LogReader::of_any_segments(Lsn(SEGMENT)), &log, piece).unwrap();
        assert_eq!(
            (marks, reader_of_any.valid_to()),
            (expected.clone(), reader.valid_to()),
            "pieces of {piece}"
        );
        assert_eq!(reader.position(), Lsn(SEGMENT + log.len() as u64));
        assert_eq!(reader.valid_to(), Some(Lsn(expected[60].at)));
    }
}

#[test]
fn a_reader_that_begins_anywhere_finds_all_behind_the_next_page() {
    let log = sample();
    let (_, all) = read(SEGMENT, &log, usize::MAX).unwrap();
    for from in (0..log.len()).step_by(97) {
        let (_, found) = read(SEGMENT + from as u64, &log[from..], 1000).unwrap();
        let page = (SEGMENT + from as u64).next_multiple_of(PAGE_BYTES);
        assert!(all.ends_with(&found), "from {from}");
        let surely = all.iter().filter(|mark| mark.at > page + 22_000).count();
        assert!(found.len() >= surely, "from {from}: {} of {surely}", found.len());
    }
}

#[test]
fn log_of_another_place_another_system_or_with_a_hole_is_named() {
    let log = sample();
    let page = PAGE_BYTES as usize;
    let mut hole = log.clone();
    hole.drain(page..2 * page);
    assert!(matches!(read(SEGMENT, &hole, 999), Err(LogDamage::Misplaced { .. })));
    let shifted = read(2 * SEGMENT, &log, 999).unwrap_err();
    assert_eq!(shifted, LogDamage::Misplaced { at: Lsn(2 * SEGMENT), found: Lsn(SEGMENT) });
    let mut other = log.clone();
    other[24] ^= 1;
    assert!(matches!(read(SEGMENT, &other, 999), Err(LogDamage::OtherSystem { .. })));
    let mut sizes = log.clone();
    sizes[34] ^= 1;
    assert!(matches!(read(SEGMENT, &sizes, 999), Err(LogDamage::OtherSegments { .. })));
    // The second record says where the first began.
    let second = (LONG_HEADER_BYTES + RECORD_HEADER_BYTES + 5).next_multiple_of(8);
    let mut unlinked = log.clone();
    assert_eq!(field::<8>(&log, second + 8), (SEGMENT + LONG_HEADER_BYTES as u64).to_le_bytes());
    unlinked[second + 8] ^= 8;
    assert!(matches!(read(SEGMENT, &unlinked, 999), Err(LogDamage::Unlinked { .. })));
    let mut short = log;
    short[second] = 3;
    assert!(matches!(read(SEGMENT, &short, 999), Err(LogDamage::Length { length: 3, .. })));
}

#[test]
fn bytes_of_any_kind_end_in_an_error_or_in_nothing_and_never_in_a_panic() {
    let mut state = 99u64;
    let log = sample();
    for round in 0..400 {
        let mut noise = log.clone();
        for _ in 0..=round % 7 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 20) as usize % noise.len();
            noise[at] = (state >> 12) as u8;
        }
        let _ = read(SEGMENT, &noise, 513);
    }
}

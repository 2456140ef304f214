use proptest::prelude::*;

use super::*;
use crate::crc::crc32c;

const SEGMENT: u64 = 64 << 10;

/// Writes a log as a server does, with checksums.
struct Writer {
    from: u64,
    log: Vec<u8>,
    previous: u64,
    /// Where each record begins, and its transaction.
    records: Vec<(usize, u32)>,
}

impl Writer {
    fn new(from: u64) -> Writer {
        Writer { from, log: Vec::new(), previous: 0, records: Vec::new() }
    }

    fn position(&self) -> u64 {
        self.from + self.log.len() as u64
    }

    fn page(&mut self, rest: u32) {
        let at = self.position();
        let is_long = at.is_multiple_of(SEGMENT);
        let info = u16::from(rest > 0) | if is_long { IS_LONG } else { 0 };
        self.log.extend([0x16, 0xd1]);
        self.log.extend(info.to_le_bytes());
        self.log.extend(1u32.to_le_bytes());
        self.log.extend(at.to_le_bytes());
        self.log.extend(rest.to_le_bytes());
        self.log.extend(if is_long { vec![7; 20] } else { vec![0; 4] });
    }

    fn record(&mut self, transaction: u32, data: &[u8]) {
        self.log.resize(self.log.len().next_multiple_of(8), 0);
        if self.position().is_multiple_of(PAGE_BYTES) {
            self.page(0);
        }
        let begun_at = self.position();
        self.records.push((self.log.len(), transaction));
        let mut record = Vec::new();
        record.extend(((HEADER_BYTES + data.len()) as u32).to_le_bytes());
        record.extend(transaction.to_le_bytes());
        record.extend(self.previous.to_le_bytes());
        record.extend([0x20, 10, 0, 0]);
        let mut summed = data.to_vec();
        summed.extend(&record);
        record.extend(crc32c(&summed).to_le_bytes());
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
}

/// Records of many lengths: short ones, some over the edge of a page, and one over three pages.
fn written(from: u64, count: usize) -> Writer {
    let mut writer = Writer::new(from);
    for n in 0..count {
        let length = match n % 97 {
            50 => 20_000,
            51 => 0,
            m => 3 + m * m % 400,
        };
        let data: Vec<u8> = (0..length).map(|at| ((at * 31 + n * 7) >> 3) as u8).collect();
        writer.record(if n % 5 == 4 { 0 } else { 900 + n as u32 / 3 }, &data);
    }
    writer
}

fn folded(start: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    fold(start, &mut bytes);
    bytes
}

/// Whatever the bytes are, they come back.
#[track_caller]
fn comes_back(start: u64, content: &[u8]) {
    let mut bytes = folded(start, content);
    unfold(start, &mut bytes);
    assert!(bytes == content, "from {start}, {} bytes", content.len());
}

/// Bytes behind a position, over the headers of pages.
fn bytes_of(log: &[u8], from: u64, at: usize, skipped: usize, count: usize) -> Vec<u8> {
    let mut at = at;
    let mut bytes = Vec::new();
    while bytes.len() < skipped + count {
        if (from + at as u64).is_multiple_of(PAGE_BYTES) {
            at += if (from + at as u64).is_multiple_of(SEGMENT) {
                LONG_PAGE_HEADER_BYTES
            } else {
                PAGE_HEADER_BYTES
            };
        }
        bytes.push(log[at]);
        at += 1;
    }
    bytes.split_off(skipped)
}

#[test]
fn of_a_sound_record_nothing_is_left_that_follows_from_the_rest() {
    let from = 5 * SEGMENT;
    let writer = written(from, 2000);
    let folded = folded(from, &writer.log);
    let mut last = 0u32;
    for (number, (at, transaction)) in writer.records.iter().enumerate() {
        let sum = bytes_of(&folded, from, *at, 20, 4);
        assert_eq!(sum, [0; 4], "the checksum of record {number}");
        let previous = bytes_of(&folded, from, *at, 8, 8);
        assert_eq!(previous, [0; 8], "what record {number} says of the one before");
        let stored = bytes_of(&folded, from, *at, 4, 4);
        assert_eq!(stored, transaction.wrapping_sub(last).to_le_bytes(), "the transaction of {number}");
        last = if *transaction == 0 { last } else { *transaction };
    }
    comes_back(from, &writer.log);
}

#[test]
fn a_span_is_folded_from_its_first_page_to_its_last_whole_record_wherever_it_was_cut() {
    let from = 3 * SEGMENT;
    let writer = written(from, 400);
    let log = &writer.log;
    for (begin, end) in [
        (0, log.len() - 1),
        (1, log.len()),
        (77, 8192),
        (77, 8193),
        (8192, 8192 + 20),
        (8191, 30_000),
        (8 * 1024 + 333, 50_000),
        (50_000, 50_001),
    ] {
        comes_back(from + begin as u64, &log[begin..end]);
        let folded = folded(from + begin as u64, &log[begin..end]);
        let first_page = begin.next_multiple_of(8192);
        let behind_first = writer.records.iter().filter(|(at, _)| *at > first_page + 40).map(|(at, _)| *at);
        let starts: Vec<usize> = behind_first.collect();
        for pair in starts.windows(2).filter(|pair| pair[1] <= end) {
            let sum = bytes_of(&folded, from + begin as u64, pair[0] - begin, 20, 4);
            assert_eq!(sum, [0; 4], "record at {} in {begin} to {end}", pair[0]);
        }
    }
}

#[test]
fn log_behind_a_place_that_cannot_be_followed_is_folded_from_the_next_page_on() {
    let from = SEGMENT;
    let writer = written(from, 900);
    let mut log = writer.log.clone();
    let middle = writer.records.len() / 2;
    // A length that no record has, as behind a switch.
    let at = writer.records[middle].0;
    log[at..at + 4].fill(0);
    let folded = folded(from, &log);
    let resumed = (at / 8192 + 3) * 8192;
    let behind = writer.records.iter().rev().nth(1).unwrap().0;
    assert!(behind > resumed);
    assert_eq!(bytes_of(&folded, from, behind, 20, 4), [0; 4]);
    comes_back(from, &log);
}

#[test]
fn positions_that_no_server_reaches_are_left_alone() {
    for start in [u64::MAX - 100, u64::MAX - 20_000, u64::MAX - 16_400] {
        comes_back(start, &[0x5a; 100]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Damage of any kind: to lengths, to headers of pages, to anything.
    #[test]
    fn a_damaged_log_comes_back_as_it_was(
        count in 1usize..300,
        cut in 0usize..20_000,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        on_headers in prop::collection::vec((0usize..12, 0usize..24, any::<u8>()), 0..10),
    ) {
        let from = 2 * SEGMENT;
        let mut log = written(from, count).log;
        for (at, byte) in damage {
            let at = at.index(log.len());
            log[at] = byte;
        }
        for (page, at, byte) in on_headers {
            if let Some(place) = log.get_mut(page * 8192 + at) {
                *place = byte;
            }
        }
        let cut = cut.min(log.len());
        comes_back(from + cut as u64, &log[cut..]);
    }

    /// Pages whose headers belong where they are, and that hold anything.
    #[test]
    fn anything_behind_headers_comes_back(
        start in 0u64..40_000,
        bytes in prop::collection::vec(prop_oneof![4 => Just(0u8), 2 => 0u8..64, 1 => any::<u8>()], 0..40_000),
        infos in prop::collection::vec(0u16..16, 8),
        rests in prop::collection::vec(0u32..20_000, 8),
    ) {
        let mut bytes = bytes;
        for page in 0..8u64 {
            let position = start.next_multiple_of(PAGE_BYTES) + page * PAGE_BYTES;
            let at = (position - start) as usize;
            if let Some(header) = bytes.get_mut(at..at + 20) {
                header[2..4].copy_from_slice(&infos[page as usize].to_le_bytes());
                header[8..16].copy_from_slice(&position.to_le_bytes());
                header[16..20].copy_from_slice(&rests[page as usize].to_le_bytes());
            }
        }
        comes_back(start, &bytes);
    }
}

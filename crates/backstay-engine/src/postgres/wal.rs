//! The write-ahead log as a sequence of records: what a log holds, found while its bytes
//! stream by.
//!
//! Only as much is understood as an archive has to know: where records begin and that each
//! names the one before, who committed when, and which restore points were made. What a
//! record changes is the server's affair.
//!
//! Invariant: every page says where it belongs, and every record where the one before it
//! began. Bytes of another place are an error before they are stored as this place's.
//!
//! Refuses logs of big-endian machines, whose pages would all be of other places.

mod marks;
mod page;

use backstay_model::{LogMark, Lsn};
use crc_fast::{CrcAlgorithm, Digest};

use self::page::{HEADER_BYTES, LONG_HEADER_BYTES, PageHeader};

/// Of all servers that were not built for another one.
pub const PAGE_BYTES: u64 = 8192;
const ALIGNMENT: u64 = 8;
/// `XLogRecord`.
const RECORD_HEADER_BYTES: usize = 24;
/// What is kept of a record: its header, and of the longest that is looked at (a restore
/// point) all.
const KEPT_BYTES: usize = 256;

/// The system identifier and the size of a segment, as its first page says them; `None` when
/// these bytes do not begin one.
pub fn first_page(bytes: &[u8]) -> Option<(u64, u64)> {
    let header = PageHeader::parse(bytes.get(..LONG_HEADER_BYTES)?);
    header.long.filter(|(_, size)| size.is_power_of_two() && header.address.0.is_multiple_of(*size))
}

/// What is wrong with bytes that should have been log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogDamage {
    #[error("the page at {at} says that it belongs to {found}")]
    Misplaced { at: Lsn, found: Lsn },
    #[error("the log at {at} is of system {found}, not of {expected}")]
    OtherSystem { at: Lsn, found: u64, expected: u64 },
    #[error("the log at {at} has segments of {found} bytes, not of {expected}")]
    OtherSegments { at: Lsn, found: u64, expected: u64 },
    #[error("the record at {at} says that the one before it began at {found}, and that was {expected}")]
    Unlinked { at: Lsn, found: Lsn, expected: Lsn },
    #[error("the record at {at} has a length of {length}")]
    Length { at: Lsn, length: u64 },
    #[error("the sum of the record at {at} does not fit")]
    Sum { at: Lsn },
    #[error("the record at {at} goes on with {found} bytes, and has {expected} left")]
    Remainder { at: Lsn, found: u64, expected: u64 },
}

/// Follows a log from any byte on.
#[derive(Debug)]
pub struct LogReader {
    /// Nothing where the pages are to say where a segment begins.
    segment_bytes: Option<u64>,
    system: Option<u64>,
    position: Lsn,
    header: Vec<u8>,
    state: State,
    /// Where the last whole record began.
    previous: Option<Lsn>,
    /// Behind the last whole record.
    valid_to: Option<Lsn>,
    sums: bool,
}

#[derive(Debug)]
enum State {
    /// In the middle of a page of which nothing is known.
    Unknown,
    /// The rest of a record that began before; `None` where the next page will say it.
    Rest {
        left: u64,
    },
    /// Between two records.
    Between,
    Record(Record),
    /// Nothing but padding comes before the next segment.
    Switched,
}

#[derive(Debug)]
struct Record {
    begun_at: Lsn,
    kept: Vec<u8>,
    /// Known when the first four bytes are.
    total: Option<u64>,
    seen: u64,
    /// Over what is behind its header, where sums are looked at.
    sum: Option<Box<Digest>>,
}

impl LogReader {
    /// `system` is compared with what the segments say, where it is known.
    pub fn new(from: Lsn, segment_bytes: u64, system: Option<u64>) -> LogReader {
        LogReader { segment_bytes: Some(segment_bytes), system, ..LogReader::of_any_segments(from) }
    }

    /// Of log that was looked at before, and whose segments nobody here knows the size of: each
    /// begins with a page that says so.
    pub fn of_any_segments(from: Lsn) -> LogReader {
        LogReader {
            segment_bytes: None,
            system: None,
            position: from,
            header: Vec::new(),
            state: State::Unknown,
            previous: None,
            valid_to: None,
            sums: false,
        }
    }

    /// Looks at the sum of each record that it sees from its beginning: for bytes that may have
    /// been lost in the middle, as by a disk whose machine crashed.
    pub fn with_sums(self) -> LogReader {
        LogReader { sums: true, ..self }
    }

    /// Where the next bytes belong.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Behind the last record that came as a whole: so far a server can replay.
    pub fn valid_to(&self) -> Option<Lsn> {
        self.valid_to
    }

    /// Takes the bytes that follow, and appends what they hold to `marks`.
    pub fn push(&mut self, mut bytes: &[u8], marks: &mut Vec<LogMark>) -> Result<(), LogDamage> {
        while !bytes.is_empty() {
            let in_page = self.position.0 % PAGE_BYTES;
            let is_header = in_page == 0 || !self.header.is_empty();
            let taken = match is_header {
                true => self.header(bytes)?,
                false => {
                    let left = (PAGE_BYTES - in_page).min(bytes.len() as u64) as usize;
                    self.body(&bytes[..left], marks)?
                }
            };
            self.position = self.position + taken as u64;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Collects the header of a page, and acts on it when it is whole.
    fn header(&mut self, bytes: &[u8]) -> Result<usize, LogDamage> {
        let page = Lsn(self.position.0 - self.header.len() as u64);
        let taken = bytes.len().min(self.header_bytes(page) - self.header.len());
        self.header.extend_from_slice(&bytes[..taken]);
        let length = self.header_bytes(page);
        if self.header.len() == length {
            let header = PageHeader::parse(&self.header);
            self.header.clear();
            self.page(page, length == LONG_HEADER_BYTES, &header)?;
        }
        Ok(taken)
    }

    /// How long the header of a page is, of which some is there.
    fn header_bytes(&self, page: Lsn) -> usize {
        let is_first = match self.segment_bytes {
            Some(segment_bytes) => page.0.is_multiple_of(segment_bytes),
            None => self.header.len() >= HEADER_BYTES && PageHeader::parse(&self.header).is_long(),
        };
        if is_first { LONG_HEADER_BYTES } else { HEADER_BYTES }
    }

    fn page(&mut self, at: Lsn, is_first: bool, header: &PageHeader) -> Result<(), LogDamage> {
        if is_first && matches!(self.state, State::Switched) {
            self.state = State::Between;
        }
        // The rest of a segment that was switched away from.
        if matches!(self.state, State::Switched) {
            return Ok(());
        }
        if header.is_void() {
            // Nothing was written here yet: what is behind it is of no use.
            self.state = State::Switched;
            return Ok(());
        }
        if header.address != at {
            return Err(LogDamage::Misplaced { at, found: header.address });
        }
        if let Some((system, segment_bytes)) = header.long.filter(|_| is_first) {
            if let Some(expected) = self.segment_bytes
                && segment_bytes != expected
            {
                return Err(LogDamage::OtherSegments { at, found: segment_bytes, expected });
            }
            if let Some(expected) = self.system
                && system != expected
            {
                return Err(LogDamage::OtherSystem { at, found: system, expected });
            }
        }
        let rest = u64::from(header.rest_of_record);
        match &self.state {
            // The server died within that record, and wrote others in its place.
            _ if header.overwrites_a_record() => (self.state, self.previous) = (State::Between, None),
            State::Record(record) => {
                let expected = record.total.map(|total| total - record.seen);
                if !header.continues_a_record() || expected.is_some_and(|expected| expected != rest) {
                    return Err(LogDamage::Remainder {
                        at,
                        found: rest,
                        expected: expected.unwrap_or_default(),
                    });
                }
            }
            State::Unknown | State::Rest { .. } if header.continues_a_record() => {
                self.state = State::Rest { left: rest };
            }
            _ => self.state = State::Between,
        }
        Ok(())
    }

    /// Bytes of one page, behind its header.
    fn body(&mut self, bytes: &[u8], marks: &mut Vec<LogMark>) -> Result<usize, LogDamage> {
        match &mut self.state {
            State::Unknown | State::Switched => Ok(bytes.len()),
            State::Rest { left } => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                if *left == 0 {
                    self.state = State::Between;
                }
                Ok(taken)
            }
            State::Between => {
                let padding = (ALIGNMENT - self.position.0 % ALIGNMENT) % ALIGNMENT;
                if padding > 0 {
                    return Ok(bytes.len().min(padding as usize));
                }
                let sum = self.sums.then(|| Box::new(Digest::new(CrcAlgorithm::Crc32Iscsi)));
                let record = Record { begun_at: self.position, kept: Vec::new(), total: None, seen: 0, sum };
                self.state = State::Record(record);
                Ok(0)
            }
            State::Record(record) => {
                let taken = record.take(bytes);
                match record.total {
                    // No record has a length of zero: here the log ends for now.
                    Some(0) => self.state = State::Switched,
                    Some(total) if total < RECORD_HEADER_BYTES as u64 => {
                        return Err(LogDamage::Length { at: record.begun_at, length: total });
                    }
                    Some(total) if record.seen == total => self.whole(self.position + taken as u64, marks)?,
                    _ => {}
                }
                Ok(taken)
            }
        }
    }

    fn whole(&mut self, end: Lsn, marks: &mut Vec<LogMark>) -> Result<(), LogDamage> {
        let State::Record(record) = std::mem::replace(&mut self.state, State::Between) else { return Ok(()) };
        let found = Lsn(marks::previous(&record.kept));
        if let Some(expected) = self.previous
            && found != expected
        {
            return Err(LogDamage::Unlinked { at: record.begun_at, found, expected });
        }
        if !record.has_its_sum() {
            return Err(LogDamage::Sum { at: record.begun_at });
        }
        self.previous = Some(record.begun_at);
        // As the server counts: the next record can begin here.
        let end = Lsn(end.0.next_multiple_of(ALIGNMENT));
        self.valid_to = Some(end);
        if marks::is_switch(&record.kept) {
            self.state = State::Switched;
        }
        marks.extend(marks::of_record(&record.kept, end));
        Ok(())
    }
}

impl Record {
    /// As many as belong to it, and are needed to know how many do.
    fn take(&mut self, bytes: &[u8]) -> usize {
        const LENGTH_BYTES: usize = 4;
        let left = match self.total {
            Some(total) => total - self.seen,
            None => (LENGTH_BYTES - self.kept.len()) as u64,
        };
        let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let of_header = RECORD_HEADER_BYTES.saturating_sub(usize::try_from(self.seen).unwrap_or(usize::MAX));
        if let Some(sum) = &mut self.sum {
            sum.update(&bytes[taken.min(of_header)..taken]);
        }
        let kept = taken.min(KEPT_BYTES.saturating_sub(self.kept.len()));
        self.kept.extend_from_slice(&bytes[..kept]);
        self.seen += taken as u64;
        if self.total.is_none()
            && let Some(length) = self.kept.first_chunk::<LENGTH_BYTES>()
        {
            self.total = Some(u64::from(u32::from_le_bytes(*length)));
        }
        taken
    }

    /// As the server sums it up: what is behind the header, and then that up to the sum itself.
    fn has_its_sum(&self) -> bool {
        let Some(sum) = &self.sum else { return true };
        let Some((header, stored)) =
            self.kept.get(..RECORD_HEADER_BYTES).and_then(<[u8]>::split_last_chunk::<4>)
        else {
            return false;
        };
        let mut sum = **sum;
        sum.update(header);
        sum.finalize() == u64::from(u32::from_le_bytes(*stored))
    }
}

#[cfg(test)]
mod tests;

//! Page checksums: a backup of a page that was already wrong is worth a warning
//! today, not in the year it is restored.
//!
//! A page that does not match is read once more. If it changed meanwhile, the
//! server is at work on it. If it says that it was written between the start of the
//! backup and its stop, the log replayed at restore mends it. Anything else is
//! reported: also a page that claims to be younger than the backup, for the server
//! writes no page before the log of it, and only garbage comes from the future.
//! A wrong page never fails a backup: it may be the only one there is.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use backstay_model::{Finding, Lsn};

use super::outcome::Outcome;
use super::rules;

/// Lanes of the checksum: one 32-bit word of each group of 128 bytes.
const LANES: usize = 32;

const PRIME: u32 = 16_777_619;

/// What each lane begins with; part of the format of a data directory.
const LANE_START: [u32; LANES] = [
    0x5b1f_36e9,
    0xb852_5960,
    0x02ab_50aa,
    0x1de6_6d2a,
    0x79ff_467a,
    0x9bb9_f8a3,
    0x217e_7cd2,
    0x83e1_3d2c,
    0xf8d4_474f,
    0xe39e_b970,
    0x42c6_ae16,
    0x9932_16fa,
    0x7b09_3b5d,
    0x98da_ff3c,
    0xf718_902a,
    0x0b1c_9cdb,
    0xe58f_764b,
    0x1876_36bc,
    0x5d7b_3bb1,
    0xe73d_e7de,
    0x92be_c979,
    0xcca6_c0b2,
    0x304a_0979,
    0x85aa_43d4,
    0x7831_25bb,
    0x6ca8_eaa2,
    0xe407_eac6,
    0x4b5c_fc3e,
    0x9fbf_8c76,
    0x15ca_20be,
    0xf2ca_9fd3,
    0x959b_d756,
];

/// Where the header keeps the checksum itself, which is not part of its input.
const CHECKSUM_AT: usize = 8;
/// Where the header keeps the end of the free space: zero on a page never used.
const UPPER_AT: usize = 14;

#[inline(always)]
fn mix(sum: u32, word: u32) -> u32 {
    let mixed = sum ^ word;
    mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
}

/// The words of a group of 128 bytes, mixed into their lanes. Plain loops over
/// arrays of fixed length: the compiler makes vector instructions of them.
#[inline(always)]
fn mix_group(sums: &mut [u32; LANES], group: &[u8; LANES * 4]) {
    for (lane, sum) in sums.iter_mut().enumerate() {
        let at = lane * 4;
        let word = u32::from_le_bytes([group[at], group[at + 1], group[at + 2], group[at + 3]]);
        *sum = mix(*sum, word);
    }
}

/// The checksum a page should carry, given its number in the relation. The page
/// is a multiple of 128 bytes long, as every page size PostgreSQL knows is.
pub fn page_checksum(page: &[u8], block: u32) -> u16 {
    let mut sums = LANE_START;
    let (groups, _) = page.as_chunks::<{ LANES * 4 }>();
    if let Some((first, rest)) = groups.split_first() {
        let mut header = *first;
        header[CHECKSUM_AT] = 0;
        header[CHECKSUM_AT + 1] = 0;
        mix_group(&mut sums, &header);
        for group in rest {
            mix_group(&mut sums, group);
        }
    }
    // Two rounds of zeros spread the last words over all bits.
    for _ in 0..2 {
        for sum in &mut sums {
            *sum = mix(*sum, 0);
        }
    }
    let folded = sums.iter().fold(block, |folded, sum| folded ^ sum);
    (folded % 65_535) as u16 + 1
}

/// The position in the log of a page's last change.
pub fn page_lsn(page: &[u8]) -> Lsn {
    let word = |at: usize| match page.get(at..at + 4) {
        Some(bytes) => u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        None => 0,
    };
    Lsn(word(0) << 32 | word(4))
}

/// Whether a page is what it says it is. A page that was never used is all zeros
/// and has no checksum; one that only pretends to be is wrong.
pub fn is_sound(page: &[u8], block: u32) -> bool {
    let field = |at: usize| match page.get(at..at + 2) {
        Some(bytes) => u16::from_le_bytes([bytes[0], bytes[1]]),
        None => 0,
    };
    if field(UPPER_AT) == 0 && page.iter().all(|byte| *byte == 0) {
        return true;
    }
    field(CHECKSUM_AT) == page_checksum(page, block)
}

/// Wrong pages listed one by one in the findings; all are counted.
const PAGES_LISTED: u64 = 100;

/// Pages remembered until the stop position is known. Torn pages are few; this
/// many are a broken disk, which needs no more of them to be named.
const SUSPECTS_MAX: usize = 10_000;

/// A page that does not match and was written after the backup began, as it says.
struct Suspect {
    path: String,
    block: u32,
    lsn: Lsn,
    stored: u16,
    computed: u16,
    seen_twice: bool,
}

/// Checks the pages of one backup. Shared by all who read its files.
pub struct PageCheck {
    page_size: usize,
    segment_blocks: u32,
    /// Pages written since are mended by the log that the backup holds.
    backup_start: Lsn,
    enabled: bool,
    wrong: AtomicU64,
    misaligned: AtomicU64,
    suspects: Mutex<Vec<Suspect>>,
    outcome: Outcome,
}

impl PageCheck {
    /// `enabled` says whether the server keeps page checksums at all.
    pub fn new(
        enabled: bool,
        page_size: u32,
        segment_blocks: u32,
        backup_start: Lsn,
        outcome: Outcome,
    ) -> Self {
        Self {
            page_size: page_size as usize,
            segment_blocks,
            backup_start,
            enabled,
            wrong: AtomicU64::new(0),
            misaligned: AtomicU64::new(0),
            suspects: Mutex::default(),
            outcome,
        }
    }

    /// Notes a file of a relation that does not consist of whole pages.
    pub fn note_size(&self, path: &str, size: u64) {
        if rules::has_pages(path) && !size.is_multiple_of(self.page_size as u64) {
            let seen = self.misaligned.fetch_add(1, Ordering::Relaxed);
            if seen < PAGES_LISTED {
                self.outcome.find(Finding::warning(
                    path,
                    format!("its size, {size} bytes, is not a multiple of the page size {}", self.page_size),
                    "the end of the file cannot be checked: run `pg_amcheck` on the database",
                ));
            }
        }
    }

    /// Checks the whole pages of an extent that begins at `offset` of the file.
    /// `read_again` fills a page from an offset of the same file and says how
    /// much of it was there; a source that cannot read twice returns an error.
    pub fn check(
        &self,
        path: &str,
        offset: u64,
        bytes: &[u8],
        mut read_again: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
    ) {
        if !self.enabled {
            return;
        }
        let Some(file) = rules::relation_file(path) else { return };
        let first = file.segment.wrapping_mul(self.segment_blocks);
        let mut block = first.wrapping_add((offset / self.page_size as u64) as u32);
        for (index, page) in bytes.chunks_exact(self.page_size).enumerate() {
            if !is_sound(page, block) {
                let at = offset + (index * self.page_size) as u64;
                self.look_again(path, at, block, page, &mut read_again);
            }
            block = block.wrapping_add(1);
        }
    }

    fn look_again(
        &self,
        path: &str,
        offset: u64,
        block: u32,
        page: &[u8],
        read_again: &mut impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
    ) {
        let mut second = vec![0; page.len()];
        let seen_twice = match read_again(offset, &mut second) {
            // Half a page, or another one: the server is at work on it.
            Ok(length) if length < page.len() || second != page => return,
            Ok(_) => true,
            // The first look stands, with as much as it is worth. After so many wrong pages
            // that nobody looks twice any more, it is worth enough.
            Err(error) => error.kind() == io::ErrorKind::QuotaExceeded,
        };
        let suspect = Suspect {
            path: path.to_owned(),
            block,
            lsn: page_lsn(page),
            stored: u16::from_le_bytes([page[CHECKSUM_AT], page[CHECKSUM_AT + 1]]),
            computed: page_checksum(page, block),
            seen_twice,
        };
        if suspect.lsn <= self.backup_start {
            self.report(&suspect);
            return;
        }
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.len() < SUSPECTS_MAX {
            suspects.push(suspect);
        }
    }

    fn report(&self, page: &Suspect) {
        let seen = self.wrong.fetch_add(1, Ordering::Relaxed);
        if seen < PAGES_LISTED {
            let Suspect { path, block, stored, computed, .. } = page;
            let doubt = match page.seen_twice {
                true => "",
                false => "; it could not be read a second time, and may have been in the middle of a write",
            };
            self.outcome.find(Finding::error(
                path,
                format!("page {block} has checksum {stored:#06x}, its content {computed:#06x}{doubt}"),
                "keep the last backup without this finding, run `pg_amcheck`, restore the table from it",
            ));
        }
    }

    /// How many pages were wrong.
    pub fn wrong_pages(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed)
    }

    /// Judges what could not be before the backup's end was known, and says how many
    /// wrong pages there were when not all are listed.
    pub fn conclude(&self, backup_stop: Lsn) {
        let suspects = std::mem::take(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner));
        for page in suspects.iter().filter(|page| page.lsn > backup_stop) {
            self.report(page);
        }
        let wrong = self.wrong_pages();
        if wrong > PAGES_LISTED {
            self.outcome.find(Finding::error(
                "page checksums",
                format!("{wrong} pages are wrong, of which the first {PAGES_LISTED} seen are listed"),
                "`pg_checksums --check` on the stopped server lists all",
            ));
        }
    }
}

#[cfg(test)]
mod tests;

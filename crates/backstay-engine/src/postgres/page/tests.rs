use super::*;
use crate::postgres::outcome::Outcome;

/// Pages of PostgreSQL 15.18, taken from a data directory: (page, block, checksum).
const REAL: [(&[u8], u32); 3] = [
    (include_bytes!("heap_block_3.page"), 3),
    (include_bytes!("index_block_1.page"), 1),
    (include_bytes!("map_block_0.page"), 0),
];

#[test]
fn pages_of_a_real_server_match_their_checksums() {
    for (page, block) in REAL {
        assert!(is_sound(page, block));
        assert!(!is_sound(page, block + 1), "the checksum holds the place of the page");
    }
}

#[test]
fn every_single_flipped_bit_of_a_word_is_noticed() {
    let (page, block) = REAL[0];
    for at in (0..page.len()).step_by(61) {
        let mut damaged = page.to_vec();
        damaged[at] ^= 1 << (at % 8);
        assert!(!is_sound(&damaged, block), "byte {at}");
    }
}

#[test]
fn a_page_of_zeros_is_sound_and_one_that_only_claims_to_be_new_is_not() {
    let mut page = vec![0; 8192];
    assert!(is_sound(&page, 7));
    page[5000] = 1;
    assert!(!is_sound(&page, 7));
}

/// What is found between two positions; `again` is what the second look sees.
fn check_between(
    (start, stop): (Lsn, Lsn),
    path: &str,
    offset: u64,
    bytes: &[u8],
    again: Option<&[u8]>,
) -> Vec<Finding> {
    let outcome = Outcome::new();
    let check = PageCheck::new(true, 8192, 131_072, start, outcome.clone());
    check.check(path, offset, bytes, |_, page| match again {
        Some(bytes) => {
            page.copy_from_slice(bytes);
            Ok(page.len())
        }
        None => Err(io::Error::other("cannot read twice")),
    });
    check.conclude(stop);
    assert_eq!(check.wrong_pages(), outcome.findings().len() as u64);
    outcome.findings()
}

fn check(start: Lsn, path: &str, offset: u64, bytes: &[u8], again: Option<&[u8]>) -> Vec<Finding> {
    check_between((start, LATE), path, offset, bytes, again)
}

/// The real page, at the block it belongs to, with one byte wrong.
fn damaged() -> Vec<u8> {
    let mut bytes = vec![0; 3 * 8192];
    bytes.extend_from_slice(REAL[0].0);
    bytes[3 * 8192 + 6000] ^= 0x10;
    bytes
}

const LATE: Lsn = Lsn(u64::MAX);

#[test]
fn a_wrong_page_that_stays_wrong_is_a_finding_with_its_block() {
    let bytes = damaged();
    let findings = check(LATE, "base/5/1259", 0, &bytes, Some(&bytes[3 * 8192..]));
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].subject, "base/5/1259");
    assert!(findings[0].message.starts_with("page 3 has checksum 0x"), "{}", findings[0].message);
    assert_eq!(check(LATE, "base/5/1259", 0, &bytes, None).len(), 1, "a stream cannot be read twice");
}

#[test]
fn a_page_that_changed_meanwhile_is_left_to_the_log() {
    let bytes = damaged();
    assert_eq!(check(LATE, "base/5/1259", 0, &bytes, Some(REAL[0].0)), []);
}

#[test]
fn a_page_written_after_the_backup_began_is_left_to_the_log() {
    let bytes = damaged();
    let written = page_lsn(REAL[0].0);
    assert!(written > Lsn(0));
    let before = Lsn(written.0 - 1);
    assert_eq!(check(before, "base/5/1259", 0, &bytes, Some(&bytes[3 * 8192..])), []);
    assert_eq!(check(written, "base/5/1259", 0, &bytes, Some(&bytes[3 * 8192..])).len(), 1);
}

#[test]
fn garbage_comes_from_the_future_and_is_reported_when_it_stays() {
    let garbage: Vec<u8> = (0..8192_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 | 1).collect();
    let span = (Lsn(0x0200_0028), Lsn(0x0900_0000));
    assert!(page_lsn(&garbage) > span.1);
    let findings = check_between(span, "base/5/1259", 0, &garbage, Some(&garbage));
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(check_between(span, "base/5/1259", 0, &garbage, None).len(), 1);
    assert_eq!(check_between(span, "base/5/1259", 0, &garbage, Some(REAL[0].0)), []);
}

#[test]
fn a_page_torn_by_a_write_is_left_to_the_log_whichever_half_is_new() {
    let old = REAL[0].0;
    let written = page_lsn(old);
    // The next version of the page, written while the backup ran.
    let mut new = old.to_vec();
    new[4..8].copy_from_slice(&(written.0 as u32 + 64).to_le_bytes());
    new[5000..5100].fill(7);
    let sum = page_checksum(&new, 3);
    new[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_le_bytes());
    let span = (written, Lsn(written.0 + 64));
    for torn in [[&old[..4096], &new[4096..]].concat(), [&new[..4096], &old[4096..]].concat()] {
        let offset = 3 * 8192;
        assert!(!is_sound(&torn, 3));
        assert_eq!(check_between(span, "base/5/1259", offset, &torn, Some(&new)), []);
    }
    // Where nobody can look twice, the header alone decides.
    let new_first = [&new[..4096], &old[4096..]].concat();
    assert_eq!(check_between(span, "base/5/1259", 3 * 8192, &new_first, None), []);
    // And where it says nothing, the doubt is said.
    let old_first = [&old[..4096], &new[4096..]].concat();
    let once = check_between(span, "base/5/1259", 3 * 8192, &old_first, None);
    assert!(once.len() == 1 && once[0].message.contains("could not be read a second time"), "{once:?}");
    let twice = check_between(span, "base/5/1259", 3 * 8192, &old_first, Some(&old_first));
    assert!(twice.len() == 1 && !twice[0].message.contains("second time"), "{twice:?}");
}

#[test]
fn the_place_of_a_page_counts_from_the_first_file_of_its_relation() {
    let block = 2 * 131_072 + 9;
    let mut page = REAL[0].0.to_vec();
    let checksum = page_checksum(&page, block);
    page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(check(LATE, "base/5/1259.2", 9 * 8192, &page, Some(&page)), []);
    assert_eq!(check(LATE, "base/5/1259.1", 9 * 8192, &page, Some(&page)).len(), 1);
}

#[test]
fn files_without_pages_are_not_looked_at() {
    let bytes = vec![1; 8192];
    for path in ["global/pg_control", "base/5/pg_filenode.map", "base/5/PG_VERSION", "pg_xact/0000"] {
        assert_eq!(check(LATE, path, 0, &bytes, Some(&bytes)), [], "{path}");
    }
    assert_eq!(check(LATE, "base/5/1259", 0, &bytes, Some(&bytes)).len(), 1);
}

#[test]
fn all_wrong_pages_are_counted_and_a_hundred_listed() {
    let outcome = Outcome::new();
    let check = PageCheck::new(true, 8192, 131_072, LATE, outcome.clone());
    let bytes = vec![1; 8192 * 150];
    check.check("base/5/1259", 0, &bytes, |_, page| {
        page.fill(1);
        Ok(page.len())
    });
    check.conclude(LATE);
    assert_eq!(check.wrong_pages(), 150);
    assert_eq!(outcome.findings().len(), 101);
    assert!(outcome.findings()[100].message.starts_with("150 pages are wrong"));
}

#[test]
fn a_file_of_half_a_page_is_reported_and_does_no_harm() {
    let outcome = Outcome::new();
    let check = PageCheck::new(true, 8192, 131_072, LATE, outcome.clone());
    check.note_size("base/5/1259", 8192 + 100);
    check.note_size("base/5/1260", 8192);
    check.note_size("PG_VERSION", 3);
    check.check("base/5/1259", 8192, &[1; 100], |_, _| Ok(0));
    assert_eq!(outcome.findings().len(), 1);
    assert!(outcome.findings()[0].message.contains("8292 bytes"));
}

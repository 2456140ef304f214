use std::io::Write;

use super::super::super::outcome::Outcome;
use super::*;

fn open(bytes: &[u8], size: u64, content: Content) -> OpenFile {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    OpenFile { file, path: "base/5/1259".into(), real: "1259".into(), size, content }
}

fn read_all(file: OpenFile) -> Result<Vec<u8>, Fault> {
    let mut extents = Extents::of(file);
    let (mut all, mut buffer) = (Vec::new(), vec![0xee; 100]);
    while let Some(Step::Extent { offset, length, data: ExtentData::Read(reader) }) = extents.next() {
        assert_eq!(offset, all.len() as u64);
        reader.read(&mut buffer)?;
        assert_eq!(buffer.len(), length as usize);
        all.extend_from_slice(&buffer);
    }
    Ok(all)
}

#[test]
fn a_file_that_shrank_is_filled_up_with_zeros() {
    let bytes = read_all(open(b"abc", 5, Content::Opaque)).unwrap();
    assert_eq!(bytes, b"abc\0\0");
}

#[test]
fn what_a_file_grew_is_left_to_the_log() {
    let long = vec![7; (EXTENT_SIZE + 100) as usize];
    let size = u64::from(EXTENT_SIZE) + 10;
    let bytes = read_all(open(&long, size, Content::Opaque)).unwrap();
    assert_eq!(bytes, long[..size as usize]);
}

#[test]
fn an_empty_file_has_no_extent() {
    assert_eq!(read_all(open(b"", 0, Content::Opaque)).unwrap(), b"");
}

#[test]
fn pages_that_were_cut_off_are_not_held_against_a_file() {
    let check = Arc::new(PageCheck::new(true, 8192, 131_072, Lsn(u64::MAX), Outcome::new()));
    read_all(open(&[1; 8192 + 50], 3 * 8192, Content::Relation(Arc::clone(&check)))).unwrap();
    assert_eq!(check.wrong_pages(), 1, "only the whole page was judged");
}

fn log(start: u64, end: u64, zero_after: u64) -> Content {
    Content::Log { segment: "00000001".into(), start: Lsn(start), end: Lsn(end), zero_after }
}

#[test]
fn log_behind_the_stop_is_zeros() {
    let mut page = vec![9; 8192];
    page[8..16].copy_from_slice(&0x300_0000u64.to_le_bytes());
    let bytes = read_all(open(&page, 8192, log(0x300_0000, 0x300_0100, 0x100))).unwrap();
    assert_eq!(bytes[..0x100], page[..0x100]);
    assert!(bytes[0x100..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_segment_that_was_recycled_meanwhile_is_refused() {
    let page = vec![9; 8192];
    let error = read_all(open(&page, 8192, log(0x300_0000, 0x300_0100, u64::MAX))).unwrap_err();
    assert!(error.to_string().contains("00000001"), "{error}");
}

#[test]
fn a_segment_that_ends_in_a_switch_is_zeros_from_there() {
    let size = u64::from(EXTENT_SIZE) + 8192;
    let mut bytes = vec![0; size as usize];
    bytes[8..16].copy_from_slice(&0x300_0000u64.to_le_bytes());
    assert_eq!(read_all(open(&bytes, size, log(0x300_0000, 0x400_0000, u64::MAX))).unwrap(), bytes);
    bytes[8..16].fill(0);
    read_all(open(&bytes, size, log(0x300_0000, 0x400_0000, u64::MAX))).unwrap_err();
}

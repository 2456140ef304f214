use backstay_model::ErrorKind;
use backstay_model::error::Classified;

use super::*;

/// Writes heads as `pg_dump` does.
struct Writer(Vec<u8>);

impl Writer {
    fn int(&mut self, number: i32) {
        self.0.push(u8::from(number < 0));
        self.0.extend(number.unsigned_abs().to_le_bytes());
    }

    fn text(&mut self, text: Option<&str>) {
        match text {
            None => self.int(-1),
            Some(text) => {
                self.int(text.len() as i32);
                self.0.extend(text.as_bytes());
            }
        }
    }
}

fn head(minor: u8, entries: &[(i32, &str, &str, &[&str])]) -> Vec<u8> {
    let mut head = Writer(b"PGDMP".to_vec());
    head.0.extend([1, minor, 0, 4, 8, 1]);
    match minor >= 15 {
        true => head.0.push(0),
        false => head.int(-1),
    }
    for field in 0..7 {
        head.int(field);
    }
    head.text(Some("app"));
    head.text(Some("14.2 (Debian 14.2-1)"));
    head.text(Some("15.18"));
    head.int(entries.len() as i32);
    for (id, kind, name, depends_on) in entries {
        head.int(*id);
        head.int(0);
        head.text(Some("1259"));
        head.text(Some("16385"));
        head.text(Some(name));
        head.text(Some(kind));
        head.int(2);
        head.text(Some("CREATE …"));
        head.text(Some(""));
        head.text(None);
        head.text(Some("public"));
        head.text(None);
        if minor >= 14 {
            head.text(Some("heap"));
        }
        if minor >= 16 {
            head.int(114);
        }
        head.text(Some("the owner"));
        head.text(Some("false"));
        for number in *depends_on {
            head.text(Some(number));
        }
        head.text(None);
        // Of a table there is nothing but its statements.
        head.0.extend(if *kind == "TABLE" { [3; 9] } else { [1; 9] });
    }
    head.0
}

const ENTRIES: [(i32, &str, &str, &[&str]); 2] =
    [(5, "TABLE", "odd; name public", &["3"]), (6, "TABLE DATA", "odd; name public", &["5", "3"])];

#[test]
fn heads_of_every_version_are_read_and_end_where_they_end() {
    for minor in 12..=16 {
        let head = head(minor, &ENTRIES);
        let archive = Archive::read(&head).unwrap().unwrap();
        assert_eq!((archive.server_version.as_str(), archive.tool_major()), ("14.2", Some(15)));
        assert_eq!(archive.entries[1].depends_on, [5, 3]);
        assert_eq!(archive.entries[0].name, "odd; name public");
        assert_eq!(archive.entries[0].owner.as_deref(), Some("the owner"));
        for end in 0..head.len() {
            assert_eq!(Archive::read(&head[..end]).unwrap(), None, "cut at {end}");
        }
        let mut reader = ArchiveReader::default();
        let mut pieces = head.chunks(3).chain(std::iter::repeat_n(&[0u8; 3][..], head.len()));
        let found = pieces.find_map(|piece| reader.push(piece).unwrap());
        assert_eq!(found, Some(archive));
    }
}

#[test]
fn what_is_no_archive_or_a_newer_one_is_told_apart() {
    let mut newer = head(16, &ENTRIES);
    newer[6] = 17;
    let error = Archive::read(&newer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("1.17"), "{error}");
    for wrong in
        [b"SELECT 1;".to_vec(), b"PGDMP\x01\x0b\x00".to_vec(), b"PGDMP\x01\x10\x00\x40\x08\x01".to_vec()]
    {
        assert_eq!(Archive::read(&wrong).unwrap_err().kind(), ErrorKind::Corrupt, "{wrong:?}");
    }
    let mut reader = ArchiveReader::default();
    let head = head(16, &ENTRIES);
    assert_eq!(reader.push(&head[..head.len() - 1]).unwrap(), None);
    assert!(reader.end().unwrap_err().to_string().contains("ends within"));
}

/// Rows of entry 6 in two pieces, and two large objects of entry 7.
fn rows() -> Vec<u8> {
    let mut rows = Writer(Vec::new());
    rows.0.push(1);
    rows.int(6);
    for piece in [&b"1\tone\n"[..], &[3; 70_000]] {
        rows.int(piece.len() as i32);
        rows.0.extend(piece);
    }
    rows.int(0);
    rows.0.push(3);
    rows.int(7);
    for (oid, bytes) in [(16400, &b"\x01\x03"[..]), (16401, b"")] {
        rows.int(oid);
        if !bytes.is_empty() {
            rows.int(bytes.len() as i32);
            rows.0.extend(bytes);
        }
        rows.int(0);
    }
    rows.int(0);
    rows.0
}

#[test]
fn the_rows_of_each_entry_are_found_whatever_the_pieces_are() {
    let entries: [(i32, &str, &str, &[&str]); 3] = [ENTRIES[0], ENTRIES[1], (7, "BLOBS", "BLOBS", &[])];
    let (head, rows) = (head(16, &entries), rows());
    let archive = Archive::read(&head).unwrap().unwrap();
    let whole = [head.clone(), rows.clone()].concat();
    let begins = |id: u8| {
        let at = rows.windows(6).position(|bytes| bytes == [if id == 6 { 1 } else { 3 }, 0, id, 0, 0, 0]);
        (head.len() + at.unwrap()) as u64
    };
    for size in [1, 2, 7, 4096, whole.len()] {
        let mut offsets = RowOffsets::of(&archive);
        whole.chunks(size).for_each(|piece| offsets.push(piece));
        let mut patched = whole.clone();
        let patches = offsets.finish();
        assert_eq!(patches.len(), 2, "pieces of {size}");
        for (patch, id) in patches.iter().zip([6, 7]) {
            let expected = [&[2][..], &begins(id).to_le_bytes()].concat();
            assert_eq!(patch.bytes, expected, "pieces of {size}, entry {id}");
            let at = patch.at as usize;
            assert_eq!(whole[at..at + 9], [1; 9], "the place of it in the table of contents");
            patched[at..at + 9].copy_from_slice(&patch.bytes);
        }
        // Nothing else moved.
        assert_eq!(Archive::read(&patched).unwrap().unwrap(), archive);
    }
}

#[test]
fn an_archive_that_ends_before_its_large_objects_or_its_rows_was_cut() {
    let entries: [(i32, &str, &str, &[&str]); 3] = [ENTRIES[0], ENTRIES[1], (7, "BLOBS", "BLOBS", &[])];
    let (head, rows) = (head(16, &entries), rows());
    let archive = Archive::read(&head).unwrap().unwrap();
    let large_objects = rows.windows(6).position(|bytes| bytes == [3, 0, 7, 0, 0, 0]).unwrap();
    for (end, is_cut) in [(rows.len(), false), (large_objects, true), (0, true), (rows.len() - 1, true)] {
        let mut offsets = RowOffsets::of(&archive);
        offsets.push(&head);
        offsets.push(&rows[..end]);
        assert_eq!(offsets.is_cut(), is_cut, "{end} of {}", rows.len());
    }
}

#[test]
fn an_archive_that_ends_early_or_is_something_else_is_left_as_it_is() {
    let head = head(16, &ENTRIES);
    let archive = Archive::read(&head).unwrap().unwrap();
    let rows = rows();
    let mut strange = rows.clone();
    strange[0] = 9;
    let mut negative = rows.clone();
    negative[6] = 1;
    for rows in [&rows[..rows.len() - 1], &rows[..20], &strange, &negative] {
        let mut offsets = RowOffsets::of(&archive);
        offsets.push(&head);
        offsets.push(rows);
        assert_eq!(offsets.finish(), []);
    }
}

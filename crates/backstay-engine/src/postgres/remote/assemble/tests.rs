//! Bytes in, pieces out.

use backstay_model::parts::{EXTENT_SIZE, FileSpec};
use crc_fast::CrcAlgorithm;

use super::*;

const BLOCK: u32 = 8192;

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o600);
    header.set_uid(70);
    header.set_gid(70);
    header.set_mtime(0);
    let kind = if path.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular };
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, path, content).unwrap();
}

fn archive(entries: &[(&str, &[u8])]) -> Bytes {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        append(&mut builder, path, content);
    }
    builder.into_inner().unwrap().into()
}

fn assembler(parent: Option<ParentSizes>) -> Assembler {
    Assembler::new(BLOCK, 131_072, parent, Arc::new(Buffers::default()))
}

/// Feeds in pieces of a length that is no divisor of anything.
fn feed(assembler: &mut Assembler, archive: &Bytes) -> Result<()> {
    for start in (0..archive.len()).step_by(5000) {
        assembler.feed(archive.slice(start..archive.len().min(start + 5000)))?;
    }
    Ok(())
}

fn begun(assembler: &Assembler) -> Vec<String> {
    let paths = assembler.pieces.iter().filter_map(|piece| match piece {
        Piece::Begin(spec) => Some(spec.path.clone()),
        _ => None,
    });
    paths.collect()
}

/// The blocks of the only file: its bytes, `None` for what the parent has. Checks
/// that the pieces ascend, touch and cover.
fn blocks(assembler: &Assembler) -> Vec<Option<u8>> {
    let (mut blocks, mut end, mut size) = (Vec::new(), 0, 0);
    for piece in &assembler.pieces {
        let (offset, length, fill) = match piece {
            Piece::Begin(FileSpec { kind: PartKind::File(shape), .. }) => {
                size = shape.size;
                continue;
            }
            Piece::Begin(_) => continue,
            Piece::Bytes { offset, bytes } => {
                blocks.extend(bytes.chunks(BLOCK as usize).map(|block| Some(block[0])));
                (*offset, bytes.len() as u64, None)
            }
            Piece::Zeros { offset, length } => (*offset, u64::from(*length), Some(Some(0))),
            Piece::Unchanged { offset, length } => (*offset, u64::from(*length), Some(None)),
        };
        assert_eq!(offset, end, "pieces touch");
        assert!(length > 0 && length <= u64::from(EXTENT_SIZE));
        end += length;
        if let Some(fill) = fill {
            blocks.extend(std::iter::repeat_n(fill, (length / u64::from(BLOCK)) as usize));
        }
    }
    assert_eq!(end, size, "pieces cover the file");
    blocks
}

/// An incremental file whose block `n` is filled with `n`.
fn changed(list: &[u32], truncation_length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xd3ae_1f0d, list.len() as u32, truncation_length].iter().chain(list) {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    if !list.is_empty() {
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
    }
    list.iter().for_each(|block| bytes.extend(std::iter::repeat_n(*block as u8, BLOCK as usize)));
    bytes
}

fn assemble_changed(list: &[u32], truncation_length: u32, parent_blocks: u64) -> Vec<Option<u8>> {
    let parent = ParentSizes::from([("base/5/16384", parent_blocks * u64::from(BLOCK))]);
    let mut assembler = assembler(Some(parent));
    assembler.begin_archive(None);
    let file = changed(list, truncation_length);
    feed(&mut assembler, &archive(&[("./base/5/INCREMENTAL.16384", &file)])).unwrap();
    assembler.end_archive().unwrap();
    assert_eq!(begun(&assembler), ["base/5/16384"]);
    blocks(&assembler)
}

#[test]
fn a_file_is_cut_into_extents_that_cover_it() {
    let content = vec![1; 3 * EXTENT_SIZE as usize / 2];
    let mut assembler = assembler(None);
    assembler.begin_archive(None);
    let entries: &[(&str, &[u8])] =
        &[("base/", b""), ("base/5/1", &content), ("base/5/2", b""), ("PG_VERSION", b"17\n")];
    feed(&mut assembler, &archive(entries)).unwrap();
    assembler.end_archive().unwrap();
    let lengths: Vec<_> = assembler
        .pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Bytes { offset, bytes } => Some((*offset, bytes.len())),
            _ => None,
        })
        .collect();
    let extent = EXTENT_SIZE as usize;
    assert_eq!(lengths, [(0, extent), (extent as u64, extent / 2), (0, 3)]);
    assert_eq!(begun(&assembler), ["base", "base/5/1", "base/5/2", "PG_VERSION"]);
}

#[test]
fn changed_blocks_are_put_between_unchanged_ones() {
    let (same, one, two, five) = (None, Some(1), Some(2), Some(5));
    assert_eq!(assemble_changed(&[1, 2, 5], 7, 7), [same, one, two, same, same, five, same]);
    assert_eq!(assemble_changed(&[], 3, 9), [same; 3]);
    assert_eq!(assemble_changed(&[], 0, 9), []);
}

#[test]
fn what_neither_side_has_is_zero() {
    // The parent is shorter than the truncation length, and a listed block lies behind it.
    let (same, zero) = (None, Some(0));
    assert_eq!(assemble_changed(&[7], 5, 2), [same, same, zero, zero, zero, zero, zero, Some(7)]);
    // The parent has more, but above the truncation length it does not count.
    assert_eq!(assemble_changed(&[4], 2, 9), [same, same, zero, zero, Some(4)]);
}

#[test]
fn long_runs_are_cut_at_the_largest_extent() {
    let list: Vec<u32> = (0..300).collect();
    let expected: Vec<_> = list.iter().map(|block| Some(*block as u8)).collect();
    assert_eq!(assemble_changed(&list, 300, 300), expected);
    assert_eq!(assemble_changed(&[299], 300, 300).len(), 300);
}

#[test]
fn an_incremental_file_must_be_whole_and_asked_for() {
    let mut file = changed(&[1, 2], 4);
    file.truncate(file.len() - 1);
    let parent = || Some(ParentSizes::from([("base/5/16384", 8192)]));
    let entry = |file| archive(&[("base/5/INCREMENTAL.16384", file)]);
    assert!(feed(&mut assembler(parent()), &entry(&file)).is_err());
    assert!(feed(&mut assembler(parent()), &entry(&file[..8])).is_err());
    let unknown = archive(&[("base/5/INCREMENTAL.16385", &changed(&[], 4))]);
    assert!(feed(&mut assembler(parent()), &unknown).is_err());
    // Without a parent it is a file like any other.
    let mut plain = assembler(None);
    feed(&mut plain, &entry(&file)).unwrap();
    assert_eq!(begun(&plain), ["base/5/INCREMENTAL.16384"]);
}

#[test]
fn a_tablespace_comes_below_its_link_once() {
    let mut assembler = assembler(None);
    assembler.begin_archive(Some(16385));
    feed(&mut assembler, &archive(&[("PG_17_1/", b""), ("PG_17_1/5/7", b"x")])).unwrap();
    assembler.end_archive().unwrap();
    assembler.begin_archive(None);
    feed(&mut assembler, &archive(&[("pg_tblspc/", b""), ("tablespace_map", b"16385 /s\n")])).unwrap();
    let expected = [
        "pg_tblspc",
        "pg_tblspc/16385",
        "pg_tblspc/16385/PG_17_1",
        "pg_tblspc/16385/PG_17_1/5/7",
        "tablespace_map",
    ];
    assert_eq!(begun(&assembler), expected);
}

#[test]
fn a_file_that_would_mislead_a_restored_server_is_left_out_but_counted() {
    let mut with = assembler(None);
    let entries: &[(&str, &[u8])] =
        &[("standby.signal", b""), ("tablespace_map", b""), ("backup_label", b"l")];
    feed(&mut with, &archive(entries)).unwrap();
    assert_eq!(begun(&with), ["backup_label"]);
    let mut listed = Tally::default();
    listed.add("backup_label", 1, crc(b"l"));
    assert_ne!(with.received, listed);
    listed.add("standby.signal", 0, 0);
    listed.add("tablespace_map", 0, 0);
    assert_eq!(with.received, listed);
}

#[test]
fn the_label_of_an_increment_loses_its_marks_and_is_counted_with_them() {
    let label = b"START WAL LOCATION: 0/5000028\nINCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n";
    for (parent, kept) in [(Some(ParentSizes::default()), 30), (None, label.len())] {
        let mut assembler = assembler(parent);
        feed(&mut assembler, &archive(&[("backup_label", label)])).unwrap();
        match assembler.pieces.make_contiguous() {
            [Piece::Begin(spec), Piece::Bytes { offset: 0, bytes }] => {
                assert_eq!(spec.kind, PartKind::File(FileShape { size: kept as u64, block_size: 8192 }));
                assert_eq!(bytes, &label[..kept]);
            }
            other => panic!("{other:?}"),
        }
        let mut listed = Tally::default();
        listed.add("backup_label", label.len() as u64, crc(label));
        assert_eq!(assembler.received, listed);
    }
}

#[test]
fn an_archive_that_ends_inside_of_a_file_is_refused() {
    let whole = archive(&[("a", &[1; 2000])]);
    let mut assembler = assembler(None);
    assembler.feed(whole.slice(..1500)).unwrap();
    assert!(assembler.end_archive().is_err());
}

fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

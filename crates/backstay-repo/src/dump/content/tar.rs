//! What a tar archive is, by the members that its beginning shows.

use std::io::{Cursor, Read};

use super::super::tar::{self, BLOCK_BYTES, Header, Kind, octal};
use super::{DumpInside, DumpLayer, Recognised, SQL_HEAD_BYTES, is_gzip, is_rdb, is_zstd, plain, recognise};
use crate::dump::{gzip, zstd};

/// The kind of a tar archive, from the members that the head shows.
pub(super) fn kind(head: &[u8]) -> Recognised {
    let mut at = 0;
    let mut looks_like = DumpInside::Tar;
    while let Some(header) = head.get(at..at + BLOCK_BYTES) {
        let name = header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        let base = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let body = head.get(at + BLOCK_BYTES..).unwrap_or_default();
        if base == b"toc.dat" {
            // Both say inside that they are of the tar format. But `pg_dump -Ft` writes the
            // headers itself, and always with the same owner.
            return Recognised::Inside(
                match (body.starts_with(b"PGDMP"), at == 0 && is_by_pg_dump(header)) {
                    (true, true) => DumpInside::TarArchive,
                    (true, false) => DumpInside::DirectoryTar,
                    (false, _) => DumpInside::Tar,
                },
            );
        }
        if is_influx(base) || is_influx_of_old(base, body) {
            return Recognised::Inside(DumpInside::InfluxPortable);
        }
        // The base of an append-only file begins like one, and is none.
        if is_rdb(body) && !base.ends_with(b".base.rdb") {
            return Recognised::Inside(DumpInside::RdbInTar);
        }
        // Data before the table of contents: only a packed directory has that.
        if is_table_data(base) {
            looks_like = DumpInside::DirectoryTar;
        }
        let Some(next) = Header::read(header).and_then(|header| behind(at, header)) else { break };
        at = next;
    }
    match looks_like {
        DumpInside::Tar if dump_in(head).is_some() => Recognised::Layer(DumpLayer::Tar),
        other => Recognised::Inside(other),
    }
}

/// Where the entry behind this one begins.
fn behind(at: usize, header: Header) -> Option<usize> {
    let content = usize::try_from(header.padded_bytes()?).ok()?;
    at.checked_add(BLOCK_BYTES)?.checked_add(content)
}

/// A file in an archive: where its content begins, and how much it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dump) struct Member {
    pub at: usize,
    pub size_bytes: u64,
    /// In the files before it.
    pub before_bytes: u64,
}

/// The first dump among the members that the head shows.
pub(in crate::dump) fn dump_in(head: &[u8]) -> Option<Member> {
    let (mut at, mut before_bytes, mut described) = (0, 0_u64, None);
    while let Some(block) = head.get(at..at + BLOCK_BYTES) {
        let mut header = Header::read(block).filter(|_| tar::is_sound(block))?;
        let body = head.get(at + BLOCK_BYTES..).unwrap_or_default();
        let own = |size_bytes| &body[..body.len().min(usize::try_from(size_bytes).unwrap_or(usize::MAX))];
        match header.kind {
            Kind::Pax => described = tar::pax_size(own(header.size_bytes)).or(described),
            Kind::Name | Kind::Empty => {}
            Kind::File => {
                header.size_bytes = described.take().unwrap_or(header.size_bytes);
                let size_bytes = header.size_bytes;
                if is_dump(own(size_bytes)) {
                    return Some(Member { at: at + BLOCK_BYTES, size_bytes, before_bytes });
                }
                if may_be_missed(own(size_bytes)) {
                    return None;
                }
                before_bytes = before_bytes.saturating_add(size_bytes);
            }
            Kind::Other => return None,
        }
        at = behind(at, header)?;
    }
    None
}

/// Whether a file of this beginning is a dump of PostgreSQL, as it is or compressed. What
/// is encrypted in an archive is nobody's habit, and looks like anything.
pub(in crate::dump) fn is_dump(head: &[u8]) -> bool {
    let is_bare = |head: &[u8]| head.starts_with(b"PGDMP") || plain(head).is_some();
    let unpacked = |reader: Box<dyn Read + Send>| {
        let mut begin = Vec::new();
        // As far as it comes: the beginning of a file ends in the middle of something.
        let _ = reader.take(SQL_HEAD_BYTES as u64).read_to_end(&mut begin);
        begin
    };
    let copy = || Box::new(Cursor::new(head.to_vec()));
    if is_gzip(head) {
        is_bare(&unpacked(gzip::reader(copy())))
    } else if is_zstd(head) {
        zstd::reader(copy()).is_ok_and(|reader| is_bare(&unpacked(reader)))
    } else {
        is_bare(head)
    }
}

/// Whether a file of this beginning is more than a note beside a dump: somebody would look for
/// it, and it would go with the dump that it lay beside.
pub(in crate::dump) fn may_be_missed(head: &[u8]) -> bool {
    recognise(head).is_known() || is_dump(head)
}

fn is_by_pg_dump(header: &[u8]) -> bool {
    let owner = (octal(&header[108..116]), octal(&header[116..124]));
    header.starts_with(b"toc.dat\0") && owner == (Some(0o4000), Some(0o2000))
}

/// `20261121T020000Z.manifest`, `20261121T020000Z.s1.tar.gz`.
fn is_influx(base: &[u8]) -> bool {
    let stamp = base.len() > 17
        && base[8] == b'T'
        && base[15] == b'Z'
        && base[16] == b'.'
        && base[..15].iter().enumerate().all(|(at, byte)| at == 8 || byte.is_ascii_digit());
    let ends = [&b".manifest"[..], b".meta", b".tar.gz", b".bolt", b".bolt.gz", b".sqlite.gz"];
    stamp && ends.iter().any(|end| base.ends_with(end))
}

/// `meta.00` with its mark, and `orders.autogen.00002.00`, of `influxd backup` without
/// `-portable`.
fn is_influx_of_old(base: &[u8], body: &[u8]) -> bool {
    let is_number = |part: &&[u8], digits: usize| part.len() >= digits && part.iter().all(u8::is_ascii_digit);
    let parts: Vec<&[u8]> = base.split(|byte| *byte == b'.').collect();
    match parts.as_slice() {
        [b"meta", number] => is_number(number, 2) && body.starts_with(&[0, 0, 0, 0, 0x59, 0x59, 0x01, 0x01]),
        [_, .., _, shard, number] if parts.len() >= 4 => is_number(shard, 5) && is_number(number, 2),
        _ => false,
    }
}

/// `3456.dat.gz`, `blobs_3456.toc`.
fn is_table_data(base: &[u8]) -> bool {
    let Some(dot) = base.iter().position(|byte| *byte == b'.') else { return false };
    let (stem, rest) = base.split_at(dot);
    let number = stem.strip_prefix(b"blobs_").or(stem.strip_prefix(b"blob_")).unwrap_or(stem);
    let numbered = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    (numbered || stem == b"blobs") && (rest.starts_with(b".dat") || rest == b".toc")
}

#[cfg(test)]
mod tests {
    use super::super::recognise;
    use super::*;

    const TOC: &[u8] = b"PGDMP\x01\x0e\x00\x04\x08\x03";

    fn tar_member(name: &str, body: &[u8]) -> Vec<u8> {
        let mut member = vec![0; BLOCK_BYTES];
        member[..name.len()].copy_from_slice(name.as_bytes());
        member[124..136].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
        member[257..262].copy_from_slice(b"ustar");
        summed(&mut member);
        member.extend_from_slice(body);
        member.resize(member.len().next_multiple_of(BLOCK_BYTES), 0);
        member
    }

    fn summed(header: &mut [u8]) {
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header[..BLOCK_BYTES].iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    /// As `pg_dump -Ft` begins it.
    fn archive_of_its_own() -> Vec<u8> {
        let mut member = tar_member("toc.dat", TOC);
        member[108..124].copy_from_slice(b"0004000 0002000 ");
        member
    }

    #[test]
    fn a_tar_is_known_by_the_members_that_it_begins_with() {
        use DumpInside as Inside;
        let data = || tar_member("./3456.dat.gz", &[7; 700]);
        for (archive, inside) in [
            (archive_of_its_own(), Inside::TarArchive),
            (tar_member("toc.dat", TOC), Inside::DirectoryTar),
            ([tar_member("./", b""), data(), tar_member("./toc.dat", TOC)].concat(), Inside::DirectoryTar),
            (
                [tar_member("orders/", b""), tar_member("orders/blobs.toc", b"")].concat(),
                Inside::DirectoryTar,
            ),
            (tar_member("toc.dat", b"no archive"), Inside::Tar),
            (
                [tar_member("b/", b""), tar_member("b/20261121T020000Z.manifest", b"{}")].concat(),
                Inside::InfluxPortable,
            ),
            (tar_member("20261121T020000Z.s12.tar.gz", b"x"), Inside::InfluxPortable),
            (tar_member("readme.txt", b"x"), Inside::Tar),
            (tar_member("meta.00", b"\0\0\0\0\x59\x59\x01\x01"), Inside::InfluxPortable),
            (tar_member("meta.00", b"other"), Inside::Tar),
            (tar_member("./grill.autogen.00012.00", b"x"), Inside::InfluxPortable),
            (tar_member("libc.so.00001", b"x"), Inside::Tar),
            (tar_member("data/dump.rdb", b"REDIS0011\xfa"), Inside::RdbInTar),
            (tar_member("a.1.base.rdb", b"REDIS0011\xfa"), Inside::Tar),
        ] {
            assert_eq!(recognise(&archive), Recognised::Inside(inside));
        }
    }

    #[test]
    fn an_archive_with_a_dump_in_it_is_a_layer_over_that_dump() {
        let sql = || tar_member("shop.sql", b"--\n-- PostgreSQL database dump\n--\n");
        let notes = || tar_member("notes.txt", &[b'x'; 700]);
        for archive in [
            sql(),
            tar_member("b/shop.dump", TOC),
            [tar_member("b/", b""), notes(), sql()].concat(),
            [tar_member("shop.dump", TOC), notes()].concat(),
        ] {
            assert_eq!(recognise(&archive), Recognised::Layer(DumpLayer::Tar));
        }
        // What somebody would miss lies before it.
        for other in [b"BZh91AY&SY".as_slice(), b"REDIS0011\xfa", b"Salted__12345678"] {
            assert_eq!(dump_in(&[tar_member("stock", other), sql()].concat()), None);
        }
        // A header that is not what it was.
        let mut damaged = sql();
        damaged[130] ^= 1;
        assert_eq!(dump_in(&damaged), None);
        let found = dump_in(&[notes(), sql()].concat());
        assert_eq!(found, Some(Member { at: 4 * BLOCK_BYTES, size_bytes: 34, before_bytes: 700 }));
        // A row that quotes one is none.
        let row = tar_member("3456.dat", b"-- PostgreSQL database dump");
        assert_eq!(recognise(&row), Recognised::Inside(DumpInside::DirectoryTar));
    }
}

//! What a stream of bytes is, by its first bytes and never by its name.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::openssl;

/// What was laid over a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DumpLayer {
    Openssl,
    Openpgp,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl fmt::Display for DumpLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DumpLayer::Openssl => "openssl",
            DumpLayer::Openpgp => "openpgp",
            DumpLayer::Gzip => "gzip",
            DumpLayer::Zstd => "zstd",
            DumpLayer::Bzip2 => "bzip2",
            DumpLayer::Xz => "xz",
        })
    }
}

/// What lies inside of all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DumpInside {
    /// `pg_dump -Fc`.
    CustomArchive,
    /// `pg_dump -Ft`, which `pg_restore` reads as it is.
    TarArchive,
    /// The directory of `pg_dump -Fd`, packed with `tar`.
    DirectoryTar,
    /// `pg_dump -Fp`.
    PlainSql,
    /// `pg_dumpall`.
    PlainCluster,
    /// A snapshot of Redis or Valkey.
    Rdb,
    /// One that was packed with `tar`.
    RdbInTar,
    /// The directory of `influxd backup` or `influx backup`, packed with `tar`.
    InfluxPortable,
    /// Some other tar archive.
    Tar,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recognised {
    Layer(DumpLayer),
    /// OpenPGP as text with lines of Base64.
    Armour,
    Inside(DumpInside),
}

impl Recognised {
    pub fn is_known(self) -> bool {
        self != Recognised::Inside(DumpInside::Unknown)
    }
}

const ARMOUR: &[u8] = b"-----BEGIN PGP MESSAGE-----";
const BZIP2_BLOCK: [u8; 6] = [0x31, 0x41, 0x59, 0x26, 0x53, 0x59];
const BZIP2_END: [u8; 6] = [0x17, 0x72, 0x45, 0x38, 0x50, 0x90];
/// Where a plain dump says what it is: in the comment that it begins with.
const SQL_HEAD_BYTES: usize = 4096;
const TAR_BLOCK_BYTES: usize = 512;

pub(super) fn recognise(head: &[u8]) -> Recognised {
    use DumpInside as Inside;
    use DumpLayer as Layer;
    // Three bytes of gzip alone would be taken for known too often in noise: the flags
    // that nobody may set and the time's neighbours are looked at as well.
    let is_gzip = head.starts_with(&[0x1f, 0x8b, 8]) && head.get(3).is_some_and(|flags| flags & 0xe0 == 0);
    let is_zstd = head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || (head.first().is_some_and(|byte| byte & 0xf0 == 0x50)
            && head.get(1..4) == Some(&[0x2a, 0x4d, 0x18]));
    let is_bzip2 = head.starts_with(b"BZh")
        && head.get(3).is_some_and(|level| (b'1'..=b'9').contains(level))
        && head.get(4..10).is_some_and(|magic| magic == BZIP2_BLOCK || magic == BZIP2_END);
    if head.starts_with(openssl::MAGIC) {
        Recognised::Layer(Layer::Openssl)
    } else if is_gzip {
        Recognised::Layer(Layer::Gzip)
    } else if is_zstd {
        Recognised::Layer(Layer::Zstd)
    } else if is_bzip2 {
        Recognised::Layer(Layer::Bzip2)
    } else if head.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        Recognised::Layer(Layer::Xz)
    } else if head.starts_with(ARMOUR) {
        Recognised::Armour
    } else if head.starts_with(b"PGDMP") {
        Recognised::Inside(Inside::CustomArchive)
    } else if is_rdb(head) {
        Recognised::Inside(Inside::Rdb)
    } else if head.get(257..262) == Some(b"ustar") {
        Recognised::Inside(tar(head))
    } else if let Some(sql) = plain(head) {
        Recognised::Inside(sql)
    } else if is_openpgp(head) {
        Recognised::Layer(Layer::Openpgp)
    } else {
        Recognised::Inside(Inside::Unknown)
    }
}

/// `REDIS0011`, `VALKEY080`.
fn is_rdb(head: &[u8]) -> bool {
    let digits = |from| head.get(from..9).is_some_and(|version| version.iter().all(u8::is_ascii_digit));
    head.starts_with(b"REDIS") && digits(5) || head.starts_with(b"VALKEY") && digits(6)
}

fn plain(head: &[u8]) -> Option<DumpInside> {
    let head = &head[..head.len().min(SQL_HEAD_BYTES)];
    let has = |text: &[u8]| head.windows(text.len()).any(|window| window == text);
    // Whoever dumps everything dumps databases too: the cluster's line comes first then.
    if has(b"-- PostgreSQL database cluster dump") {
        Some(DumpInside::PlainCluster)
    } else {
        has(b"-- PostgreSQL database dump").then_some(DumpInside::PlainSql)
    }
}

/// Whether it begins with a packet that holds the key of an encrypted message.
fn is_openpgp(head: &[u8]) -> bool {
    let Some((tag, body)) = super::openpgp::packet(head) else { return false };
    match tag {
        // By pass phrase: version, cipher and the way from one to the other.
        3 => match body {
            [4, cipher, s2k, ..] => (1..=13).contains(cipher) && matches!(s2k, 0 | 1 | 3 | 4),
            [5 | 6, ..] => true,
            _ => false,
        },
        // By public key: version and a key's eight bytes.
        1 => matches!(body.first(), Some(3 | 6)) && body.len() > 10,
        // A marker, which some programs put first.
        10 => body.starts_with(b"PGP"),
        _ => false,
    }
}

/// The kind of a tar archive, from the members that the head shows.
fn tar(head: &[u8]) -> DumpInside {
    let mut at = 0;
    let mut looks_like = DumpInside::Tar;
    while let Some(header) = head.get(at..at + TAR_BLOCK_BYTES) {
        let name = header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        let base = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let body = head.get(at + TAR_BLOCK_BYTES..).unwrap_or_default();
        if base == b"toc.dat" {
            // Both say inside that they are of the tar format. But `pg_dump -Ft` writes the
            // headers itself, and always with the same owner.
            return match (body.starts_with(b"PGDMP"), at == 0 && is_by_pg_dump(header)) {
                (true, true) => DumpInside::TarArchive,
                (true, false) => DumpInside::DirectoryTar,
                (false, _) => DumpInside::Tar,
            };
        }
        if is_influx(base) || is_influx_of_old(base, body) {
            return DumpInside::InfluxPortable;
        }
        // The base of an append-only file begins like one, and is none.
        if is_rdb(body) && !base.ends_with(b".base.rdb") {
            return DumpInside::RdbInTar;
        }
        // Data before the table of contents: only a packed directory has that.
        if is_table_data(base) {
            looks_like = DumpInside::DirectoryTar;
        }
        let Some(size_bytes) = octal(&header[124..136]) else { break };
        let blocks = size_bytes.div_ceil(TAR_BLOCK_BYTES as u64);
        let Some(next) = usize::try_from(blocks).ok().and_then(|n| n.checked_mul(TAR_BLOCK_BYTES)) else {
            break;
        };
        at = at.saturating_add(TAR_BLOCK_BYTES).saturating_add(next);
    }
    looks_like
}

fn is_by_pg_dump(header: &[u8]) -> bool {
    let owner = (octal(&header[108..116]), octal(&header[116..124]));
    header.starts_with(b"toc.dat\0") && owner == (Some(0o4000), Some(0o2000))
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
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
    use super::*;

    const TOC: &[u8] = b"PGDMP\x01\x0e\x00\x04\x08\x03";

    fn tar_member(name: &str, body: &[u8]) -> Vec<u8> {
        let mut member = vec![0; TAR_BLOCK_BYTES];
        member[..name.len()].copy_from_slice(name.as_bytes());
        member[124..136].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
        member[257..262].copy_from_slice(b"ustar");
        member.extend_from_slice(body);
        member.resize(member.len().next_multiple_of(TAR_BLOCK_BYTES), 0);
        member
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
    fn plain_dumps_are_known_by_their_first_comment() {
        let whole = b"--\n-- PostgreSQL database cluster dump\n--\n\n-- PostgreSQL database dump\n";
        assert_eq!(recognise(whole), Recognised::Inside(DumpInside::PlainCluster));
        assert_eq!(recognise(b"REDIS0011\xfa"), Recognised::Inside(DumpInside::Rdb));
        assert_eq!(recognise(b"VALKEY080\xfa"), Recognised::Inside(DumpInside::Rdb));
        let one = b"\\restrict x\n--\n-- PostgreSQL database dump\n--\n";
        assert_eq!(recognise(one), Recognised::Inside(DumpInside::PlainSql));
        for other in [&b""[..], b"SELECT 1;", b"Salted_", b"PGDM", &[0x1f, 0x8b, 8, 0xff]] {
            assert_eq!(recognise(other), Recognised::Inside(DumpInside::Unknown), "{other:?}");
        }
    }
}

//! What a stream of bytes is, by its first bytes and never by its name.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::openssl;

pub(super) mod tar;

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
    /// An archive that holds one dump, and nothing of note beside it.
    Tar,
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
            DumpLayer::Tar => "tar",
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

pub(super) fn recognise(head: &[u8]) -> Recognised {
    use DumpInside as Inside;
    use DumpLayer as Layer;
    let is_bzip2 = head.starts_with(b"BZh")
        && head.get(3).is_some_and(|level| (b'1'..=b'9').contains(level))
        && head.get(4..10).is_some_and(|magic| magic == BZIP2_BLOCK || magic == BZIP2_END);
    if head.starts_with(openssl::MAGIC) {
        Recognised::Layer(Layer::Openssl)
    } else if is_gzip(head) {
        Recognised::Layer(Layer::Gzip)
    } else if is_zstd(head) {
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
        tar::kind(head)
    } else if let Some(sql) = plain(head) {
        Recognised::Inside(sql)
    } else if is_openpgp(head) {
        Recognised::Layer(Layer::Openpgp)
    } else {
        Recognised::Inside(Inside::Unknown)
    }
}

/// Three bytes of gzip alone would be taken for known too often in noise: the flags that
/// nobody may set and the time's neighbours are looked at as well.
fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b, 8]) && head.get(3).is_some_and(|flags| flags & 0xe0 == 0)
}

fn is_zstd(head: &[u8]) -> bool {
    head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || (head.first().is_some_and(|byte| byte & 0xf0 == 0x50)
            && head.get(1..4) == Some(&[0x2a, 0x4d, 0x18]))
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
    // What a wrong pass phrase makes of another layer is noise, and must not be taken for this.
    let is_cipher = |byte: &u8| (1..=13).contains(byte);
    let is_s2k = |byte: &u8| matches!(byte, 0 | 1 | 3 | 4);
    let is_aead = |byte: &u8| (1..=3).contains(byte);
    match tag {
        // By pass phrase: version, cipher and the way from one to the other; in version 6 with the
        // lengths of both.
        3 => match body {
            [4, cipher, s2k, ..] => is_cipher(cipher) && is_s2k(s2k),
            [5, cipher, aead, s2k, ..] | [6, _, cipher, aead, _, s2k, ..] => {
                is_cipher(cipher) && is_aead(aead) && is_s2k(s2k)
            }
            _ => false,
        },
        // By public key: version, a key's eight bytes and its kind; or the length of a fingerprint
        // with its version, or none.
        1 => match body {
            [3, _, _, _, _, _, _, _, _, kind, ..] => matches!(kind, 1 | 2 | 16 | 18 | 22 | 25 | 26),
            [6, 0, ..] | [6, 21, 4, ..] | [6, 33, 6, ..] => true,
            _ => false,
        },
        // A marker, which some programs put first.
        10 => body.starts_with(b"PGP"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! Compares what was received with the manifest that the server sends behind it.
//!
//! The manifest names path, size and CRC-32C of every file, in the order in which
//! they were sent, but only after all of them. Instead of keeping a table that
//! grows with the database, both sides are added up: the sum of one keyed number
//! per file is the same on both sides exactly when the files are, whatever their
//! order. What is lost is only the name of the file that differs.
//!
//! Refuses a manifest whose own SHA-256 is wrong.

use std::hash::{DefaultHasher, Hash, Hasher};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The log inside of the backup is not in the manifest's care.
const NOT_LISTED: &str = "pg_wal/";

/// The longest line that is taken: a path in hexadecimal and some numbers.
const LINE_MAX: usize = 64 << 10;

/// Number and keyed sum of a set of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    files: u64,
    sums: [u64; 2],
}

impl Tally {
    pub(super) fn add(&mut self, path: &str, size: u64, crc32c: u32) {
        if path.starts_with(NOT_LISTED) {
            return;
        }
        self.files += 1;
        for (key, sum) in self.sums.iter_mut().enumerate() {
            let mut hasher = DefaultHasher::new();
            (key, path, size, crc32c).hash(&mut hasher);
            *sum = sum.wrapping_add(hasher.finish());
        }
    }
}

/// Reads the manifest as it comes.
#[derive(Default)]
pub(super) struct ManifestReader {
    line: Vec<u8>,
    digest: Sha256,
    listed: Tally,
    ended: bool,
}

#[derive(serde::Deserialize)]
struct FileLine {
    #[serde(rename = "Path")]
    path: String,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum")]
    checksum: String,
}

impl ManifestReader {
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&bytes[..=end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.take_line(&line)?;
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > LINE_MAX {
            return Err(malformed("a line is too long"));
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8]) -> Result<()> {
        if self.ended {
            return Err(malformed("it goes on behind its end"));
        }
        if let Some(rest) = line.strip_prefix(b"\"Manifest-Checksum\": \"") {
            self.ended = true;
            let digest = std::mem::take(&mut self.digest).finalize();
            let hexadecimal: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            return match rest.starts_with(hexadecimal.as_bytes()) {
                true => Ok(()),
                false => Err(malformed("its own checksum is wrong")),
            };
        }
        self.digest.update(line);
        if line.starts_with(b"{ \"Path\"") {
            let entry = line.trim_ascii_end();
            let entry = entry.strip_suffix(b",").unwrap_or(entry);
            let file: FileLine = serde_json::from_slice(entry).map_err(|e| malformed(&e.to_string()))?;
            let crc32c = parse_crc32c(&file.checksum)?;
            self.listed.add(&file.path, file.size, crc32c);
        }
        // A path that is not UTF-8 (`Encoded-Path`) has no place in a backup and
        // was left out of the other side, too.
        Ok(())
    }

    /// Whether all that was received is what was listed.
    pub(super) fn compare(&self, received: &Tally) -> Result<()> {
        if !self.ended {
            return Err(malformed("it has no end"));
        }
        if self.listed == *received {
            return Ok(());
        }
        Err(Error::ManifestMismatch { received: received.files, listed: self.listed.files })
    }
}

/// The manifest writes the four bytes as they lie in the memory of the server,
/// which is little-endian on all machines that matter.
fn parse_crc32c(text: &str) -> Result<u32> {
    u32::from_str_radix(text, 16).map(u32::swap_bytes).map_err(|_| malformed("a checksum is no CRC-32C"))
}

fn malformed(reason: &str) -> Error {
    Error::Protocol { reason: format!("the server's manifest: {reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(lines: &[&str]) -> Vec<u8> {
        let mut text = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n".to_owned();
        text += &lines.join(",\n");
        text += "\n],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000138\" }\n],\n";
        let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("\"Manifest-Checksum\": \"{digest}\"}}\n");
        text.into_bytes()
    }

    const FIRST: &str = r#"{ "Path": "PG_VERSION", "Size": 3, "Last-Modified": "2026-11-21 07:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "64440205" }"#;
    const SECOND: &str = r#"{ "Path": "base/1/a\"b", "Size": 0, "Last-Modified": "2026-11-21 07:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" }"#;

    #[test]
    fn the_same_files_in_another_order_agree() {
        let mut reader = ManifestReader::default();
        for piece in manifest(&[FIRST, SECOND]).chunks(11) {
            reader.feed(piece).unwrap();
        }
        let mut received = Tally::default();
        received.add("base/1/a\"b", 0, 0);
        received.add("pg_wal/000000010000000000000001", 16 << 20, 9);
        received.add("PG_VERSION", 3, 0x0502_4464);
        reader.compare(&received).unwrap();

        let mut damaged = Tally::default();
        damaged.add("base/1/a\"b", 0, 0);
        damaged.add("PG_VERSION", 3, 0x0502_4465);
        assert!(matches!(reader.compare(&damaged), Err(Error::ManifestMismatch { received: 2, listed: 2 })));
    }

    #[test]
    fn a_manifest_that_was_cut_or_changed_is_refused() {
        let whole = manifest(&[FIRST]);
        let mut cut = ManifestReader::default();
        cut.feed(&whole[..whole.len() - 90]).unwrap();
        assert!(cut.compare(&Tally::default()).is_err());

        let mut changed = whole.clone();
        let at = changed.iter().position(|byte| *byte == b'3').unwrap();
        changed[at] = b'4';
        assert!(ManifestReader::default().feed(&changed).is_err());
    }
}

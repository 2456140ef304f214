//! The version of TimescaleDB that a dump is of: no statement names it, but its catalogue has
//! a row for it, and is dumped with the database.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::ZlibDecoder;

use super::super::archive::{Archive, ArchiveReader, Entry, RowOffsets};
pub(in crate::postgres::reload) const TIMESCALEDB: &str = "timescaledb";
pub(in crate::postgres::reload) const COPY: &[u8] = b"COPY _timescaledb_catalog.metadata (key, value";
const SCHEMA: &str = "_timescaledb_catalog";
const TABLE: &str = "metadata";
const KEY: &str = "timescaledb_version";
/// It has a handful of rows.
pub(in crate::postgres::reload) const ROWS_MAX_BYTES: usize = 64 << 10;

/// In rows as `COPY` writes them, the key first and the value behind it.
pub(in crate::postgres::reload) fn in_rows(rows: &[u8]) -> Option<String> {
    let rows = std::str::from_utf8(rows).ok()?;
    let version = rows.lines().find_map(|row| {
        let mut fields = row.split('\t');
        (fields.next() == Some(KEY)).then(|| fields.next()).flatten()
    })?;
    let is_version = version.starts_with(|letter: char| letter.is_ascii_digit())
        && version.chars().all(|letter| letter.is_ascii_alphanumeric() || ".-_".contains(letter));
    is_version.then(|| version.to_owned())
}

/// Reads an archive in the custom format for it, as its bytes pass.
#[derive(Default)]
pub struct VersionScan {
    at: At,
}

enum At {
    Head {
        reader: ArchiveReader,
        pieces: Vec<Bytes>,
    },
    Rows(Box<RowOffsets>),
    /// It has none, or does not read as expected.
    Nowhere,
}

impl Default for At {
    fn default() -> Self {
        At::Head { reader: ArchiveReader::default(), pieces: Vec::new() }
    }
}

impl VersionScan {
    pub fn push(&mut self, bytes: &Bytes) {
        match &mut self.at {
            At::Nowhere => {}
            At::Rows(rows) => rows.push(bytes),
            At::Head { reader, pieces } => {
                pieces.push(bytes.clone());
                match reader.push(bytes) {
                    Ok(None) => {}
                    Ok(Some(archive)) => self.at = watching(&archive, pieces),
                    // For those to say who put it back.
                    Err(_) => self.at = At::Nowhere,
                }
            }
        }
    }

    /// Nothing where it is not said.
    pub fn finish(self) -> Option<String> {
        let At::Rows(rows) = self.at else { return None };
        let bytes = rows.watched()?;
        let mut plain = Vec::new();
        // As `pg_dump` compresses unless it is told otherwise; anything else is read as it is.
        let read = ZlibDecoder::new(bytes).take(ROWS_MAX_BYTES as u64).read_to_end(&mut plain);
        in_rows(if read.is_ok() { &plain } else { bytes })
    }
}

fn watching(archive: &Archive, pieces: &[Bytes]) -> At {
    let is_it = |entry: &&Entry| {
        entry.kind == "TABLE DATA" && entry.schema.as_deref() == Some(SCHEMA) && entry.name == TABLE
    };
    let Some(entry) = archive.entries.iter().find(is_it) else { return At::Nowhere };
    let mut rows = RowOffsets::watching(archive, entry.id, ROWS_MAX_BYTES);
    pieces.iter().for_each(|piece| rows.push(piece));
    At::Rows(Box::new(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_value_of_its_key_and_nothing_else() {
        let rows = "uuid\tx\tt\ntimescaledb_version\t2.19.3\tf\n\\.\n";
        assert_eq!(in_rows(rows.as_bytes()).as_deref(), Some("2.19.3"));
        for other in ["", "timescaledb_version", "timescaledb_version\t\\N\tf\n", "x\ttimescaledb_version\n"]
        {
            assert_eq!(in_rows(other.as_bytes()), None, "{other:?}");
        }
    }
}

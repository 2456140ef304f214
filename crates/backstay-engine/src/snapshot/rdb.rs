//! A snapshot of Redis or Valkey: is it whole, and what does it say of itself.
//!
//! The sum at its end covers every byte before it. Versions before 5 have none, and a
//! server can be told to write zeros in its place: then only the byte that ends the data
//! is known to be there, and the facts say so.

use std::io::{Read, Write};
use std::path::Path;

use crc_fast::{CrcAlgorithm, Digest};

use super::place::Files;
use super::{inner_path, unread};
use crate::redis::place::FileNames;
use crate::{Error, Result};

/// `REDIS0011`, `VALKEY080`.
const MAGIC_BYTES: usize = 9;
const SUM_BYTES: usize = 8;
/// From here on there is a sum.
const FIRST_WITH_SUM: u32 = 5;
const END: u8 = 0xff;
const FIELD: u8 = 0xfa;
/// The fields about the snapshot stand at its beginning, and are short.
const HEAD_BYTES: usize = 4096;
const CHUNK_BYTES: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RdbChecksum {
    Good,
    /// The server was told to write none: `rdbchecksum no`.
    Disabled,
    /// The version has none.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdbFacts {
    pub is_valkey: bool,
    /// Of the format.
    pub version: u32,
    pub server_version: Option<String>,
    /// In seconds since 1970, by the server's clock.
    pub saved_at_seconds: Option<i64>,
    pub checksum: RdbChecksum,
    /// It was taken out of an archive that has an append-only file as well.
    pub has_append_only: bool,
}

fn broken(reason: impl Into<String>) -> Error {
    Error::Snapshot { reason: reason.into() }
}

/// Into a directory that a server starts on, whether it is told to append or not: it looks for the
/// one form only, and starts empty without.
pub(super) fn read_into(from: &mut impl Read, files: Option<&mut Files>) -> Result<RdbFacts> {
    let names = FileNames::default();
    let own = Path::new(&names.snapshot);
    let Some(files) = files else { return read(from, &mut std::io::sink(), own) };
    let facts = read(from, &mut files.create(own)?, own)?;
    let append_only = Path::new(&names.append_only_directory);
    files.twice(own, &append_only.join(names.base()))?;
    let manifest = append_only.join(names.manifest());
    let written = files.create(&manifest)?.write_all(names.manifest_text().as_bytes());
    written.map_err(|source| Error::Write { path: manifest.clone(), source })?;
    // The order of [`crate::redis::place`]: a server never takes a part for all that there is.
    files.lead(&[&manifest, own]);
    Ok(facts)
}

/// The snapshot among the members of an archive. The base of an append-only file looks
/// like one, and is a part of something else.
pub(super) fn read_from_tar(from: &mut impl Read, mut files: Option<&mut Files>) -> Result<RdbFacts> {
    let mut archive = tar::Archive::new(from);
    let (mut found, mut has_append_only) = (None, false);
    for entry in archive.entries().map_err(|error| unread(&error))? {
        let mut entry = entry.map_err(|error| unread(&error))?;
        let name = inner_path(&entry)?;
        let file_name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        has_append_only |= file_name.contains(".aof");
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let size = entry.size();
        let mut magic = Vec::new();
        entry.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut magic).map_err(|error| unread(&error))?;
        if header(&magic).is_none() || file_name.ends_with(".base.rdb") {
            let rest = std::io::copy(&mut entry, &mut std::io::sink()).map_err(|error| unread(&error))?;
            if magic.len() as u64 + rest != size {
                return Err(broken("it ends within a file"));
            }
            continue;
        }
        if found.is_some() {
            return Err(Error::SnapshotStrange { reason: "several snapshots are in it".to_owned() });
        }
        found = Some(read_into(&mut (&magic[..]).chain(&mut entry), files.as_deref_mut())?);
    }
    match found {
        Some(facts) => Ok(RdbFacts { has_append_only, ..facts }),
        None => Err(Error::SnapshotStrange { reason: "no snapshot of Redis is in it".to_owned() }),
    }
}

/// The product and the version of the format.
fn header(magic: &[u8]) -> Option<(bool, u32)> {
    let magic = std::str::from_utf8(magic.get(..MAGIC_BYTES)?).ok()?;
    let (is_valkey, digits) = match magic.strip_prefix("REDIS") {
        Some(digits) => (false, digits),
        None => (true, magic.strip_prefix("VALKEY")?),
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten().map(|version| (is_valkey, version))
}

fn read(from: &mut impl Read, into: &mut impl Write, name: &Path) -> Result<RdbFacts> {
    let mut check = RdbCheck::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unread(&error)),
        };
        let bytes = &chunk[..count];
        into.write_all(bytes).map_err(|source| Error::Write { path: name.to_owned(), source })?;
        check.push(bytes);
    }
    check.finish()
}

/// Looks at a snapshot that streams by.
pub struct RdbCheck {
    sum: Digest,
    head: Vec<u8>,
    /// The last bytes so far: the sum at the end is not a part of what it sums up.
    held: Vec<u8>,
}

impl Default for RdbCheck {
    fn default() -> Self {
        Self { sum: Digest::new(CrcAlgorithm::Crc64Redis), head: Vec::new(), held: Vec::new() }
    }
}

impl RdbCheck {
    pub fn push(&mut self, bytes: &[u8]) {
        let room = HEAD_BYTES.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..room.min(bytes.len())]);
        // Only what may be the end is copied.
        let (summed, kept) = bytes.split_at(bytes.len().saturating_sub(SUM_BYTES + 1));
        if !summed.is_empty() {
            self.sum.update(&self.held);
            self.held.clear();
            self.sum.update(summed);
        }
        self.held.extend_from_slice(kept);
        let passed = self.held.len().saturating_sub(SUM_BYTES + 1);
        self.sum.update(&self.held[..passed]);
        self.held.drain(..passed);
    }

    /// The version of the format, as soon as it is known.
    ///
    /// # Errors
    ///
    /// Where what came is the beginning of something else.
    pub fn version(&self) -> Result<Option<u32>> {
        if self.head.len() < MAGIC_BYTES {
            return Ok(None);
        }
        let strange = || broken("it does not begin as a snapshot of Redis");
        header(&self.head).map(|(_, version)| Some(version)).ok_or_else(strange)
    }

    /// It was all.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`] where it is not whole.
    pub fn finish(self) -> Result<RdbFacts> {
        let RdbCheck { mut sum, head, held } = self;
        let Some((is_valkey, version)) = header(&head) else {
            return Err(broken("it does not begin as a snapshot of Redis"));
        };
        let has_sum = is_valkey || version >= FIRST_WITH_SUM;
        let checksum = if has_sum {
            let Some((last, written)) = held.split_last_chunk::<SUM_BYTES>() else {
                return Err(broken("it ends before its sum"));
            };
            if last != [END] {
                return Err(broken("it does not end as a snapshot of Redis: it is cut"));
            }
            sum.update(last);
            match u64::from_le_bytes(*written) {
                0 => RdbChecksum::Disabled,
                written if written == sum.finalize() => RdbChecksum::Good,
                _ => return Err(broken("its sum is another: it is cut or damaged")),
            }
        } else if held.last() == Some(&END) {
            RdbChecksum::Unknown
        } else {
            return Err(broken("it does not end as a snapshot of Redis: it is cut"));
        };
        let fields = fields(&head[MAGIC_BYTES..]);
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        Ok(RdbFacts {
            is_valkey: is_valkey || field("valkey-ver").is_some(),
            version,
            server_version: field("valkey-ver").or_else(|| field("redis-ver")),
            saved_at_seconds: field("ctime").and_then(|seconds| seconds.parse().ok()),
            checksum,
            has_append_only: false,
        })
    }
}

/// What it says of itself, as far as that can be read.
fn fields(mut bytes: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let [FIELD, rest @ ..] = bytes {
        let Some((key, rest)) = text(rest) else { break };
        let Some((value, rest)) = text(rest) else { break };
        found.push((key, value));
        bytes = rest;
    }
    found
}

/// A text, or a number that is written as one.
fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let number = |value: i64, rest| Some((value.to_string(), rest));
    let (length, rest) = match (first >> 6, first & 0x3f) {
        (0, length) => (usize::from(length), rest),
        (1, high) => {
            let (low, rest) = rest.split_first()?;
            (usize::from(high) << 8 | usize::from(*low), rest)
        }
        (2, 0) => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            (usize::try_from(u32::from_be_bytes(*length)).ok()?, rest)
        }
        (3, 0) => {
            let (value, rest) = rest.split_first_chunk::<1>()?;
            return number(i64::from(i8::from_le_bytes(*value)), rest);
        }
        (3, 1) => {
            let (value, rest) = rest.split_first_chunk::<2>()?;
            return number(i64::from(i16::from_le_bytes(*value)), rest);
        }
        (3, 2) => {
            let (value, rest) = rest.split_first_chunk::<4>()?;
            return number(i64::from(i32::from_le_bytes(*value)), rest);
        }
        // Compressed: none of these fields is.
        _ => return None,
    };
    let (text, rest) = (rest.get(..length)?, rest.get(length..)?);
    Some((String::from_utf8_lossy(text).into_owned(), rest))
}

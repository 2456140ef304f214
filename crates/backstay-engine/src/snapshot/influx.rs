//! A backup of InfluxDB: `influxd backup -portable` and `influx backup` with their
//! manifest, and the older `influxd backup` without one.
//!
//! No file of it has a sum. What can be known is known by reading: every file that the
//! manifest names is there with the size that it says (of a shard that `influxd` packed,
//! the size before it was packed), and every shard is a whole archive. `influxd backup`
//! ends with 0 also where one is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tokio_util::sync::CancellationToken;

use super::place::Files;
use super::{inner_path, unread};
use crate::{Error, Result};

mod manifest;

use self::manifest::Manifest;

/// Before the older form's description of the databases.
const LEGACY_MAGIC: [u8; 8] = [0, 0, 0, 0, 0x59, 0x59, 0x01, 0x01];
/// A shard has a hundred bytes in it. A head is held in memory.
const HEAD_MAX_BYTES: u64 = 8 << 20;
const TOMBSTONE: &str = "tombstone";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InfluxFacts {
    /// Sorted; buckets of InfluxDB 2.
    pub databases: Vec<String>,
    /// One of them is named wherever there is a set, with its directory below the archive:
    /// the manifest, or the description of the older form.
    pub heads: Vec<PathBuf>,
    /// Without a manifest: for `influxd restore` without `-portable`.
    pub is_legacy: bool,
    /// Of InfluxDB 2, for `influx restore`.
    pub is_of_version_2: bool,
    pub shards: u64,
    /// Files of deletions, which a restore of InfluxDB leaves out: what was deleted comes back.
    pub tombstones: u64,
}

/// What a file is by its name, which is the program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Manifest,
    /// Databases, users and policies.
    Meta,
    LegacyMeta,
    PackedShard,
    LegacyShard,
    /// Of InfluxDB 2: its own databases.
    Packed,
    Other,
}

impl Kind {
    fn of(name: &str) -> Kind {
        if name.ends_with(".manifest") {
            Kind::Manifest
        } else if name.ends_with(".tar.gz") {
            Kind::PackedShard
        } else if name.ends_with(".meta") {
            Kind::Meta
        } else if name.ends_with(".gz") {
            Kind::Packed
        } else if name.strip_prefix("meta.").is_some_and(|number| is_number(number, 2)) {
            Kind::LegacyMeta
        } else if is_legacy_shard(name) {
            Kind::LegacyShard
        } else {
            Kind::Other
        }
    }
}

/// What was seen of one file.
#[derive(Debug, Default)]
struct Seen {
    stored_bytes: u64,
    /// Of one that is packed; of a description, what it says of its own size.
    inner_bytes: Option<u64>,
}

#[derive(Default)]
struct Set {
    seen: BTreeMap<PathBuf, Seen>,
    manifests: Vec<(PathBuf, Manifest)>,
    legacy: Vec<PathBuf>,
    databases: BTreeSet<String>,
    facts: InfluxFacts,
    cancel: CancellationToken,
}

/// No head of a backup is larger.
fn must_be_small(name: &Path, size_bytes: u64) -> Result<()> {
    match size_bytes <= HEAD_MAX_BYTES {
        true => Ok(()),
        false => Err(broken(format!(
            "{} is no head of a backup: it has {size_bytes} bytes, and {HEAD_MAX_BYTES} at most are one",
            name.display()
        ))),
    }
}

pub(super) fn read_from_tar(from: &mut impl Read, mut files: Option<&mut Files>) -> Result<InfluxFacts> {
    let mut archive = tar::Archive::new(from);
    let mut set = Set::default();
    // Given its name last: without it there is no backup that could be restored.
    let mut heads = Vec::new();
    for entry in archive.entries().map_err(|error| unread(&error))? {
        let mut entry = entry.map_err(|error| unread(&error))?;
        let name = inner_path(&entry)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let size = entry.size();
        let is_head = matches!(kind(&name), Kind::Manifest | Kind::LegacyMeta);
        if is_head {
            must_be_small(&name, size)?;
        }
        let mut held = Vec::new();
        let taken = match &mut files {
            Some(_) if is_head => set.take(&name, &mut entry, &mut held)?,
            Some(files) => set.take(&name, &mut entry, &mut files.create(&name)?)?,
            None => set.take(&name, &mut entry, &mut io::sink())?,
        };
        if taken != size {
            return Err(broken(format!("it ends within {}", name.display())));
        }
        if is_head {
            heads.push((name, held));
        }
    }
    if let Some(files) = files {
        for (name, bytes) in heads {
            let failed = |source| Error::Write { path: name.clone(), source };
            files.create(&name)?.write_all(&bytes).map_err(failed)?;
        }
    }
    set.finish()
}

/// The same of files that lie in a directory as they were written, the one that names the
/// others last.
pub(super) fn read_files(
    directory: &Path,
    names: &[PathBuf],
    mut files: Option<&mut Files>,
    cancel: &CancellationToken,
) -> Result<InfluxFacts> {
    let mut set = Set { cancel: cancel.clone(), ..Set::default() };
    for name in names {
        let path = directory.join(name);
        let failed = |source| Error::Read { path: path.clone(), source };
        let mut file = File::open(&path).map_err(failed)?;
        if matches!(kind(name), Kind::Manifest | Kind::LegacyMeta) {
            must_be_small(name, file.metadata().map_err(failed)?.len())?;
        }
        match &mut files {
            Some(files) => set.take(name, &mut file, &mut files.create(name)?)?,
            None => set.take(name, &mut file, &mut io::sink())?,
        };
    }
    set.finish()
}

/// Of the files of a directory, those of one backup besides its head: those that the
/// manifest names, or all that look like shards where there is none.
pub fn members(directory: &Path, head: &str, beside: &[String]) -> Result<Vec<String>> {
    let path = directory.join(head);
    match Kind::of(head) {
        Kind::Manifest => {
            let failed = |source| Error::Read { path: path.clone(), source };
            let mut json = Vec::new();
            let file = File::open(&path).map_err(failed)?;
            must_be_small(Path::new(head), file.metadata().map_err(failed)?.len())?;
            file.take(HEAD_MAX_BYTES).read_to_end(&mut json).map_err(failed)?;
            let manifest = Manifest::parse(&json).map_err(|error| broken(format!("{head}: {error}")))?;
            match manifest.files.iter().find(|file| !is_portable(&file.name)) {
                Some(other) => {
                    Err(broken(format!("{head} names {}, which is no file of a backup", other.name)))
                }
                None => Ok(manifest.files.into_iter().map(|file| file.name).collect()),
            }
        }
        _ => Ok(beside.iter().filter(|name| is_legacy_shard(name)).cloned().collect()),
    }
}

/// Whether a file of this name may belong to a backup whose head is another.
pub fn may_be_member(name: &str) -> bool {
    is_portable(name) || is_legacy_shard(name)
}

/// `20261121T210443Z.s1.tar.gz` and what else lies beside a manifest of either version.
fn is_portable(name: &str) -> bool {
    let Some((stamp, rest)) = name.split_once('.') else { return false };
    let is_stamp = stamp.len() == 16
        && stamp.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    let rest = rest.strip_suffix(".gz").unwrap_or(rest);
    let shard = rest.strip_suffix(".tar").map(|number| number.strip_prefix('s').unwrap_or(number));
    is_stamp && (matches!(rest, "meta" | "bolt" | "sqlite") || shard.is_some_and(|shard| is_number(shard, 1)))
}

/// `orders.autogen.00002.00`: of which database and policy, its number, and the how many-th
/// of it in the directory.
fn is_legacy_shard(name: &str) -> bool {
    let mut parts = name.rsplitn(3, '.');
    let (Some(last), Some(shard), Some(of)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let is_of =
        of.split_once('.').is_some_and(|(database, policy)| !database.is_empty() && !policy.is_empty());
    is_number(last, 2) && is_number(shard, 5) && is_of
}

/// Of so many digits at least.
fn is_number(text: &str, digits: usize) -> bool {
    text.len() >= digits && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a file of this name may be the head of a backup.
pub fn may_be_head(name: &str) -> bool {
    matches!(Kind::of(name), Kind::Manifest | Kind::LegacyMeta)
}

fn broken(reason: impl Into<String>) -> Error {
    Error::Snapshot { reason: reason.into() }
}

fn kind(name: &Path) -> Kind {
    Kind::of(&name.file_name().unwrap_or_default().to_string_lossy())
}

impl Set {
    /// Reads one file to its end, copies it, and says how long it is.
    fn take(&mut self, name: &Path, from: &mut impl Read, into: &mut impl Write) -> Result<u64> {
        let cancel = self.cancel.clone();
        let mut copied = Copied { from, into, bytes: 0, failed: None, cancel: &cancel };
        let inner_bytes = self.look(name, &mut copied);
        // Whatever its inside is, the rest of the file comes along.
        let drained = io::copy(&mut copied, &mut io::sink());
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if let Some(source) = copied.failed {
            return Err(Error::Write { path: name.to_owned(), source });
        }
        let inner_bytes = inner_bytes?;
        drained.map_err(|error| unread(&error))?;
        let seen = Seen { stored_bytes: copied.bytes, inner_bytes };
        let stored_bytes = seen.stored_bytes;
        self.seen.insert(name.to_owned(), seen);
        Ok(stored_bytes)
    }

    fn look(&mut self, name: &Path, from: &mut impl Read) -> Result<Option<u64>> {
        let of = |reason: String| broken(format!("{}: {reason}", name.display()));
        match kind(name) {
            Kind::Manifest => {
                let mut json = Vec::new();
                from.take(HEAD_MAX_BYTES).read_to_end(&mut json).map_err(|error| unread(&error))?;
                let manifest = Manifest::parse(&json).map_err(|error| of(error.to_string()))?;
                self.manifests.push((name.to_owned(), manifest));
                Ok(None)
            }
            Kind::Meta => meta(from).map_err(|error| of(error.to_string())),
            Kind::LegacyMeta => {
                let mut magic = [0; LEGACY_MAGIC.len()];
                match from.read_exact(&mut magic) {
                    Ok(()) if magic == LEGACY_MAGIC => {}
                    _ => return Err(of("it is not the description of a backup".to_owned())),
                }
                let mut length = [0; 8];
                from.read_exact(&mut length).map_err(|error| of(error.to_string()))?;
                let length = u64::from_be_bytes(length);
                let read = io::copy(&mut from.take(length), &mut io::sink());
                if read.map_err(|error| of(error.to_string()))? != length {
                    return Err(of("it is cut".to_owned()));
                }
                self.legacy.push(name.to_owned());
                Ok(None)
            }
            Kind::PackedShard => {
                let mut unpacked = Counted { from: MultiGzDecoder::new(from), bytes: 0 };
                self.shard(&mut unpacked).map_err(|error| of(error.to_string()))?;
                Ok(Some(unpacked.bytes))
            }
            Kind::LegacyShard => {
                self.shard(from).map_err(|error| of(error.to_string()))?;
                Ok(None)
            }
            Kind::Packed => {
                let mut unpacked = MultiGzDecoder::new(from);
                let read = io::copy(&mut unpacked, &mut io::sink());
                Ok(Some(read.map_err(|error| of(error.to_string()))?))
            }
            Kind::Other => Ok(None),
        }
    }

    /// The files of a shard in a tar archive; one without any has only the end.
    fn shard(&mut self, from: &mut impl Read) -> io::Result<()> {
        let mut has_end = EndOfTar { from, zeros: 0 };
        let mut archive = tar::Archive::new(&mut has_end);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.into_owned();
            let size = entry.size();
            if name.extension().is_some_and(|extension| extension == TOMBSTONE) {
                self.facts.tombstones += 1;
            }
            if let (Some(database), true) = (name.components().next(), name.components().count() > 2) {
                self.databases.insert(database.as_os_str().to_string_lossy().into_owned());
            }
            if io::copy(&mut entry, &mut io::sink())? != size {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a file"));
            }
        }
        io::copy(&mut has_end, &mut io::sink())?;
        // An archive that was broken off between two files has no end.
        if has_end.zeros < TAR_END_BYTES {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "its archive has no end"));
        }
        self.facts.shards += 1;
        Ok(())
    }

    fn finish(self) -> Result<InfluxFacts> {
        let Set { seen, manifests, legacy, mut databases, mut facts, cancel: _ } = self;
        if manifests.is_empty() && legacy.is_empty() {
            return Err(broken("there is no manifest in it"));
        }
        for (path, manifest) in &manifests {
            for file in &manifest.files {
                let at = path.with_file_name(&file.name);
                let named = || format!("{} names {}", path.display(), file.name);
                let Some(found) = seen.get(&at) else {
                    return Err(broken(format!("{}, and it is not there", named())));
                };
                if found.stored_bytes != file.size_bytes && found.inner_bytes != Some(file.size_bytes) {
                    let (size, other) = (file.size_bytes, found.inner_bytes.unwrap_or(found.stored_bytes));
                    return Err(broken(format!("{} with {size} bytes, and it has {other}", named())));
                }
            }
            databases.extend(manifest.databases.iter().cloned());
        }
        facts.is_legacy = manifests.is_empty();
        facts.is_of_version_2 = manifests.iter().any(|(_, manifest)| manifest.is_of_version_2);
        facts.databases = databases.into_iter().collect();
        facts.heads = manifests.into_iter().map(|(path, _)| path).collect();
        if facts.is_legacy {
            facts.heads = legacy;
        }
        facts.heads.sort();
        Ok(facts)
    }
}

/// Two blocks of zeros.
const TAR_END_BYTES: u64 = 1024;

/// How many zeros stand at the end of what was read.
struct EndOfTar<'a, R> {
    from: &'a mut R,
    zeros: u64,
}

impl<R: Read> Read for EndOfTar<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        let bytes = &buffer[..count];
        match bytes.iter().rposition(|byte| *byte != 0) {
            Some(last) => self.zeros = (count - last - 1) as u64,
            None => self.zeros += count as u64,
        }
        Ok(count)
    }
}

/// Of a file with the databases, how long its first part says that it is: the number that
/// `influxd` writes into the manifest.
fn meta(from: &mut impl Read) -> io::Result<Option<u64>> {
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut");
    let mut byte = [0];
    if from.read(&mut byte)? == 0 {
        return Err(cut());
    }
    // Field 1, bytes with their length: what it is since `-portable` exists.
    if byte[0] != 0x0a {
        return Ok(None);
    }
    let mut length = 0_u64;
    for shift in (0..64).step_by(7) {
        from.read_exact(&mut byte)?;
        length |= u64::from(byte[0] & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let read = io::copy(&mut from.take(length), &mut io::sink())?;
    if read == length { Ok(Some(length)) } else { Err(cut()) }
}

/// Everything that is read is copied as well.
struct Copied<'a, R, W> {
    from: &'a mut R,
    into: &'a mut W,
    bytes: u64,
    failed: Option<io::Error>,
    cancel: &'a CancellationToken,
}

impl<R: Read, W: Write> Read for Copied<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("somebody asked to stop"));
        }
        let count = self.from.read(buffer)?;
        if let Err(error) = self.into.write_all(&buffer[..count]) {
            self.failed = Some(error);
            return Err(io::Error::other("the copy cannot be written"));
        }
        self.bytes += count as u64;
        Ok(count)
    }
}

struct Counted<R> {
    from: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

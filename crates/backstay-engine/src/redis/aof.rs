//! The append-only files of a server as they lie in a directory: which they are, whether each is
//! whole, and where they are cut for an instant.
//!
//! The manifest names a base and what is replayed behind it. Where the server annotates its files
//! (`aof-timestamp-enabled yes`), they can be cut to the second: before the first command of a
//! later one, and never within a transaction.
//!
//! The files must not change meanwhile: a copy, or those of a stopped server. Refuses what a
//! server would refuse; the very last file may end within a command or a transaction, which
//! servers leave out too. Refuses to say that something was there by an instant of which no
//! annotation and no base tells.

use std::fs::File;
use std::io;
use std::io::Write as _;
use std::path::Path;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::place::{FileNames, GUARD};
use crate::snapshot::{Files, Placed, RdbFacts};
use crate::{Error, Result};

mod file;
mod manifest;
mod preamble;

use file::{FileReader, Seen};
pub use manifest::{AofFile, AofManifest, may_be_manifest, may_be_member, set_name};

const UNDATED: &str = "nothing says when its first commands came (`aof-timestamp-enabled yes` writes it)";

/// A file of a set as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AofRead {
    pub name: String,
    pub length: u64,
    /// In hexadecimal digits.
    pub sha256: String,
}

/// What a set holds, up to the instant that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AofFacts {
    /// Those that were read to their end, in the order in which a server loads them.
    pub files: Vec<AofRead>,
    /// Nothing where the base is made of commands, or there is none.
    pub snapshot: Option<RdbFacts>,
    /// When the base was made, by the clock of the server.
    pub made_at: Option<Timestamp>,
    /// What is to be replayed, in its order: so many bytes of each file of commands.
    pub replayed: Vec<(String, u64)>,
    /// Bytes of the last file behind its last whole command.
    pub torn_bytes: u64,
    /// Of the last annotation within what is replayed.
    pub last_at: Option<Timestamp>,
    /// Something came later than the instant, and is left out.
    pub is_cut: bool,
}

/// Reads a set to its end, or to the last second that is wanted. Blocks.
///
/// # Errors
///
/// [`Error::Malformed`] where a server would not start on it, a file is not whole, or nothing tells
/// what was there by then; [`Error::Read`].
pub fn read(
    directory: &Path,
    manifest: &str,
    until: Option<Timestamp>,
    cancel: &CancellationToken,
) -> Result<AofFacts> {
    let listed = AofManifest::read(directory, manifest)?;
    Reading { directory, manifest, until, cancel }.all(&listed, None)
}

/// Reads a set to its end, and puts it into an empty or new directory that a server starts on: each
/// file up to where the server would read it. Files that wait for their deletion stay behind. The
/// names come in the order of [`super::place`]. Blocks.
///
/// # Errors
///
/// Those of [`read`], [`Error::TargetNotEmpty`], [`Error::Write`].
pub fn copy(
    directory: &Path,
    manifest: &str,
    into: &Path,
    cancel: &CancellationToken,
) -> Result<(AofFacts, Placed)> {
    let listed = AofManifest::read(directory, manifest)?;
    let mut files = Files::begin(into)?;
    let reading = Reading { directory, manifest, until: None, cancel };
    let facts = reading.all(&listed, Some(&mut files))?;
    let names = FileNames::default();
    let append_only = Path::new(&names.append_only_directory);
    let written = |name: &Path, file: &mut Files, text: &str| {
        let written = file.create(name)?.write_all(text.as_bytes());
        written.map_err(|source| Error::Write { path: into.join(name), source })
    };
    let base = listed.base.as_ref().filter(|_| facts.is_snapshot_alone());
    match base {
        Some(base) => files.twice(&append_only.join(&base.name), Path::new(&names.snapshot))?,
        None => written(Path::new(&names.snapshot), &mut files, GUARD)?,
    }
    let manifest = append_only.join(manifest);
    written(&manifest, &mut files, &listed.text())?;
    files.lead(&[&manifest, Path::new(&names.snapshot)]);
    files.sync()?;
    Ok((facts, Placed::of(files)))
}

impl AofFacts {
    /// A server that does not append finds all of it in the snapshot.
    fn is_snapshot_alone(&self) -> bool {
        self.snapshot.is_some() && self.replayed.iter().all(|(_, length)| *length == 0)
    }
}

struct Reading<'a> {
    directory: &'a Path,
    manifest: &'a str,
    until: Option<Timestamp>,
    cancel: &'a CancellationToken,
}

impl Reading<'_> {
    fn malformed(&self, name: &str, reason: impl Into<String>) -> Error {
        Error::Malformed { path: self.directory.join(name), reason: reason.into() }
    }

    fn all(&self, listed: &AofManifest, mut copies: Option<&mut Files>) -> Result<AofFacts> {
        let mut facts = AofFacts {
            files: Vec::new(),
            snapshot: None,
            made_at: None,
            replayed: Vec::new(),
            torn_bytes: 0,
            last_at: None,
            is_cut: false,
        };
        let until = self.until.map(Timestamp::as_second);
        let mut is_annotated = false;
        let count = listed.loaded().count();
        for (number, file) in listed.loaded().enumerate() {
            let is_base = listed.base.as_ref() == Some(file);
            let seen = self.one(file, is_base, copies.as_deref_mut())?;
            let Seen { snapshot, commands, commands_at, length, sha256 } = seen;
            facts.files.extend(sha256.map(|sha256| AofRead { name: file.name.clone(), length, sha256 }));
            if let Some((found, made_at)) = snapshot {
                (facts.snapshot, facts.made_at) = (Some(found), made_at);
            }
            let times = facts.made_at.zip(self.until);
            if let Some((made_at, until)) = times.filter(|(made_at, until)| is_base && made_at > until) {
                let reason = format!("its base was made at {made_at}, which is later than {until}");
                return Err(self.malformed(self.manifest, reason));
            }
            let Some(reader) = commands else { continue };
            let said = reader.annotations().cloned().unwrap_or_default();
            // One is written when the second changes: what stands before it is of the second before.
            is_annotated |= said.first.zip(until).is_some_and(|(first, until)| first <= until);
            if until.is_some() && !is_annotated {
                if said.first_at > commands_at || said.first.is_none() && reader.at() > commands_at {
                    return Err(self.malformed(&file.name, UNDATED));
                }
                if said.first.is_some() && facts.made_at.is_none() {
                    let reason = "it begins later than wanted, and nothing before it says when it was";
                    return Err(self.malformed(&file.name, reason));
                }
            }
            let torn = if said.is_later { 0 } else { reader.at() - reader.boundary() };
            if torn > 0 && number + 1 < count {
                let reason = "it ends within a command or a transaction, and is not the last";
                return Err(self.malformed(&file.name, reason));
            }
            facts.torn_bytes = torn;
            facts.last_at = said.last.and_then(|last| Timestamp::from_second(last).ok()).or(facts.last_at);
            facts.replayed.push((file.name.clone(), reader.boundary()));
            if said.is_later {
                facts.is_cut = true;
                break;
            }
        }
        Ok(facts)
    }

    /// A copy has no byte that a server would not load.
    fn one(&self, file: &AofFile, is_base: bool, copies: Option<&mut Files>) -> Result<Seen> {
        let path = self.directory.join(&file.name);
        let opened = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                self.malformed(self.manifest, format!("it names {}, which is not there", file.name))
            }
            _ => Error::Read { path: path.clone(), source },
        })?;
        let until = self.until.map(Timestamp::as_second);
        let reader = match is_base {
            true => FileReader::of_base(&path, until),
            false => FileReader::of_increment(&path, until),
        };
        // Which of the files it is.
        let named = |error: Error| match error {
            Error::Snapshot { reason } => self.malformed(&file.name, reason),
            other => other,
        };
        let Some(copies) = copies else { return reader.read(opened, None, self.cancel).map_err(named) };
        let name = Path::new(&FileNames::default().append_only_directory).join(&file.name);
        let mut copy = copies.create(&name)?;
        let seen = reader.read(opened, Some(&mut copy), self.cancel).map_err(named)?;
        if let Some(commands) = &seen.commands {
            copy.set_len(commands.boundary()).map_err(|source| Error::Write { path: name, source })?;
        }
        Ok(seen)
    }
}

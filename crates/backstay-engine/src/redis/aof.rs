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
use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::aux_fields::{AuxFields, HEAD_BYTES};
use super::commands::CommandReader;
use crate::snapshot::{RdbCheck, RdbFacts};
use crate::{Error, Result};

mod manifest;

pub use manifest::{AofFile, AofManifest};

const PIECE: usize = 1 << 20;
/// Of one with ten thousand increments; a server keeps a handful.
const MANIFEST_MAX: u64 = 4 << 20;

const UNDATED: &str = "nothing says when its first commands came (`aof-timestamp-enabled yes` writes it)";

/// What a set holds, up to the instant that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AofFacts {
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
/// [`Error::Malformed`] where a server would not start on it or nothing tells what was there by
/// then, [`Error::Snapshot`] for a base that is not whole, [`Error::Read`].
pub fn read(
    directory: &Path,
    manifest: &str,
    until: Option<Timestamp>,
    cancel: &CancellationToken,
) -> Result<AofFacts> {
    let path = directory.join(manifest);
    let unread = |source| Error::Read { path: path.clone(), source };
    let mut text = String::new();
    File::open(&path).and_then(|file| file.take(MANIFEST_MAX).read_to_string(&mut text)).map_err(unread)?;
    let malformed = |reason: String| Error::Malformed { path: path.clone(), reason };
    let listed = AofManifest::parse(&text).map_err(malformed)?;
    let mut facts = AofFacts {
        snapshot: None,
        made_at: None,
        replayed: Vec::new(),
        torn_bytes: 0,
        last_at: None,
        is_cut: false,
    };
    let until_second = until.map(Timestamp::as_second);
    let mut commands: Vec<&AofFile> = listed.increments.iter().collect();
    if let Some(base) = &listed.base {
        match read_snapshot(&directory.join(&base.name), cancel)? {
            Some((found, made_at)) => (facts.snapshot, facts.made_at) = (Some(found), made_at),
            None => commands.insert(0, base),
        }
    }
    if let Some((made_at, until)) = facts.made_at.zip(until).filter(|(made_at, until)| made_at > until) {
        return Err(malformed(format!("its base was made at {made_at}, which is later than {until}")));
    }
    let mut is_annotated = false;
    let count = commands.len();
    for (number, file) in commands.into_iter().enumerate() {
        let path = directory.join(&file.name);
        let reader = read_commands(&path, until_second, cancel)?;
        let said = reader.annotations().cloned().unwrap_or_default();
        let malformed = |reason: &str| Error::Malformed { path: path.clone(), reason: reason.to_owned() };
        // One is written when the second changes: what stands before it is of the second before.
        is_annotated |= said.first.zip(until_second).is_some_and(|(first, until)| first <= until);
        if until.is_some() && !is_annotated {
            if said.first_at > 0 || said.first.is_none() && reader.at() > 0 {
                return Err(malformed(UNDATED));
            }
            if said.first.is_some() && facts.made_at.is_none() {
                return Err(malformed("it begins later than wanted, and nothing before it says when it was"));
            }
        }
        let torn = if said.is_later { 0 } else { reader.at() - reader.boundary() };
        if torn > 0 && number + 1 < count {
            return Err(malformed("it ends within a command or a transaction, and is not the last"));
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

/// Nothing for a file that is none: then it is made of commands.
fn read_snapshot(path: &Path, cancel: &CancellationToken) -> Result<Option<(RdbFacts, Option<Timestamp>)>> {
    let (mut check, mut head) = (RdbCheck::default(), Vec::new());
    let mut is_none = false;
    pieces(path, cancel, |piece| {
        let room = HEAD_BYTES.saturating_sub(head.len());
        head.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
        is_none = !["REDIS", "VALKEY"].iter().any(|magic| head.starts_with(magic.as_bytes()));
        check.push(piece);
        Ok(!is_none)
    })?;
    if is_none {
        return Ok(None);
    }
    Ok(Some((check.finish()?, AuxFields::of(&head).made_at())))
}

fn read_commands(path: &Path, until: Option<i64>, cancel: &CancellationToken) -> Result<CommandReader> {
    let mut reader = CommandReader::of_file(until);
    pieces(path, cancel, |piece| {
        let read = reader.push(piece);
        read.map_err(|broken| Error::Malformed { path: path.to_owned(), reason: broken.to_string() })?;
        // What comes later is nobody's concern.
        Ok(!reader.annotations().is_some_and(|said| said.is_later))
    })?;
    Ok(reader)
}

/// As long as they are wanted.
fn pieces(
    path: &Path,
    cancel: &CancellationToken,
    mut wanted: impl FnMut(&[u8]) -> Result<bool>,
) -> Result<()> {
    let unread = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unread)?;
    let mut piece = vec![0; PIECE];
    loop {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let count = file.read(&mut piece).map_err(unread)?;
        let read = piece.get(..count).unwrap_or_default();
        if read.is_empty() || !wanted(read)? {
            return Ok(());
        }
    }
}

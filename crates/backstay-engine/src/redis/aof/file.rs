//! One file of a set, read once: what it holds, the digest of it, and a copy where one is wanted.
//!
//! A base is a snapshot, commands, or a snapshot with commands behind it, as a server of before
//! rewrote its only file. What it is its first bytes say, as they say it to a server.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::preamble::{Ended, Made, Preamble};
use crate::redis::commands::CommandReader;
use crate::{Error, Result};

const PIECE: usize = 1 << 20;
/// Of `REDIS0011` and `VALKEY080`.
const MAGIC_BYTES: usize = 9;

/// What was seen of a file.
pub(super) struct Seen {
    pub snapshot: Option<Made>,
    /// Of what stands behind the snapshot, or of all of it.
    pub commands: Option<CommandReader>,
    /// Where those begin.
    pub commands_at: u64,
    pub length: u64,
    /// Nothing where it was not read to its end.
    pub sha256: Option<String>,
}

enum Within {
    /// Too few bytes came to tell.
    Beginning(Vec<u8>),
    Snapshot(Box<Preamble>),
    Commands(Option<Made>, Box<CommandReader>),
}

pub(super) struct FileReader<'a> {
    path: &'a Path,
    until: Option<i64>,
    within: Within,
    commands_at: u64,
}

impl<'a> FileReader<'a> {
    pub fn of_base(path: &'a Path, until: Option<i64>) -> Self {
        FileReader { path, until, within: Within::Beginning(Vec::new()), commands_at: 0 }
    }

    pub fn of_increment(path: &'a Path, until: Option<i64>) -> Self {
        let commands = CommandReader::of_file(0, until);
        FileReader { path, until, within: Within::Commands(None, Box::new(commands)), commands_at: 0 }
    }

    /// To its end, or as long as something is wanted. A copy has all that was read.
    pub fn read(
        mut self,
        mut file: File,
        mut copy: Option<&mut File>,
        cancel: &CancellationToken,
    ) -> Result<Seen> {
        let failed = |source| Error::Read { path: self.path.to_owned(), source };
        let (mut piece, mut digest, mut length) = (vec![0; PIECE], Sha256::new(), 0);
        let is_whole = loop {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let count = match file.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count.map_err(failed)?,
            };
            let read = piece.get(..count).unwrap_or_default();
            if read.is_empty() {
                break true;
            }
            if let Some(copy) = &mut copy {
                let written = copy.write_all(read);
                written.map_err(|source| Error::Write { path: self.path.to_owned(), source })?;
            }
            digest.update(read);
            length += count as u64;
            self.push(read)?;
            if self.is_later() {
                break false;
            }
        };
        let sha256 = is_whole.then(|| digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        self.end()?;
        let commands_at = self.commands_at;
        let (snapshot, commands) = match self.within {
            Within::Commands(made, commands) => {
                let has_any = made.is_none() || commands.at() > commands_at;
                (made, Some(*commands).filter(|_| has_any))
            }
            Within::Beginning(_) | Within::Snapshot(_) => (None, None),
        };
        Ok(Seen { snapshot, commands, commands_at, length, sha256 })
    }

    fn push(&mut self, piece: &[u8]) -> Result<()> {
        match &mut self.within {
            Within::Beginning(begun) => {
                begun.extend_from_slice(piece);
                if begun.len() >= MAGIC_BYTES { self.begin() } else { Ok(()) }
            }
            Within::Snapshot(preamble) => match preamble.push(piece)? {
                Some(ended) => self.go_on(ended),
                None => Ok(()),
            },
            Within::Commands(_, commands) => {
                let read = commands.push(piece);
                let malformed = |reason: String| Error::Malformed { path: self.path.to_owned(), reason };
                read.map_err(|broken| malformed(broken.to_string()))
            }
        }
    }

    fn begin(&mut self) -> Result<()> {
        let Within::Beginning(begun) = &mut self.within else { return Ok(()) };
        let begun = std::mem::take(begun);
        let is_snapshot = ["REDIS", "VALKEY"].iter().any(|magic| begun.starts_with(magic.as_bytes()));
        self.within = match is_snapshot {
            true => Within::Snapshot(Box::default()),
            false => Within::Commands(None, Box::new(CommandReader::of_file(0, self.until))),
        };
        self.push(&begun)
    }

    /// Behind a snapshot.
    fn go_on(&mut self, ended: Ended) -> Result<()> {
        self.commands_at = ended.at;
        let commands = CommandReader::of_file(ended.at, self.until);
        self.within = Within::Commands(Some(ended.made), Box::new(commands));
        self.push(&ended.behind)
    }

    /// What comes later than all that is wanted is nobody's concern.
    fn is_later(&self) -> bool {
        match &self.within {
            Within::Commands(_, commands) => commands.annotations().is_some_and(|said| said.is_later),
            Within::Beginning(_) | Within::Snapshot(_) => false,
        }
    }

    /// A snapshot with nothing behind it has no commands.
    fn end(&mut self) -> Result<()> {
        self.begin()?;
        match &mut self.within {
            Within::Snapshot(preamble) => {
                let ended = std::mem::take(preamble).finish()?;
                self.go_on(ended)
            }
            Within::Beginning(_) | Within::Commands(..) => Ok(()),
        }
    }
}

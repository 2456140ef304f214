//! One database out of a script of `pg_dumpall`, as statements that `psql` puts into any
//! database.
//!
//! Gives out what stands between the `\connect` of the database and the end of its dump,
//! without commands to `psql` and without the statements about the database itself
//! (`ALTER DATABASE`, `GRANT … ON DATABASE`): they would change the one of that name, and
//! not the one that is filled. `pg_restore` leaves them out likewise.
//!
//! Invariant: the end marker is given out only when the part came to its end, and
//! [`ClusterPart::finish`] is good only when the whole script did.

use super::pieces::{Piece, Pieces};
use crate::{Error, Result};

const DATABASE_END: &[u8] = b"-- PostgreSQL database dump complete";
const CLUSTER_END: &[u8] = b"-- PostgreSQL database cluster dump complete";
const OF_SERVER: &[u8] = b"-- Dumped from database version ";
const BY_TOOL: &[u8] = b"-- Dumped by pg_dump version ";
/// So much of a statement is held until it is known what it is about.
const HELD_MAX_BYTES: usize = 64 << 10;

/// What a script of `pg_dumpall` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterContents {
    /// In the order of the script; none of roles and tablespaces alone.
    pub databases: Vec<String>,
    pub server_version: Option<String>,
    pub tool_version: Option<String>,
    is_whole: bool,
}

impl ClusterContents {
    fn see(&mut self, piece: &Piece<'_>) -> Option<String> {
        match piece {
            Piece::Comment(line) => {
                let line = line.trim_ascii_end();
                let text = |prefix| line.strip_prefix(prefix).map(|rest: &[u8]| lossy(rest));
                if let Some(version) = text(OF_SERVER) {
                    self.server_version.get_or_insert(version);
                } else if let Some(version) = text(BY_TOOL) {
                    self.tool_version.get_or_insert(version);
                }
                self.is_whole |= line == CLUSTER_END;
                None
            }
            Piece::Command(line) => {
                let database = connected(line)?;
                if !self.databases.contains(&database) {
                    self.databases.push(database.clone());
                }
                Some(database)
            }
            _ => None,
        }
    }
}

/// Reads a script for what it holds, and keeps nothing of it.
#[derive(Default)]
pub struct ClusterScan {
    pieces: Pieces,
    contents: ClusterContents,
}

impl ClusterScan {
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let contents = &mut self.contents;
        self.pieces.push(bytes, &mut |piece| {
            contents.see(&piece);
            Ok(())
        })
    }

    pub fn finish(self) -> Result<ClusterContents> {
        whole(&self.pieces, &self.contents)?;
        Ok(self.contents)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Before,
    Within,
    After,
}

/// Takes one database out of a script while it passes.
pub struct ClusterPart {
    pieces: Pieces,
    taking: Taking,
}

struct Taking {
    wanted: String,
    contents: ClusterContents,
    at: At,
    /// The beginning of a statement of which it is not known yet whether it is taken.
    held: Vec<u8>,
    is_decided: bool,
}

impl ClusterPart {
    pub fn of(database: impl Into<String>) -> Self {
        let taking = Taking {
            wanted: database.into(),
            contents: ClusterContents::default(),
            at: At::Before,
            held: Vec::new(),
            is_decided: false,
        };
        Self { pieces: Pieces::default(), taking }
    }

    /// What of these bytes belongs to the database.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let taking = &mut self.taking;
        self.pieces.push(bytes, &mut |piece| taking.take(&piece, &mut out))?;
        Ok(out)
    }

    /// All bytes were pushed, and the script has the whole of the database.
    pub fn finish(self) -> Result<()> {
        let Taking { wanted, contents, at, .. } = self.taking;
        whole(&self.pieces, &contents)?;
        match at {
            At::After => Ok(()),
            At::Within => Err(cut_off(&wanted)),
            At::Before => Err(Error::Archive {
                reason: format!(
                    "database {wanted} is not in it, and these are: {}",
                    contents.databases.join(", ")
                ),
            }),
        }
    }
}

impl Taking {
    fn take(&mut self, piece: &Piece<'_>, out: &mut Vec<u8>) -> Result<()> {
        let connected = self.contents.see(piece);
        if let Some(database) = connected {
            let is_wanted = database == self.wanted;
            return match self.at {
                At::Within if !is_wanted => Err(cut_off(&self.wanted)),
                // Settings of a database hold after a connection of their own.
                _ if is_wanted => {
                    self.at = At::Within;
                    Ok(())
                }
                _ => Ok(()),
            };
        }
        if self.at != At::Within {
            return Ok(());
        }
        match piece {
            Piece::Command(line) => {
                let name = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
                return match name {
                    b"\\restrict" | b"\\unrestrict" => Ok(()),
                    other => Err(Error::Archive {
                        reason: format!(
                            "it has a command to `psql` that `pg_dumpall` does not write: {}",
                            lossy(other)
                        ),
                    }),
                };
            }
            Piece::Comment(line) => {
                out.extend_from_slice(line);
                if line.trim_ascii_end() == DATABASE_END {
                    out.extend_from_slice(b"--\n\n");
                    self.at = At::After;
                }
            }
            Piece::Gap(bytes) | Piece::Rows(bytes) => out.extend_from_slice(bytes),
            Piece::Statement(bytes) if self.is_decided => out.extend_from_slice(bytes),
            Piece::Statement(bytes) => {
                self.held.extend_from_slice(bytes);
                // Those about a database are short.
                if self.held.len() > HELD_MAX_BYTES {
                    self.is_decided = true;
                    out.append(&mut self.held);
                }
            }
            Piece::End(words) => {
                if !words.is_about_a_database() {
                    out.append(&mut self.held);
                }
                self.held.clear();
                self.is_decided = false;
            }
        }
        Ok(())
    }
}

fn whole(pieces: &Pieces, contents: &ClusterContents) -> Result<()> {
    match contents.is_whole && pieces.is_between() {
        true => Ok(()),
        false => {
            Err(Error::Archive { reason: "its statements end before the end marker of a cluster".to_owned() })
        }
    }
}

fn cut_off(database: &str) -> Error {
    Error::Archive { reason: format!("the statements of database {database} end before their end marker") }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.trim_ascii()).into_owned()
}

/// The database of a `\connect`, as `pg_dumpall` writes it: a name, a name in quotes, or a
/// connection string in quotes where the name is a strange one.
pub(super) fn connected(line: &[u8]) -> Option<String> {
    let rest = line.strip_prefix(b"\\connect")?;
    let line = std::str::from_utf8(rest).ok()?;
    if !line.starts_with(char::is_whitespace) {
        return None;
    }
    let line = line.trim();
    let (is_string, argument) = match line.strip_prefix("-reuse-previous=on") {
        Some(rest) => (true, rest.trim_start()),
        None => (line.contains("dbname="), line),
    };
    let argument = match argument.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?.replace("\"\"", "\""),
        None => argument.to_owned(),
    };
    let value = match argument.strip_prefix("dbname=") {
        Some(value) if is_string => value,
        _ => return Some(argument),
    };
    let Some(quoted) = value.strip_prefix('\'') else { return Some(value.to_owned()) };
    let mut name = String::new();
    let mut letters = quoted.strip_suffix('\'')?.chars();
    while let Some(letter) = letters.next() {
        name.push(if letter == '\\' { letters.next()? } else { letter });
    }
    Some(name)
}

#[cfg(test)]
mod tests;

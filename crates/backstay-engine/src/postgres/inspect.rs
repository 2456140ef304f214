//! The inside of a dump, looked at without a server: whether `pg_restore` can list an
//! archive and its rows come to their end, whether statements do.
//!
//! The bytes are handed in as they come out of the file, and nothing of them is kept but
//! the end of statements and the table of contents of a directory. Refuses to call an
//! archive listed that no program looked at: [`Inspected::listed_by`] says which did.

mod contents;
mod marker;
mod rows;

use std::process::Stdio;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;

use self::contents::Contents;
pub(super) use self::marker::Tail;
use self::rows::Rows;
use super::client_programs::{Child, ClientPrograms, Failure};
use crate::{Error, Result};

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InspectKind {
    /// `pg_dump -Fc` or `-Ft`, which `pg_restore` reads from a pipe.
    Archive,
    /// The directory of `pg_dump -Fd` in a tar archive.
    Directory,
    /// `pg_dump -Fp`.
    Statements,
    /// `pg_dumpall`.
    Cluster,
}

/// A dump that is being looked at.
pub struct Inspection {
    way: Way,
    listed_by: Option<String>,
}

enum Way {
    Listed {
        child: Child,
        input: Option<ChildStdin>,
        rows: Rows,
    },
    Directory {
        contents: Contents,
        programs: Option<ClientPrograms>,
    },
    Statements {
        tail: Tail,
        kind: InspectKind,
    },
    /// No program is there to list it.
    Unlisted(Rows),
}

/// What a look came to that found nothing wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The version of the `pg_restore` that listed it; `None` for statements, and where
    /// there was no such program.
    pub listed_by: Option<String>,
}

impl Inspection {
    pub fn begin(kind: InspectKind, programs: Option<&ClientPrograms>) -> Result<Inspection> {
        let listed_by = programs.map(|programs| programs.version().to_owned());
        let way = match (kind, programs) {
            (InspectKind::Archive, Some(programs)) => {
                let mut command = programs.command(PROGRAM);
                command.arg("--list").stdin(Stdio::piped()).stdout(Stdio::null());
                let mut child = Child::spawn(PROGRAM, command)?;
                let input = child.take_input();
                Way::Listed { child, input, rows: Rows::begin() }
            }
            (InspectKind::Archive, None) => Way::Unlisted(Rows::begin()),
            (InspectKind::Directory, programs) => {
                Way::Directory { contents: Contents::begin()?, programs: programs.cloned() }
            }
            (InspectKind::Statements | InspectKind::Cluster, _) => {
                return Ok(Inspection {
                    way: Way::Statements { tail: Tail::default(), kind },
                    listed_by: None,
                });
            }
        };
        Ok(Inspection { way, listed_by })
    }

    /// The next bytes. `pg_restore` ends when it has seen the table of contents: what
    /// comes after it is not its business.
    pub async fn write(&mut self, bytes: &Bytes) -> Result<()> {
        match &mut self.way {
            Way::Listed { child, input, rows } => {
                rows.push(bytes)?;
                let Some(pipe) = input else { return Ok(()) };
                if pipe.write_all(bytes).await.is_err() {
                    *input = None;
                    return listed(child.end_soon().await);
                }
                Ok(())
            }
            Way::Directory { contents, .. } => contents.write(bytes.clone()).await,
            Way::Statements { tail, .. } => {
                tail.push(bytes);
                Ok(())
            }
            Way::Unlisted(rows) => rows.push(bytes),
        }
    }

    /// All bytes were handed in.
    pub async fn finish(self) -> Result<Inspected> {
        match self.way {
            // One that ended before its input did was asked already how.
            Way::Listed { input: None, rows, .. } | Way::Unlisted(rows) => rows.end()?,
            Way::Listed { mut child, input, rows } => {
                drop(input);
                listed(child.end_soon().await)?;
                rows.end()?;
            }
            Way::Directory { mut contents, programs } => {
                let directory = contents.finish().await?;
                if let Some(programs) = programs {
                    let mut command = programs.command(PROGRAM);
                    command.arg("--list").arg(directory).stdout(Stdio::null());
                    listed(Child::spawn(PROGRAM, command)?.end_soon().await)?;
                }
            }
            Way::Statements { tail, kind } if !tail.ends_as(kind) => {
                return Err(Error::Archive {
                    reason: "its statements end before their end marker".to_owned(),
                });
            }
            Way::Statements { .. } => {}
        }
        Ok(Inspected { listed_by: self.listed_by })
    }
}

/// Whatever it objects to in what it was given is a fault of that, unless it is merely
/// too old to know.
fn listed(ended: Result<()>) -> Result<()> {
    let Err(Error::ClientProgram { why, said, .. }) = &ended else { return ended };
    match why {
        Failure::BadInput | Failure::Refused | Failure::AlreadyThere => {}
        _ => return ended,
    }
    if let Some((_, version)) = said.split_once("unsupported version (") {
        let found = version.split(')').next().unwrap_or_default().to_owned();
        return Err(Error::ArchiveTooNew { found });
    }
    Err(Error::Archive { reason: format!("`{PROGRAM}` cannot list it: {said}") })
}

const PROGRAM: &str = "pg_restore";

#[cfg(test)]
mod tests;

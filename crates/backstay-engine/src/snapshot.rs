//! What other engines leave as files: a snapshot of Redis or Valkey, a backup of InfluxDB.
//!
//! Read to the end and checked by all that the format has, and, where a directory is
//! given, put there for the engine's own server or program. The bytes are handed in as
//! they come out of a file; what reads them sits on a thread that may block.
//!
//! Invariant: nothing has its name in the directory before [`Placed::commit`], and a
//! directory that was not committed is as it was.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::postgres::chunks::Chunks;
use crate::postgres::tar_end::Ending;
use crate::redis::aof::AofFacts;
use crate::{Error, Result};

mod influx;
mod place;
mod rdb;

pub use self::influx::{InfluxFacts, may_be_head, may_be_member, members};
pub(crate) use self::place::Files;
pub use self::place::Placed;
pub use self::rdb::{RdbCheck, RdbChecksum, RdbFacts};

/// Between whoever decrypts and whoever reads.
const CHUNKS_AHEAD: usize = 4;

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotKind {
    Rdb,
    /// A tar archive with a snapshot of Redis in it.
    RdbInTar,
    /// A tar archive of what `influxd backup` or `influx backup` wrote.
    InfluxInTar,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotFacts {
    Rdb(RdbFacts),
    Influx(InfluxFacts),
    AppendOnly(Box<AofFacts>),
}

/// A snapshot that is being read.
pub struct Snapshot {
    sender: Option<mpsc::Sender<Bytes>>,
    thread: JoinSet<Result<(SnapshotFacts, Option<Files>)>>,
    read: Option<(SnapshotFacts, Option<Files>)>,
}

impl Snapshot {
    /// To look at it.
    pub fn check(kind: SnapshotKind) -> Snapshot {
        Self::begin(kind, None)
    }

    /// To put it into an empty or new directory.
    pub fn place(kind: SnapshotKind, into: &Path) -> Result<Snapshot> {
        Ok(Self::begin(kind, Some(Files::begin(into)?)))
    }

    fn begin(kind: SnapshotKind, files: Option<Files>) -> Snapshot {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let mut thread = JoinSet::new();
        thread.spawn_blocking(move || read(kind, Chunks::of(chunks), files));
        Snapshot { sender: Some(sender), thread, read: None }
    }

    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let gone = match &self.sender {
            Some(sender) => sender.send(bytes).await.is_err(),
            None => false,
        };
        if gone { self.end().await } else { Ok(()) }
    }

    /// All bytes were handed in; what was put somewhere waits for its names.
    pub async fn finish(mut self) -> Result<(SnapshotFacts, Option<Placed>)> {
        self.end().await?;
        match self.read.take() {
            Some((facts, files)) => Ok((facts, files.map(Placed::of))),
            None => Err(Error::Protocol { reason: "a snapshot was ended twice".to_owned() }),
        }
    }

    async fn end(&mut self) -> Result<()> {
        self.sender = None;
        match self.thread.join_next().await {
            Some(Ok(read)) => {
                self.read = Some(read?);
                Ok(())
            }
            Some(Err(error)) => Err(Error::Protocol { reason: error.to_string() }),
            None => Ok(()),
        }
    }
}

/// The files of a backup of InfluxDB that lie in a directory, its head last; and copies of
/// them, where a directory is given. Blocks.
pub fn influx_files(
    directory: &Path,
    names: &[PathBuf],
    into: Option<&Path>,
    cancel: &CancellationToken,
) -> Result<(InfluxFacts, Option<Placed>)> {
    let mut files = into.map(Files::begin).transpose()?;
    let facts = influx::read_files(directory, names, files.as_mut(), cancel)?;
    if let Some(files) = &mut files {
        files.sync()?;
    }
    Ok((facts, files.map(Placed::of)))
}

fn read(
    kind: SnapshotKind,
    from: impl Read,
    mut files: Option<Files>,
) -> Result<(SnapshotFacts, Option<Files>)> {
    let mut from = Ending::of(from);
    let facts = match kind {
        SnapshotKind::Rdb => SnapshotFacts::Rdb(rdb::read_into(&mut from, files.as_mut())?),
        SnapshotKind::RdbInTar => SnapshotFacts::Rdb(rdb::read_from_tar(&mut from, files.as_mut())?),
        SnapshotKind::InfluxInTar => SnapshotFacts::Influx(influx::read_from_tar(&mut from, files.as_mut())?),
    };
    // What stands behind the end of an archive is zeros.
    std::io::copy(&mut from, &mut std::io::sink()).map_err(|error| unread(&error))?;
    if kind != SnapshotKind::Rdb && !from.is_whole() {
        return Err(Error::Snapshot { reason: "its archive ends before its end".to_owned() });
    }
    if let Some(files) = &mut files {
        files.sync()?;
    }
    Ok((facts, files))
}

/// Where it lies in an archive, if it stays below the directory that it is unpacked to.
fn inner_path(entry: &tar::Entry<'_, impl Read>) -> Result<PathBuf> {
    use std::path::Component;
    let name = entry.path().map_err(|error| unread(&error))?.into_owned();
    let is_inner = name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let kind = entry.header().entry_type();
    match is_inner && (kind.is_file() || kind.is_dir()) {
        true => Ok(name
            .components()
            .filter(|part| *part != Component::CurDir)
            .map(|part| part.as_os_str())
            .collect()),
        false => Err(Error::Snapshot { reason: format!("{} in it is no file of a backup", name.display()) }),
    }
}

fn unread(error: &std::io::Error) -> Error {
    Error::Snapshot { reason: format!("it cannot be unpacked: {error}") }
}

#[cfg(test)]
mod tests;

//! The snapshot that a server has saved, in a directory that can be read from here.
//!
//! Invariant: what is read is what the server wrote after it was asked. A directory of the same path
//! may lie on another machine, and another server may save into it: so the file has to be another
//! one than before, made by then, and of the server's own stream where it says of which it is. Once
//! it is open, it stays what it is: servers replace it by renaming.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::aux_fields::{AuxFields, HEAD_BYTES};
use super::connection::Connection;
use super::error::RedisError;
use super::facts::{Info, ServerFacts};
use super::saving;
use super::sync::StreamPlace;
use crate::{Error, Result};

const ACTION: &str = "ask where the server saves";

/// A file that is whole, open at its beginning.
pub(super) struct SavedFile {
    pub file: File,
    pub path: PathBuf,
    pub length: u64,
    /// What it holds is what the stream up to there had made; nothing where the server keeps no
    /// stream for anybody.
    pub place: Option<StreamPlace>,
}

/// The path of the server's snapshot, if the server has this directory.
///
/// # Errors
///
/// [`RedisError::DirectoryOfOther`], and [`Error::Read`] where it cannot be read.
pub async fn find(connection: &mut Connection, directory: &Path) -> Result<PathBuf> {
    let said = connection.call(ACTION, &["CONFIG", "GET", "dir", "dbfilename"]).await?;
    let said = said.array().unwrap_or_default();
    let value = |wanted: &str| {
        let mut pairs = said.chunks(2).filter_map(|pair| Some((pair.first()?.text()?, pair.get(1)?.text()?)));
        pairs.find(|(name, _)| name == wanted).map(|(_, value)| value)
    };
    let (Some(own), Some(name)) = (value("dir"), value("dbfilename")) else {
        return Err(Error::Protocol { reason: "the server does not say where it saves".to_owned() });
    };
    let named = directory.to_owned();
    blocking(move || {
        let unreadable = |source| Error::Read { path: named.clone(), source };
        let real = fs::canonicalize(&named).map_err(unreadable)?;
        fs::read_dir(&real).map_err(unreadable)?;
        let own = PathBuf::from(own);
        // The server may lie in a container: then its path leads nowhere here.
        if fs::canonicalize(&own).ok().as_ref() != Some(&real) {
            return Err(RedisError::DirectoryOfOther { named: named.clone(), own }.into());
        }
        let path = real.join(name);
        match File::open(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Read { path, source }),
            _ => Ok(path),
        }
    })
    .await
}

/// Lets the server save, and opens what it wrote.
///
/// # Errors
///
/// Those of [`find`], where the server does not save, and [`RedisError::FileOfOther`].
pub(super) async fn take(
    connection: &mut Connection,
    server: &ServerFacts,
    directory: &Path,
) -> Result<SavedFile> {
    let path = find(connection, directory).await?;
    // While it is open, no other file can be taken for it.
    let before = { blocking_open(&path).await? };
    let asked_at = Info::ask(connection, ACTION, "server").await?.number("server_time_usec")? / 1_000_000;
    saving::save(connection).await?;
    let Some((file, metadata)) = blocking_open(&path).await? else {
        return Err(RedisError::FileOfOther { path }.into());
    };
    let head = {
        let file = file.try_clone().map_err(|source| Error::Read { path: path.clone(), source })?;
        let path = path.clone();
        blocking(move || read_head(&file).map_err(|source| Error::Read { path, source })).await?
    };
    let fields = AuxFields::of(&head);
    let place = fields.place();
    let inode = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    let is_new = before.is_none_or(|(_, before)| inode(&before) != inode(&metadata));
    let is_of_now = fields.made_at().is_some_and(|at| u64::try_from(at.as_second()).unwrap_or(0) >= asked_at);
    let is_own = place.as_ref().is_none_or(|place| place.replication_id == server.replication_id);
    if !(is_new && is_of_now && is_own) {
        return Err(RedisError::FileOfOther { path }.into());
    }
    Ok(SavedFile { file, path, length: metadata.len(), place })
}

/// Whether a base over the wire is none the worse for it: nothing is wrong but this way.
pub fn is_of_the_way(error: &Error) -> bool {
    match error {
        Error::Read { .. } => true,
        Error::Redis(RedisError::Refused { action, .. }) => [ACTION, saving::ACTION].contains(action),
        Error::Redis(error) => matches!(
            error,
            RedisError::DirectoryOfOther { .. }
                | RedisError::FileOfOther { .. }
                | RedisError::SaveFailed { .. }
        ),
        _ => false,
    }
}

async fn blocking_open(path: &Path) -> Result<Option<(File, Metadata)>> {
    let path = path.to_owned();
    blocking(move || match File::open(&path).and_then(|file| Ok((file.metadata()?, file))) {
        Ok((metadata, file)) => Ok(Some((file, metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path, source }),
    })
    .await
}

fn read_head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD_BYTES];
    let mut filled = 0;
    while let Some(room) = head.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    head.truncate(filled);
    Ok(head)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::Protocol { reason: error.to_string() }),
    }
}

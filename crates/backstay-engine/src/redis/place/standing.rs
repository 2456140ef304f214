//! The directory of a server that is stopped: whether it is one, and whether a server is at work in
//! it after all.
//!
//! A server has its directory as its working directory, and its append-only files open. Both are
//! seen of every process that this user may look into, in containers of this machine too. A server
//! that this user may not look into is taken for one that works there. What another machine does
//! in the same directory cannot be seen here.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{FileNames, UNFINISHED, room};
use crate::redis::error::RedisError;
use crate::{Error, Result};

/// What the programs of servers are called, wherever they lie.
const SERVERS: [&str; 3] = ["redis-server", "valkey-server", "keydb-server"];

/// Whether it is empty: then nothing has to be set aside.
pub(super) fn is_empty(directory: &Path) -> Result<bool> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(Error::TargetUnusable { path: directory.to_owned(), source }),
    }
}

/// Whether what lies there can be set aside, with so many bytes more beside it. Changes nothing.
///
/// # Errors
///
/// [`RedisError::NothingToSetAside`], [`RedisError::Served`], [`RedisError::MayBeServed`],
/// [`RedisError::RestoreLeft`], [`Error::TargetTooSmall`], [`Error::TargetUnusable`].
pub fn check_stopped(directory: &Path, names: &FileNames, needed: u64) -> Result<()> {
    if is_empty(directory)? {
        return room(directory, needed);
    }
    let unfinished = directory.join(UNFINISHED);
    if unfinished.exists() {
        return Err(RedisError::RestoreLeft { path: unfinished }.into());
    }
    let own = [&names.snapshot, &names.append_only_directory, &names.append_only];
    if !own.iter().any(|name| directory.join(name).exists()) {
        let names = own.map(Clone::clone).to_vec();
        return Err(RedisError::NothingToSetAside { directory: directory.to_owned(), names }.into());
    }
    refuse_served(directory, names)?;
    room(directory, needed)
}

pub(super) fn refuse_served(directory: &Path, names: &FileNames) -> Result<()> {
    let unusable = |source| Error::TargetUnusable { path: directory.to_owned(), source };
    let place = inode(&fs::metadata(directory).map_err(unusable)?);
    let files = files_of(directory, names);
    let processes = fs::read_dir("/proc").map_err(unusable)?;
    for entry in processes.filter_map(io::Result::ok) {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if process == std::process::id() {
            continue;
        }
        let of = || directory.to_owned();
        match look_at(&entry.path(), place, &files) {
            Seen::Elsewhere => {}
            Seen::There(program) => {
                return Err(RedisError::Served { directory: of(), process, program }.into());
            }
            Seen::Closed(program) => {
                return Err(RedisError::MayBeServed { directory: of(), process, program }.into());
            }
        }
    }
    Ok(())
}

/// A process that has one of these files open, as a server has the last one that it appends to. What
/// this user may not look into is not seen. Blocks.
///
/// # Errors
///
/// [`Error::TargetUnusable`] where nothing is to be seen of processes.
pub fn holder(files: &[PathBuf]) -> Result<Option<(u32, String)>> {
    let known = files.iter().filter_map(|path| fs::metadata(path).ok());
    let known: HashSet<Inode> = known.map(|metadata| inode(&metadata)).collect();
    let place = Path::new("/proc");
    let processes =
        fs::read_dir(place).map_err(|source| Error::TargetUnusable { path: place.to_owned(), source })?;
    for entry in processes.filter_map(io::Result::ok) {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if process != std::process::id() && has_open(&entry.path(), &known).is_ok_and(|has| has) {
            let called = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Ok(Some((process, called.trim().to_owned())));
        }
    }
    Ok(None)
}

fn has_open(process: &Path, files: &HashSet<Inode>) -> io::Result<bool> {
    let mut open =
        fs::read_dir(process.join("fd"))?.filter_map(|entry| fs::metadata(entry.ok()?.path()).ok());
    Ok(open.any(|file| files.contains(&inode(&file))))
}

/// The device and the number of a file on it: paths differ within a container.
type Inode = (u64, u64);

fn inode(metadata: &Metadata) -> Inode {
    (metadata.dev(), metadata.ino())
}

/// What lies there under the names of a server.
fn files_of(directory: &Path, names: &FileNames) -> HashSet<Inode> {
    let tops = [&names.snapshot, &names.append_only].map(|name| directory.join(name));
    let within = fs::read_dir(directory.join(&names.append_only_directory)).into_iter().flatten();
    let within = within.filter_map(|entry| Some(entry.ok()?.path()));
    let all = tops.into_iter().chain(within).filter_map(|path| fs::metadata(path).ok());
    all.map(|metadata| inode(&metadata)).collect()
}

enum Seen {
    Elsewhere,
    There(String),
    /// It is a server by its name, and more is not to be seen of it.
    Closed(String),
}

/// One that ends meanwhile is not there.
fn look_at(process: &Path, place: Inode, files: &HashSet<Inode>) -> Seen {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let called = fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned();
    // Servers write their address behind their name; one that a loader started comes behind that.
    let line = String::from_utf8_lossy(&line).into_owned();
    let words = line.split(['\0', ' ']).map(|word| word.rsplit('/').next().unwrap_or(word));
    let is_server = words.chain([called.as_str()]).any(|word| SERVERS.contains(&word));
    let is_closed = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    match fs::metadata(process.join("cwd")) {
        // A shell of somebody who looks around may have it as well.
        Ok(there) if inode(&there) == place && is_server => {
            return Seen::There(called);
        }
        Err(error) if is_closed(&error) && is_server => return Seen::Closed(called),
        _ => {}
    }
    match has_open(process, files) {
        Ok(true) => Seen::There(called),
        Ok(false) => Seen::Elsewhere,
        Err(error) if is_closed(&error) && is_server => Seen::Closed(called),
        Err(_) => Seen::Elsewhere,
    }
}
